"""What a script says, and what it expects to be refused. It knows no host."""


def done(step):
    print(step, flush=True)


def fails(error, status, text, call, *args, **options):
    try:
        call(*args, **options)
    except error as raised:
        assert raised.response.status_code == status, raised
        assert text in raised.explanation, raised
        return
    raise AssertionError(f"{call} did not fail")
