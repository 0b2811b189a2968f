//! What the processor says of itself in a machine of VMware's: the leaves of the hypervisor. Pure.
//!
//! Sources: Linux, arch/x86/kernel/cpu/vmware.c and arch/x86/include/asm/vmware.h; open-vm-tools, lib/include/vm_basic_asm.h.

use super::code::Hypercall;

/// EAX, EBX, ECX, EDX.
pub(crate) type Leaf = [u32; 4];

/// What a test wants it to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// False: it says what it is.
    pub(crate) vmware: bool,
    /// What takes the place of the port.
    pub(crate) hypercall: Option<Hypercall>,
}

impl Identity {
    /// The answer for a leaf, of which the real processor says `native`.
    pub(crate) fn answer(&self, leaf: u32, native: Leaf) -> Leaf {
        if !self.vmware {
            return native;
        }
        match leaf {
            // ECX, bit 31: a hypervisor
            1 => [native[0], native[1], native[2] | 1 << 31, native[3]],
            VENDOR => [FEATURES, word(b"VMwa"), word(b"reVM"), word(b"ware")],
            FEATURES => [TSC_KHZ, BUS_KHZ, self.features(), 0],
            _ => native,
        }
    }

    fn features(&self) -> u32 {
        match self.hypercall {
            None => 0,
            Some(Hypercall::Vmmcall) => 1,
            Some(Hypercall::Vmcall) => 2,
        }
    }
}

fn word(text: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*text)
}

const VENDOR: u32 = 0x4000_0000;
const FEATURES: u32 = 0x4000_0010;
/// Some figures; nobody here measures time by them.
const TSC_KHZ: u32 = 2_000_000;
const BUS_KHZ: u32 = 66_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_vmwares_where_a_test_wants_it() {
        let native = [1, 2, 3, 4];
        let with = |vmware, hypercall| Identity { vmware, hypercall };
        let vmware = with(true, None);
        assert_eq!(vmware.answer(0, native), native);
        assert_eq!(vmware.answer(1, native), [1, 2, 0x8000_0003, 4]);
        let vendor: Vec<u8> = vmware.answer(VENDOR, native)[1..].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(vendor, b"VMwareVMware");
        for (hypercall, bits) in [(None, 0), (Some(Hypercall::Vmmcall), 1), (Some(Hypercall::Vmcall), 2)] {
            assert_eq!(with(true, hypercall).answer(FEATURES, native)[2], bits);
            assert_eq!(with(false, hypercall).answer(FEATURES, native), native);
        }
    }
}
