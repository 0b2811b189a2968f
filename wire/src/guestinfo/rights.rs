//! The keys of what a process may do and use: capabilities, limits, a filter of system calls.

use super::node::{Node, Writer};
use super::{SpecError, amount, base64};
use crate::spec::{ALL_CAPABILITIES, Capabilities, DOCKERS_CAPABILITIES, Limit, Rights};

pub(super) fn read(session: &Node<'_>) -> Result<Rights, SpecError> {
    let bounding = match is_there(session, "capabilities/bounding") {
        true => capabilities(session, "capabilities/bounding")?,
        false => DOCKERS_CAPABILITIES,
    };
    let ambient = capabilities(session, "capabilities/ambient")?;
    if let Some(beyond) = names(ambient & !bounding).first() {
        let expected = "one of capabilities/bounding, which a process cannot have more than";
        return Err(session.invalid("capabilities/ambient", beyond, expected));
    }
    Ok(Rights {
        capabilities: Capabilities { bounding, ambient },
        no_new_privileges: session.flag("nonewprivileges", false)?,
        seccomp: session.parsed("seccomp", "the base64 of 1 to 4096 BPF instructions of 8 bytes", filter)?,
        limits: limits(session)?,
        oom_score: session
            .parsed("oomscore", "a number from -1000 to 1000", |text| {
                text.parse().ok().filter(|score| (-1000..=1000).contains(score))
            })?
            .unwrap_or_default(),
    })
}

pub(super) fn write(session: &mut Writer<'_>, rights: &Rights) {
    let Capabilities { bounding, ambient } = rights.capabilities;
    if bounding == 0 {
        // a list without elements has no keys, and those who say nothing get docker's
        session.set("capabilities/bounding~json", "[]");
    } else if bounding != DOCKERS_CAPABILITIES {
        session.list("capabilities/bounding", &names(bounding));
    }
    session.list("capabilities/ambient", &names(ambient));
    session.flag("nonewprivileges", rights.no_new_privileges);
    if let Some(filter) = &rights.seccomp {
        session.set("seccomp", &base64::encode(filter));
    }
    let bound = |bound: u64| if bound == u64::MAX { "unlimited".into() } else { bound.to_string() };
    let limit = |limit: &Limit| format!("{}={}:{}", limit_name(limit.resource), bound(limit.soft), bound(limit.hard));
    session.list("limits", &rights.limits.iter().map(limit).collect::<Vec<String>>());
    session.set("oomscore", &rights.oom_score.to_string());
}

/// A limit's name by its number.
pub fn limit_name(resource: u8) -> &'static str {
    name_of(LIMITS, resource)
}

/// A capability's name by its number.
pub fn capability_name(number: u8) -> &'static str {
    name_of(CAPABILITIES, number)
}

fn is_there(session: &Node<'_>, list: &str) -> bool {
    session.text(list).or_else(|| session.text(&format!("{list}~json"))).is_some()
}

fn capabilities(session: &Node<'_>, key: &str) -> Result<u64, SpecError> {
    let mut set = 0;
    for name in session.list(key)? {
        set |= capability(&name).ok_or_else(|| session.invalid(key, &name, "a capability of capabilities(7)"))?;
    }
    Ok(set)
}

/// `NET_ADMIN`, `cap_net_admin`, `ALL`.
fn capability(text: &str) -> Option<u64> {
    let name = text.to_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    match name {
        "ALL" => Some(ALL_CAPABILITIES),
        name => number_of(CAPABILITIES, name).map(|number| 1 << number),
    }
}

fn names(set: u64) -> Vec<String> {
    match set {
        ALL_CAPABILITIES => vec!["ALL".into()],
        _ => (0..41).filter(|number| set >> number & 1 == 1).map(|number| capability_name(number).into()).collect(),
    }
}

fn limits(session: &Node<'_>) -> Result<Vec<Limit>, SpecError> {
    let mut limits: Vec<Limit> = Vec::new();
    for text in session.list("limits")? {
        let expected = "a limit of getrlimit(2) as `nofile=1024:2048`, the soft one not above the hard one";
        let limit = limit(&text).ok_or_else(|| session.invalid("limits", &text, expected))?;
        if limits.iter().any(|other| other.resource == limit.resource) {
            return Err(session.invalid("limits", &text, "the only limit of its name"));
        }
        limits.push(limit);
    }
    Ok(limits)
}

/// `nofile=1024:2048`, `core=0`, `memlock=unlimited`, `cpu=60:-1`.
fn limit(text: &str) -> Option<Limit> {
    let bound = |text: &str| match text {
        "-1" | "unlimited" => Some(u64::MAX),
        _ => amount::number(text),
    };
    let (name, bounds) = text.split_once('=')?;
    let (soft, hard) = bounds.split_once(':').unwrap_or((bounds, bounds));
    let resource = number_of(LIMITS, &name.to_lowercase())?;
    let limit = Limit { resource, soft: bound(soft)?, hard: bound(hard)? };
    (limit.soft <= limit.hard).then_some(limit)
}

/// Of what seccomp(2) takes: `BPF_MAXINSNS`.
const MOST_INSTRUCTIONS: usize = 4096;

fn filter(text: &str) -> Option<Vec<u8>> {
    base64::decode(text)
        .filter(|bytes| bytes.len().is_multiple_of(8) && (1..=MOST_INSTRUCTIONS).contains(&(bytes.len() / 8)))
}

/// In the order of their numbers: capabilities(7), linux/capability.h.
const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE \
    SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL \
    SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";

