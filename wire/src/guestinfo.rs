//! A [`Spec`] as guestinfo keys, in the grammar of vSphere Integrated Containers. `docs/guestinfo.md` lists the keys.
//!
//! Keys that the guest may not write hold a `/` (vSphere's rule). A list is a count less one, its elements joined by `|` under `<key>~`, and, so that
//! an element may hold `|`, a JSON array under `<key>~json`, which is the one that counts. An empty string is `<nil>`, since vSphere
//! deletes an empty value. The prefix of VIC 0.4, `guestinfo.` without `vice.`, is read too.

use crate::handshake::LinkKey;
use crate::spec::{Environment, LinkDevice, LinkSpec, LogDevice, Process, SIGTERM, SPEED, SPEEDS, Spec, TermSize};
use crate::vmx::Dictionary;

const BASE: &str = "guestinfo.vice.";
const OLD_BASE: &str = "guestinfo.";
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
}

/// Reads a spec.
pub fn read(keys: &Dictionary) -> Result<Spec, SpecError> {
    let base = if keys.has_prefix("guestinfo.vice./") { BASE } else { OLD_BASE };
    let root = Node { keys, path: format!("{base}/") };
    let id = root.required("common/id")?;
    if id.is_empty() || !id.chars().all(|char| char.is_ascii_alphanumeric() || "_.-".contains(char)) {
        return Err(root.invalid("common/id", &id, "an id of letters, digits, `_`, `.` and `-`"));
    }
    let session = Node { keys, path: format!("{base}/sessions|{id}/") };
    Ok(Spec {
        hostname: root.text("hostname").filter(|name| !name.is_empty()),
        link: read_link(&root)?,
        log: match root.text("log/device").as_deref() {
            None | Some("") => None,
            Some("serial") => Some(LogDevice::Serial),
            Some("virtio") => Some(LogDevice::Virtio),
            Some(other) => return Err(root.invalid("log/device", other, "`serial` or `virtio`")),
        },
        hold: session.flag("runblock", false)?,
        main: read_process(&session)?,
        id,
    })
}

/// Writes a spec.
pub fn write(spec: &Spec) -> Dictionary {
    let mut keys = Dictionary::default();
    let mut set = |key: &str, value: &str| {
        keys.set(&format!("{BASE}/{key}"), if value.is_empty() { NIL } else { value });
    };
    set("common/id", &spec.id);
    set("sessions", &spec.id);
    if let Some(name) = &spec.hostname {
        set("hostname", name);
    }
    let device = match spec.link.device {
        LinkDevice::Serial => "serial",
        LinkDevice::Virtio => "virtio",
        LinkDevice::Vsock => "vsock",
    };
    let flag = |flag: bool| if flag { "true" } else { "false" };
    set("link/device", device);
    set("link/key", &spec.link.key.to_hex());
    set("link/sealed", flag(spec.link.sealed));
    set("link/speed", &spec.link.speed.to_string());
    match spec.log {
        None => {}
        Some(LogDevice::Serial) => set("log/device", "serial"),
        Some(LogDevice::Virtio) => set("log/device", "virtio"),
    }
    let (process, session) = (&spec.main, format!("sessions|{}", spec.id));
    let (user, group) = process.user.split_once(':').unwrap_or((&process.user, ""));
    set(&format!("{session}/cmd/Path"), &process.argv[0]);
    set(&format!("{session}/cmd/Dir"), &process.dir);
    set(&format!("{session}/User"), user);
    set(&format!("{session}/Group"), group);
    set(&format!("{session}/tty"), flag(process.terminal.is_some()));
    if let Some(size) = process.terminal {
        set(&format!("{session}/ttysize"), &format!("{}x{}", size.rows, size.columns));
    }
    set(&format!("{session}/openstdin"), flag(process.stdin));
    set(&format!("{session}/attach"), flag(process.attach));
    set(&format!("{session}/runblock"), flag(spec.hold));
    set(&format!("{session}/stopSignal"), &process.stop_signal.to_string());
    for (key, list) in [("Args", &process.argv), ("Env", &process.env.0)] {
        if let Some(last) = list.len().checked_sub(1) {
            set(&format!("{session}/cmd/{key}"), &last.to_string());
            set(&format!("{session}/cmd/{key}~"), &list.join("|"));
            let json = serde_json::to_string(list).expect("strings are JSON");
            set(&format!("{session}/cmd/{key}~json"), &json);
        }
    }
    keys
}

