//! Waiting and signalling by number. nix knows only the 31 named signals; a process may use all 64.

use std::io;

use nix::errno::Errno;
use nix::unistd::Pid;
use wire::status::Ending;

/// Reaps one child that has ended; `None` when none has.
pub fn wait_any() -> Option<(Pid, Ending)> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the status and outlives the call.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            pid if pid > 0 => {
                let ending = match libc::WIFSIGNALED(status) {
                    true => {
                        Ending::Signaled { signal: low_byte(libc::WTERMSIG(status)), core: libc::WCOREDUMP(status) }
                    }
                    false => Ending::Exited { code: low_byte(libc::WEXITSTATUS(status)) },
                };
                return Some((Pid::from_raw(pid), ending));
            }
            -1 if Errno::last() == Errno::EINTR => {}
            _ => return None,
        }
    }
}

/// Sends a signal, 1 to 64, to one process.
pub fn kill(pid: Pid, signal: u8) -> io::Result<()> {
    // SAFETY: two numbers; no memory is touched.
    match unsafe { libc::kill(pid.as_raw(), signal.into()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // wait(2): both are within 0..256
fn low_byte(number: i32) -> u8 {
    (number & 0xff) as u8
}
