//! VMware's GuestRPC: what a virtual machine says to its VMX, and what VMX says to it.
//!
//! Two services, each over one of two transports: RPCI (the guest asks) and TCLO (the host asks), over vsock or through the backdoor. What is said is decided by
//! their users: the keys in [`crate::guestinfo`], the toolbox in [`crate::toolbox`].

mod channel;
mod datamap;
mod rpci;
mod vsock;

use std::fmt;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use nix::sys::wait::{WaitStatus, waitpid};

use self::channel::{Access, Service, Wire};
use self::rpci::Ways;
use self::vsock::Vsock;
use crate::sys::backdoor::{Backdoor, Registers};
use crate::sys::spawn::{Stdio, run_in_child};

/// The guest asks: `info-get`, `info-set`, `SetGuestInfo`, `tools.*`.
pub trait Rpci: fmt::Debug {
    /// One request, whole, and the data of its reply. Requests have [`MOST_SENT`] bytes at most, replies [`MOST_RECEIVED`].
    fn call(&mut self, request: &[u8]) -> Result<Vec<u8>, RpcError>;

    /// A request that stops this machine, and whose reply only its copies have. It goes through the backdoor, where tools send theirs, and never a second time:
    /// a copy that asked again would stop as well. Afterwards nothing is open, for VMX of a copy knows of no channel.
    fn call_once(&mut self, request: &[u8]) -> Result<Vec<u8>, RpcError>;
}

/// The host asks: `ping`, `OS_Halt`, `Set_Option`.
pub trait Tclo: fmt::Debug {
    /// Answers the last question, or says with nothing that a guest is there.
    fn send(&mut self, answer: &[u8]) -> Result<(), RpcError>;

    /// The next question, if there is one.
    fn receive(&mut self) -> Result<Option<Vec<u8>>, RpcError>;
}

/// VMX takes no longer message (open-vm-tools, `GUESTMSG_MAX_IN_SIZE`).
pub const MOST_SENT: usize = 64 * 1024;
/// It sends none that is longer: 1 MiB and the two bytes before it (Broadcom, "In-Guest Communication Limits").
pub const MOST_RECEIVED: usize = (1 << 20) + 2;

/// Why VMX did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    #[error("this machine is not VMware's")]
    NotVmware,
    #[error("VMX opens no channel")]
    Open,
    #[error("VMX has closed the channel")]
    Closed,
    #[error("VMX powers the machine off")]
    PowersOff,
    #[error("VMX denies it: {0}")]
    Denied(String),
    #[error("VMX has no such value")]
    NoValue,
    #[error("{0} bytes are more than VMX takes or sends")]
    TooLarge(usize),
    #[error("VMX does not keep to the protocol: {0}")]
    Protocol(&'static str),
    #[error("VMX was interrupted again and again, by snapshots or migrations")]
    Interrupted,
    #[error("VMX does not answer")]
    Silent,
    #[error("VMX says: {0}")]
    Host(String),
    #[error("the vsock connection to VMX is lost")]
    Lost(#[source] io::Error),
    #[error("VMX cannot be reached: by vsock, {vsock}; through the backdoor, {backdoor}")]
    Unreachable { vsock: Box<RpcError>, backdoor: Box<RpcError> },
}

/// This machine is VMware's: its CPU says so. Nothing else is touched to know.
pub fn is_here() -> bool {
    Backdoor::detect().is_some()
}

/// RPCI, over the first transport that answers: vsock, which VMX trusts more, then the backdoor.
pub fn rpci() -> Result<Box<dyn Rpci>, RpcError> {
    let backdoor = Backdoor::detect().ok_or(RpcError::NotVmware)?;
    let wire = serves(backdoor).then(|| Box::new(Wire::new(Box::new(backdoor), Service::Rpci)) as Box<dyn Exchange>);
    Ok(Box::new(Ways::open(Box::new(Vsock::default()), wire)?))
}

/// TCLO, through the backdoor.
pub fn tclo() -> Result<Box<dyn Tclo>, RpcError> {
    let backdoor = Backdoor::detect().ok_or(RpcError::NotVmware)?;
    if !serves(backdoor) {
        return Err(RpcError::Open);
    }
    let mut wire = Wire::new(Box::new(backdoor), Service::Tclo);
    wire.connect()?;
    Ok(Box::new(wire))
}

/// A transport of RPCI.
trait Exchange: fmt::Debug {
    /// Makes the connection, if there is none.
    fn connect(&mut self) -> Result<(), RpcError>;
    /// One request and its reply, as they are. A connection that is lost is made once more.
    fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>, RpcError>;
    /// The same with nothing done twice. None for a transport that is not for such requests.
    fn exchange_once(&mut self, request: &[u8]) -> Option<Result<Vec<u8>, RpcError>>;
    /// What is open is so no more, and nobody is told.
    fn forget(&mut self);
}

impl Access for Backdoor {
    fn low(&mut self, asked: Registers) -> Registers {
        self.access(asked)
    }

    fn send(&mut self, asked: Registers, bytes: &[u8]) -> Registers {
        Backdoor::send(*self, asked, bytes)
    }

    fn receive(&mut self, asked: Registers, buffer: &mut [u8]) -> Registers {
        Backdoor::receive(*self, asked, buffer)
    }

    fn reaches_memory(&self) -> bool {
        Backdoor::reaches_memory(*self)
    }

    fn pause(&mut self) {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whether an access comes back. A hypervisor that only says that it is VMware's, and one whose guests' memory is encrypted, may end who tries, so that a child does,
/// once a boot.
fn serves(backdoor: Backdoor) -> bool {
    static SERVES: OnceLock<bool> = OnceLock::new();
    *SERVES.get_or_init(|| {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let stdio = Stdio::Streams { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
        let child = run_in_child(&stdio, &[], || i32::from(!backdoor.answers()));
        child.is_ok_and(|child| matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))))
    })
}

#[cfg(test)]
mod tests;
