//! The contract between a containerVM and its host, and nothing else.
//!
//! ```text
//! guestinfo   Spec <-> keys and values: what the host asks of the VM before it runs
//! spec        the parsed request          status   what the VM tells about itself
//! appliance   the same for the appliance: what its host asks of it
//!
//! message     requests, replies, events   codec    their bytes (bincode)
//! link        the connection machine: greeting, resumption, who sends next
//! channel     one numbered byte stream with absolute offsets and credit
//! packet      what a frame's body says    frame    COBS, checksum, noise
//! handshake   who has the key: Noise, and sealed packets
//! log         entries of a session's output   vitals   what a container does and uses
//! ```
//!
//! This crate does no I/O, reads no clock, draws no random number, starts no thread and has no unsafe code: bytes
//! and time are arguments, and the same crate runs at both ends of the line. `docs/protocol.md` is its normative text.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod appliance;
pub mod channel;
pub mod codec;
pub mod frame;
pub mod guestinfo;
pub mod handshake;
pub mod link;
pub mod log;
pub mod message;
pub mod packet;
pub mod spec;
pub mod status;
pub mod vitals;
pub mod vmx;
