//! The state of one VMX, and its answers: channels, guestinfo, what tools have told, and the questions that it asks. Pure.

use std::collections::{BTreeMap, VecDeque};

/// The 32-bit halves of the registers that an access to the backdoor carries, there and back. `buffer` is RSI of `outsb` and RDI of `insb`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
    pub esi: u32,
    pub edi: u32,
    pub ebp: u32,
}

/// The guest's memory, for high bandwidth.
pub trait Memory {
    /// False where it cannot be read.
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool;
    /// False where it cannot be written.
    fn write(&mut self, address: u64, bytes: &[u8]) -> bool;
}

/// Who asks: the backdoor, and vsock from a port above 1023, have no privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Unprivileged,
    Privileged,
}

/// What a test wants to go wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub no_high_bandwidth: bool,
    pub no_cookies: bool,
    /// A checkpoint happens in the transfer of this number, counted from one; and in each multiple of it.
    pub checkpoint_every: Option<u32>,
    /// `guest_rpc.rpci.auth.cmd.info-get` and `-set`: only who is privileged may.
    pub authenticate: bool,
    /// Nothing is ever answered: no OPEN succeeds.
    pub deaf: bool,
}

/// One VMX.
#[derive(Debug, Default)]
pub struct Vmx {
    pub faults: Faults,
    /// Keys, in lower case, without `guestinfo.`'s being taken off.
    pub guestinfo: BTreeMap<String, Vec<u8>>,
    /// What it will ask over TCLO, the next first.
    pub questions: VecDeque<Vec<u8>>,
    /// What the guest has answered to each, or sent with nothing asked.
    pub answers: Vec<Vec<u8>>,
    /// Every RPCI request as it came.
    pub requests: Vec<Vec<u8>>,
}
