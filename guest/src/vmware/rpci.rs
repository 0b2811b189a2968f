//! RPCI: what a reply means, and which transport is asked.

use super::{Exchange, MOST_SENT, RpcError, Rpci};

/// Two transports: the one that has answered last is asked first.
#[derive(Debug)]
pub(super) struct Ways {
    first: Box<dyn Exchange>,
    second: Option<Box<dyn Exchange>>,
}

impl Ways {
    /// Connects to the one, or else to the other.
    pub(super) fn open(mut vsock: Box<dyn Exchange>, backdoor: Option<Box<dyn Exchange>>) -> Result<Ways, RpcError> {
        let Err(failed) = vsock.connect() else { return Ok(Ways { first: vsock, second: backdoor }) };
        let opened = backdoor.ok_or(RpcError::Open).and_then(|mut backdoor| backdoor.connect().map(|()| backdoor));
        match opened {
            Ok(backdoor) => Ok(Ways { first: backdoor, second: Some(vsock) }),
            Err(error) => Err(RpcError::Unreachable { vsock: failed.into(), backdoor: error.into() }),
        }
    }
}

impl Rpci for Ways {
    fn call(&mut self, request: &[u8]) -> Result<Vec<u8>, RpcError> {
        if request.len() > MOST_SENT {
            return Err(RpcError::TooLarge(request.len()));
        }
        let error = match self.first.exchange(request).and_then(meaning) {
            Err(error) if is_transports(&error) => error,
            other => return other,
        };
        let Some(second) = &mut self.second else { return Err(error) };
        match second.exchange(request).and_then(meaning) {
            Err(other) if is_transports(&other) => Err(error),
            answered => {
                std::mem::swap(&mut self.first, second);
                answered
            }
        }
    }

    fn call_once(&mut self, request: &[u8]) -> Result<Vec<u8>, RpcError> {
        let mut reply = self.first.exchange_once(request);
        self.first.forget();
        if let Some(second) = &mut self.second {
            reply = reply.or_else(|| second.exchange_once(request));
            second.forget();
        }
        reply.unwrap_or(Err(RpcError::Open)).and_then(meaning)
    }
}

/// It has to do with the way that a request took: another way may have more to say. What the backdoor may not, vsock may.
fn is_transports(error: &RpcError) -> bool {
    !matches!(error, RpcError::NoValue | RpcError::TooLarge(_) | RpcError::Host(_) | RpcError::PowersOff)
}

