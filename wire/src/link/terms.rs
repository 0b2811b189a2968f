//! What the user of a link says and hears: which end it is, how the pipe is, what happened, why it is over.

use crate::handshake::LinkKey;
use crate::packet::{ChannelId, ResetReason};

/// Which end this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// In the VM: says hello.
    Guest {
        /// The VM's id, from its spec.
        vm: String,
        /// Drawn anew at each boot.
        boot: [u8; 16],
    },
    /// On the other side: answers the VM of this id and refuses others.
    Host {
        /// The VM's id, from its spec.
        vm: String,
    },
}

/// What keeps strangers out.
#[derive(Clone, Debug)]
pub struct Security {
    /// Both ends have it: guestinfo carries it to the guest.
    pub key: LinkKey,
    /// Seal every packet. A pipe that crosses a network needs it. Where the pipe ends in the host's own kernel, which can read the guest's memory anyway, it
    /// is enough to prove once who speaks. Both ends must agree.
    pub sealed: bool,
    /// 32 bytes from the system's generator, fresh for each link.
    pub seed: [u8; 32],
}

/// What depends on the pipe.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Bytes that the peer may send ahead of our reading, on each channel.
    pub window: u32,
    /// The longest payload of a data packet: how long an urgent byte waits for a bulk frame.
    pub payload: usize,
}

impl Tuning {
    /// A pipe that copies memory: virtio-serial, vsock, unix sockets. A frame fits in the 32 KiB that Linux's virtio-serial takes in one write.
    pub const FAST: Tuning = Tuning { window: 1024 * 1024, payload: 32_000 };
    /// A line with a baud rate: 1 KiB takes 90 ms at 115200.
    pub const SERIAL: Tuning = Tuning { window: 64 * 1024, payload: 1024 };
}

/// What the application has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer has answered; sent again after each cut.
    Opened {
        /// The guest's boot; on a guest, its own.
        boot: [u8; 16],
    },
    /// A message, still encoded: see [`crate::message`].
    Message(Vec<u8>),
    /// The channel has bytes to read or has come to its end.
    Readable(ChannelId),
    /// The peer has received or taken bytes of the channel: there may be room again.
    Writable(ChannelId),
    /// The peer does not want the rest of what we send. With `NoSuchChannel` it has no such channel, or no more: nothing will come from it either, and
    /// what is readable is all.
    Reset(ChannelId, ResetReason),
    /// The host says that it does not want this guest, and why. Nothing proves that it was the host: the guest goes on asking. It comes at most once
    /// on each pipe; the text has at most [`MAX_REFUSAL`](super::MAX_REFUSAL) characters, and no control characters.
    Refused(String),
    /// The link is over for good.
    Closed(Closed),
}

/// Why a link is over for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The VM has started anew: what was under way is lost.
    #[error("the virtual machine restarted")]
    Restarted,
    /// The guest has gone on with another host that has the key: this one has missed bytes.
    #[error("another host has taken the virtual machine's link over")]
    TakenOver,
    /// The peer broke the protocol in a way that cannot be mended.
    #[error("the peer broke the protocol: {0}")]
    Violation(&'static str),
}
