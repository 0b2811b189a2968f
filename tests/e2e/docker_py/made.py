"""What people do with docker-py, on a host that makes the machines itself and keeps the image busybox; at the end nothing is left.

Each step says its name when it is done.
"""

import http.client
import io
import sys
import tarfile
import threading
import time
import urllib.request

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.types import LogConfig, Mount, Ulimit
from docker.utils.socket import frames_iter

from steps import done, fails

client = docker.DockerClient(base_url=sys.argv[1], timeout=600)
PATIENCE = 300
# what has happened to the container that all is done to
actions = []


def until(what, is_so):
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


def archive_of(name, content):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def follow(container):
    """Listens to what happens to it. A host remembers only the latest events, and how many there are is a matter of speed."""
    own = docker.DockerClient(base_url=sys.argv[1], timeout=600)
    for event in own.events(decode=True, since=0, filters={"container": container, "type": "container"}):
        actions.append(event["Action"])


def said(container, argv, **options):
    """What a program says in a container that runs: its code, and both of its outputs. docker-py loses what comes along with the head of the answer, and so
    the program waits until that is read."""
    waits = ["sh", "-c", 'read go; exec "$@"', "sh", *argv]
    made = client.api.exec_create(container.id, waits, stdin=True, **options)
    sock = client.api.exec_start(made, socket=True)
    sock._sock.sendall(b"go\n")
    outputs = {1: b"", 2: b""}
    for stream, part in frames_iter(sock, tty=False):
        outputs[stream] += part
    sock.close()
    return client.api.exec_inspect(made)["ExitCode"], outputs[1], outputs[2]


def runs():
    output = client.containers.run(
        "busybox",
        ["sh", "-c", "echo $GREETING; hostname; pwd; echo kept > /d/f; cat /d/f; ulimit -n; grep -c ' /t tmpfs ' /proc/mounts"],
        remove=True,
        environment={"GREETING": "hello"},
        hostname="own",
        working_dir="/tmp",
        volumes={"data": {"bind": "/d", "mode": "rw"}},
        ulimits=[Ulimit(name="nofile", soft=512, hard=512)],
        mem_limit="192m",
        tmpfs={"/t": "size=1m"},
    )
    assert output == b"hello\nown\n/tmp\nkept\n512\n1\n", output
    try:
        client.containers.run("busybox", "sh -c 'echo why >&2; exit 3'", remove=True)
        raise AssertionError("it did not fail")
    except ContainerError as raised:
        assert (raised.exit_status, raised.stderr) == (3, b"why\n"), raised
    assert client.containers.list(all=True) == []
    fails(ImageNotFound, 404, "", client.images.get, "nosuch")
    done("runs")


