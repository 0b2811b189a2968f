//! The keys of the container's limits, and of what is told about it.

use core::net::{IpAddr, SocketAddr};

use super::node::{Node, Writer};
use super::{SpecError, amount};
use crate::spec::{Diagnostics, Level, Machine, SHM_SIZE, Spec, Syslog, Transport};

/// Less is too little for any process: docker's.
const LEAST_MEMORY: u64 = 6 << 20;
/// Less than 1 ms of 100 ms is no share that the kernel can give: its admin-guide/cgroup-v2.rst, `cpu.max`.
const LEAST_SHARE: u32 = 10;

pub(super) fn read_machine(root: &Node<'_>) -> Result<Machine, SpecError> {
    let above_0 = |number: &u64| *number > 0;
    let size = "a size above 0 as `67108864`, in bytes, or `64m`";
    let mut sysctls: Vec<(String, String)> = Vec::new();
    for text in root.list("machine/sysctls")? {
        let sysctl = sysctl(&text)
            .ok_or_else(|| root.invalid("machine/sysctls", &text, "a kernel parameter as `net.core.somaxconn=1024`"))?;
        if sysctls.iter().any(|(name, _)| *name == sysctl.0) {
            return Err(root.invalid("machine/sysctls", &text, "the only value of its parameter"));
        }
        sysctls.push(sysctl);
    }
    let mut machine = Machine { sysctls, ..Machine::default() };
    machine.memory =
        root.parsed("machine/memory", "a size of at least 6m as `268435456`, in bytes, or `256m`", |text| {
            amount::size(text).filter(|bytes| *bytes >= LEAST_MEMORY)
        })?;
    machine.cpus = root.parsed("machine/cpus", "a number of processors as `1.5`, at least 0.01", |text| {
        amount::thousandths(text).filter(|share| *share >= LEAST_SHARE)
    })?;
    machine.pids = root.parsed("machine/pids", "a number above 0", |text| amount::number(text).filter(above_0))?;
    let shm_size = root.parsed("machine/shm", size, |text| amount::size(text).filter(above_0))?;
    machine.shm_size = shm_size.unwrap_or(SHM_SIZE);
    machine.reclaim = root.flag("machine/reclaim", true)?;
    Ok(machine)
}

pub(crate) fn read_diagnostics(root: &Node<'_>) -> Result<Diagnostics, SpecError> {
    let level = root.parsed("diagnostics/debug", "`error`, `warn`, `info`, `debug` or `trace`", level)?;
    let network = root.parsed("diagnostics/syslog/Network", "`tcp` or `udp`", |text| match text {
        "tcp" => Some(Transport::Tcp),
        "udp" => Some(Transport::Udp),
        _ => None,
    })?;
    let server = root.parsed("diagnostics/syslog/RAddr", "an address and a port as `192.0.2.1:514`", server)?;
    let syslog = match (network, server) {
        (None, None) => None,
        (Some(transport), Some(server)) => Some(Syslog { transport, server }),
        (None, Some(_)) => return Err(root.missing("diagnostics/syslog/Network")),
        (Some(_), None) => return Err(root.missing("diagnostics/syslog/RAddr")),
    };
    Ok(Diagnostics { level: level.unwrap_or_default(), syslog })
}

pub(super) fn write(keys: &mut Writer<'_>, spec: &Spec) {
    let Machine { memory, cpus, pids, shm_size, sysctls, reclaim } = &spec.machine;
    if let Some(memory) = memory {
        keys.set("machine/memory", &memory.to_string());
    }
    if let Some(cpus) = cpus {
        keys.set("machine/cpus", &amount::thousandths_text(*cpus));
    }
    if let Some(pids) = pids {
        keys.set("machine/pids", &pids.to_string());
    }
    keys.set("machine/shm", &shm_size.to_string());
    let sysctls: Vec<String> = sysctls.iter().map(|(name, value)| format!("{name}={value}")).collect();
    keys.list("machine/sysctls", &sysctls);
    keys.flag("machine/reclaim", *reclaim);
    keys.set("diagnostics/debug", LEVELS[spec.diagnostics.level as usize]);
    if let Some(Syslog { transport, server }) = &spec.diagnostics.syslog {
        let network = match transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        keys.set("diagnostics/syslog/Network", network);
        keys.set("diagnostics/syslog/RAddr", &server.to_string());
    }
}

/// `NAME=VALUE`. A name is parts of a path below `/proc/sys`, and leads nowhere else.
fn sysctl(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let clean = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/@:".contains(&byte));
    let whole = name.split(['.', '/']).all(|part| !part.is_empty());
    (clean && whole && !value.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

/// In the order of [`Level`].
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Its name, or VIC's number: 0 is an ordinary day, 1 says more, and what is above says all.
fn level(text: &str) -> Option<Level> {
    match text {
        "error" => Some(Level::Error),
        "warn" => Some(Level::Warn),
        "info" | "0" => Some(Level::Info),
        "debug" | "1" => Some(Level::Debug),
        "trace" | "2" | "3" | "4" => Some(Level::Trace),
        _ => None,
    }
}

/// The port of RFC 5426 and RFC 6587 where none is named.
const SYSLOG_PORT: u16 = 514;

fn server(text: &str) -> Option<SocketAddr> {
    let alone = || text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, SYSLOG_PORT));
    text.parse().ok().filter(|server: &SocketAddr| server.port() > 0).or_else(alone)
}

