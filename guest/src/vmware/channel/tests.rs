//! The channel against registers that a real client and its host exchanged, and against a host that answers wrongly.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;

/// An access as it was recorded: what was asked with which bytes, and the answer with which bytes.
type Recorded = (Registers, Vec<u8>, Registers, Vec<u8>);

fn registers(ebx: u32, ecx: u32, edx: u32, esi: u32, edi: u32, ebp: u32) -> Registers {
    Registers { ebx, ecx, edx, esi, edi, ebp }
}

/// A host that answers what it did when it was recorded, and nothing else.
#[derive(Debug)]
struct Script(std::vec::IntoIter<Recorded>);

impl Script {
    fn next(&mut self, asked: Registers, bytes: &[u8]) -> (Registers, Vec<u8>) {
        let (expected, sent, answer, received) = self.0.next().expect("nothing more is asked");
        assert_eq!((asked, bytes), (expected, &sent[..]));
        (answer, received)
    }
}

impl Access for Script {
    fn low(&mut self, asked: Registers) -> Registers {
        self.next(asked, &[]).0
    }

    fn send(&mut self, asked: Registers, bytes: &[u8]) -> Registers {
        self.next(asked, bytes).0
    }

    fn receive(&mut self, asked: Registers, buffer: &mut [u8]) -> Registers {
        let (answer, bytes) = self.next(asked, &[]);
        buffer.copy_from_slice(&bytes);
        answer
    }

    fn reaches_memory(&self) -> bool {
        true
    }

    fn pause(&mut self) {
        panic!("the answer was there at once");
    }
}

/// `vmware-rpctool 'info-get guestinfo.foo'`, as Debian has it: the registers that it and a host exchanged.
#[test]
fn registers_are_those_of_a_real_client() {
    const HIGH: u32 = 0x1c8f_220e;
    const LOW: u32 = 0x9bbf_fa82;
    let request = b"info-get guestinfo.foo".to_vec();
    let low = |ebx, ecx, answer| (registers(ebx, ecx, 0, HIGH, LOW, 0), Vec::new(), answer, Vec::new());
    let answer = |ebx, ecx, edx| registers(ebx, ecx, edx, HIGH, LOW, 0);
    let out = registers(0x1_0000, 0, 0, 0, LOW, HIGH);
    let back = registers(0x1_0000, 0, 0, HIGH, 0, LOW);
    let open = registers(0xc943_5052, 0x1e, 0, 0, 0, 0);
    let script = vec![
        (open, Vec::new(), answer(0xc943_5052, 0x1_0000, 0), Vec::new()),
        low(0x16, 0x1_001e, answer(0x16, 0x81_0000, 0)),
        (out, request.clone(), registers(0x1_0000, 0, 0, 0, LOW, HIGH), Vec::new()),
        low(0, 0x3_001e, answer(7, 0x83_0000, 0x1_0000)),
        (back, Vec::new(), registers(0x1_0000, 0, 0, HIGH, 0, LOW), b"1 hello".to_vec()),
        low(1, 0x5_001e, answer(1, 0x1_0000, 0)),
        low(0, 0x6_001e, answer(0, 0x1_0000, 0)),
    ];
    let mut wire = Wire::new(Box::new(Script(script.into_iter())), Service::Rpci);
    assert_eq!(Exchange::exchange(&mut wire, &request).unwrap(), b"1 hello");
}

/// The same without high bandwidth.
#[test]
fn words_are_those_of_a_real_client() {
    let request = b"info-get guestinfo.foo".to_vec();
    let low = |ebx, ecx, answer| (registers(ebx, ecx, 0x7_0000, 0, 0, 0), Vec::new(), answer, Vec::new());
    let answer = |ebx, ecx, edx| registers(ebx, ecx, edx, 0, 0, 0);
    let done = answer(0, 0x1_0000, 0);
    let closed = answer(0, 0, 0);
    let mut script = vec![
        (registers(0xc943_5052, 0x1e, 0, 0, 0, 0), Vec::new(), closed, Vec::new()),
        (registers(0x4943_5052, 0x1e, 0, 0, 0, 0), Vec::new(), answer(0, 0x1_0000, 0x7_0000), Vec::new()),
        low(0x16, 0x1_001e, done),
    ];
    for word in [0x6f66_6e69, 0x7465_672d, 0x6575_6720, 0x6e69_7473, 0x662e_6f66, 0x0000_6f6f] {
        script.push(low(word, 0x2_001e, done));
    }
    script.push(low(0, 0x3_001e, answer(7, 0x3_0000, 0x1_0000)));
    for word in [0x6568_2031, 0x006f_6c6c] {
        script.push(low(1, 0x4_001e, answer(word, 0x1_0000, 0x2_0000)));
    }
    script.push(low(1, 0x5_001e, done));
    script.push(low(0, 0x6_001e, done));
    let mut wire = Wire::new(Box::new(Script(script.into_iter())), Service::Rpci);
    assert_eq!(Exchange::exchange(&mut wire, &request).unwrap(), b"1 hello");
}