fn read_link(root: &Node<'_>) -> Result<LinkSpec, SpecError> {
    let device = match root.text("link/device").as_deref() {
        None | Some("serial") => LinkDevice::Serial,
        Some("virtio") => LinkDevice::Virtio,
        Some("vsock") => LinkDevice::Vsock,
        Some(other) => return Err(root.invalid("link/device", other, "`serial`, `virtio` or `vsock`")),
    };
    let key = root.required("link/key")?;
    let key = LinkKey::from_hex(&key).ok_or_else(|| root.invalid("link/key", &key, "64 hexadecimal digits"))?;
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

fn read_process(session: &Node<'_>) -> Result<Process, SpecError> {
    let path = session.required("cmd/Path")?;
    let mut argv = session.list("cmd/Args")?;
    match argv.first_mut() {
        Some(first) => first.clone_from(&path),
        None => argv.push(path.clone()),
    }
    if path.is_empty() {
        return Err(session.invalid("cmd/Path", &path, "the name of a program"));
    }
    let dir = session.text("cmd/Dir").filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".into());
    if !dir.starts_with('/') {
        return Err(session.invalid("cmd/Dir", &dir, "an absolute path"));
    }
    let user = session.text("User").unwrap_or_default();
    let group = session.text("Group").filter(|group| !group.is_empty());
    let stop_signal = session.text("stopSignal").filter(|signal| !signal.is_empty());
    Ok(Process {
        argv,
        env: Environment(session.list("cmd/Env")?),
        dir,
        user: match group {
            Some(group) => format!("{user}:{group}"),
            None => user,
        },
        terminal: match session.flag("tty", false)? {
            true => Some(session.size("ttysize")?),
            false => None,
        },
        stdin: session.flag("openstdin", false)?,
        attach: session.flag("attach", true)?,
        stop_signal: match stop_signal {
            None => SIGTERM,
            Some(text) => {
                signal_number(&text).ok_or_else(|| session.invalid("stopSignal", &text, "a signal's name or number"))?
            }
        },
    })
}

/// The Linux number of a signal by its number or its name, with or without `SIG`.
pub fn signal_number(text: &str) -> Option<u8> {
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(index) = SIGNALS.iter().position(|&known| known == name) {
        return u8::try_from(index + 1).ok();
    }
    let (base, distance): (u8, i8) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => (SIGRTMIN, if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse().ok()? }),
        (_, Some(rest)) => {
            (SIGRTMAX, if rest.is_empty() { 0 } else { format!("-{}", rest.strip_prefix('-')?).parse().ok()? })
        }
        (None, None) => return None,
    };
    base.checked_add_signed(distance).filter(|number| (SIGRTMIN..=SIGRTMAX).contains(number))
}

/// The real-time signals that programs can use, as docker and every C library on Linux count them: `signal(7)`.
const SIGRTMIN: u8 = 34;
const SIGRTMAX: u8 = 64;

/// Signal names in the order of their numbers, from 1: `signal(7)`, x86.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// The keys below a path.
struct Node<'a> {
    keys: &'a Dictionary,
    path: String,
}

impl Node<'_> {
    fn text(&self, key: &str) -> Option<String> {
        let value = self.keys.get(&format!("{}{key}", self.path))?;
        Some(if value == NIL { String::new() } else { value.to_owned() })
    }

    fn required(&self, key: &str) -> Result<String, SpecError> {
        self.text(key).ok_or_else(|| SpecError::Missing(format!("{}{key}", self.path)))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, SpecError> {
        match self.text(key).as_deref() {
            None => Ok(default),
            Some("" | "false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(self.invalid(key, other, "`true` or `false`")),
        }
    }

    fn list(&self, key: &str) -> Result<Vec<String>, SpecError> {
        if let Some(json) = self.text(&format!("{key}~json")) {
            return serde_json::from_str(&json)
                .map_err(|_| self.invalid(&format!("{key}~json"), &json, "a JSON array of strings"));
        }
        let Some(last) = self.text(key) else { return Ok(Vec::new()) };
        let count: usize = last.parse().map_err(|_| self.invalid(key, &last, "a number"))?;
        let elements = self.required(&format!("{key}~"))?;
        Ok(elements.split('|').take(count + 1).map(str::to_owned).collect())
    }

    /// The size of a terminal; 24x80 when the host did not say.
    fn size(&self, key: &str) -> Result<TermSize, SpecError> {
        let Some(text) = self.text(key) else { return Ok(TermSize { rows: 24, columns: 80 }) };
        text.split_once('x')
            .and_then(|(rows, columns)| Some(TermSize { rows: rows.parse().ok()?, columns: columns.parse().ok()? }))
            .ok_or_else(|| self.invalid(key, &text, "ROWSxCOLUMNS"))
    }

    fn invalid(&self, key: &str, value: &str, expected: &'static str) -> SpecError {
        // an environment holds secrets, a key is one, and this text is published
        let value = if key.starts_with("cmd/Env") || key == "link/key" { "..." } else { value };
        SpecError::Invalid { key: format!("{}{key}", self.path), value: value.into(), expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            id: "3f0c".into(),
            hostname: Some("web".into()),
            link: LinkSpec { device: LinkDevice::Virtio, key: LinkKey::new([0x5a; 32]), sealed: false, speed: 921_600 },
            log: Some(LogDevice::Virtio),
            hold: true,
            main: Process {
                argv: vec!["sh".into(), "-c".into(), "echo \"a\" | wc\n".into(), String::new()],
                env: Environment(vec!["PATH=/bin".into(), "NOTE=a|b".into()]),
                dir: "/srv".into(),
                user: "www:1000".into(),
                terminal: Some(TermSize { rows: 50, columns: 132 }),
                stdin: true,
                attach: false,
                stop_signal: 2,
            },
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
