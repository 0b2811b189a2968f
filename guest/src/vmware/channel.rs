//! Messages over the backdoor: what each access says, and what its answer must be. Which instruction makes it: [`crate::sys::backdoor`].
//!
//! ```text
//! OPEN -> channel, cookies          SENDSIZE n, payload …           RECVSIZE -> n, payload …, RECVSTATUS          CLOSE
//! ```
//!
//! A payload goes in one access (high bandwidth), where VMX says that it can, or in four bytes each. An interruption (a snapshot, a migration) begins the whole message
//! again. A channel that VMX has forgotten is opened again, once for each exchange. Source: open-vm-tools, lib/message/message.c; OpenBSD, sys/dev/pv/vmt.c.

use std::fmt;

use super::{Exchange, MOST_RECEIVED, MOST_SENT, RpcError, Tclo};
use crate::sys::backdoor::Registers;

/// One access to the backdoor, in one of its ways.
pub(super) trait Access: fmt::Debug {
    fn low(&mut self, asked: Registers) -> Registers;
    /// High bandwidth, out.
    fn send(&mut self, asked: Registers, bytes: &[u8]) -> Registers;
    /// High bandwidth, in.
    fn receive(&mut self, asked: Registers, buffer: &mut [u8]) -> Registers;
    /// High bandwidth is of use.
    fn reaches_memory(&self) -> bool;
    /// A host that has no answer yet gets some time: [`PAUSES`] of these at most for one.
    fn pause(&mut self);
}

/// Pauses for one answer.
const PAUSES: usize = 10;
/// So often is one message begun again.
const INTERRUPTIONS: usize = 8;

/// Who answers at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// "RPCI"
    Rpci = 0x4943_5052,
    /// "TCLO"
    Tclo = 0x4f4c_4354,
}

/// With it VMX gives out cookies: a program that knows the number of another's channel cannot use it.
const WITH_COOKIES: u32 = 0x8000_0000;
/// The command of all messages.
const MESSAGE: u32 = 30;

/// Sub-commands.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open = 0,
    SendSize = 1,
    SendPayload = 2,
    ReceiveSize = 3,
    ReceivePayload = 4,
    ReceiveStatus = 5,
    Close = 6,
}

/// Bits of a status.
const SUCCESS: u32 = 1;
const HAS_MESSAGE: u32 = 2;
const CHECKPOINT: u32 = 0x10;
const POWER_OFF: u32 = 0x20;
const TIMEOUT: u32 = 0x40;
const HIGH_BANDWIDTH: u32 = 0x80;

/// What VMX sends, in the high half of EDX: a size, a payload.
const SIZE: u32 = 1;
const PAYLOAD: u32 = 2;

/// A service over the backdoor. Its channel is opened when it is needed.
#[derive(Debug)]
pub(super) struct Wire {
    access: Box<dyn Access>,
    service: Service,
    channel: Option<Channel>,
}

impl Wire {
    pub(super) fn new(access: Box<dyn Access>, service: Service) -> Wire {
        Wire { access, service, channel: None }
    }

    /// Does something on the channel; if that is broken, once more on a new one.
    fn exchange<T>(&mut self, with: &dyn Fn(&mut dyn Access, Channel) -> Result<T, RpcError>) -> Result<T, RpcError> {
        match self.attempt(with) {
            Err(RpcError::Closed | RpcError::Protocol(_)) => self.attempt(with),
            other => other,
        }
    }

    fn attempt<T>(&mut self, with: &dyn Fn(&mut dyn Access, Channel) -> Result<T, RpcError>) -> Result<T, RpcError> {
        let channel = self.open()?;
        // whatever is left of a message that failed is nobody's
        with(self.access.as_mut(), channel).inspect_err(|_| self.close())
    }

    fn open(&mut self) -> Result<Channel, RpcError> {
        if let Some(channel) = self.channel {
            return Ok(channel);
        }
        let access = self.access.as_mut();
        let channel = Channel::open(access, self.service as u32 | WITH_COOKIES)
            .or_else(|_| Channel::open(access, self.service as u32))?;
        Ok(*self.channel.insert(channel))
    }

    fn close(&mut self) {
        if let Some(channel) = self.channel.take() {
            // one that is not open needs no closing
            channel.ask(self.access.as_mut(), Step::Close, 0);
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.close();
    }
}

impl Exchange for Wire {
    fn connect(&mut self) -> Result<(), RpcError> {
        self.open().map(drop)
    }

    fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>, RpcError> {
        Wire::exchange(self, &|access, channel| {
            channel.send(access, request)?;
            channel.await_reply(access)
        })
    }

    /// Not even an interruption has it sent again: the copy of a machine may be told of one.
    fn exchange_once(&mut self, request: &[u8]) -> Option<Result<Vec<u8>, RpcError>> {
        Some(self.attempt(&|access, channel| {
            channel.try_to_send(access, request)?;
            channel.await_reply(access)
        }))
    }

