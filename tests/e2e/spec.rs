//! A spec that cannot be read, or contradicts itself, runs nothing: the reason is published, and the machine is off.

use std::collections::BTreeMap;

use rig::machine::{Machine, script};
use wire::spec::LinkDevice;
use wire::vmx::Dictionary;

/// What is wrong, and what the reason names.
const BROKEN: [(&str, Option<&str>, &str); 11] = [
    ("common/id", None, "guestinfo has no guestinfo.vice./common/id"),
    ("common/id", Some("a/b"), "common/id: \"a/b\" is not"),
    ("link/key", Some("5ecre7"), "link/key: \"...\" is not"),
    ("link/device", Some("pigeon"), "link/device: \"pigeon\" is not"),
    ("sessions|rig/cmd/Path", None, "guestinfo has no guestinfo.vice./sessions|rig/cmd/Path"),
    ("sessions|rig/cmd/Dir", Some("tmp"), "cmd/Dir: \"tmp\" is not"),
    ("sessions|rig/cmd/Env~json", Some("5ecre7"), "cmd/Env~json: \"...\" is not"),
    ("sessions|rig/stopSignal", Some("99"), "stopSignal: \"99\" is not"),
    ("sessions|rig/restart", Some("sometimes"), "restart: \"sometimes\" is not"),
    ("sessions|rig/health/interval", Some("1"), "guestinfo has no guestinfo.vice./sessions|rig/health/cmd"),
    ("sessions", Some("rig|other"), "guestinfo has no guestinfo.vice./sessions|other/cmd/Path"),
];

#[test]
fn what_is_wrong_with_a_spec_is_named_and_nothing_runs() {
    let spec = script(LinkDevice::Virtio, "echo never");
    let whole = wire::guestinfo::write(&spec).to_string();
    for (key, value, reason) in BROKEN {
        let mut keys: BTreeMap<String, String> = BTreeMap::new();
        for line in whole.lines() {
            let (name, text) = line.split_once(" = ").expect("a dictionary");
            keys.insert(name.to_owned(), text.to_owned());
        }
        let mut one = Dictionary::default();
        one.set(&format!("guestinfo.vice./{key}"), value.unwrap_or_default());
        let one = one.to_string();
        let (name, text) = one.trim_end().split_once(" = ").expect("a dictionary");
        match value {
            Some(_) => drop(keys.insert(name.to_owned(), text.to_owned())),
            None => assert!(keys.remove(name).is_some(), "{name} is not there"),
        }
        let mut machine = Machine::new(&spec, None);
        machine.guestinfo = Some(keys.iter().map(|(name, text)| format!("{name} = {text}\n")).collect());
        let mut powered = machine.power_on();
        powered.wait();
        let console = powered.console();
        assert!(console.contains(reason), "{key}: {reason:?} is not in {console:?}");
        assert!(!console.contains("5ecre7"), "{key}: a secret is in {console:?}");
    }
}
