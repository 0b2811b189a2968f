//! VMware's GuestRPC: what a virtual machine says to its VMX, and what VMX says to it.
//!
//! Two services, each over one of two transports: RPCI (the guest asks) and TCLO (the host asks), over vsock or through the backdoor. What is said is decided by
//! their users: the keys in [`crate::guestinfo`], the toolbox in [`crate::toolbox`].

use std::fmt;

/// The guest asks: `info-get`, `info-set`, `SetGuestInfo`, `tools.*`.
pub trait Rpci: fmt::Debug {
    /// One request, whole, and the data of its reply. Requests have [`MOST_SENT`] bytes at most, replies [`MOST_RECEIVED`].
    fn call(&mut self, request: &[u8]) -> Result<Vec<u8>, RpcError>;
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
    Lost(#[source] std::io::Error),
}