    fn forget(&mut self) {
        self.channel = None;
    }
}

impl Tclo for Wire {
    fn send(&mut self, answer: &[u8]) -> Result<(), RpcError> {
        if answer.len() > MOST_SENT {
            return Err(RpcError::TooLarge(answer.len()));
        }
        Wire::exchange(self, &|access, channel| channel.send(access, answer))
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>, RpcError> {
        Wire::exchange(self, &|access, channel| channel.receive(access))
    }
}

/// An open channel.
#[derive(Clone, Copy, Debug)]
struct Channel {
    number: u32,
    /// ESI and EDI of each low access.
    cookies: [u32; 2],
}

impl Channel {
    fn open(access: &mut dyn Access, magic: u32) -> Result<Channel, RpcError> {
        let asked = Registers { ebx: magic, ecx: MESSAGE | (Step::Open as u32) << 16, ..Registers::default() };
        let answer = access.low(asked);
        if answer.ecx >> 16 & SUCCESS == 0 {
            return Err(RpcError::Open);
        }
        let cookies = if magic & WITH_COOKIES == 0 { [0; 2] } else { [answer.esi, answer.edi] };
        Ok(Channel { number: answer.edx >> 16, cookies })
    }

    fn ask(self, access: &mut dyn Access, step: Step, ebx: u32) -> Registers {
        let [esi, edi] = self.cookies;
        access.low(Registers { ebx, ecx: MESSAGE | (step as u32) << 16, edx: self.number << 16, esi, edi, ebp: 0 })
    }

    /// High bandwidth: the place of one cookie is the buffer's, and EBP has it. Out they are in this order, in the other in.
    fn bulk(self, esi: u32, edi: u32, ebp: u32) -> Registers {
        Registers { ebx: SUCCESS << 16, ecx: 0, edx: self.number << 16, esi, edi, ebp }
    }

    /// One message, whole.
    fn send(self, access: &mut dyn Access, message: &[u8]) -> Result<(), RpcError> {
        uninterrupted(|| self.try_to_send(access, message))
    }

    fn try_to_send(self, access: &mut dyn Access, message: &[u8]) -> Result<(), RpcError> {
        let length = u32::try_from(message.len()).map_err(|_| RpcError::TooLarge(message.len()))?;
        let status = succeeded(self.ask(access, Step::SendSize, length).ecx)?;
        if message.is_empty() {
            return Ok(());
        }
        let [high, low] = self.cookies;
        if status & HIGH_BANDWIDTH != 0 && access.reaches_memory() {
            return succeeded(access.send(self.bulk(0, low, high), message).ebx).map(drop);
        }
        for bytes in message.chunks(4) {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            succeeded(self.ask(access, Step::SendPayload, u32::from_le_bytes(word)).ecx)?;
        }
        Ok(())
    }

    fn await_reply(self, access: &mut dyn Access) -> Result<Vec<u8>, RpcError> {
        for _ in 0..PAUSES {
            if let Some(reply) = self.receive(access)? {
                return Ok(reply);
            }
            access.pause();
        }
        Err(RpcError::Silent)
    }

    /// One message, whole, if there is one.
    fn receive(self, access: &mut dyn Access) -> Result<Option<Vec<u8>>, RpcError> {
        uninterrupted(|| self.try_to_receive(access))
    }

    fn try_to_receive(self, access: &mut dyn Access) -> Result<Option<Vec<u8>>, RpcError> {
        let answer = self.ask(access, Step::ReceiveSize, 0);
        let status = succeeded(answer.ecx)?;
        if status & HAS_MESSAGE == 0 {
            return Ok(None);
        }
        if answer.edx >> 16 != SIZE {
            return Err(RpcError::Protocol("a message does not begin with its size"));
        }
        let length = answer.ebx as usize;
        if length > MOST_RECEIVED {
            return Err(RpcError::TooLarge(length));
        }
        let mut message = vec![0; length];
        let [high, low] = self.cookies;
        if status & HIGH_BANDWIDTH != 0 && access.reaches_memory() && length > 0 {
            succeeded(access.receive(self.bulk(high, 0, low), &mut message).ebx)?;
        } else {
            for bytes in message.chunks_mut(4) {
                let answer = self.ask(access, Step::ReceivePayload, SUCCESS);
                succeeded(answer.ecx)?;
                if answer.edx >> 16 != PAYLOAD {
                    return Err(RpcError::Protocol("a message is shorter than its size"));
                }
                bytes.copy_from_slice(&answer.ebx.to_le_bytes()[..bytes.len()]);
            }
        }
        succeeded(self.ask(access, Step::ReceiveStatus, SUCCESS).ecx)?;
        Ok(Some(message))
    }
}

/// Begins again as long as only an interruption was in the way.
fn uninterrupted<T>(mut attempt: impl FnMut() -> Result<T, RpcError>) -> Result<T, RpcError> {
    for _ in 0..INTERRUPTIONS {
        match attempt() {
            Err(RpcError::Interrupted) => {}
            other => return other,
        }
    }
    Err(RpcError::Interrupted)
}

/// The status in the high half of a register, of an access that did what it was asked.
fn succeeded(register: u32) -> Result<u32, RpcError> {
    match register >> 16 {
        status if status & SUCCESS != 0 => Ok(status),
        status if status & CHECKPOINT != 0 => Err(RpcError::Interrupted),
        status if status & POWER_OFF != 0 => Err(RpcError::PowersOff),
        status if status & TIMEOUT != 0 => Err(RpcError::Silent),
        _ => Err(RpcError::Closed),
    }
}

#[cfg(test)]
mod tests;
