//! Loading a filter of system calls: seccomp(2). What it lets through is decided elsewhere.

use std::io;

/// One instruction: `struct sock_filter`.
pub const INSTRUCTION: usize = 8;

/// Puts a filter on this process and all that come of it, for ever. It only adds to the filters that are there. Needs `CAP_SYS_ADMIN`, or `no_new_privs`.
///
/// `program` is an array of `struct sock_filter` in the machine's byte order: [`INSTRUCTION`] bytes each, 4,096 instructions at most.
pub fn load(program: &[u8]) -> io::Result<()> {
    if !program.len().is_multiple_of(INSTRUCTION) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let length = libc::c_ushort::try_from(program.len() / INSTRUCTION).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // JUSTIFICATION: nix has no seccomp.
    // SAFETY: `filter` points to `length` whole instructions, which the kernel copies from whatever address, checks, and does not write.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const filter,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_program_is_not_loaded() {
        assert_eq!(load(&[0; 7]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(load(&vec![0; 65_536 * INSTRUCTION]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        // no program at all, and one that does not end: the kernel's verdict
        assert!(load(&[]).is_err());
        assert!(load(&[0; INSTRUCTION]).is_err());
    }
}
