//! The tools with a VMX that is a list of questions, and a clock that is a number.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use wire::handshake::LinkKey;

use super::*;

/// What the tools said and did, in its order.
#[derive(Debug, Default)]
struct Vmx {
    questions: VecDeque<Vec<u8>>,
    log: Vec<String>,
    /// The next send or receive fails.
    broken: bool,
    /// No channel opens.
    closed: bool,
    /// Requests that begin so are refused.
    refused: &'static str,
}

#[derive(Clone, Debug, Default)]
struct Fake(Rc<RefCell<Vmx>>);

impl Tclo for Fake {
    fn send(&mut self, answer: &[u8]) -> Result<(), RpcError> {
        let mut vmx = self.0.borrow_mut();
        if vmx.broken {
            return Err(RpcError::Protocol("a test's"));
        }
        vmx.log.push(format!("< {}", String::from_utf8_lossy(answer).trim_end_matches('\0')));
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>, RpcError> {
        Ok(self.0.borrow_mut().questions.pop_front())
    }
}

impl Rpci for Fake {
    fn call(&mut self, request: &[u8]) -> Result<Vec<u8>, RpcError> {
        let mut vmx = self.0.borrow_mut();
        let text = String::from_utf8_lossy(request);
        vmx.log.push(text.split('\0').next().unwrap().into());
        match !vmx.refused.is_empty() && text.starts_with(vmx.refused) {
            true => Err(RpcError::Host("Unknown command".into())),
            false => Ok(Vec::new()),
        }
    }

    fn call_once(&mut self, request: &[u8]) -> Result<Vec<u8>, RpcError> {
        self.call(request)
    }
}

/// A machine that does nothing.
#[derive(Default)]
struct Machine {
    vmx: Fake,
    changes: u64,
    uptime: Duration,
}

impl Served for Machine {
    fn facts(&self) -> Facts {
        Facts { host_name: "c1".into(), release: "6.12.1".into(), uptime: self.uptime, ..Facts::default() }
    }

    fn changes(&self) -> u64 {
        self.changes
    }

    fn power(&mut self, power: Power) {
        self.vmx.0.borrow_mut().log.push(format!("{power:?}"));
    }

    fn operate(&mut self, operation: Operation) -> Outcome {
        self.vmx.0.borrow_mut().log.push(format!("{operation:?}"));
        Ok(b"42".to_vec())
    }
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn toolbox() -> Toolbox {
    Toolbox::new("c1", &LinkKey::new([7; 32]), concat!("tether ", env!("CARGO_PKG_VERSION")))
}

impl Machine {
    fn tools(&self) -> Option<Tools> {
        let vmx = self.vmx.clone();
        let open = move || match vmx.0.borrow().closed {
            true => Err(RpcError::Open),
            false => Ok(Channels { tclo: Box::new(vmx.clone()), rpci: Box::new(vmx.clone()) }),
        };
        Tools::new(toolbox(), Box::new(open))
    }

    fn ask(&self, question: &str) {
        self.vmx.0.borrow_mut().questions.push_back(question.into());
    }

