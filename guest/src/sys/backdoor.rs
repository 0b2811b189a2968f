//! VMware's backdoor: registers in, registers out. What they say is decided in [`crate::vmware`].
//!
//! On every machine but VMware's an access ends the process, so that it needs a [`Backdoor`], and only [`Backdoor::detect`] makes one: from what the CPU says,
//! with no port touched.
//!
//! Sources: open-vm-tools, lib/backdoor (registers, magic numbers); Linux, arch/x86/include/asm/vmware.h (hypercalls); AMD's "Architecture Programmer's Manual",
//! volume 3, E.4.17, and Intel's "TDX Module Base Architecture", CPUID leaf 21h (encrypted memory).

use std::arch::asm;
use std::arch::x86_64::{__cpuid, CpuidResult};

/// What an access carries, there and back. EAX and the low half of EDX belong to the way that the access takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    pub ebx: u32,
    pub ecx: u32,
    /// The channel, in the high half.
    pub edx: u32,
    pub esi: u32,
    pub edi: u32,
    pub ebp: u32,
}

/// The leave to make an access: this machine's CPU says that it is VMware's.
#[derive(Clone, Copy, Debug)]
pub struct Backdoor {
    instruction: Instruction,
    is_encrypted: bool,
}

/// How an access leaves the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instruction {
    /// `in`, at a port that no device has.
    Port,
    /// Intel's hypercall.
    Vmcall,
    /// AMD's.
    Vmmcall,
}

const MAGIC: u32 = 0x564d_5868;
const PORT: u32 = 0x5658;
const HIGH_PORT: u32 = 0x5659;
/// What a hypercall says in place of a port.
const HIGH: u32 = 1;
const OUT: u32 = 2;

impl Backdoor {
    /// Asks the CPU, which every machine lets it.
    pub fn detect() -> Option<Backdoor> {
        detect(__cpuid)
    }

    /// High bandwidth is of use: the host can read this machine's memory.
    pub fn reaches_memory(self) -> bool {
        !self.is_encrypted
    }

    /// Asks for the version: somebody is there who knows the magic number. A process that this ends was told wrong by its CPU.
    pub fn answers(self) -> bool {
        const GET_VERSION: u32 = 10;
        self.access(Registers { ebx: !MAGIC, ecx: GET_VERSION | 0xffff_0000, ..Registers::default() }).ebx == MAGIC
    }

    /// The host's clock, in nanoseconds since 1970: open-vm-tools, lib/include/backdoor_def.h, `BDOOR_CMD_GETTIMEFULL`. None if the host does not tell.
    pub fn time(self) -> Option<u64> {
        const GET_TIME_FULL: u32 = 46;
        let told = self.access(Registers { ebx: u32::MAX, ecx: GET_TIME_FULL, ..Registers::default() });
        let (seconds, micros) = (u64::from(told.esi) << 32 | u64::from(told.edx), u64::from(told.ebx));
        let is_sensible = micros < 1_000_000 && seconds > 0;
        is_sensible.then(|| seconds.checked_mul(1_000_000_000)?.checked_add(1000 * micros)).flatten()
    }

    /// Low bandwidth: registers alone.
    pub fn access(self, asked: Registers) -> Registers {
        match self.instruction {
            Instruction::Port => low(asked, PORT, self.instruction),
            Instruction::Vmcall | Instruction::Vmmcall => low(asked, 0, self.instruction),
        }
    }

    /// High bandwidth, to the host: the bytes go with the registers.
    pub fn send(self, asked: Registers, bytes: &[u8]) -> Registers {
        high(asked, self.instruction, OUT, bytes.as_ptr() as u64, bytes.len())
    }

    /// High bandwidth, from the host: it fills the buffer.
    pub fn receive(self, asked: Registers, buffer: &mut [u8]) -> Registers {
        high(asked, self.instruction, 0, buffer.as_mut_ptr() as u64, buffer.len())
    }
}

