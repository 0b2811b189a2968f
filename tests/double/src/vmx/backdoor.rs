//! What the registers of an access to the backdoor mean, and what they hold after it. Ports or hypercalls: they carry the same.
//!
//! Sources: open-vm-tools, `lib/include/backdoor_def.h`, `lib/include/guest_msg_def.h`; Linux, arch/x86/include/asm/vmware.h; OpenBSD, sys/dev/pv/vmt.c, for what
//! it insists on: the low half of ECX is zero after a message, that of EDX after an OPEN.
//!
//! ```text
//! low    EAX magic, EBX argument, ECX command | kind << 16, EDX port | channel << 16, ESI and EDI cookies   ->  ECX status << 16
//! out    EAX magic, EBX 0x10000, ECX length, EDX port | channel << 16, buffer RSI, EBP and EDI cookies      ->  EBX status << 16
//! in     EAX magic, EBX 0x10000, ECX length, EDX port | channel << 16, buffer RDI, ESI and EBP cookies      ->  EBX status << 16
//! ```

use std::time::{SystemTime, UNIX_EPOCH};

use super::channel::{Channel, Service};
use super::{Direction, Faults, Memory, Origin, Registers, Vmx};

/// In EAX of each access: "VMXh".
pub const MAGIC: u32 = 0x564d_5868;
/// In DX: a few bytes in registers.
pub const PORT_LOW: u16 = 0x5658;
/// In DX: a buffer.
pub const PORT_HIGH: u16 = 0x5659;

const GETVERSION: u32 = 10;
const MESSAGE: u32 = 30;
const GETTIMEFULL: u32 = 46;
/// What GETVERSION says: the version that all have, and ESX.
const VERSION: u32 = 6;
const PRODUCT: u32 = 2;
/// EAX where nobody answers.
const NOBODY: u32 = u32::MAX;

const OPEN: u32 = 0;
const SEND_SIZE: u32 = 1;
const SEND_PAYLOAD: u32 = 2;
const RECEIVE_SIZE: u32 = 3;
const RECEIVE_PAYLOAD: u32 = 4;
const RECEIVE_STATUS: u32 = 5;
const CLOSE: u32 = 6;

const RPCI: u32 = 0x4943_5052;
const TCLO: u32 = 0x4f4c_4354;
const WITH_COOKIES: u32 = 0x8000_0000;

/// What a guest is told of each access, in the high half of ECX or EBX. Failure has no bit.
const FAILURE: u32 = 0;
const SUCCESS: u32 = 0x01;
const MESSAGE_WAITS: u32 = 0x02;
const CLOSED: u32 = 0x04;
const CHECKPOINT: u32 = 0x10;
const HIGH_BANDWIDTH: u32 = 0x80;

/// In the high half of EDX: which piece of a message to the guest this is.
const IS_SIZE: u32 = 1 << 16;
const IS_PAYLOAD: u32 = 2 << 16;

/// Channels are 0 to 127.
const MOST_CHANNELS: u16 = 128;
/// `GUESTMSG_MAX_IN_SIZE`, in bytes.
const MOST_SENT: u32 = 64 * 1024;

impl Vmx {
    /// One access of low bandwidth.
    pub fn access(&mut self, registers: Registers) -> Registers {
        let (command, kind) = (registers.ecx & 0xffff, registers.ecx >> 16);
        match command {
            _ if registers.eax != MAGIC => Registers { eax: NOBODY, ..registers },
            GETVERSION => Registers { eax: VERSION, ebx: MAGIC, ecx: PRODUCT, ..registers },
            GETTIMEFULL => self.tell_time(registers),
            MESSAGE if self.faults.deaf => Registers { ecx: FAILURE, ..registers },
            MESSAGE if kind == OPEN => self.open(registers),
            MESSAGE => self.message(kind, registers),
            _ => Registers { eax: NOBODY, ..registers },
        }
    }

