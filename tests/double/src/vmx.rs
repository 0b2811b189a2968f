//! The state of one VMX, and its answers: channels, guestinfo, what tools have told, and the questions that it asks. Pure.
//!
//! What registers mean is in `backdoor`, how a message crosses in pieces in `channel`, what a request says in `rpci`, who asks next in `tclo`.

mod backdoor;
mod channel;
mod rpci;
mod tclo;
mod told;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

pub use backdoor::{MAGIC, PORT_HIGH, PORT_LOW};
pub use told::Told;

use channel::Channel;

/// The 32-bit halves of the registers that an access to the backdoor carries, there and back. `buffer` is RSI of `outsb` and RDI of `insb`, of which ESI or EDI
/// then says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
    pub esi: u32,
    pub edi: u32,
    pub ebp: u32,
    pub buffer: u64,
}

/// Which way high bandwidth goes, as the guest sees it: `rep outsb` or `rep insb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Out,
    In,
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
    /// A checkpoint happens in the transfer of this number, counted from one; and in each multiple of it. A transfer is a payload of low or high bandwidth, or
    /// the acknowledgement of one: where open-vm-tools expects a checkpoint (`lib/message/message.c`).
    pub checkpoint_every: Option<u32>,
    /// One checkpoint, in the transfer of this number.
    pub checkpoint_at: Option<u32>,
    /// In the transfer of this number all channels are gone, as after a resumption.
    pub forgets_at: Option<u32>,
    /// `guest_rpc.rpci.auth.cmd.info-get` and `-set`: only who is privileged may.
    pub authenticate: bool,
    /// Nothing is ever answered: no OPEN succeeds.
    pub deaf: bool,
    /// Requests are served, and no reply is ever ready.
    pub silent: bool,
    /// Replies to RPCI say that they have at least this many bytes. What they lack is spaces.
    pub swollen: Option<u32>,
    /// Of each reply over vsock so many bytes come, and then nothing more: the connection is gone.
    pub cut_at: Option<usize>,
    /// A clone's VMX knows the channels of the template, and has answered what was asked on them.
    pub keeps_channels: bool,
    /// `SetGuestInfo` takes no NIC information of version 3 in slot 10, as hosts before it.
    pub no_nic_v3: bool,
}

/// One VMX.
#[derive(Debug, Default)]
pub struct Vmx {
    pub faults: Faults,
    /// Keys, in lower case, without `guestinfo.`'s being taken off.
    pub guestinfo: BTreeMap<String, Vec<u8>>,
    /// What it will ask over TCLO, the next first.
    pub questions: VecDeque<Vec<u8>>,
    /// The question that a guest has taken, and not yet answered.
    pub asked: Option<Vec<u8>>,
    /// What the guest has answered to each, and what it sent with nothing asked.
    pub answers: Vec<Vec<u8>>,
    /// How often it said with nothing, over TCLO, that it is there.
    pub signs_of_life: u64,
    /// Every RPCI request as it came.
    pub requests: Vec<Vec<u8>>,
    /// What was wrong with what the guest sent over vsock: it was hung up on.
    pub complaints: Vec<String>,
    /// What tools have told of the guest.
    pub told: Told,
    /// What it says the time is, since 1970: its host's, unless a test has another.
    pub time: Option<Duration>,
    /// The guest has asked for being cloned, and does nothing until it is: `instantclone.freeze`.
    frozen: bool,
    /// Which keys the guest has set: only these count for what it may keep.
    set_by_guest: BTreeSet<String>,
    channels: BTreeMap<u16, Channel>,
    /// How many channels were ever opened: each has cookies of its own.
    opened: u32,
    /// How many transfers there were.
    transfers: u32,
}

impl Vmx {
    /// With these keys, as the host's administrator sets them: any key, slashes too.
    pub fn with(keys: &[(&str, &str)]) -> Vmx {
        let mut vmx = Vmx::default();
        keys.iter().for_each(|(key, value)| vmx.put(key, *value));
        vmx
    }

    /// Sets a key as the host's administrator does: any key, of any case.
    pub fn put(&mut self, key: &str, value: impl Into<Vec<u8>>) {
        self.guestinfo.insert(key.to_ascii_lowercase(), value.into());
    }

    /// How many channels are open through the backdoor.
    pub fn open_channels(&self) -> usize {
        self.channels.len()
    }

    /// The guest waits for being cloned.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// The guest goes on as a clone, with the keys that it has now. Who has been told of its channels is another VMX.
    pub fn clone_guest(&mut self) {
        self.frozen = false;
        self.set_by_guest.clear();
        if !self.faults.keeps_channels {
            self.channels.clear();
            self.hang_up();
        }
    }

    /// How many transfers there were: what the numbers in [`Faults`] count.
    pub fn transfers(&self) -> u32 {
        self.transfers
    }

    /// How many bytes a reply of so many is said to have.
    pub fn said(&self, length: usize) -> u32 {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        length.max(self.faults.swollen.unwrap_or(0))
    }
}

/// Keeps a guest that is frozen where it is: whoever brings its accesses here calls it before the guest goes on.
pub fn hold(vmx: &Mutex<Vmx>) {
    while vmx.lock().unwrap_or_else(PoisonError::into_inner).is_frozen() {
        thread::sleep(Duration::from_millis(1));
    }
}