#[cfg(test)]
impl Backdoor {
    /// For a thread whose ports a double of the host answers.
    pub(crate) fn of_a_double(is_encrypted: bool) -> Backdoor {
        Backdoor { instruction: Instruction::Port, is_encrypted }
    }
}

fn detect(cpuid: impl Fn(u32) -> CpuidResult) -> Option<Backdoor> {
    const HYPERVISOR: u32 = 1 << 31;
    const VENDOR: u32 = 0x4000_0000;
    const FEATURES: u32 = VENDOR + 0x10;
    const HAS_VMMCALL: u32 = 1;
    const HAS_VMCALL: u32 = 2;
    const ENCRYPTION: u32 = 0x8000_001f;
    const SEV: u32 = 2;
    const TDX: u32 = 0x21;

    let name = |leaf: u32| {
        let CpuidResult { eax, ebx, ecx, edx } = cpuid(leaf);
        (eax, [ebx, ecx, edx])
    };
    if cpuid(1).ecx & HYPERVISOR == 0 {
        return None;
    }
    let (last, vendor) = name(VENDOR);
    if vendor != [0x6177_4d56, 0x4d56_6572, 0x6572_6177] {
        return None;
    }
    let features = if last >= FEATURES { cpuid(FEATURES).ecx } else { 0 };
    let instruction = match features {
        _ if features & HAS_VMMCALL != 0 => Instruction::Vmmcall,
        _ if features & HAS_VMCALL != 0 => Instruction::Vmcall,
        _ => Instruction::Port,
    };
    // a machine shows these to a guest whose memory is encrypted
    let is_sev = cpuid(0x8000_0000).eax >= ENCRYPTION && cpuid(ENCRYPTION).eax & SEV != 0;
    // "Intel", "TDX " and spaces: EBX, EDX, ECX
    let is_tdx = cpuid(0).eax >= TDX && name(TDX).1 == [0x6574_6e49, 0x2020_2020, 0x5844_546c];
    Some(Backdoor { instruction, is_encrypted: is_sev || is_tdx })
}

/// EBX and EBP are LLVM's: they are changed and put back around the instruction.
macro_rules! access {
    ($asked:ident, $edx:expr, $count:expr, $rsi:expr, $rdi:expr, $($instruction:literal),+) => {{
        let (rbx, rcx, rdx, rsi, rdi): (u64, u64, u64, u64, u64);
        // JUSTIFICATION: no library offers it without a C compiler, and none has hypercalls.
        // SAFETY: who has a `Backdoor` runs under VMware, which serves this at every privilege level and gives back these registers. Of the memory it reads or
        // writes RCX bytes at RSI or RDI when the low half of EDX asks for high bandwidth: `high` has these from a slice. The direction flag is clear, as Rust's ABI
        // has it. Nothing of Rust's is in RBX or RBP between the exchanges.
        unsafe {
            asm!(
                "xchg rbx, r8",
                "xchg rbp, r9",
                $($instruction,)+
                "xchg rbp, r9",
                "xchg rbx, r8",
                inout("rax") u64::from(MAGIC) => _,
                inout("r8") u64::from($asked.ebx) => rbx,
                inout("rcx") $count => rcx,
                inout("rdx") u64::from($edx) => rdx,
                inout("rsi") $rsi => rsi,
                inout("rdi") $rdi => rdi,
                inout("r9") u64::from($asked.ebp) => _,
            );
        }
        let half = |register: u64| (register & 0xffff_ffff) as u32;
        Registers { ebx: half(rbx), ecx: half(rcx), edx: half(rdx), esi: half(rsi), edi: half(rdi), ebp: 0 }
    }};
}

fn low(asked: Registers, way: u32, instruction: Instruction) -> Registers {
    let (edx, ecx) = (asked.edx | way, u64::from(asked.ecx));
    let (esi, edi) = (u64::from(asked.esi), u64::from(asked.edi));
    match instruction {
        Instruction::Port => access!(asked, edx, ecx, esi, edi, "in eax, dx"),
        Instruction::Vmcall => access!(asked, edx, ecx, esi, edi, "vmcall"),
        Instruction::Vmmcall => access!(asked, edx, ecx, esi, edi, "vmmcall"),
    }
}

