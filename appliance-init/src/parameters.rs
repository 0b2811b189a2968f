//! The kernel's parameters of the appliance's networks: what a machine that serves several of them, and may pass packets on, does not believe and does not say.
//!
//! Source: Linux, Documentation/networking/ip-sysctl.rst. The values are those of VIC's appliance but for ECN, which it turned off for routers that have gone.

use std::fs;
use std::io;

use guest::{say, sysctl};
use wire::appliance::{ApplianceSpec, Role};
use wire::status::Failure;

use crate::boot::machine;

/// Without these the appliance would be open to what its firewall does not see.
const ALWAYS: [(&str, &str); 2] = [("net/ipv4/tcp_syncookies", "1"), ("net/ipv4/ip_dynaddr", "2")];

/// Of every interface, those that come included: nobody's redirects are believed or sent, nobody chooses a packet's way, and a sender must be where it is said
/// to be.
const EACH: [(&str, &str, &str); 7] = [
    ("ipv4", "accept_redirects", "0"),
    ("ipv4", "secure_redirects", "0"),
    ("ipv4", "send_redirects", "0"),
    ("ipv4", "accept_source_route", "0"),
    ("ipv4", "rp_filter", "1"),
    ("ipv6", "accept_redirects", "0"),
    ("ipv6", "accept_source_route", "0"),
];

/// Sets them, before a card is up.
pub(crate) fn set(spec: &ApplianceSpec) -> Result<(), Failure> {
    sysctl::open().map_err(|error| machine("cannot set the kernel's parameters", &error))?;
    let bridge = spec.networks.iter().any(|network| network.roles.contains(&Role::Bridge));
    // first: it sets others to what a router, or a host, usually has
    put("net/ipv4/ip_forward", if bridge { "1" } else { "0" })?;
    ALWAYS.iter().try_for_each(|(name, value)| put(name, value))?;
    for (version, name, value) in EACH {
        for interface in interfaces(version) {
            put(&format!("net/{version}/conf/{interface}/{name}"), value)?;
        }
    }
    Ok(())
}

/// Answers to what comes in at another interface may leave through the one that leads to the world: its senders need only be somewhere.
pub(crate) fn loosen(interface: &str) {
    if let Err(failure) = put(&format!("net/ipv4/conf/{interface}/rp_filter"), "2") {
        say!(Warn, "{failure}");
    }
}

/// And `all` and `default`. A kernel without a version of IP has none.
fn interfaces(version: &str) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/sys/net/{version}/conf")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// A parameter that this kernel does not have needs no setting.
fn put(name: &str, value: &str) -> Result<(), Failure> {
    match sysctl::set(name, value) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(machine(&format!("cannot set the kernel's parameter {name} to {value}"), &error))
        }
        _ => Ok(()),
    }
}