/// What a host does wrong.
#[derive(Debug, Default)]
struct Faults {
    no_cookies: bool,
    no_high: bool,
    encrypted: bool,
    deaf: bool,
    /// No reply is ever ready.
    silent: bool,
    /// The answer to the access of this number, opens not counted, has this status instead; and none after it, or all.
    status: Option<(usize, u32)>,
    for_ever: bool,
    /// The answer to a size.
    size: Option<u32>,
    /// What EDX says is an answer's type.
    types: Option<u32>,
}

/// A host with one channel that repeats each message behind `1 `.
#[derive(Debug, Default)]
struct Echo {
    faults: Faults,
    accesses: usize,
    opens: usize,
    pauses: usize,
    is_open: bool,
    expected: usize,
    message: Vec<u8>,
    reply: Vec<u8>,
    position: usize,
}

const COOKIES: (u32, u32) = (0xaaaa_0001, 0xbbbb_0002);

impl Echo {
    /// The status that a fault has put in the place of success, if this access is its.
    fn fault(&mut self) -> Option<u32> {
        self.accesses += 1;
        let (at, status) = self.faults.status?;
        (self.accesses == at || self.accesses > at && self.faults.for_ever).then_some(status)
    }

    fn check(&self, registers: Registers, esi: bool, edi: bool) {
        let (high, low) = if self.faults.no_cookies { (0, 0) } else { COOKIES };
        assert!(!esi || registers.esi == high);
        assert!(!edi || registers.edi == low);
        assert_eq!(registers.edx, 3 << 16);
    }

    fn take(&mut self, bytes: &[u8]) {
        self.message.extend(bytes);
        self.message.truncate(self.expected);
        if self.message.len() == self.expected {
            self.reply = [b"1 ", &self.message[..]].concat();
            self.position = 0;
        }
    }
}

/// Shared, so that a test sees what became of it.
#[derive(Clone, Debug, Default)]
struct Host(Rc<RefCell<Echo>>);

impl Access for Host {
    fn low(&mut self, asked: Registers) -> Registers {
        let mut host = self.0.borrow_mut();
        let answer = |ebx: u32, status: u32, kind: u32| registers(ebx, status << 16, kind << 16, 0, 0, 0);
        let step = asked.ecx >> 16;
        if host.faults.deaf {
            // as QEMU does: nothing changes
            return asked;
        }
        if step == Step::Open as u32 {
            host.opens += 1;
            let refused = host.faults.no_cookies && asked.ebx & WITH_COOKIES != 0;
            host.is_open = !refused;
            let status = u32::from(!refused);
            return registers(asked.ebx, status << 16, 3 << 16, COOKIES.0, COOKIES.1, 0);
        }
        host.check(asked, true, true);
        if step == Step::Close as u32 {
            host.is_open = false;
            return answer(0, 1, 0);
        }
        if let Some(status) = host.fault() {
            return answer(0, status, 0);
        }
        let high = if host.faults.no_high { 0 } else { HIGH_BANDWIDTH };
        match step {
            1 => {
                (host.expected, host.message) = (asked.ebx as usize, Vec::new());
                host.take(b"");
                answer(0, SUCCESS | high, 0)
            }
            2 => {
                host.take(&asked.ebx.to_le_bytes());
                answer(0, SUCCESS, 0)
            }
            3 if host.reply.is_empty() || host.faults.silent => answer(0, SUCCESS, 0),
            3 => {
                host.position = 0;
                let length = u32::try_from(host.reply.len()).unwrap();
                answer(
                    host.faults.size.unwrap_or(length),
                    SUCCESS | HAS_MESSAGE | high,
                    host.faults.types.unwrap_or(SIZE),
                )
            }
            4 => {
                assert_eq!(asked.ebx, SUCCESS);
                let mut word = [0; 4];
                let rest = &host.reply[host.position.min(host.reply.len())..];
                let count = rest.len().min(4);
                word[..count].copy_from_slice(&rest[..count]);
                let kind = if count == 0 { 0 } else { PAYLOAD };
                host.position += 4;
                answer(u32::from_le_bytes(word), SUCCESS, kind)
            }
            5 => {
                assert_eq!(asked.ebx, SUCCESS);
                host.reply.clear();
                answer(1, SUCCESS, 0)
            }
            other => panic!("step {other}"),
        }
    }