    /// What comes of a look that is due.
    fn look(&mut self, tools: &mut Tools) -> Vec<String> {
        tools.handle_time(tools.deadline(), self);
        std::mem::take(&mut self.vmx.0.borrow_mut().log)
    }
}

#[test]
fn another_machine_has_no_tools() {
    assert!(Tools::new(toolbox(), Box::new(|| Err(RpcError::NotVmware))).is_none());
}

#[test]
fn a_guest_that_is_asked_nothing_is_there_ten_times_a_second() {
    let mut machine = Machine::default();
    let mut tools = machine.tools().unwrap();
    let mut pauses = Vec::new();
    for at in 0..8 {
        if at == 6 {
            machine.ask("ping");
        }
        let before = tools.deadline();
        tools.handle_time(before - before.min(MS), &mut machine);
        assert!(at == 0 || machine.vmx.0.borrow().log.is_empty(), "before its time");
        let look = if at == 0 { std::mem::take(&mut machine.vmx.0.borrow_mut().log) } else { machine.look(&mut tools) };
        assert_eq!(look, if at == 6 { vec!["< ", "< OK "] } else { vec!["< "] });
        pauses.push((tools.deadline() - before).as_millis());
    }
    assert_eq!(pauses, [10, 20, 40, 80, 100, 100, 100, 100]);
}

#[test]
fn after_a_question_it_is_there_soon_again() {
    let mut machine = Machine::default();
    let mut tools = machine.tools().unwrap();
    (0..6).for_each(|_| drop(machine.look(&mut tools)));
    (0..5).for_each(|_| machine.ask("ping"));
    let before = tools.deadline();
    assert_eq!(machine.look(&mut tools), ["< ", "< OK ", "< OK ", "< OK ", "< OK "], "others have their turn");
    assert_eq!(tools.deadline(), before, "and then the rest at once");
    assert_eq!(machine.look(&mut tools), ["< ", "< OK "]);
    assert_eq!(tools.deadline(), before + 10 * MS);
    assert_eq!(machine.look(&mut tools), ["< "]);
    assert_eq!(tools.deadline(), before + 30 * MS);
}

#[test]
fn a_host_that_asks_nothing_in_many_messages_makes_nobody_spin() {
    let mut machine = Machine::default();
    let mut tools = machine.tools().unwrap();
    (0..3).for_each(|_| machine.ask(""));
    assert_eq!(machine.look(&mut tools), ["< "]);
    assert_eq!(tools.deadline(), 10 * MS);
}

#[test]
fn a_state_is_told_and_answered_before_the_machine_goes_there() {
    let mut machine = Machine::default();
    let mut tools = machine.tools().unwrap();
    machine.ask("OS_Halt");
    assert_eq!(machine.look(&mut tools), ["< ", "tools.os.statechange.status 1 1", "< OK ", "Halt"]);
}

#[test]
fn first_contact_tells_all_and_then_what_is_new_twice_a_minute() {
    let mut machine = Machine::default();
    let mut tools = machine.tools().unwrap();
    machine.ask("reset");
    let all = [
        "< ",
        "< OK ATR toolbox",
        "SetGuestInfo  1 c1",
        "SetGuestInfo  5 Linux 6.12.1 (tether 0.1.0)",
        "SetGuestInfo  6 other6xlinux-64",
        "SetGuestInfo  10 ",
        "SetGuestInfo  7 0",
    ];
    assert_eq!(machine.look(&mut tools), all);
    machine.uptime = 30 * SECOND;
    let mut told = Vec::new();
    while tools.deadline() < 50 * SECOND {
        let at = tools.deadline();
        told.extend(machine.look(&mut tools).into_iter().filter(|line| line != "< ").map(|line| (at.as_secs(), line)));
    }
    assert_eq!(told, [(30, "SetGuestInfo  7 3000".to_owned())]);
    (machine.uptime, machine.changes) = (40 * SECOND, 1);
    assert_eq!(machine.look(&mut tools), ["SetGuestInfo  7 4000", "< "], "at once when a network has changed");
    assert_eq!(machine.look(&mut tools), ["< "]);
}

#[test]
fn cards_are_told_in_the_older_way_to_an_older_host() {
    let mut machine = Machine::default();
    machine.vmx.0.borrow_mut().refused = "SetGuestInfo  10";
    let mut tools = machine.tools().unwrap();
    machine.ask("reset");
    assert_eq!(machine.look(&mut tools)[5..7], ["SetGuestInfo  10 ", "SetGuestInfo  9 "]);
}

#[test]
fn a_channel_that_breaks_is_opened_again_and_less_and_less_often() {
    let mut machine = Machine::default();
    let mut tools = machine.tools().unwrap();
    machine.look(&mut tools);
    let mut before = tools.deadline();
    {
        let mut vmx = machine.vmx.0.borrow_mut();
        (vmx.broken, vmx.closed) = (true, true);
    }
    let mut pauses = Vec::new();
    for _ in 0..9 {
        assert!(machine.look(&mut tools).is_empty());
        pauses.push((tools.deadline() - before).as_secs());
        before = tools.deadline();
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    {
        let mut vmx = machine.vmx.0.borrow_mut();
        (vmx.broken, vmx.closed) = (false, false);
    }
    assert!(machine.look(&mut tools).is_empty());
    assert_eq!(tools.deadline(), before);
    assert_eq!(machine.look(&mut tools), ["< "]);
    assert_eq!(tools.deadline(), before + 10 * MS);
}

#[test]
fn a_host_that_opens_no_channel_is_asked_again() {
    let mut machine = Machine::default();
    machine.vmx.0.borrow_mut().closed = true;
    let mut tools = machine.tools().unwrap();
    assert!(machine.look(&mut tools).is_empty());
    assert_eq!(tools.deadline(), SECOND);
    assert!(machine.look(&mut tools).is_empty());
    assert_eq!(tools.deadline(), 3 * SECOND);
    machine.vmx.0.borrow_mut().closed = false;
    machine.look(&mut tools);
    assert_eq!(machine.look(&mut tools), ["< "]);
}

/// A request to end process 7, as a host relays it.
fn relayed(key: &LinkKey) -> Vec<u8> {
    let body = [&7_u64.to_le_bytes()[..], &[0; 4]].concat();
    let text = wire::guestinfo::base64::encode(format!("c1\0{}\0", key.to_hex()).as_bytes());
    let credentials = [&[2, 0, 0, 0, 64, 0, 0, 0][..], text.as_bytes(), &[0]].concat();
    let len = |len: usize| u32::try_from(len).unwrap();
    let mut bytes = b"Vix_1_Relayed_Command \"x\"\0\x01\x00\x0d\xd0\x05\x00".to_vec();
    for word in [len(51 + body.len() + credentials.len()), 51, len(body.len()), len(credentials.len())] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.push(0);
    [193, 0, 0, 0, 0, 0, 1_u32].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    [bytes, body, credentials].concat()
}

#[test]
fn an_operation_is_answered_with_what_came_of_it_and_none_is_done_for_strangers() {
    let mut machine = Machine::default();
    let mut tools = machine.tools().unwrap();
    machine.vmx.0.borrow_mut().questions.push_back(relayed(&LinkKey::new([7; 32])));
    assert_eq!(machine.look(&mut tools), ["< ", "Terminate(7)", "< OK 0 0 42"]);
    machine.vmx.0.borrow_mut().questions.push_back(relayed(&LinkKey::new([8; 32])));
    assert_eq!(machine.look(&mut tools), ["< ", "< OK 35 0 "]);
}
