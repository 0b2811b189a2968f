//! The memory of a process, as the kernel copies it: what is not there is an error and no fault.

use nix::libc;
use nix::unistd::Pid;

use crate::Memory;

/// The memory of one process.
#[derive(Debug)]
pub struct ProcessMemory(pub Pid);

impl Memory for ProcessMemory {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let here = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let there = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
        // JUSTIFICATION: nix has this call behind a feature that nothing else needs.
        // SAFETY: `here` is a whole buffer that outlives the call; `there` is followed by the kernel alone, which writes nothing to it.
        let count = unsafe { libc::process_vm_readv(self.0.as_raw(), &here, 1, &there, 1, 0) };
        usize::try_from(count) == Ok(bytes.len())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let here = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let there = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
        // JUSTIFICATION: as above.
        // SAFETY: `here` outlives the call, which only reads it. `there` is what a guest gave VMX to write to, in an instruction that says so: its process is the one
        // that is traced, or this one, where whoever executed `rep insb` has promised that RCX bytes at RDI are its own to write.
        let count = unsafe { libc::process_vm_writev(self.0.as_raw(), &here, 1, &there, 1, 0) };
        usize::try_from(count) == Ok(bytes.len())
    }
}
