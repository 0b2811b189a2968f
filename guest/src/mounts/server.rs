//! A file server's directory: nfs(5). Who mounts or unmounts one is held up for as long as its server does not answer, so a child does it, and is killed
//! when its time is up.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{chroot, pipe2};
use wire::spec::Mount;

use super::{MountError, seed, volume};
use crate::clock;
use crate::sys::mount::{Context, NO_ATIME, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};
use crate::sys::spawn::{Stdio, run_in_child};

/// How long a server may take to answer, the question for its address included.
const ANSWER: Duration = Duration::from_secs(20);
/// How long it may take to take what is still to be written, when the machine powers off.
const FAREWELL: Duration = Duration::from_secs(5);
/// What the child says when the server has answered; what comes after it is a reason.
const ANSWERED: u8 = b'+';

/// Mounts a file server's directory. Its name is asked for in the container's own way, from its `/etc`.
pub fn server(host: &str, path: &str, options: &str, mount: &Mount, root: &Path) -> Result<(), MountError> {
    let failed =
        |reason: String| MountError::Server { name: mount.name.clone(), host: host.into(), path: path.into(), reason };
    let said = bounded(ANSWER, || {
        // the current directory stays what it is
        chroot(root).map_err(|errno| errno.to_string())?;
        let mounted = ask(host, path, options, mount.read_only)?;
        io::stdout().write_all(&[ANSWERED]).and_then(|()| io::stdout().flush()).map_err(|error| error.to_string())?;
        put(mounted, mount).map_err(|error| error.to_string())
    });
    match said {
        Ok(None) => Ok(()),
        Ok(Some(reason)) => Err(failed(reason)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(failed(format!("the file server does not answer within {} s", ANSWER.as_secs())))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Unmounts one. A server that takes nothing any more loses what was still to be written to it.
pub(super) fn unmount(on: &str) -> bool {
    let unmounted = bounded(FAREWELL, || umount2(on, MntFlags::empty()).map_err(|errno| errno.to_string()));
    matches!(unmounted, Ok(None)) || umount2(on, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).is_ok()
}

/// Has a child do some work, which must be done, or have said so far that it has been answered, before a time is up. What went wrong in it, if anything did.
fn bounded(bound: Duration, work: impl FnOnce() -> Result<(), String>) -> io::Result<Option<String>> {
    let (report, out) = pipe2(OFlag::O_CLOEXEC)?;
    let (stdin, stderr) = (io::stdin(), io::stderr());
    let stdio = Stdio::Streams { stdin: stdin.as_fd(), stdout: out.as_fd(), stderr: stderr.as_fd() };
    let run = || match work() {
        Ok(()) => 0,
        Err(reason) => {
            let _told = io::stdout().write_all(reason.as_bytes()).and_then(|()| io::stdout().flush());
            1
        }
    };
    let child = run_in_child(&stdio, &[], run).map_err(|failed| failed.error)?;
    drop(out);
    let mut report = File::from(report);
    let deadline = clock::now() + bound;
    let first = loop {
        let left = deadline.saturating_sub(clock::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(report.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => {
                // one that waits for a server dies of this, and of nothing else
                let _gone = kill(child, Signal::SIGKILL);
                break Err(io::ErrorKind::TimedOut.into());
            }
            Err(Errno::EINTR) => {}
            Err(errno) => break Err(errno.into()),
            Ok(_) => break Ok(()),
        }
    };
    let mut text = Vec::new();
    let read = first.and_then(|()| report.read_to_end(&mut text));
    let _reaped = waitpid(child, None);
    read?;
    let text = String::from_utf8_lossy(text.strip_prefix(&[ANSWERED]).unwrap_or(&text)).into_owned();
    Ok((!text.is_empty()).then_some(text))
}

/// Every address of the server, until one answers.
fn ask(host: &str, path: &str, options: &str, read_only: bool) -> Result<OwnedFd, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (bare, 0).to_socket_addrs().map_err(|error| format!("its address cannot be found: {error}"))?;
    let mut reason = "its name has no address".to_owned();
    for address in addresses {
        match mount(host, path, address.ip(), options, read_only) {
            Ok(mounted) => return Ok(mounted),
            Err(why) => reason = why,
        }
    }
    Err(reason)
}

fn mount(host: &str, path: &str, address: IpAddr, options: &str, read_only: bool) -> Result<OwnedFd, String> {
    let is_version = |option: &str| option.starts_with("vers=") || option.starts_with("nfsvers=");
    // the newest that the server has, where nobody says otherwise
    let versions: &[&str] = match options.split(',').any(is_version) {
        true => &[""],
        false => &["vers=4.2", "vers=4.1", "vers=4.0"],
    };
    let mut reason = String::new();
    for version in versions {
        let address = address.to_string();
        match make(&format!("{host}:{path}"), &address, options.split(',').chain([*version]), read_only) {
            Err((Errno::EPROTONOSUPPORT, why)) => reason = why,
            other => return other.map_err(|(_, why)| why),
        }
    }
    Err(reason)
}

/// What an option of mount(8) is for the kernel.
enum Meaning<'a> {
    /// For user space, or what is so anyhow.
    Nothing,
    Attribute(u32),
    Flag(&'a str),
    Value(&'a str, &'a str),
}

fn meaning(option: &str) -> Meaning<'_> {
    match option {
        "" | "defaults" | "auto" | "noauto" | "_netdev" | "nofail" | "suid" | "dev" | "exec" | "atime" | "relatime" => {
            Meaning::Nothing
        }
        "nosuid" => Meaning::Attribute(NO_SUID),
        "nodev" => Meaning::Attribute(NO_DEV),
        "noexec" => Meaning::Attribute(NO_EXEC),
        "noatime" => Meaning::Attribute(NO_ATIME),
        option => match option.split_once('=') {
            // ours is the one that answers
            Some(("addr", _)) => Meaning::Nothing,
            Some((key, value)) => Meaning::Value(key, value),
            None => Meaning::Flag(option),
        },
    }
}

fn make<'a>(
    source: &str,
    address: &str,
    options: impl Iterator<Item = &'a str>,
    read_only: bool,
) -> Result<OwnedFd, (Errno, String)> {
    let text = |text: &str| CString::new(text).map_err(|_| Errno::EINVAL);
    let context = Context::open(c"nfs").map_err(|errno| (errno, errno.to_string()))?;
    let mut attributes = if read_only { READ_ONLY } else { 0 };
    let mut at = String::new();
    let configure = || {
        context.set(c"source", &text(source)?)?;
        context.set(c"addr", &text(address)?)?;
        for option in options {
            option.clone_into(&mut at);
            match meaning(option) {
                Meaning::Nothing => {}
                Meaning::Attribute(attribute) => attributes |= attribute,
                Meaning::Flag(key) => context.flag(&text(key)?)?,
                Meaning::Value(key, value) => context.set(&text(key)?, &text(value)?)?,
            }
        }
        at.clear();
        context.create(attributes)
    };
    configure().map_err(|errno| {
        let said = context.said().map_or(String::new(), |said| format!(" ({said})"));
        let option = if at.is_empty() { String::new() } else { format!("the option {at:?}: ") };
        (errno, format!("{option}{}{said}", io::Error::from(errno)))
    })
}

/// In the child, for which the container's root is `/`.
fn put(mounted: OwnedFd, mount: &Mount) -> Result<(), MountError> {
    let root = Path::new("/");
    let at_volume = |errno: Errno| MountError::Look { name: mount.name.clone(), source: errno.into() };
    if mount.seed && !mount.read_only {
        let top = volume::top_of(mounted.as_fd()).map_err(at_volume)?;
        if seed::is_due(&top).map_err(at_volume)? {
            volume::fill(mounted.as_fd(), mount, root)?;
        }
    }
    volume::attach(mounted, mount, root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_or_fails_or_is_too_late() {
        let bound = Duration::from_secs(60);
        assert_eq!(bounded(bound, || Ok(())).unwrap(), None);
        assert_eq!(bounded(bound, || Err("no".into())).unwrap(), Some("no".into()));
        let late = bounded(Duration::from_millis(10), || {
            nix::unistd::pause();
            Ok(())
        });
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
