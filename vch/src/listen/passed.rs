//! Sockets that who started us has opened, by the protocol of sd_listen_fds(3): they are numbered from 3 up, and the environment says how many there are.

use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, getsockname, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::host::FIRST_PASSED;

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Passed {
    Unix(OwnedFd),
    Tcp(OwnedFd),
}

/// More were never seen, and a number is no reason to try two thousand million descriptors.
const MOST: i32 = 64;

/// Those that were passed to us, or the one with that number.
pub(super) fn sockets(only: Option<i32>) -> Result<Vec<Passed>> {
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let ours = variable("LISTEN_PID") == Some(getpid().as_raw_nonzero().get());
    let count = variable("LISTEN_FDS").filter(|_| ours).unwrap_or(0).clamp(0, MOST);
    let numbers = FIRST_PASSED..FIRST_PASSED + count;
    let wanted: Vec<i32> = numbers.clone().filter(|number| only.is_none_or(|only| only == *number)).collect();
    match only {
        _ if !wanted.is_empty() => wanted.into_iter().map(socket).collect(),
        Some(number) if count > 0 => bail!("fd://{number}: the sockets that were passed are {numbers:?}"),
        _ => bail!("fd://: no sockets were passed: let a systemd socket unit start this, or name a path or an address"),
    }
}

/// A descriptor by its number alone can be anybody's: the kernel hands out one of our own for it.
fn socket(number: i32) -> Result<Passed> {
    let own = pidfd_open(getpid(), PidfdFlags::empty()).context("fd://: this kernel has no pidfd_open (Linux 5.3)")?;
    let socket = pidfd_getfd(own, number, PidfdGetfdFlags::empty())
        .with_context(|| format!("fd://{number}: cannot take it (pidfd_getfd, Linux 5.6)"))?;
    kind(socket).with_context(|| format!("fd://{number}"))
}

fn kind(socket: OwnedFd) -> Result<Passed> {
    let listens = sockopt::socket_acceptconn(&socket).context("it is no socket")?;
    if !listens {
        bail!("it is a socket that does not listen");
    }
    match family(&socket)? {
        AddressFamily::UNIX => Ok(Passed::Unix(socket)),
        AddressFamily::INET | AddressFamily::INET6 => Ok(Passed::Tcp(socket)),
        other => bail!("it is a socket of address family {}: unix and TCP are served", other.as_raw()),
    }
}

fn family(socket: &OwnedFd) -> Result<AddressFamily> {
    let socket: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(socket);
    Ok(getsockname(socket).context("it has no address")?.address_family())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_taken_by_its_number_and_known_by_its_family() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let Passed::Tcp(taken) = socket(tcp.as_raw_fd()).unwrap() else { panic!("it is TCP") };
        let taken = TcpListener::from(taken);
        assert_eq!(taken.local_addr().unwrap(), tcp.local_addr().unwrap());
        let connected = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let error = format!("{:#}", socket(connected.as_raw_fd()).unwrap_err());
        assert!(error.contains("does not listen"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(matches!(socket(unix.as_raw_fd()).unwrap(), Passed::Unix(_)));
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = format!("{:#}", socket(file.as_raw_fd()).unwrap_err());
        assert!(error.contains("is no socket"), "{error}");
    }

    #[test]
    fn nothing_was_passed_to_a_test() {
        let error = sockets(None).unwrap_err().to_string();
        assert!(error.contains("no sockets were passed"), "{error}");
    }
}
