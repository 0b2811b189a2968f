//! What services say of themselves: datagrams on a unix socket, as sd_notify(3) sends them. The kernel tells who has sent each; only a service's own process is
//! believed, and what it sends otherwise is skipped.

use std::fs::{self, Permissions};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg, setsockopt, sockopt};
use nix::unistd::Pid;

use super::life::Notice;

/// The socket.
#[derive(Debug)]
pub(crate) struct Ear(UnixDatagram);

/// One datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) pid: Pid,
    pub(crate) notices: Vec<Notice>,
    /// `STATUS=`: a line for a person.
    pub(crate) status: Option<String>,
}

/// The longest datagram that is read; of a longer one the rest is dropped.
const LONGEST: usize = 4096;
/// The most characters of a status that are kept.
const STATUS: usize = 200;

impl Ear {
    /// Anybody may send: whose word counts is decided by who it is.
    pub(crate) fn open(path: &Path) -> io::Result<Ear> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o666))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(Ear(socket))
    }

    /// The next message, if there is one.
    pub(crate) fn next(&self) -> Option<Message> {
        loop {
            let mut buffer = [0; LONGEST];
            let mut pieces = [IoSliceMut::new(&mut buffer)];
            let mut space = nix::cmsg_space!(UnixCredentials);
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let received = recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut pieces, Some(&mut space), flags);
            let (length, sender) = match received {
                Ok(received) => {
                    let sender = received.cmsgs().into_iter().flatten().find_map(|message| match message {
                        ControlMessageOwned::ScmCredentials(credentials) => Some(Pid::from_raw(credentials.pid())),
                        _ => None,
                    });
                    (received.bytes, sender)
                }
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return None,
            };
            if let Some(pid) = sender {
                return Some(read(pid, &String::from_utf8_lossy(&buffer[..length])));
            }
        }
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Assignments, one a line; what is not known is skipped, as sd_notify(3) wants.
fn read(pid: Pid, text: &str) -> Message {
    let mut message = Message { pid, notices: Vec::new(), status: None };
    for line in text.lines() {
        match line {
            "READY=1" => message.notices.push(Notice::Ready),
            "WATCHDOG=1" => message.notices.push(Notice::Alive),
            "STOPPING=1" => message.notices.push(Notice::Stopping),
            _ => {
                let status = line.strip_prefix("STATUS=").map(|text| text.chars().take(STATUS).collect());
                message.status = status.or(message.status);
            }
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_is_told_by_the_kernel() {
        let path = std::env::temp_dir().join(format!("appliance-notify-{}", std::process::id()));
        let ear = Ear::open(&path).unwrap();
        assert_eq!(ear.next(), None);
        let mouth = UnixDatagram::unbound().unwrap();
        mouth.send_to(b"READY=1\nSTATUS=serves\nMAINPID=1\nWATCHDOG=1\n", &path).unwrap();
        mouth.send_to(b"READY=0\nnonsense\n\xff\nSTOPPING=1", &path).unwrap();
        mouth.send_to(b"", &path).unwrap();
        let own = Pid::this();
        let ready = vec![Notice::Ready, Notice::Alive];
        assert_eq!(ear.next(), Some(Message { pid: own, notices: ready, status: Some("serves".into()) }));
        assert_eq!(ear.next(), Some(Message { pid: own, notices: vec![Notice::Stopping], status: None }));
        assert_eq!(ear.next(), Some(Message { pid: own, notices: Vec::new(), status: None }));
        assert_eq!(ear.next(), None);
        // another one takes the place of what a crash left
        let again = Ear::open(&path).unwrap();
        mouth.send_to(b"WATCHDOG=1", &path).unwrap();
        assert_eq!(again.next().unwrap().notices, [Notice::Alive]);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_long_word_is_cut() {
        let message = read(Pid::from_raw(7), &format!("STATUS={}", "é".repeat(1000)));
        assert_eq!(message.status.unwrap().chars().count(), STATUS);
    }
}
