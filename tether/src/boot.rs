//! The boot, as a list of steps that can be read aloud. Each is required: one that fails ends it.
//!
//! Until the link's device is open, a failure goes to the console; from then on it goes to the host as well.

use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;

use guest::cgroup::Cgroup;
use guest::clock;
use guest::disks::{self, DiskError};
use guest::events::Signals;
use guest::guestinfo::{self, StoreError};
use guest::log::Log;
use guest::mounts::{self, MountError};
use guest::pipe::{Pipe, PipeError};
use guest::power_button::PowerButton;
use guest::sys::net;
use wire::guestinfo::SpecError;
use wire::message::Ready;
use wire::spec::{ROOT_LABEL, Spec};
use wire::status::{Failure, FailureKind};

use crate::line::Line;

/// How long the root disk may take to appear. Disks that are there at power-on are found at once.
const DISK_BOUND: Duration = Duration::from_secs(5);
/// Where the root is until it is the root.
const NEW_ROOT: &str = "/newroot";
/// Open files of the container, as docker sets them.
const OPEN_FILES: u64 = 1_048_576;

/// A machine that is ready to run its process, or knows why it cannot.
pub(crate) struct Machine {
    pub(crate) signals: Signals,
    pub(crate) spec: Spec,
    pub(crate) line: Line,
    /// None where none is asked for.
    pub(crate) log: Option<Log>,
    /// Not every machine has one.
    pub(crate) button: Option<PowerButton>,
    /// Of the container's processes.
    pub(crate) cgroup: Cgroup,
    pub(crate) root: Result<Ready, Failure>,
}

/// Why there is nobody to tell but the console.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("cannot wait for events")]
    Events(#[from] io::Error),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Guestinfo(#[from] StoreError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Pipe(#[from] PipeError),
}

/// Boots, up to the point where the process can run.
pub(crate) fn boot(signals: io::Result<Signals>) -> Result<Machine, BootError> {
    let init_us = clock::micros(clock::now());
    let signals = signals?;
    mounts::early()?;
    let spec = wire::guestinfo::read(&guestinfo::read()?)?;
    let mut line = Line::new(&spec, Pipe::open(spec.link.device, spec.link.speed)?, boot_id()?, seed()?);
    let button = PowerButton::open();
    let link_us = clock::micros(clock::now());
    // the hello travels while the disk is mounted
    line.transmit();
    // while its device can be seen: a container has a /dev of its own
    let (log, opened) = match spec.log.map(Log::open).transpose() {
        Ok(log) => (log, Ok(())),
        Err(error) => (None, Err(failure(FailureKind::Machine, &error))),
    };
    let mut cgroup = Cgroup::default();
    let root = opened.and_then(|()| prepare_root(&spec, &mut cgroup)).map(|()| Ready {
        version: env!("CARGO_PKG_VERSION").into(),
        boot: boot_id().unwrap_or_default(),
        init_us,
        link_us,
        ready_us: clock::micros(clock::now()),
    });
    Ok(Machine { signals, spec, line, log, button, cgroup, root })
}

fn prepare_root(spec: &Spec, cgroup: &mut Cgroup) -> Result<(), Failure> {
    let root = Path::new(NEW_ROOT);
    *cgroup = Cgroup::create().map_err(|error| machine("cannot make the container's control group", &error))?;
    let disk = disks::find(ROOT_LABEL, DISK_BOUND).map_err(disk_failure)?;
    mounts::disk(&disk, root).map_err(disk_failure)?;
    mounts::container(root).map_err(machine_failure)?;
    set_hostname(spec, root)?;
    net::loopback_up().map_err(|error| machine("cannot take the loopback interface up", &error))?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
        .map_err(|errno| machine("cannot set the limit of open files", &errno))?;
    mounts::switch_root(root).map_err(machine_failure)
}

fn set_hostname(spec: &Spec, root: &Path) -> Result<(), Failure> {
    let short_id = || spec.id.chars().take(12).collect();
    let name = spec.hostname.clone().unwrap_or_else(short_id);
    nix::unistd::sethostname(&name).map_err(|errno| machine(&format!("cannot name the host {name:?}"), &errno))?;
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n127.0.1.1\t{name}\n"
    );
    mounts::cover_file(root, "etc/hostname", &format!("{name}\n")).map_err(machine_failure)?;
    mounts::cover_file(root, "etc/hosts", &hosts).map_err(machine_failure)
}

/// 16 bytes that the kernel drew for this boot: random(4).
fn boot_id() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: Vec<u32> = text.chars().filter_map(|char| char.to_digit(16)).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(pair[0] * 16 + pair[1]).unwrap_or_default();
    }
    Ok(id)
}

/// Randomness for the link's keys. It waits until the kernel's generator is seeded: random(4).
fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    io::Read::read_exact(&mut std::fs::File::open("/dev/random")?, &mut seed)?;
    Ok(seed)
}

/// An error and its causes, outermost first.
pub(crate) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = String> + 'a {
    std::iter::successors(Some(error), |&error| error.source()).map(ToString::to_string)
}

fn failure(kind: FailureKind, error: &(dyn Error + 'static)) -> Failure {
    let texts: Vec<String> = chain(error).collect();
    Failure { kind, reason: texts.join(": ") }
}

fn disk_failure(error: impl Into<RootError>) -> Failure {
    failure(FailureKind::Disk, &error.into())
}

fn machine_failure(error: MountError) -> Failure {
    failure(FailureKind::Machine, &error)
}

fn machine(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Machine, reason: format!("{what}: {error}") }
}

#[derive(Debug, thiserror::Error)]
enum RootError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Mount(#[from] MountError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_the_whole_chain() {
        let source = io::Error::from_raw_os_error(nix::libc::EINVAL);
        let error = MountError::Mount { what: "/dev/vda".into(), on: "/newroot".into(), source };
        assert_eq!(disk_failure(error).reason, "cannot mount /dev/vda on /newroot: Invalid argument (os error 22)");
    }
}
