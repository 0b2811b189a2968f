//! A [`Spec`] as guestinfo keys, in the grammar of vSphere Integrated Containers. `docs/guestinfo.md` lists the keys.
//!
//! Keys that the guest may not write hold a `/` (vSphere's rule). A list is a count less one, its elements joined by `|` under `<key>~`, and, so that
//! an element may hold `|`, a JSON array under `<key>~json`, which is the one that counts. An empty string is `<nil>`, since vSphere
//! deletes an empty value. The prefix of VIC 0.4, `guestinfo.` without `vice.`, is read too.

mod about;
pub(crate) mod amount;
pub mod base64;
mod clone;
mod disks;
#[cfg(test)]
pub(crate) mod document;
mod keyless;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod packed;
pub(crate) mod process;
mod rights;
mod signal;

use std::collections::BTreeMap;

pub use about::{ABOUT, about, write_about};
pub use clone::{
    ENTROPY, GENERATION, Generation, cards, generation, generation_keys, has_more_disks, write_cards, write_generation,
    write_more_disks,
};
pub use keyless::{read_with_key, without_key};
pub use rights::{capability_name, limit_name};
pub use signal::signal_number;

use self::node::{Node, Writer};
use crate::handshake::LinkKey;
use crate::spec::{LinkDevice, LinkSpec, LogDevice, SPEED, SPEEDS, Spec};
use crate::vmx::{Dictionary, SyntaxError};

pub(crate) const BASE: &str = "guestinfo.vice.";
const OLD_BASE: &str = "guestinfo.";
/// The key under which the guest tells its [`crate::status::Status`]: with a `.` where others have a `/`, so that it may write it.
pub const STATUS: &str = "guestinfo.vice..status";
const LINK_KEY: &str = "link/key";
const NIL: &str = "<nil>";

/// Why keys are no [`Spec`]. It names the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A key that must be there is not.
    #[error("guestinfo has no {0}")]
    Missing(String),
    /// A value is not what it should be.
    #[error("guestinfo {key}: {value:?} is not {expected}")]
    #[allow(missing_docs)]
    Invalid { key: String, value: String, expected: &'static str },
    /// A value that should hold other keys is not their text.
    #[error("guestinfo {key} is not a dictionary: {source}")]
    #[allow(missing_docs)]
    Syntax { key: String, source: SyntaxError },
}

/// Keys that can be asked for, one at a time: some hosts do not list what they have.
pub trait Keys {
    /// The value of a key in whatever case.
    fn value(&self, key: &str) -> Option<String>;
}

impl Keys for Dictionary {
    fn value(&self, key: &str) -> Option<String> {
        self.get(key).map(str::to_owned)
    }
}

/// Reads a spec: from the one value that holds it whole, if there is one, else from its keys.
pub fn read(keys: &dyn Keys) -> Result<Spec, SpecError> {
    match packed::read(&Node { keys, path: format!("{BASE}/") })? {
        Some(packed) => read_keys(&packed),
        None => read_keys(keys),
    }
}

fn read_keys(keys: &dyn Keys) -> Result<Spec, SpecError> {
    let node = |base| Node { keys, path: format!("{base}/") };
    let (new, old) = (node(BASE), node(OLD_BASE));
    let is_old = new.text("common/id").is_none() && old.text("common/id").is_some();
    let root = if is_old { old } else { new };
    let id = root.required("common/id")?;
    if id.is_empty() || !id.chars().all(|char| char.is_ascii_alphanumeric() || "_.-".contains(char)) {
        return Err(root.invalid("common/id", &id, "an id of letters, digits, `_`, `.` and `-`"));
    }
    let session = root.below(&format!("sessions|{id}"));
    let mut others = BTreeMap::new();
    for name in root.names("sessions")?.into_iter().filter(|name| *name != id) {
        others.insert(name.clone(), process::read(&root.below(&format!("sessions|{name}")))?);
    }
    Ok(Spec {
        hostname: root.filled("hostname"),
        domain: root.filled("domainname"),
        link: read_link(&root)?,
        log: match root.text("log/device").as_deref() {
            None | Some("") => None,
            Some("serial") => Some(LogDevice::Serial),
            Some("virtio") => Some(LogDevice::Virtio),
            Some(other) => return Err(root.invalid("log/device", other, "`serial` or `virtio`")),
        },
        hold: session.flag("runblock", false)?,
        root: disks::read_root(&root)?,
        mounts: disks::read_mounts(&root)?,
        networks: network::read_endpoints(&root)?,
        names: network::read_names(&root)?,
        machine: machine::read_machine(&root)?,
        diagnostics: machine::read_diagnostics(&root)?,
        main: process::read(&session)?,
        others,
        id,
    })
}