/// `1 DATA`, or `0 REASON`.
fn meaning(mut reply: Vec<u8>) -> Result<Vec<u8>, RpcError> {
    let is_done = match reply.get(..2) {
        Some(b"1 ") => true,
        Some(b"0 ") => false,
        _ => return Err(RpcError::Protocol("a reply begins neither with `1 ` nor with `0 `")),
    };
    reply.drain(..2);
    if is_done {
        return Ok(reply);
    }
    let reason = String::from_utf8_lossy(&reply).trim_end_matches('\0').to_owned();
    Err(match reason.as_str() {
        "No value found" => RpcError::NoValue,
        "Permission denied" => RpcError::Denied(reason),
        _ => RpcError::Host(reason),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// A transport that answers with what it has, or fails.
    #[derive(Debug)]
    struct Way {
        name: &'static str,
        reply: Option<&'static str>,
        asked: Rc<RefCell<Vec<&'static str>>>,
    }

    impl Exchange for Way {
        fn connect(&mut self) -> Result<(), RpcError> {
            self.reply.map(drop).ok_or(RpcError::Silent)
        }

        fn exchange(&mut self, _request: &[u8]) -> Result<Vec<u8>, RpcError> {
            self.asked.borrow_mut().push(self.name);
            self.reply.map(|reply| reply.as_bytes().to_vec()).ok_or(RpcError::Silent)
        }

        fn exchange_once(&mut self, request: &[u8]) -> Option<Result<Vec<u8>, RpcError>> {
            (self.name == "backdoor").then(|| self.exchange(request))
        }

        fn forget(&mut self) {
            self.asked.borrow_mut().push("forgotten");
        }
    }

    type Asked = Rc<RefCell<Vec<&'static str>>>;

    fn ways(vsock: Option<&'static str>, backdoor: Option<&'static str>) -> (Ways, Asked) {
        let asked = Asked::default();
        let way = |name, reply| Box::new(Way { name, reply, asked: asked.clone() });
        (Ways { first: way("vsock", vsock), second: Some(way("backdoor", backdoor)) }, asked)
    }

    #[test]
    fn replies_mean_what_they_say() {
        let check = |reply: &[u8], expected: &str| {
            let shown = match meaning(reply.to_vec()) {
                Ok(data) => format!("{:?}", String::from_utf8_lossy(&data)),
                Err(error) => error.to_string(),
            };
            assert_eq!(shown, expected);
        };
        check(b"1 ", "\"\"");
        check(b"1 a b\0c", "\"a b\\0c\"");
        check(b"0 No value found", "VMX has no such value");
        check(b"0 Permission denied", "VMX denies it: Permission denied");
        check(b"0 Unknown command\0", "VMX says: Unknown command");
        let protocol = "VMX does not keep to the protocol: a reply begins neither with `1 ` nor with `0 `";
        for odd in [&b""[..], b"1", b"2 a", b"OK", b" 1"] {
            check(odd, protocol);
        }
    }

    #[test]
    fn the_way_that_answers_is_kept() {
        let (mut both, asked) = ways(None, Some("1 a"));
        assert_eq!(both.call(b"x").unwrap(), b"a");
        assert_eq!(both.call(b"x").unwrap(), b"a");
        assert_eq!(asked.take(), ["vsock", "backdoor", "backdoor"]);
    }

    #[test]
    fn what_one_way_may_not_the_other_may() {
        let (mut both, asked) = ways(Some("0 Permission denied"), Some("1 a"));
        assert_eq!(both.call(b"x").unwrap(), b"a");
        assert_eq!(asked.take(), ["vsock", "backdoor"]);
        let (mut both, _) = ways(Some("0 Permission denied"), None);
        assert!(matches!(both.call(b"x"), Err(RpcError::Denied(_))));
    }

    #[test]
    fn what_stops_the_machine_goes_through_the_backdoor_and_once() {
        let forgotten = ["forgotten", "backdoor", "forgotten"];
        for reply in ["1 ", "0 Unknown command"] {
            let (mut both, asked) = ways(Some("1 a"), Some(reply));
            assert_eq!(both.call_once(b"x").is_ok(), reply == "1 ");
            assert_eq!(asked.take(), forgotten);
        }
        let (mut both, asked) = ways(Some("1 a"), None);
        assert!(matches!(both.call_once(b"x"), Err(RpcError::Silent)));
        assert_eq!(asked.take(), forgotten);
        both.second = None;
        assert!(matches!(both.call_once(b"x"), Err(RpcError::Open)));
    }

    #[test]
    fn an_answer_is_an_answer() {
        let (mut both, asked) = ways(Some("0 No value found"), Some("1 a"));
        assert!(matches!(both.call(b"x"), Err(RpcError::NoValue)));
        assert!(matches!(both.call(&[b'x'; MOST_SENT + 1]), Err(RpcError::TooLarge(65_537))));
        assert_eq!(asked.take(), ["vsock"]);
    }

    #[test]
    fn each_way_s_failure_is_told() {
        let open = |vsock, backdoor| {
            let (ways, _) = ways(vsock, backdoor);
            Ways::open(ways.first, ways.second)
        };
        assert_eq!(
            open(None, None).unwrap_err().to_string(),
            "VMX cannot be reached: by vsock, VMX does not answer; through the backdoor, VMX does not answer"
        );
        assert_eq!(open(None, Some("1 b")).unwrap().call(b"x").unwrap(), b"b");
        assert_eq!(open(Some("1 a"), None).unwrap().call(b"x").unwrap(), b"a");
    }
}