/// The address must be of `length` bytes, which with `OUT` are read, and otherwise written.
fn high(asked: Registers, instruction: Instruction, direction: u32, address: u64, length: usize) -> Registers {
    let (rsi, rdi) = match direction {
        OUT => (address, u64::from(asked.edi)),
        _ => (u64::from(asked.esi), address),
    };
    let (port, call, count) = (asked.edx | HIGH_PORT, asked.edx | HIGH | direction, length as u64);
    match (instruction, direction) {
        (Instruction::Port, OUT) => access!(asked, port, count, rsi, rdi, "rep outsb"),
        (Instruction::Port, _) => access!(asked, port, count, rsi, rdi, "rep insb"),
        (Instruction::Vmcall, _) => access!(asked, call, count, rsi, rdi, "vmcall"),
        (Instruction::Vmmcall, _) => access!(asked, call, count, rsi, rdi, "vmmcall"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(eax: u32, name: &[u8; 12], features: u32) -> CpuidResult {
        let word = |at: usize| u32::from_le_bytes(name[at..at + 4].try_into().unwrap());
        CpuidResult { eax, ebx: word(0), ecx: word(4) | features, edx: word(8) }
    }

    const NOTHING: &[u8; 12] = &[0; 12];

    /// A CPU with that vendor's hypervisor, its features, and its encryption.
    fn cpu(vendor: &'static [u8; 12], last: u32, features: u32, sev: bool, tdx: bool) -> impl Fn(u32) -> CpuidResult {
        move |asked| match asked {
            0 => leaf(0x21, NOTHING, 0),
            1 => leaf(0, NOTHING, 1 << 31),
            // its registers are in CPUID's own order: EBX, EDX, ECX
            0x21 if tdx => leaf(0, b"Inte    lTDX", 0),
            0x4000_0000 => leaf(last, vendor, 0),
            0x4000_0010 => leaf(0, NOTHING, features),
            0x8000_0000 => leaf(0x8000_001f, NOTHING, 0),
            0x8000_001f if sev => leaf(2, NOTHING, 0),
            _ => leaf(0, NOTHING, 0),
        }
    }

    #[test]
    fn only_vmware_lets_a_port_be_touched() {
        for vendor in [b"KVMKVMKVM\0\0\0", b"TCGTCGTCGTCG", b"Microsoft Hv", b"VMwareVMwarE", NOTHING] {
            assert!(detect(cpu(vendor, 0x4000_0010, 3, false, false)).is_none());
        }
        // a CPU that is nobody's guest says anything in the leaves that it has not
        let bare = |asked| if asked == 1 { leaf(0, NOTHING, 0) } else { leaf(u32::MAX, b"VMwareVMware", 0) };
        assert!(detect(bare).is_none());
        assert!(detect(cpu(b"VMwareVMware", 0x4000_0010, 0, false, false)).is_some());
    }

    #[test]
    fn hypercalls_where_they_are_offered() {
        let check = |last, features, expected| {
            let found = detect(cpu(b"VMwareVMware", last, features, false, false)).unwrap();
            assert_eq!(found.instruction, expected);
            assert!(found.reaches_memory());
        };
        check(0x4000_0010, 0, Instruction::Port);
        check(0x4000_0010, 1, Instruction::Vmmcall);
        check(0x4000_0010, 2, Instruction::Vmcall);
        check(0x4000_0010, 3, Instruction::Vmmcall);
        // features of a leaf that is not there are none
        check(0x4000_0000, 3, Instruction::Port);
    }

    #[test]
    fn encrypted_memory_is_not_reached() {
        for (sev, tdx) in [(true, false), (false, true)] {
            assert!(!detect(cpu(b"VMwareVMware", 0x4000_0010, 0, sev, tdx)).unwrap().reaches_memory());
        }
    }
}