/// Writes a spec.
pub fn write(spec: &Spec) -> Dictionary {
    let mut keys = Dictionary::default();
    let mut root = Writer::new(&mut keys);
    root.set("common/id", &spec.id);
    root.names("sessions", [&spec.id].into_iter().chain(spec.others.keys()).map(String::as_str));
    if let Some(name) = &spec.hostname {
        root.set("hostname", name);
    }
    if let Some(name) = &spec.domain {
        root.set("domainname", name);
    }
    let device = match spec.link.device {
        LinkDevice::Serial => "serial",
        LinkDevice::Virtio => "virtio",
        LinkDevice::Vsock => "vsock",
    };
    root.set("link/device", device);
    root.set(LINK_KEY, &spec.link.key.to_hex());
    root.flag("link/sealed", spec.link.sealed);
    root.set("link/speed", &spec.link.speed.to_string());
    match spec.log {
        None => {}
        Some(LogDevice::Serial) => root.set("log/device", "serial"),
        Some(LogDevice::Virtio) => root.set("log/device", "virtio"),
    }
    root.flag(&format!("sessions|{}/runblock", spec.id), spec.hold);
    for (name, process) in [(&spec.id, &spec.main)].into_iter().chain(&spec.others) {
        process::write(&mut root.below(&format!("sessions|{name}")), process);
    }
    disks::write(&mut root, spec);
    network::write(&mut root, spec);
    machine::write(&mut root, spec);
    keys
}

