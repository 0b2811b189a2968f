//! What the appliance is asked to be: [`ApplianceSpec`], and its keys, which lie below `guestinfo.vice./init/`, where vSphere Integrated Containers had them.
//!
//! ```text
//! networks   cards and their roles      docker     the API's port, and who may use it
//! pem        certificates and keys
//! ```
//!
//! It decides what is read and refused, and what holds where nothing is said. `docs/appliance.md` lists the keys. What becomes of them is appliance-init's.

mod docker;
#[cfg(test)]
mod document;
mod networks;
mod pem;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::BTreeMap;

pub use docker::{Docker, Tls};
pub use networks::{Network, Role};
pub use pem::Pem;

use crate::guestinfo::node::Node;
use crate::guestinfo::{BASE, Keys, SpecError, amount, machine, network, packed, process};
use crate::handshake::MasterKey;
use crate::spec::{Diagnostics, Names, Process};

/// What the appliance is asked to be. What its host says nothing about is as [`ApplianceSpec::default`] has it: links are taken, and no API is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplianceSpec {
    /// The host name; none is `vch`.
    pub hostname: Option<String>,
    /// What comes behind the host name and a dot.
    pub domain: Option<String>,
    /// Every role but [`Role::Bridge`] is one network's. Empty: the first card is asked for by DHCP and has every role but that.
    pub networks: Vec<Network>,
    /// `/etc/hosts` and resolv.conf(5).
    pub names: Names,
    /// The Docker API over TCP. Without it there is the appliance's own socket only.
    pub docker: Option<Docker>,
    /// Where links of containerVMs are taken.
    pub links: Links,
    /// The port of the status page; none: there is no page.
    pub status: Option<u16>,
    /// Nothing is served without the data disk; else the state is in memory then.
    pub require_data: bool,
    /// What is kept of what programs write.
    pub logs: LogLimits,
    /// Programs that run beside `vch`, by name.
    pub services: BTreeMap<String, Process>,
    /// How long `vch` may say nothing before it is taken for hung.
    pub watchdog: Duration,
    /// A shell on the console, where the medium has one.
    pub console: bool,
    /// What is told about what happens inside, and where.
    pub diagnostics: Diagnostics,
}

/// The label of the data disk: an ext4 file system.
pub const DATA_LABEL: &str = "vchdata";

/// Where links are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// The TCP port of raw links, such as QEMU's and ESXi's `tcp://` serial ports.
    pub raw: Option<u16>,
    /// The TCP port of VMware's virtual serial port concentrators.
    pub concentrator: Option<u16>,
    /// Links over vsock are taken too, at [`crate::spec::VSOCK_PORT`].
    pub vsock: bool,
    /// What every link's key follows from; none: `vch` draws one, and keeps it where its state is.
    pub key: Option<MasterKey>,
}

/// How much is kept of what programs write, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Of one service, in its newest file.
    pub size: u64,
    /// Older files of each service, each at most as long.
    pub files: u8,
    /// Of one container's output; none: `vch` decides.
    pub output: Option<u64>,
}

impl Default for ApplianceSpec {
    fn default() -> ApplianceSpec {
        ApplianceSpec {
            hostname: None,
            domain: None,
            networks: Vec::new(),
            names: Names::default(),
            docker: None,
            links: Links { raw: Some(LINK_PORT), concentrator: Some(CONCENTRATOR_PORT), vsock: false, key: None },
            status: Some(STATUS_PORT),
            require_data: false,
            logs: LogLimits { size: LOG_SIZE, files: LOG_FILES, output: None },
            services: BTreeMap::new(),
            watchdog: WATCHDOG,
            console: false,
            diagnostics: Diagnostics::default(),
        }
    }
}

impl ApplianceSpec {
    /// The TCP ports that whoever is on a network of that role may reach: clients the API and the status page; hosts of containerVMs, and who manages the
    /// appliance, the links and the status page; others nothing.
    pub fn ports(&self, role: Role) -> Vec<u16> {
        let docker = self.docker.as_ref().map(|docker| docker.port);
        let ports = match role {
            Role::Client => [docker, self.status, None],
            Role::Management => [self.links.raw, self.links.concentrator, self.status],
            Role::Public | Role::Bridge => [None; 3],
        };
        ports.into_iter().flatten().collect()
    }
}