    fn send(&mut self, asked: Registers, bytes: &[u8]) -> Registers {
        let mut host = self.0.borrow_mut();
        assert!(!host.faults.no_high && !host.faults.encrypted);
        host.check(asked, false, true);
        assert_eq!((asked.ebx, asked.ebp), (0x1_0000, if host.faults.no_cookies { 0 } else { COOKIES.0 }));
        if let Some(status) = host.fault() {
            return registers(status << 16, 0, 0, 0, 0, 0);
        }
        host.take(bytes);
        registers(0x1_0000, 0, 0, 0, 0, 0)
    }

    fn receive(&mut self, asked: Registers, buffer: &mut [u8]) -> Registers {
        let mut host = self.0.borrow_mut();
        assert!(!host.faults.no_high && !host.faults.encrypted);
        host.check(asked, true, false);
        assert_eq!(asked.ebp, if host.faults.no_cookies { 0 } else { COOKIES.1 });
        if let Some(status) = host.fault() {
            return registers(status << 16, 0, 0, 0, 0, 0);
        }
        let count = host.reply.len().min(buffer.len());
        buffer[..count].copy_from_slice(&host.reply[..count]);
        registers(0x1_0000, 0, 0, 0, 0, 0)
    }

    fn reaches_memory(&self) -> bool {
        !self.0.borrow().faults.encrypted
    }

    fn pause(&mut self) {
        self.0.borrow_mut().pauses += 1;
    }
}

fn with(faults: Faults) -> (Wire, Host) {
    let host = Host::default();
    host.0.borrow_mut().faults = faults;
    (Wire::new(Box::new(host.clone()), Service::Rpci), host)
}

fn say(wire: &mut Wire, request: &[u8]) -> Result<Vec<u8>, RpcError> {
    Exchange::exchange(wire, request)
}

const LOW: Faults = Faults {
    no_high: true,
    no_cookies: false,
    encrypted: false,
    deaf: false,
    silent: false,
    status: None,
    for_ever: false,
    size: None,
    types: None,
};

#[test]
fn every_length_goes_there_and_back_on_one_channel() {
    let ways = [
        Faults::default(),
        LOW,
        Faults { no_cookies: true, ..LOW },
        Faults { no_cookies: true, ..Faults::default() },
        Faults { encrypted: true, ..Faults::default() },
    ];
    for faults in ways {
        let expected = if faults.no_cookies { 2 } else { 1 };
        let (mut wire, host) = with(faults);
        for length in (0..9).chain([1000, MOST_SENT]) {
            let request: Vec<u8> = (0..=250).cycle().take(length).collect();
            assert_eq!(say(&mut wire, &request).unwrap(), [b"1 ", &request[..]].concat());
        }
        assert_eq!(host.0.borrow().opens, expected);
        drop(wire);
        assert!(!host.0.borrow().is_open, "the channel is closed at the end");
    }
}

#[test]
fn an_interruption_at_any_access_begins_the_message_again() {
    for no_high in [true, false] {
        let (mut wire, host) = with(Faults { no_high, ..Faults::default() });
        say(&mut wire, b"info-get a").unwrap();
        let accesses = host.0.borrow().accesses;
        for at in 1..=accesses {
            let (mut wire, host) = with(Faults { no_high, status: Some((at, CHECKPOINT)), ..Faults::default() });
            assert_eq!(say(&mut wire, b"info-get a").unwrap(), b"1 info-get a", "at {at}");
            assert_eq!(host.0.borrow().opens, 1);
            let (mut wire, host) =
                with(Faults { no_high, status: Some((at, CHECKPOINT)), for_ever: true, ..Faults::default() });
            assert!(matches!(say(&mut wire, b"info-get a"), Err(RpcError::Interrupted)), "at {at}");
            assert!(host.0.borrow().accesses <= accesses + INTERRUPTIONS, "at {at}");
        }
    }
}

