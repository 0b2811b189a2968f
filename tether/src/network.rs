//! The container's networks: what its spec says of them, and its root's files that say who is who. How a network is set up and kept: [`guest::net::networks`].

use std::fs::File;
use std::io;
use std::path::Path;

use guest::net::networks::{HostName, Networks, NetworksError};
use guest::net::stack::Stack;
use guest::net::{card, firewall};
use guest::{image, mounts, vmware};
use wire::spec::Spec;
use wire::status::{Failure, FailureKind};

use crate::boot::failure;
use crate::root::{NEW_ROOT, mount_failure};

const FILES: [&str; 2] = ["etc/hosts", "etc/resolv.conf"];

/// None yet. Those that come are guarded as the spec says that they are trusted.
pub(crate) fn none() -> io::Result<Networks> {
    Networks::new(Box::new(firewall::set))
}

/// Gives a clone's cards the hardware addresses that are its own. VMware's have them, and are to say so.
pub(crate) fn adopt(addresses: &[([u8; 6], [u8; 6])]) -> io::Result<()> {
    let is_vmware = vmware::is_here();
    if addresses.is_empty() && !is_vmware {
        return Ok(());
    }
    let mut stack = Stack::open()?;
    if is_vmware {
        card::renew(&mut stack)?;
    }
    Ok(card::adopt(&mut stack, addresses)?)
}

/// Takes the interfaces up, and writes who is who.
pub(crate) fn set_up(networks: &mut Networks, spec: &Spec) -> Result<(), Failure> {
    let short_id = || spec.id.chars().take(12).collect();
    let name: String = spec.hostname.clone().unwrap_or_else(short_id);
    networks.set_up(HostName { name, domain: spec.domain.clone() }, &spec.names, &spec.networks).map_err(failed)?;
    cover(networks)
}

/// Nothing of it is the container's fault.
pub(crate) fn failed(error: NetworksError) -> Failure {
    failure(FailureKind::Machine, &error)
}

/// Covers the image's files. What they hold can change later.
fn cover(networks: &mut Networks) -> Result<(), Failure> {
    let root = Path::new(NEW_ROOT);
    let image = FILES.map(|path| image::text(root, path));
    mounts::cover_file(root, "etc/hostname", &format!("{}\n", networks.host_name())).map_err(mount_failure)?;
    for (path, text) in FILES.into_iter().zip(networks.texts(&image)) {
        mounts::cover_file(root, path, &text).map_err(mount_failure)?;
    }
    let open = |path| File::options().write(true).open(mounts::covering(path));
    let [hosts, resolv] = FILES.map(open);
    if let Ok(files) = hosts.and_then(|hosts| Ok([hosts, resolv?])) {
        networks.keep(files, image);
    }
    Ok(())
}