    /// One access of high bandwidth; none where the guest's memory is not what it says: the processor would have faulted.
    pub fn stream(&mut self, way: Direction, registers: Registers, memory: &mut dyn Memory) -> Option<Registers> {
        let cookies = match way {
            Direction::Out => (registers.ebp, registers.edi),
            Direction::In => (registers.esi, registers.ebp),
        };
        let length = usize::try_from(registers.ecx).ok()?;
        let done = registers.buffer.wrapping_add(u64::from(registers.ecx));
        let said = |status: u32| Some(Registers { ebx: status << 16, ecx: 0, buffer: done, ..registers });
        let is_asked = registers.eax == MAGIC && registers.ebx == SUCCESS << 16 && !self.faults.deaf;
        if !is_asked || self.faults.no_high_bandwidth {
            return said(FAILURE);
        }
        let number = channel_of(registers);
        let Some(channel) = self.channel(number, cookies) else { return said(CLOSED) };
        let due = match way {
            Direction::Out => channel.expected(),
            Direction::In => channel.owed(),
        };
        if due.is_none_or(|due| length > due) {
            return said(FAILURE);
        }
        match way {
            Direction::Out => {
                let mut piece = vec![0; length];
                if !memory.read(registers.buffer, &mut piece) {
                    return None;
                }
                said(self.take(number, &piece))
            }
            Direction::In => {
                let piece = channel.piece(length)?;
                if let Some(status) = self.mishap(number) {
                    return said(status);
                }
                if !memory.write(registers.buffer, &piece) {
                    return None;
                }
                self.channels.get_mut(&number)?.gave(length);
                said(SUCCESS)
            }
        }
    }

    /// Seconds in ESI and EDX, microseconds in EBX; how far the guest's clock may be behind, in microseconds, in ECX.
    fn tell_time(&self, registers: Registers) -> Registers {
        const MOST_BEHIND: u32 = 1_000_000;
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = self.time.unwrap_or_else(now);
        let [high, low] = [32, 0].map(|shift| (time.as_secs() >> shift & u64::from(u32::MAX)).try_into().unwrap_or(0));
        Registers { ebx: time.subsec_micros(), ecx: MOST_BEHIND, edx: low, esi: high, ..registers }
    }

    fn open(&mut self, registers: Registers) -> Registers {
        let refused = Registers { ecx: FAILURE, ..registers };
        let with_cookies = registers.ebx & WITH_COOKIES != 0;
        let service = match registers.ebx & !WITH_COOKIES {
            RPCI => Service::Rpci,
            TCLO => Service::Tclo,
            _ => return refused,
        };
        let free = (0..MOST_CHANNELS).find(|number| !self.channels.contains_key(number));
        let Some(number) = free.filter(|_| !(with_cookies && self.faults.no_cookies)) else { return refused };
        let cookies = with_cookies.then(|| cookies(self.opened));
        self.opened = self.opened.wrapping_add(1);
        self.channels.insert(number, Channel::new(service, cookies));
        let (esi, edi) = cookies.unwrap_or((registers.esi, registers.edi));
        Registers { ecx: SUCCESS << 16, edx: u32::from(number) << 16, esi, edi, ..registers }
    }

    fn message(&mut self, kind: u32, registers: Registers) -> Registers {
        let number = channel_of(registers);
        let said = |status: u32| Registers { ecx: status << 16, ..registers };
        let high = if self.faults.no_high_bandwidth { 0 } else { HIGH_BANDWIDTH };
        let Some(channel) = self.channel(number, (registers.esi, registers.edi)) else { return said(CLOSED) };
        match kind {
            SEND_SIZE if registers.ebx > MOST_SENT => said(FAILURE),
            SEND_SIZE => {
                if let Some(whole) = channel.expect(registers.ebx as usize) {
                    self.deliver(number, &whole);
                }
                said(SUCCESS | high)
            }
            SEND_PAYLOAD => {
                let Some(due) = channel.expected() else { return said(FAILURE) };
                let word = registers.ebx.to_le_bytes();
                said(self.take(number, &word[..due.min(word.len())]))
            }
            RECEIVE_SIZE => {
                self.offer_question(number);
                match self.channels.get_mut(&number).and_then(Channel::announce) {
                    Some(length) => Registers { ebx: length, edx: IS_SIZE, ..said(SUCCESS | MESSAGE_WAITS | high) },
                    None => said(SUCCESS),
                }
            }
            // the guest says of each piece whether it liked the one before it
            RECEIVE_PAYLOAD if registers.ebx & SUCCESS != 0 => {
                let Some(due) = channel.owed().filter(|due| *due > 0) else { return said(FAILURE) };
                let mut word = [0; 4];
                let length = due.min(word.len());
                word[..length].copy_from_slice(&channel.piece(length).unwrap_or_default());
                if let Some(status) = self.mishap(number) {
                    return said(status);
                }
                self.channels.get_mut(&number).into_iter().for_each(|channel| channel.gave(length));
                Registers { ebx: u32::from_le_bytes(word), edx: IS_PAYLOAD, ..said(SUCCESS) }
            }
            RECEIVE_STATUS if registers.ebx & SUCCESS != 0 => {
                if let Some(status) = self.mishap(number) {
                    return said(status);
                }
                said(self.acknowledge(number))
            }
            CLOSE => {
                if self.channels.remove(&number).is_some_and(|channel| channel.service == Service::Tclo) {
                    self.hang_up();
                }
                said(SUCCESS)
            }
            _ => said(FAILURE),
        }
    }