#[test]
fn a_channel_that_is_lost_at_any_access_is_opened_once_more() {
    for status in [0, 4, 8] {
        let (mut wire, host) = with(Faults::default());
        say(&mut wire, b"info-get a").unwrap();
        for at in 1..=host.0.borrow().accesses {
            let (mut wire, host) = with(Faults { status: Some((at, status)), ..Faults::default() });
            assert_eq!(say(&mut wire, b"info-get a").unwrap(), b"1 info-get a", "at {at}");
            assert_eq!(host.0.borrow().opens, 2);
            let (mut wire, host) = with(Faults { status: Some((at, status)), for_ever: true, ..Faults::default() });
            assert!(matches!(say(&mut wire, b"info-get a"), Err(RpcError::Closed)), "at {at}");
            assert_eq!(host.0.borrow().opens, 2);
        }
    }
}

#[test]
fn other_statuses_are_told_apart_and_end_it() {
    let check = |status, expected: &str| {
        let (mut wire, host) = with(Faults { status: Some((2, status)), for_ever: true, ..Faults::default() });
        assert_eq!(say(&mut wire, b"info-get a").unwrap_err().to_string(), expected);
        assert_eq!((host.0.borrow().opens, host.0.borrow().is_open), (1, false));
    };
    check(POWER_OFF, "VMX powers the machine off");
    check(TIMEOUT, "VMX does not answer");
}

#[test]
fn a_host_that_opens_nothing_is_asked_twice() {
    let (mut wire, _) = with(Faults { deaf: true, ..Faults::default() });
    assert!(matches!(wire.connect(), Err(RpcError::Open)));
    assert!(matches!(say(&mut wire, b"info-get a"), Err(RpcError::Open)));
}

#[test]
fn a_host_without_an_answer_gets_some_time_and_no_more() {
    let (mut wire, host) = with(Faults { silent: true, ..Faults::default() });
    assert!(matches!(say(&mut wire, b"info-get a"), Err(RpcError::Silent)));
    assert_eq!(host.0.borrow().pauses, PAUSES);
}

#[test]
fn sizes_that_lie_are_not_believed() {
    for size in [u32::MAX, u32::try_from(MOST_RECEIVED).unwrap() + 1] {
        let (mut wire, host) = with(Faults { size: Some(size), ..Faults::default() });
        assert!(matches!(say(&mut wire, b"info-get a"), Err(RpcError::TooLarge(most)) if most == size as usize));
        assert!(!host.0.borrow().is_open);
    }
    // in words, a message's end is seen
    let (mut wire, _) = with(Faults { size: Some(1000), ..LOW });
    let error = say(&mut wire, b"info-get a").unwrap_err().to_string();
    assert_eq!(error, "VMX does not keep to the protocol: a message is shorter than its size");
    let (mut wire, _) = with(Faults { types: Some(PAYLOAD), ..Faults::default() });
    let error = say(&mut wire, b"info-get a").unwrap_err().to_string();
    assert_eq!(error, "VMX does not keep to the protocol: a message does not begin with its size");
}

#[test]
fn the_host_asks_or_not() {
    let host = Host::default();
    let mut wire = Wire::new(Box::new(host.clone()), Service::Tclo);
    let tclo: &mut dyn Tclo = &mut wire;
    tclo.send(b"").unwrap();
    host.0.borrow_mut().reply.clear();
    assert_eq!(tclo.receive().unwrap(), None);
    host.0.borrow_mut().reply = b"ping".to_vec();
    assert_eq!(tclo.receive().unwrap().as_deref(), Some(&b"ping"[..]));
    tclo.send(b"OK ").unwrap();
    assert_eq!(host.0.borrow().message, b"OK ");
    assert!(matches!(tclo.send(&[0; MOST_SENT + 1]), Err(RpcError::TooLarge(65_537))));
    assert_eq!(host.0.borrow().opens, 1);
}