/// In the order of their numbers: getrlimit(2), x86.
const LIMITS: &str =
    "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime";

/// The place of a name in such a list.
fn number_of(names: &str, name: &str) -> Option<u8> {
    u8::try_from(names.split(' ').position(|known| known == name)?).ok()
}

fn name_of(names: &'static str, number: u8) -> &'static str {
    names.split(' ').nth(number.into()).unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::super::{BASE, SpecError};
    use super::*;
    use crate::vmx::Dictionary;

    fn written(rights: &Rights) -> Dictionary {
        let mut keys = Dictionary::default();
        write(&mut Writer::new(&mut keys), rights);
        keys
    }

    fn from(keys: &[(&str, &str)]) -> Result<Rights, SpecError> {
        let mut dictionary = Dictionary::default();
        keys.iter().for_each(|(key, value)| dictionary.set(&format!("{BASE}/{key}"), *value));
        read(&Node { keys: &dictionary, path: format!("{BASE}/") })
    }

    fn read_back(rights: Rights) {
        let keys = written(&rights);
        assert_eq!(read(&Node { keys: &keys, path: format!("{BASE}/") }), Ok(rights));
    }

    #[test]
    fn every_capability_has_a_name_of_its_own() {
        for number in 0..41 {
            let bit = 1 << number;
            assert_eq!(capability(&names(bit)[0]), Some(bit));
            read_back(Rights { capabilities: Capabilities { bounding: bit, ambient: bit }, ..Rights::default() });
            let all_but_one = Capabilities { bounding: ALL_CAPABILITIES & !bit, ambient: 0 };
            read_back(Rights { capabilities: all_but_one, ..Rights::default() });
        }
        for (text, set) in [("cap_net_admin", 1 << 12), ("Net_Admin", 1 << 12), ("all", ALL_CAPABILITIES)] {
            assert_eq!(capability(text), Some(set));
        }
        for bounding in [0, ALL_CAPABILITIES, DOCKERS_CAPABILITIES] {
            read_back(Rights { capabilities: Capabilities { bounding, ambient: 0 }, ..Rights::default() });
        }
        let dockers = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT \
                       MKNOD AUDIT_WRITE SETFCAP";
        assert_eq!(names(DOCKERS_CAPABILITIES).join(" "), dockers);
        assert_eq!(from(&[]).unwrap(), Rights::default());
        assert_eq!(from(&[("capabilities/bounding~json", "[]")]).unwrap().capabilities.bounding, 0);
    }

    #[test]
    fn every_limit_has_a_name_of_its_own() {
        for resource in 0..16 {
            let limits = vec![Limit { resource, soft: 7, hard: u64::MAX }];
            read_back(Rights { limits, ..Rights::default() });
        }
        let all = (0..16).map(|resource| Limit { resource, soft: u64::from(resource), hard: 99 }).collect();
        read_back(Rights { limits: all, ..Rights::default() });
        for (text, resource, soft, hard) in [
            ("nofile=1024:2048", 7, 1024, 2048),
            ("core=0", 4, 0, 0),
            ("CPU=60:-1", 0, 60, u64::MAX),
            ("memlock=unlimited", 8, u64::MAX, u64::MAX),
        ] {
            assert_eq!(limit(text), Some(Limit { resource, soft, hard }), "{text}");
        }
        for text in
            ["", "nofile", "nofile=", "nofile=1:", "files=1", "nofile=2:1", "nofile=-1:5", "nofile=1:2:3", "core=-2"]
        {
            assert_eq!(limit(text), None, "{text:?}");
        }
    }

    #[test]
    fn filters_and_the_rest_survive() {
        let seccomp = Some((0..=255).collect());
        read_back(Rights { no_new_privileges: true, seccomp, oom_score: -1000, ..Rights::default() });
        read_back(Rights { oom_score: 1000, ..Rights::default() });
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |keys: &[(&str, &str)], expected: &str| {
            let reason = from(keys).unwrap_err().to_string();
            assert_eq!(reason, format!("guestinfo guestinfo.vice./{expected}"));
        };
        let expected = "capabilities/bounding: \"NET_ADMN\" is not a capability of capabilities(7)";
        check(&[("capabilities/bounding~json", "[\"NET_ADMN\"]")], expected);
        check(
            &[("capabilities/bounding~json", "[\"CHOWN\"]"), ("capabilities/ambient~json", "[\"SYS_TIME\"]")],
            "capabilities/ambient: \"SYS_TIME\" is not one of capabilities/bounding, which a process cannot have more than",
        );
        check(&[("limits", "1"), ("limits~", "core=1|core=2")], "limits: \"core=2\" is not the only limit of its name");
        check(
            &[("limits~json", "[\"nofile=2:1\"]")],
            "limits: \"nofile=2:1\" is not a limit of getrlimit(2) as `nofile=1024:2048`, the soft one not above the hard one",
        );
        for score in ["1001", "-1001", "high"] {
            check(&[("oomscore", score)], &format!("oomscore: \"{score}\" is not a number from -1000 to 1000"));
        }
        let too_long = base64::encode(&vec![0; 8 * 4097]);
        let shown = format!("{}...", "A".repeat(100));
        for (odd, shown) in [("?", "?"), ("AAAA", "AAAA"), (too_long.as_str(), shown.as_str())] {
            let expected = format!("seccomp: \"{shown}\" is not the base64 of 1 to 4096 BPF instructions of 8 bytes");
            check(&[("seccomp", odd)], &expected);
        }
        assert!(from(&[("seccomp", &base64::encode(&vec![0; 8 * 4096]))]).is_ok());
    }
}