fn read_link(root: &Node<'_>) -> Result<LinkSpec, SpecError> {
    let device = match root.text("link/device").as_deref() {
        None | Some("serial") => LinkDevice::Serial,
        Some("virtio") => LinkDevice::Virtio,
        Some("vsock") => LinkDevice::Vsock,
        Some(other) => return Err(root.invalid("link/device", other, "`serial`, `virtio` or `vsock`")),
    };
    let key = root.required(LINK_KEY)?;
    let key = LinkKey::from_hex(&key).ok_or_else(|| root.invalid(LINK_KEY, &key, "64 hexadecimal digits"))?;
    // what is not said is safe
    let sealed = root.flag("link/sealed", true)?;
    let speed = match root.text("link/speed").filter(|speed| !speed.is_empty()) {
        None => SPEED,
        Some(text) => match text.parse() {
            Ok(speed) if SPEEDS.contains(&speed) => speed,
            _ => return Err(root.invalid("link/speed", &text, "a speed of termios(3), from 9600 to 4000000")),
        },
    };
    Ok(LinkSpec { device, key, sealed, speed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Environment, Process, TermSize};

    fn spec() -> Spec {
        let link =
            LinkSpec { device: LinkDevice::Virtio, key: LinkKey::new([0x5a; 32]), sealed: false, speed: 921_600 };
        let main = Process {
            env: Environment(vec!["PATH=/bin".into(), "NOTE=a|b".into()]),
            dir: "/srv".into(),
            user: "www:1000".into(),
            terminal: Some(TermSize { rows: 50, columns: 132 }),
            stdin: true,
            attach: false,
            stop_signal: 2,
            ..Process::new(vec!["sh".into(), "-c".into(), "echo \"a\" | wc\n".into(), String::new()])
        };
        let others = BTreeMap::from([("helper".into(), Process::new(vec!["true".into()]))]);
        Spec {
            hostname: Some("web".into()),
            domain: Some("example.org".into()),
            log: Some(LogDevice::Virtio),
            hold: true,
            others,
            ..Spec::new("3f0c", link, main)
        }
    }

    #[test]
    fn a_list_without_end_is_refused() {
        let mut keys = write(&spec());
        for (count, expected) in [(1000, true), (100_000, false)] {
            let names: Vec<String> = (0..count).map(|n| format!("n{n}")).collect();
            keys.set("guestinfo.vice./mounts", names.join("|"));
            let error = read(&keys).unwrap_err().to_string();
            assert_eq!(error.contains("mounts|n0/"), expected, "{error}");
            assert_eq!(error.contains("a list of at most 1024 names"), !expected, "{error}");
        }
    }

    #[test]
    fn a_spec_survives_the_keys_and_their_text() {
        let text = write(&spec()).to_string();
        assert_eq!(read(&Dictionary::parse(&text).unwrap()), Ok(spec()));
    }

    /// What VIC itself wrote for a container, and the key of our link.
    #[test]
    fn the_original_grammar_is_read() {
        let text = r#"
            guestinfo.vice./common/id = "3f0c"
            guestinfo.vice./sessions = "3f0c"
            guestinfo.vice./link/key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
            guestinfo.vice./sessions|7C3f0c/cmd/Path = "/bin/sh"
            guestinfo.vice./sessions|7C3f0c/cmd/Args = "2"
            guestinfo.vice./sessions|7C3f0c/cmd/Args~ = "/bin/sh|7C-c|7Cecho hello"
            guestinfo.vice./sessions|7C3f0c/cmd/Env = "1"
            guestinfo.vice./sessions|7C3f0c/cmd/Env~ = "PATH=/bin|7CTERM=xterm"
            guestinfo.vice./sessions|7C3f0c/cmd/Dir = "<nil>"
            guestinfo.vice./sessions|7C3f0c/tty = "true"
            guestinfo.vice./sessions|7C3f0c/stopSignal = "SIGINT"
        "#;
        let check = |text: &str| {
            let spec = read(&Dictionary::parse(text).unwrap()).unwrap();
            assert_eq!(spec.main.argv, ["/bin/sh", "-c", "echo hello"]);
            assert_eq!(spec.main.env.0, ["PATH=/bin", "TERM=xterm"]);
            assert_eq!((spec.main.dir.as_str(), spec.main.stop_signal), ("/", 2));
            assert_eq!(spec.main.terminal, Some(TermSize { rows: 24, columns: 80 }));
            let link = (spec.link.device, spec.link.sealed, spec.link.speed);
            assert_eq!(link, (LinkDevice::Serial, true, 115_200));
        };
        check(text);
        check(&text.replace("vice.", ""));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |key: &str, value: Option<&str>, expected: &str| {
            let mut text = write(&spec()).to_string();
            let line = format!("guestinfo.vice./{} = ", key.to_lowercase().replace('|', "|7C"));
            text = text.lines().filter(|old| !old.starts_with(&line)).map(|old| format!("{old}\n")).collect();
            if let Some(value) = value {
                text.push_str(&format!("{line}\"{value}\"\n"));
            }
            assert_eq!(read(&Dictionary::parse(&text).unwrap()).unwrap_err().to_string(), expected);
        };
        let id = "an id of letters, digits, `_`, `.` and `-`";
        check("common/id", None, "guestinfo has no guestinfo.vice./common/id");
        check("common/id", Some("a/b"), &format!("guestinfo guestinfo.vice./common/id: \"a/b\" is not {id}"));
        let session = "guestinfo.vice./sessions|3f0c/";
        check("sessions|3f0c/cmd/Path", None, &format!("guestinfo has no {session}cmd/Path"));
        check(
            "sessions|3f0c/cmd/Args~json",
            Some("[1]"),
            &format!("guestinfo {session}cmd/Args~json: \"[1]\" is not a JSON array of strings"),
        );
        check(
            "sessions|3f0c/cmd/Env~json",
            Some("secret"),
            &format!("guestinfo {session}cmd/Env~json: \"...\" is not a JSON array of strings"),
        );
        check("sessions|3f0c/tty", Some("yes"), &format!("guestinfo {session}tty: \"yes\" is not `true` or `false`"));
        check("sessions|3f0c/ttysize", Some("80"), &format!("guestinfo {session}ttysize: \"80\" is not ROWSxCOLUMNS"));
        check(
            "link/device",
            Some("usb"),
            "guestinfo guestinfo.vice./link/device: \"usb\" is not `serial`, `virtio` or `vsock`",
        );
        check("link/key", None, "guestinfo has no guestinfo.vice./link/key");
        check("link/key", Some("5a"), "guestinfo guestinfo.vice./link/key: \"...\" is not 64 hexadecimal digits");
        check("link/sealed", Some("no"), "guestinfo guestinfo.vice./link/sealed: \"no\" is not `true` or `false`");
        let speed = "a speed of termios(3), from 9600 to 4000000";
        for odd in ["300", "115201", "fast", "-9600"] {
            check("link/speed", Some(odd), &format!("guestinfo guestinfo.vice./link/speed: \"{odd}\" is not {speed}"));
        }
        check(
            "sessions|3f0c/stopSignal",
            Some("99"),
            &format!("guestinfo {session}stopSignal: \"99\" is not a signal's name or number"),
        );
    }

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("TERM", 15),
            ("sigkill", 9),
            ("64", 64),
            ("SIGSYS", 31),
            ("1", 1),
            ("RTMIN", 34),
            ("SIGRTMIN+15", 49),
            ("RTMAX-14", 50),
            ("RTMAX", 64),
        ] {
            assert_eq!(signal_number(text), Some(number));
        }
        for text in ["0", "65", "SIG", "", "-1", "TERMINATE", "RTMIN+31", "RTMAX-31", "RTMIN-1", "RTMAX--1"] {
            assert_eq!(signal_number(text), None);
        }
    }
}
