//! A double of QEMU's QMP at the other end of a socketpair, which says what the tests want.

use std::os::fd::OwnedFd;

use tokio::io::{AsyncBufReadExt, Lines};

use super::*;

/// QEMU's end.
pub(crate) struct Double {
    heard: Lines<BufReader<OwnedReadHalf>>,
    out: OwnedWriteHalf,
}

impl Double {
    /// One that has greeted, and was told to begin; and the end that gives orders.
    pub(crate) async fn greeted() -> (Double, Orders) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (from, out) = theirs.into_split();
        let mut double = Double { heard: BufReader::new(from).lines(), out };
        double.say(r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#).await;
        let (orders, _capabilities) = tokio::join!(Orders::over(ours), double.obey("qmp_capabilities", "{}"));
        (double, orders.unwrap())
    }

    pub(crate) async fn say(&mut self, line: &str) {
        self.out.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    }

    /// The next order: its command, its arguments and its number.
    pub(crate) async fn hear(&mut self) -> (String, Value, u64) {
        let line = self.heard.next_line().await.unwrap().expect("an order");
        let order: Value = serde_json::from_str(&line).unwrap();
        (order["execute"].as_str().unwrap().into(), order["arguments"].clone(), order["id"].as_u64().unwrap())
    }

    /// Hears this command and answers it.
    pub(crate) async fn obey(&mut self, command: &str, answer: &str) -> Value {
        let (heard, arguments, id) = self.hear().await;
        assert_eq!(heard, command);
        self.say(&format!(r#"{{"return": {answer}, "id": {id}}}"#)).await;
        arguments
    }

    /// Hears this command and refuses it.
    pub(crate) async fn refuse(&mut self, command: &str, why: &str) {
        let (heard, _, id) = self.hear().await;
        assert_eq!(heard, command);
        self.say(&format!(r#"{{"error": {{"class": "GenericError", "desc": "{why}"}}, "id": {id}}}"#)).await;
    }
}

fn shutdown(reason: &str) -> String {
    format!(
        r#"{{"timestamp": {{"seconds": 1}}, "event": "SHUTDOWN", "data": {{"guest": true, "reason": "{reason}"}}}}"#
    )
}

#[tokio::test]
async fn answers_are_found_by_their_numbers() {
    let (mut double, orders) = Double::greeted().await;
    let mut events = orders.events();
    let theirs = async {
        let (first, second) = (double.hear().await, double.hear().await);
        double.say(&format!(r#"{{"return": {{"name": "{}"}}, "id": {}}}"#, second.0, second.2)).await;
        double.say(r#"{"event": "POWERDOWN"}"#).await;
        double.say(&format!(r#"{{"error": {{"class": "GenericError", "desc": "no"}}, "id": {}}}"#, first.2)).await;
    };
    let (stop, cont, ()) = tokio::join!(orders.execute("stop", json!({})), orders.execute("cont", json!({})), theirs);
    assert_eq!(stop.unwrap_err().to_string(), "QEMU refuses stop: no");
    assert_eq!(cont.unwrap()["name"], "cont");
    assert_eq!(events.recv().await.unwrap().name, "POWERDOWN");
}

#[tokio::test]
async fn why_a_machine_went_off() {
    let check = async |lines: &[&str], expected: Off| {
        let (mut double, orders) = Double::greeted().await;
        for line in lines {
            double.say(line).await;
        }
        drop(double);
        assert_eq!(orders.off().await, expected, "{lines:?}");
    };
    let other = |words: &str| Off::Other(Some(words.into()));
    check(&[&shutdown("guest-shutdown")], Off::Guest).await;
    check(&[&shutdown("host-signal")], other("a signal of the host's ended QEMU")).await;
    check(&[&shutdown("guest-reset")], other("its guest's kernel panicked, or wanted to boot again")).await;
    check(&[&shutdown("of-tomorrow")], other("of-tomorrow")).await;
    check(&[], Off::Other(None)).await;
    check(&["nonsense", &shutdown("guest-shutdown")], Off::Other(None)).await;
    check(&[r#"{"event": "RESET", "data": {"guest": true}}"#, r#"{"return": {}, "id": 99}"#], Off::Other(None)).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_answer_is_told_of() {
    let (mut double, orders) = Double::greeted().await;
    let (error, _heard) = tokio::join!(orders.execute("stop", json!({})), double.hear());
    assert_eq!(error.unwrap_err().to_string(), "QEMU has not answered stop for 30 s");
    drop(double);
    assert_eq!(orders.off().await, Off::Other(None));
    assert_eq!(orders.execute("stop", json!({})).await.unwrap_err().to_string(), "the machine is off");
}

#[tokio::test]
async fn what_is_not_qemu_is_left_alone() {
    let check = async |said: &str| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(said.as_bytes()).await.unwrap();
        drop(theirs);
        Orders::over(ours).await.unwrap_err().to_string()
    };
    assert_eq!(check("").await, "QEMU hung up before it greeted");
    assert_eq!(check("{\"event\": \"HELLO\"}\n").await, "what listens there is not QEMU");
    assert_eq!(check("{\"QMP\": {").await, "QEMU broke off in the middle of a line");
    assert!(check("220 smtp\n").await.starts_with("QEMU said"));
}

#[tokio::test]
async fn a_file_goes_with_an_order() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (_from, mut to) = ours.into_split();
    let (mut read, written) = std::io::pipe().unwrap();
    write(&mut to, b"here\n", Some(written.into())).await.unwrap();
    let taken = theirs.async_io(Interest::READABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut passed = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let mut line = [0; 5];
        let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
        rustix::net::recvmsg(&theirs, &mut [std::io::IoSliceMut::new(&mut line)], &mut passed, flags)?;
        assert_eq!(&line, b"here\n");
        let files = passed.drain().find_map(|message| match message {
            rustix::net::RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        Ok(files)
    });
    let file: OwnedFd = taken.await.unwrap().expect("a file");
    std::io::Write::write_all(&mut std::fs::File::from(file), b"x").unwrap();
    std::io::Read::read_exact(&mut read, &mut [0]).unwrap();
}
