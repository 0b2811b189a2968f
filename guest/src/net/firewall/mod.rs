//! The firewall: who reaches the container and whom it reaches, as the trust levels of its networks say. Which network is at which interface: the caller's
//! decision, and so is when.
//!
//! ```text
//! rules     what the levels mean, as rules that can be read and tried without a kernel
//! gateway   the same for a machine that passes packets on: the appliance
//! message   the rules as the kernel takes them: nf_tables over netlink
//! ```
//!
//! Nobody but a process with `CAP_NET_ADMIN` can change what is set.

mod gateway;
mod message;
mod rules;
#[cfg(test)]
mod tests;

use std::fs;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use wire::spec::Endpoint;

pub use self::gateway::{Leads, Side};
use self::rules::Rule;
use super::netlink::{NetlinkError, Socket};

/// A firewall that is not as it was to be. One that was set before stays.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// It was built without it.
    #[error("cannot set the firewall: this kernel has no nf_tables (it needs CONFIG_NF_TABLES_INET)")]
    Missing,
    /// The first thing that it says no to, counted from 0.
    #[error("cannot set the firewall: the kernel refuses request {index} of {count}: {source}")]
    Refused { index: usize, count: usize, source: NetlinkError },
}

/// Sets the rules for these networks, each with the name of its interface, in the place of those that were set before: all of them or none, and with no
/// moment in between. Connections stay as far as the new rules let them. What belongs to none of the interfaces is dropped, but for the loopback.
///
/// An interface need not be there yet: call it before one is taken up. Networks that share an interface share what any of them lets through.
pub fn set(networks: &[(&str, &Endpoint)]) -> Result<(), FirewallError> {
    replace(&rules::rules(networks))
}

/// The same for a machine that passes packets on from some of its sides to others.
pub fn set_gateway(sides: &[Side<'_>]) -> Result<(), FirewallError> {
    replace(&gateway::rules(sides).0)
}

fn replace(rules: &[Rule<'_>]) -> Result<(), FirewallError> {
    let requests = message::replacement(rules);
    let count = requests.len();
    let refused = |source: NetlinkError| match source.errno {
        // without netfilter's netlink, and without this part of it
        Errno::EPROTONOSUPPORT | Errno::EOPNOTSUPP => FirewallError::Missing,
        _ => FirewallError::Refused { index: source.index, count, source },
    };
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).map_err(|errno| refused(errno.into()))?;
    socket.transact(message::SUBSYSTEM, requests).map_err(refused)?;
    track_enough();
    Ok(())
}

/// Has the kernel remember more connections than it would in a small machine: 16 thousand and not 2 thousand in 256 MiB, for a service whose clients come and go
/// keeps each for two minutes, and one too many is dropped. With more than 1 GiB the kernel's own bound is as high. One takes about 300 bytes.
///
/// Linux, Documentation/networking/nf_conntrack-sysctl.rst. A kernel that has no such file tracks nothing.
fn track_enough() {
    let number = |name: &str| fs::read_to_string(format!("{CONNECTIONS}_{name}")).ok()?.trim_end().parse::<u32>().ok();
    if let (Some(buckets), Some(most)) = (number("buckets"), number("max")) {
        let wanted = buckets.saturating_mul(8).min(65_536);
        if wanted > most {
            // an error leaves the kernel's bound, with which the firewall is as tight
            fs::write(format!("{CONNECTIONS}_max"), wanted.to_string()).ok();
        }
    }
}

const CONNECTIONS: &str = "/proc/sys/net/netfilter/nf_conntrack";
