//! What the kernel has said since it booted, for who wants to know why a machine failed.

use std::io;

use crate::sys::kernel;

/// The most that is told, in bytes: twice what the kernel of our machines keeps.
const BOUND: usize = 256 * 1024;

/// The kernel's messages, a line each, `<level>[seconds] text`; of a long log the end.
pub fn read() -> io::Result<String> {
    let mut bytes = vec![0; BOUND];
    let length = kernel::read_log(&mut bytes)?;
    bytes.truncate(length);
    // a process with the right to write to /dev/kmsg may have written anything
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