#[cfg(test)]
mod tests {
    use super::super::BASE;
    use super::*;
    use crate::handshake::LinkKey;
    use crate::spec::{LinkDevice, LinkSpec, Process, SPEED};
    use crate::vmx::Dictionary;

    fn from(keys: &[(&str, &str)]) -> Result<(Machine, Diagnostics), SpecError> {
        let mut dictionary = Dictionary::default();
        keys.iter().for_each(|(key, value)| dictionary.set(&format!("{BASE}/{key}"), *value));
        let root = Node { keys: &dictionary, path: format!("{BASE}/") };
        Ok((read_machine(&root)?, read_diagnostics(&root)?))
    }

    fn read_back(machine: Machine, diagnostics: Diagnostics) {
        let link = LinkSpec { device: LinkDevice::Virtio, key: LinkKey::new([1; 32]), sealed: true, speed: SPEED };
        let spec = Spec::new("x", link, Process::new(vec!["true".into()]));
        let mut keys = Dictionary::default();
        let spec = Spec { machine: machine.clone(), diagnostics: diagnostics.clone(), ..spec };
        write(&mut Writer::new(&mut keys), &spec);
        let root = Node { keys: &keys, path: format!("{BASE}/") };
        assert_eq!((read_machine(&root), read_diagnostics(&root)), (Ok(machine), Ok(diagnostics)));
    }

    #[test]
    fn what_is_not_said_is_the_machines_own() {
        assert_eq!(from(&[]), Ok((Machine::default(), Diagnostics::default())));
    }

    #[test]
    fn limits_and_diagnostics_survive() {
        let machine = Machine {
            memory: Some(6 << 20),
            cpus: Some(1250),
            pids: Some(100),
            shm_size: 1,
            sysctls: vec![
                ("net.core.somaxconn".into(), "1024".into()),
                ("net.ipv4.ip_local_port_range".into(), "1024 60999".into()),
                ("kernel.core_pattern".into(), "a=b|c".into()),
            ],
            reclaim: false,
        };
        read_back(machine, Diagnostics::default());
        for level in [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace] {
            read_back(Machine::default(), Diagnostics { level, syslog: None });
        }
        for (transport, server) in [(Transport::Tcp, "192.0.2.1:601"), (Transport::Udp, "[2001:db8::1]:514")] {
            let syslog = Some(Syslog { transport, server: server.parse().unwrap() });
            read_back(Machine::default(), Diagnostics { syslog, ..Diagnostics::default() });
        }
    }

    #[test]
    fn vics_diagnostics_are_read() {
        for (text, expected) in
            [("0", Level::Info), ("1", Level::Debug), ("2", Level::Trace), ("3", Level::Trace), ("4", Level::Trace)]
        {
            assert_eq!(from(&[("diagnostics/debug", text)]).unwrap().1.level, expected);
        }
        let (_, diagnostics) =
            from(&[("diagnostics/syslog/Network", "udp"), ("diagnostics/syslog/RAddr", "192.0.2.1")]).unwrap();
        let server = "192.0.2.1:514".parse().unwrap();
        assert_eq!(diagnostics.syslog, Some(Syslog { transport: Transport::Udp, server }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |key: &str, value: &str, expected: &str| {
            let reason = from(&[(key, value)]).unwrap_err().to_string();
            assert_eq!(reason, format!("guestinfo guestinfo.vice./{key}: {value:?} is not {expected}"));
        };
        for odd in ["5m", "-1", "much"] {
            check("machine/memory", odd, "a size of at least 6m as `268435456`, in bytes, or `256m`");
        }
        for odd in ["0", "0.009", "two", "-1"] {
            check("machine/cpus", odd, "a number of processors as `1.5`, at least 0.01");
        }
        for odd in ["0", "-1", "many"] {
            check("machine/pids", odd, "a number above 0");
        }
        check("machine/shm", "0", "a size above 0 as `67108864`, in bytes, or `64m`");
        check("machine/reclaim", "maybe", "`true` or `false`");
        check("diagnostics/debug", "5", "`error`, `warn`, `info`, `debug` or `trace`");
        check("diagnostics/syslog/Network", "tls", "`tcp` or `udp`");
        for odd in ["loghost:514", "192.0.2.1:0", "192.0.2.1:x"] {
            check("diagnostics/syslog/RAddr", odd, "an address and a port as `192.0.2.1:514`");
        }
        for odd in ["net.core", "=1", "net..core=1", "net/../x=1", "../x=1", "a b=1", "a=", ".a=1"] {
            let reason = from(&[("machine/sysctls", "0"), ("machine/sysctls~", odd)]).unwrap_err().to_string();
            assert!(
                reason.ends_with(&format!("{odd:?} is not a kernel parameter as `net.core.somaxconn=1024`")),
                "{reason}"
            );
        }
        let twice = [("machine/sysctls", "1"), ("machine/sysctls~", "vm.swappiness=1|vm.swappiness=2")];
        assert!(from(&twice).unwrap_err().to_string().ends_with("is not the only value of its parameter"));
        let missing = |key: &str| format!("guestinfo has no guestinfo.vice./diagnostics/syslog/{key}");
        let reason = |key, value| from(&[(key, value)]).unwrap_err().to_string();
        assert_eq!(reason("diagnostics/syslog/Network", "tcp"), missing("RAddr"));
        assert_eq!(reason("diagnostics/syslog/RAddr", "192.0.2.1"), missing("Network"));
    }
}
