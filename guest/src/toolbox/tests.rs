//! Each question, and what comes of it.

use super::vix::tests::{ID, key};
use super::*;

fn toolbox() -> Toolbox {
    Toolbox::new(ID, &key(), "tether 1")
}

fn facts(addresses: &[&str]) -> Facts {
    let addresses = addresses.iter().map(|&text| text.into()).collect();
    let network = EndpointStatus { mac: "m".into(), addresses, ..EndpointStatus::default() };
    Facts { host_name: "c1".into(), release: "6.12.48".into(), networks: vec![network], ..Facts::default() }
}

fn asked(text: &str) -> Output {
    Output::Ask(text.into())
}

fn answered(text: &str) -> Output {
    Output::Answer(text.into())
}

#[test]
fn each_question_has_its_answer() {
    let check = |message: &str, expected: &[Output]| {
        let mut toolbox = toolbox();
        toolbox.learn(facts(&["fd00::2/64", "10.0.0.5/24"]));
        // some hosts end it with a NUL
        for end in ["", "\0"] {
            assert_eq!(toolbox.handle(format!("{message}{end}").as_bytes()), expected, "{message:?}{end:?}");
        }
    };
    check("reset", &[answered("OK ATR toolbox")]);
    check("ping", &[answered("OK ")]);
    let capabilities = [
        asked("tools.set.version 2147483647"),
        asked("tools.capability.statechange "),
        asked("tools.capability.softpowerop_retry "),
        asked("tools.capability.hgfs_server toolbox 1"),
        answered("OK "),
    ];
    check("Capabilities_Register", &capabilities);
    check("Set_Option broadcastIP 1", &[asked("info-set guestinfo.ip 10.0.0.5"), answered("OK ")]);
    for other in ["Set_Option broadcastIP 0", "Set_Option synctime 1", "Set_Option broadcastIP", "Set_Option"] {
        check(other, &[answered("OK ")]);
    }
    for (name, number, power) in [
        ("OS_Halt", 1, Power::Halt),
        ("OS_Reboot", 2, Power::Reboot),
        ("OS_PowerOn", 3, Power::On),
        ("OS_Resume", 4, Power::Resume),
        ("OS_Suspend", 5, Power::Suspend),
    ] {
        let told = asked(&format!("tools.os.statechange.status 1 {number}"));
        check(name, &[told, answered("OK "), Output::Power(power)]);
    }
    for unknown in ["", "Time_Synchronize 1", "reset2", "pin", "OS_halt", " ping", "Resolution_Set 1 2"] {
        check(unknown, &[answered("ERROR Unknown Command")]);
    }
}

#[test]
fn a_machine_without_an_address_tells_none() {
    let mut toolbox = toolbox();
    assert_eq!(toolbox.handle(b"Set_Option broadcastIP 1"), [answered("OK ")]);
    toolbox.learn(facts(&["fd00::2/64"]));
    let expected = [asked("info-set guestinfo.ip fd00::2"), answered("OK ")];
    assert_eq!(toolbox.handle(b"Set_Option broadcastIP 1"), expected);
}

#[test]
fn nothing_is_told_before_anybody_listens_and_everything_after_a_reset() {
    let mut toolbox = toolbox();
    toolbox.learn(facts(&[]));
    assert_eq!(toolbox.poll_news(), None);
    let mut tell = |message: &[u8]| {
        toolbox.handle(message);
        let mut count = 0;
        while toolbox.poll_news().is_some() {
            toolbox.heard(true);
            count += 1;
        }
        count
    };
    assert_eq!([&b"ping"[..], b"Capabilities_Register", b"Capabilities_Register"].map(&mut tell), [0, 5, 0]);
    assert_eq!([&b"reset"[..], b"ping", b"OS_Resume"].map(&mut tell), [5, 0, 5]);
}
