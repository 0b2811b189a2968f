//! Which instruction reaches the backdoor, and what a processor's registers become by it. Pure.
//!
//! A program without the right to use ports gets #GP for `in`, `out`, `ins` and `outs`; VMware's monitor answers it before that.

use crate::{Direction, MAGIC, Memory, PORT_HIGH, PORT_LOW, Registers, Vmx};

/// What an instruction wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `in eax, dx`, or `out dx, eax`.
    Low,
    /// `rep outsb`, or `rep insb`.
    High(Direction),
}

/// The registers of a processor that an access is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
}

/// An instruction of a 64-bit processor has no more bytes.
pub const LONGEST: usize = 15;

/// The access, and the bytes of its instruction, which others may follow.
///
/// Intel's manual, volume 2: prefixes in any order, REX the last of them; 66 makes words of what is asked for, and 67 takes ESI or EDI alone: not the backdoor's.
pub fn decode(code: &[u8]) -> Option<(Access, usize)> {
    let mut is_repeated = false;
    let mut at = 0;
    while let Some(0xf2 | 0xf3) = code.get(at) {
        is_repeated = true;
        at += 1;
    }
    if let Some(0x40..=0x4f) = code.get(at) {
        at += 1;
    }
    let access = match code.get(at)? {
        0xed | 0xef => Access::Low,
        0x6c if is_repeated => Access::High(Direction::In),
        0x6e if is_repeated => Access::High(Direction::Out),
        _ => return None,
    };
    (at < LONGEST).then_some((access, at + 1))
}

impl Processor {
    /// Whether it knocks at the backdoor: any other port is not ours.
    pub fn is_meant(&self, access: Access) -> bool {
        let port = match access {
            Access::Low => PORT_LOW,
            Access::High(_) => PORT_HIGH,
        };
        low(self.rax) == MAGIC && low(self.rdx) & 0xffff == u32::from(port)
    }

    /// Lets VMX do what is asked. False where memory is not as the guest says; then nothing has changed.
    #[must_use]
    pub fn serve(&mut self, access: Access, vmx: &mut Vmx, memory: &mut dyn Memory) -> bool {
        let asked = Registers {
            eax: low(self.rax),
            ebx: low(self.rbx),
            ecx: low(self.rcx),
            edx: low(self.rdx),
            esi: low(self.rsi),
            edi: low(self.rdi),
            ebp: low(self.rbp),
            buffer: 0,
        };
        let answered = match access {
            Access::Low => Some(vmx.access(asked)),
            Access::High(Direction::Out) => vmx.stream(Direction::Out, Registers { buffer: self.rsi, ..asked }, memory),
            Access::High(Direction::In) => vmx.stream(Direction::In, Registers { buffer: self.rdi, ..asked }, memory),
        };
        let Some(after) = answered else { return false };
        // no more than the low halves is VMX's: a guest that relies on zeros above them is found out
        for (register, half) in [
            (&mut self.rax, after.eax),
            (&mut self.rbx, after.ebx),
            (&mut self.rcx, after.ecx),
            (&mut self.rdx, after.edx),
            (&mut self.rsi, after.esi),
            (&mut self.rdi, after.edi),
            (&mut self.rbp, after.ebp),
        ] {
            *register = *register & !u64::from(u32::MAX) | u64::from(half);
        }
        match access {
            Access::Low => {}
            Access::High(Direction::Out) => self.rsi = after.buffer,
            Access::High(Direction::In) => self.rdi = after.buffer,
        }
        true
    }
}

fn low(register: u64) -> u32 {
    u32::try_from(register & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_four_instructions_are_known() {
        let input = Access::High(Direction::In);
        let output = Access::High(Direction::Out);
        assert_eq!(decode(&[0xed, 0xff]), Some((Access::Low, 1)));
        assert_eq!(decode(&[0xef]), Some((Access::Low, 1)));
        assert_eq!(decode(&[0xf3, 0x6e, 0x90]), Some((output, 2)));
        assert_eq!(decode(&[0xf2, 0x6c]), Some((input, 2)));
        assert_eq!(decode(&[0xf3, 0x48, 0x6c]), Some((input, 3)));
        // bytes, words, a port in the instruction, once, another width, half an address, something else, nothing
        let others: [&[u8]; 10] = [
            &[0xec],
            &[0x66, 0xed],
            &[0xe5, 0x58],
            &[0x6e],
            &[0xf3, 0x6f],
            &[0x67, 0xf3, 0x6e],
            &[0x8b, 0],
            &[0xf3],
            &[],
            &[0xf3; 40],
        ];
        for other in others {
            assert_eq!(decode(other), None, "{other:x?}");
        }
    }

    #[test]
    fn only_the_backdoors_ports_and_its_magic_are_meant() {
        let right = Processor { rax: 0xff_564d_5868, rdx: 0x7_5658, ..Processor::default() };
        assert!(right.is_meant(Access::Low));
        assert!(!right.is_meant(Access::High(Direction::In)));
        assert!(!Processor { rax: 0, ..right }.is_meant(Access::Low));
        assert!(!Processor { rdx: 0x80, ..right }.is_meant(Access::Low));
    }

    /// A guest's memory that is all the same.
    struct Same(u8);

    impl Memory for Same {
        fn read(&mut self, _address: u64, bytes: &mut [u8]) -> bool {
            bytes.fill(self.0);
            true
        }

        fn write(&mut self, _address: u64, _bytes: &[u8]) -> bool {
            self.0 != 0
        }
    }

    #[test]
    fn a_processor_goes_on_as_if_the_instruction_had_run() {
        const ABOVE: u64 = 0xaaaa_aaaa_0000_0000;
        const BUFFER: u64 = 0x7fff_1234_5678;
        let mut vmx = Vmx::default();
        let asked = |rbx, rcx| Processor {
            rax: ABOVE | u64::from(MAGIC),
            rbx,
            rcx,
            rdx: ABOVE | 0x5658,
            ..Processor::default()
        };
        let mut processor = asked(ABOVE | 0x4943_5052, ABOVE | 0x1e);
        assert!(processor.serve(Access::Low, &mut vmx, &mut Same(0)));
        let after = Processor { rcx: ABOVE | 0x1_0000, rdx: ABOVE, ..asked(ABOVE | 0x4943_5052, 0) };
        assert_eq!(processor, after, "the high halves are the guest's");
        assert!(asked(6, 0x1_001e).serve(Access::Low, &mut vmx, &mut Same(0)));

        let high = Processor { rdx: 0x5659, rsi: BUFFER, rdi: BUFFER, ..asked(0x1_0000, 6) };
        let mut processor = high;
        assert!(processor.serve(Access::High(Direction::Out), &mut vmx, &mut Same(b' ')));
        assert_eq!(processor, Processor { rcx: 0, rsi: BUFFER + 6, ..high });
        assert_eq!(vmx.requests, [b"      "]);

        let mut size = asked(0, 0x3_001e);
        assert!(size.serve(Access::Low, &mut vmx, &mut Same(0)));
        let high = Processor { rcx: size.rbx, ..high };
        let mut processor = high;
        assert!(!processor.serve(Access::High(Direction::In), &mut vmx, &mut Same(0)), "it cannot be written");
        assert_eq!(processor, high);
        assert!(processor.serve(Access::High(Direction::In), &mut vmx, &mut Same(1)));
        assert_eq!(processor, Processor { rcx: 0, rdi: BUFFER + size.rbx, ..high });
    }
}
