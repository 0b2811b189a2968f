//! The container's networks and names.

use std::path::Path;

use guest::mounts;
use guest::net::link;
use wire::spec::Spec;
use wire::status::Failure;

use crate::boot::machine;
use crate::root::{NEW_ROOT, mount_failure};

/// Takes the interfaces up, and writes who is who.
pub(crate) fn set_up(spec: &Spec) -> Result<(), Failure> {
    set_hostname(spec, Path::new(NEW_ROOT))?;
    link::loopback_up().map_err(|error| machine("cannot take the loopback interface up", &error))
}

fn set_hostname(spec: &Spec, root: &Path) -> Result<(), Failure> {
    let short_id = || spec.id.chars().take(12).collect();
    let name = spec.hostname.clone().unwrap_or_else(short_id);
    nix::unistd::sethostname(&name).map_err(|errno| machine(&format!("cannot name the host {name:?}"), &errno))?;
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n127.0.1.1\t{name}\n"
    );
    mounts::cover_file(root, "etc/hostname", &format!("{name}\n")).map_err(mount_failure)?;
    mounts::cover_file(root, "etc/hosts", &hosts).map_err(mount_failure)
}
