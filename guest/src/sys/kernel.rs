//! What the kernel keeps for those who ask: its log, and randomness.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use wire::guestinfo::ENTROPY;

/// The last messages of the kernel, as text, at most as much as `buffer` holds: syslog(2), `SYSLOG_ACTION_READ_ALL`. Nothing is taken away.
pub fn read_log(buffer: &mut [u8]) -> io::Result<usize> {
    const READ_ALL: libc::c_int = 3;
    let length = libc::c_int::try_from(buffer.len()).unwrap_or(libc::c_int::MAX);
    // JUSTIFICATION: no safe library has it, and /dev/kmsg, read a message at a time, is not in a container's /dev.
    // SAFETY: the kernel writes at most `length` bytes, which the buffer has.
    match unsafe { libc::klogctl(READ_ALL, buffer.as_mut_ptr().cast(), length) } {
        count if count >= 0 => Ok(count.unsigned_abs() as usize),
        _ => Err(io::Error::last_os_error()),
    }
}

/// 32 random bytes of the kernel's: getrandom(2). It waits until the generator is seeded, which it is once a machine has booted.
pub fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    // JUSTIFICATION: std does not offer it, and /dev/random would be the container's.
    // SAFETY: the kernel writes at most as many bytes as there are.
    match unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) } {
        // requests of up to 256 bytes are answered whole
        32 => Ok(bytes),
        -1 => Err(io::Error::last_os_error()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Gives the kernel's generator randomness, counts all of it, and has every generator of the kernel begin anew with it: random(4), `RNDADDENTROPY`; Linux,
/// include/uapi/linux/random.h, `RNDRESEEDCRNG`. `random` is /dev/random, open for writing.
pub fn reseed(random: &File, entropy: &[u8; ENTROPY]) -> io::Result<()> {
    #[repr(C)]
    struct Pool {
        bits: libc::c_int,
        bytes: libc::c_int,
        entropy: [u8; ENTROPY],
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // 64
    let pool = Pool { bits: 8 * ENTROPY as libc::c_int, bytes: ENTROPY as libc::c_int, entropy: *entropy };
    // JUSTIFICATION: no safe library has these two.
    // SAFETY: the kernel reads the two numbers, and as many bytes behind them as the second says, which are there.
    Errno::result(unsafe { libc::ioctl(random.as_raw_fd(), ADD_ENTROPY as _, &raw const pool) })?;
    // SAFETY: there is no argument.
    Errno::result(unsafe { libc::ioctl(random.as_raw_fd(), RESEED as _) })?;
    Ok(())
}

const ADD_ENTROPY: libc::c_ulong = 0x4008_5203;
const RESEED: libc::c_ulong = 0x5207;

#[cfg(test)]
mod tests {
    #[test]
    fn random_numbers_differ() {
        assert_ne!(super::random().unwrap(), super::random().unwrap());
    }
}