def life():
    net = client.networks.create("inner", driver="bridge", labels={"tier": "x"})
    script = "echo out 1; echo err 1 >&2; mkdir /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www"
    web = client.containers.run(
        "busybox",
        ["sh", "-c", script],
        name="web",
        detach=True,
        init=True,
        network="inner",
        labels={"tier": "web"},
        ports={"80/tcp": ("127.0.0.1", None)},
        mounts=[Mount("/d", "data", read_only=True)],
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
        log_config=LogConfig(type=LogConfig.types.JSON),
        healthcheck={"test": ["CMD", "true"], "interval": 1_000_000_000},
    )
    threading.Thread(target=follow, args=(web.id,), daemon=True).start()
    stream = web.logs(stream=True, follow=True, stdout=True, stderr=False)
    assert next(stream) == b"out 1\n"
    stream.close()
    until("both lines", lambda: web.logs(stdout=False, stderr=True) == b"err 1\n")
    web.reload()
    attrs = web.attrs
    assert (web.status, web.labels, web.name) == ("running", {"tier": "web"}, "web"), attrs
    assert attrs["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}, attrs
    assert attrs["HostConfig"]["LogConfig"]["Type"] == "json-file", attrs
    (mount,) = attrs["Mounts"]
    assert (mount["Type"], mount["Name"], mount["Destination"], mount["RW"]) == ("volume", "data", "/d", False), mount
    ends = attrs["NetworkSettings"]["Networks"]
    assert list(ends) == ["inner"] and ends["inner"]["NetworkID"] == net.id and ends["inner"]["IPAddress"], ends
    (published,) = web.ports["80/tcp"]
    assert published["HostIp"] == "127.0.0.1", published

    def answers():
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{published['HostPort']}/", timeout=60).read() == b"page\n"
        except (OSError, http.client.HTTPException):
            return False

    until("the port answers", answers)
    assert said(web, ["cat", "/d/f"]) == (0, b"kept\n", b"")
    told = said(web, ["sh", "-c", "echo $A; echo err >&2; exit 3"], environment={"A": "b"})
    assert told == (3, b"b\n", b"err\n"), told
    assert web.exec_run(["sh", "-c", "exit 3"]).exit_code == 3
    assert web.exec_run("nosuchprogram").exit_code == 127
    assert web.put_archive("/tmp", archive_of("dir/file", b"0123456789" * 1000))
    stream, stat = web.get_archive("/tmp/dir/file")
    assert (stat["name"], stat["size"]) == ("file", 10000), stat
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        assert tar.extractfile("file").read() == b"0123456789" * 1000
    stats = web.stats(stream=False)
    assert stats["name"] == "/web" and stats["memory_stats"]["usage"] > 0 and "eth0" in stats["networks"], stats
    assert web.update(mem_limit="300m", memswap_limit=-1, restart_policy={"Name": "no"}) is not None
    web.reload()
    assert web.attrs["HostConfig"]["Memory"] == 300 << 20, web.attrs["HostConfig"]
    until("it is healthy", lambda: client.containers.get("web").health == "healthy")
    (listed,) = client.containers.list(filters={"label": "tier=web", "network": "inner", "volume": "data"})
    assert listed.id == web.id
    assert [one.id for one in client.containers.list(sparse=True)] == [web.id]
    assert any(change["Path"] == "/tmp/dir/file" for change in web.diff()), web.diff()
    done("life")
    return web, net


def networks(web, net):
    other = client.networks.create(
        "other",
        ipam=docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet="10.213.0.0/24", gateway="10.213.0.1")]),
    )
    other.connect(web, aliases=["second"], ipv4_address="10.213.0.9")
    web.reload()
    assert web.attrs["NetworkSettings"]["Networks"]["other"]["IPAddress"] == "10.213.0.9", web.attrs
    other.reload()
    assert [one.name for one in other.containers] == ["web"], other.attrs
    until("the address is there", lambda: b"10.213.0.9" in said(web, ["ip", "address"])[1])
    assert client.containers.run("busybox", "wget -q -O - http://second/", remove=True, network="other") == b"page\n"
    fails(APIError, 403, "has active endpoints", other.remove)
    other.disconnect(web)
    until("the address is gone", lambda: b"10.213.0.9" not in said(web, ["ip", "address"])[1])
    other.remove()
    names = [one.name for one in client.networks.list()]
    assert {"bridge", "inner"} <= set(names) and "other" not in names, names
    assert [one.id for one in client.networks.list(names=["inner"], filters={"label": "tier"})] == [net.id]
    fails(NotFound, 404, "network other not found", client.networks.get, "other")
    done("networks")


def images(web):
    made = web.commit(repository="own/web", tag="v1", message="by hand", author="me", conf={"Cmd": ["cat", "/tmp/dir/file"]})
    assert made.tags == ["own/web:v1"] and made.attrs["Author"] == "me", made.attrs
    assert len(client.containers.run("own/web:v1", remove=True)) == 10000
    archive = b"".join(made.save(named=True))
    assert made.tag("own/again", "v2") and set(client.images.get("own/again:v2").tags) == {"own/web:v1", "own/again:v2"}
    assert {tag for one in client.images.list() for tag in one.tags} == {"busybox:latest", "own/web:v1", "own/again:v2"}
    assert made.history()[0]["Id"] == made.id
    client.images.remove("own/again:v2")
    client.images.remove("own/web:v1")
    fails(ImageNotFound, 404, "No such image: own/web:v1", client.images.get, "own/web:v1")
    (loaded,) = client.images.load(archive)
    assert loaded.id == made.id and loaded.tags == ["own/web:v1"], loaded.attrs
    client.images.remove(loaded.id, force=True)
    fails(APIError, 409, "using its referenced image", client.images.remove, "busybox")
    fails((APIError, ImageNotFound), 500, "", client.images.pull, "127.0.0.1:1/nosuch", tag="latest")
    done("images")


def volumes():
    made = client.volumes.create("labelled", driver="local", driver_opts={"size": "16m"}, labels={"a": "b"})
    assert made.attrs["Labels"] == {"a": "b"} and made.attrs["Options"] == {"size": "16m"}, made.attrs
    assert {one.name for one in client.volumes.list()} == {"data", "labelled"}
    assert [one.name for one in client.volumes.list(filters={"label": "a=b"})] == ["labelled"]
    made.remove()
    fails(NotFound, 404, "get labelled: no such volume", client.volumes.get, "labelled")
    fails(APIError, 409, "volume is in use", client.volumes.get("data").remove)
    fails(APIError, 400, "share no folders", client.containers.create, "busybox", volumes=["/etc:/e"])
    assert client.volumes.prune()["VolumesDeleted"] in (None, []), "prune took a named volume"
    df = client.df()
    assert [one["Name"] for one in df["Volumes"]] == ["data"] and df["Volumes"][0]["UsageData"]["RefCount"] == 1, df
    done("volumes")