/// That of VIC's attach server as containerVMs' serial ports reach it.
const LINK_PORT: u16 = 8080;
/// VIC's.
const CONCENTRATOR_PORT: u16 = 2377;
/// VIC's, of `vicadmin`.
const STATUS_PORT: u16 = 2378;
/// A machine of 128 MiB keeps its logs in memory: three files of a service are 3 MiB.
const LOG_SIZE: u64 = 1 << 20;
const LOG_FILES: u8 = 2;
/// Much longer than anything that a program may do between two waits, on a machine that is starved, too.
const WATCHDOG: Duration = Duration::from_secs(30);
/// A file that is shorter would be replaced with every few lines.
const LEAST_LOG: u64 = 4096;

/// Reads what the appliance is asked to be: from the one value that holds it whole, `init/spec`, if there is one, else from its keys. No key is required.
pub fn read(keys: &dyn Keys) -> Result<ApplianceSpec, SpecError> {
    match packed::read(&root(keys))? {
        Some(packed) => read_keys(&root(&packed)),
        None => read_keys(&root(keys)),
    }
}

fn root(keys: &dyn Keys) -> Node<'_> {
    Node { keys, path: format!("{BASE}/init/") }
}

fn read_keys(root: &Node<'_>) -> Result<ApplianceSpec, SpecError> {
    let usual = ApplianceSpec::default();
    let mut services = BTreeMap::new();
    for name in root.names("sessions")? {
        if !is_name(&name) || name == "vch" {
            return Err(root.invalid("sessions", &name, "a name of letters, digits, `_` and `-`, other than `vch`"));
        }
        let service = process::read(&root.below(&format!("sessions|{name}")))?;
        services.insert(name, service);
    }
    let size = |key: &str| {
        root.parsed(key, "a size of at least 4k as `1048576`, in bytes, or `1m`", |text| {
            amount::size(text).filter(|bytes| *bytes >= LEAST_LOG)
        })
    };
    let files = root.parsed("log/files", "a number from 0 to 99", |text| {
        amount::number(text).and_then(|files| u8::try_from(files).ok()).filter(|files| *files < 100)
    })?;
    let watchdog = root.parsed("watchdog", "a time of at least a second as `30`, in seconds, or `1m30s`", |text| {
        amount::time(text).filter(|time| *time >= Duration::from_secs(1))
    })?;
    let key = root.parsed("link/key", "64 hexadecimal digits", MasterKey::from_hex)?;
    let spec = ApplianceSpec {
        hostname: root.filled("hostname"),
        domain: root.filled("domainname"),
        networks: networks::read(root)?,
        names: network::read_names(root)?,
        docker: docker::read(root)?,
        links: Links {
            raw: port(root, "link/port", usual.links.raw)?,
            concentrator: port(root, "vspc/port", usual.links.concentrator)?,
            vsock: root.flag("link/vsock", usual.links.vsock)?,
            key,
        },
        status: port(root, "status/port", usual.status)?,
        require_data: root.flag("data/required", usual.require_data)?,
        logs: LogLimits {
            size: size("log/size")?.unwrap_or(usual.logs.size),
            files: files.unwrap_or(usual.logs.files),
            output: size("log/output")?,
        },
        services,
        watchdog: watchdog.unwrap_or(usual.watchdog),
        console: root.flag("debug/console", usual.console)?,
        diagnostics: machine::read_diagnostics(root)?,
    };
    check_ports(root, &spec)?;
    Ok(spec)
}

/// A port; 0 is none.
fn port(root: &Node<'_>, key: &str, usual: Option<u16>) -> Result<Option<u16>, SpecError> {
    let given = root.parsed(key, "a port from 1 to 65535, or 0 for none", port_number)?;
    Ok(given.map_or(usual, |port| Some(port).filter(|port| *port > 0)))
}

fn port_number(text: &str) -> Option<u16> {
    amount::number(text).and_then(|port| port.try_into().ok())
}

fn check_ports(root: &Node<'_>, spec: &ApplianceSpec) -> Result<(), SpecError> {
    let docker = spec.docker.as_ref().map(|docker| docker.port);
    let ports = [
        ("docker/port", docker),
        ("link/port", spec.links.raw),
        ("vspc/port", spec.links.concentrator),
        ("status/port", spec.status),
    ];
    for (at, (key, port)) in ports.iter().enumerate() {
        if let Some(port) = port
            && ports[..at].iter().any(|(_, other)| *other == Some(*port))
        {
            return Err(root.invalid(key, &port.to_string(), "free: another service of the appliance has this port"));
        }
    }
    Ok(())
}

/// It names files.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}