    fn channel(&mut self, number: u16, cookies: (u32, u32)) -> Option<&mut Channel> {
        self.channels.get_mut(&number).filter(|channel| channel.cookies.is_none_or(|those| those == cookies))
    }

    /// A piece of a message has come, unless a checkpoint came between. What is said of it.
    fn take(&mut self, number: u16, piece: &[u8]) -> u32 {
        if let Some(status) = self.mishap(number) {
            return status;
        }
        if let Some(whole) = self.channels.get_mut(&number).and_then(|channel| channel.take(piece)) {
            self.deliver(number, &whole);
        }
        SUCCESS
    }

    /// A whole message has come.
    fn deliver(&mut self, number: u16, message: &[u8]) {
        match self.channels.get(&number).map(|channel| channel.service) {
            Some(Service::Rpci) => {
                // whoever can execute an instruction can come this way: no privilege
                let reply = self.rpci(Origin::Unprivileged, message);
                if self.faults.silent {
                    return;
                }
                let length = self.said(reply.len());
                self.channels.get_mut(&number).into_iter().for_each(|channel| channel.offer(reply.clone(), length));
            }
            Some(Service::Tclo) => self.answer(message),
            None => {}
        }
    }

    /// On a channel for them, the host has its next question for the guest.
    fn offer_question(&mut self, number: u16) {
        let question = self.next_question().map(<[u8]>::to_vec);
        let Some(channel) = self.channels.get_mut(&number) else { return };
        if channel.service == Service::Tclo && !channel.has_message() {
            let Some(question) = question else { return };
            let length = u32::try_from(question.len()).unwrap_or(u32::MAX);
            channel.offer(question, length);
        }
    }

    /// The guest has fetched its message. What is said of it.
    fn acknowledge(&mut self, number: u16) -> u32 {
        let Some(channel) = self.channels.get_mut(&number) else { return CLOSED };
        if !channel.is_fetched() {
            return FAILURE;
        }
        if channel.service == Service::Tclo {
            self.ask();
        }
        SUCCESS
    }

    /// Counts a transfer. What is said of it instead, where a fault comes between.
    fn mishap(&mut self, number: u16) -> Option<u32> {
        self.transfers += 1;
        let Faults { checkpoint_every: every, checkpoint_at: at, forgets_at, .. } = self.faults;
        if forgets_at == Some(self.transfers) {
            self.channels.clear();
            self.hang_up();
            return Some(CLOSED);
        }
        let is_hit =
            every.is_some_and(|every| self.transfers.is_multiple_of(every.max(1))) || at == Some(self.transfers);
        if !is_hit {
            return None;
        }
        self.channels.get_mut(&number).into_iter().for_each(Channel::interrupt);
        Some(CHECKPOINT)
    }
}

fn channel_of(registers: Registers) -> u16 {
    u16::try_from(registers.edx >> 16).unwrap_or(u16::MAX)
}

/// The cookies of the channel that is opened as the `opened`th: as good as random, and the same in each run. The first are those of the trace that is pinned.
fn cookies(opened: u32) -> (u32, u32) {
    (0x1c8f_220e ^ opened.wrapping_mul(0x9e37_79b1), 0x9bbf_fa82 ^ opened.wrapping_mul(0x85eb_ca6b))
}

#[cfg(test)]
mod tests;