def low_level():
    api = client.api
    config = api.create_host_config(
        binds=["data:/d:ro"], port_bindings={80: None}, cap_add=["NET_ADMIN"], cap_drop=["MKNOD"], dns=["192.0.2.53"],
        extra_hosts={"far": "192.0.2.1"}, mem_limit="128m", privileged=False, read_only=True, shm_size="8m", tmpfs=["/run"],
        sysctls={"net.ipv4.ip_forward": "1"}, ulimits=[{"Name": "nofile", "Soft": 99, "Hard": 99}], nano_cpus=10**9,
    )
    created = api.create_container(
        "busybox", ["sh", "-c", "cat; cat /proc/sys/net/ipv4/ip_forward; grep far /etc/hosts; ! touch /x; exit 4"],
        name="low", stdin_open=True, ports=[80], host_config=config, environment=["A=b"], labels=["x"], stop_signal="SIGINT",
        networking_config=api.create_networking_config({"inner": api.create_endpoint_config(aliases=["deep"])}),
    )
    shown = api.inspect_container(created)
    assert created["Id"] == shown["Id"] and shown["State"]["Status"] == "created" and shown["Config"]["StopSignal"] == "SIGINT"
    assert shown["HostConfig"]["CapAdd"] and shown["HostConfig"]["ReadonlyRootfs"] and shown["Config"]["Labels"] == {"x": ""}
    sock = api.attach_socket(created, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    api.start(created)
    sock._sock.sendall(b"typed\n")
    sock._sock.shutdown(1)
    until("it has ended", lambda: api.inspect_container(created)["State"]["Status"] == "exited")
    sock.close()
    assert api.wait(created)["StatusCode"] == 4
    said = api.logs(created, stdout=True, stderr=False)
    assert said.startswith(b"typed\n1\n192.0.2.1\tfar") or said.startswith(b"typed\n1\n192.0.2.1 far"), said
    api.remove_container(created, v=True)
    done("low level")


def many():
    """Ten at once: all run, each is told what it is to do, and nothing is left."""
    names = [f"many{number}" for number in range(10)]
    failures = []

    def one(name):
        try:
            own = docker.DockerClient(base_url=sys.argv[1], timeout=600)
            container = own.containers.create("busybox", "sleep 100000", name=name, mem_limit="128m", init=True)
            try:
                container.start()
            except APIError as error:
                # QEMU 7.2 without KVM now and then gives a guest wrong flags when many share a processor. That is told, and it can be started again
                if "its console says: Kernel panic" not in error.explanation:
                    raise
                container.start()
            until(f"{name} runs", lambda: own.containers.get(name).status == "running")
            told = said(container, ["hostname"])
            assert told == (0, f"{container.id[:12]}\n".encode(), b""), (name, told)
        except Exception as error:  # told by the thread that waits
            failures.append((name, str(error)))

    def together(work):
        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures

    together(one)
    running = client.containers.list(filters={"name": "many", "status": "running"})
    assert {one.name for one in running} == set(names), running
    addresses = {one.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] for one in running}
    assert len(addresses) == 10 and "" not in addresses, addresses
    assert all(one.exec_run("true").exit_code == 0 for one in running)

    def end(name):
        try:
            container = docker.DockerClient(base_url=sys.argv[1], timeout=600).containers.get(name)
            container.stop(timeout=0)
            # SIGKILL comes right behind SIGTERM
            code = container.wait()["StatusCode"]
            assert code in (137, 143), code
            container.remove(v=True)
        except Exception as error:
            failures.append((name, str(error)))

    together(end)
    assert client.containers.list(all=True, filters={"name": "many"}) == []
    done("many")


def told(web, net):
    web.restart(timeout=0)
    web.reload()
    assert web.status == "running", web.status
    web.kill("KILL")
    assert web.wait()["StatusCode"] == 137
    fails(APIError, 409, "is not running", web.kill)
    web.rename("old")
    expected = ["create", "start", "kill", "die", "restart", "rename", "update", "commit"]
    until(f"it is told of {expected}: {actions}", lambda: all(action in actions for action in expected))
    web.remove(v=True)
    net.remove()
    fails(NotFound, 404, "No such container", client.containers.get, "old")
    client.volumes.get("data").remove()
    assert (client.containers.list(all=True), client.volumes.list()) == ([], [])
    client.images.remove("busybox")
    assert client.images.list() == []
    done("told")


runs()
web, net = life()
networks(web, net)
images(web)
volumes()
low_level()
many()
told(web, net)
