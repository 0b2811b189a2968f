//! The only way out of PID 1: every process ended, every file system clean, power off.

use std::convert::Infallible;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{clock, mounts, reap};

/// How long killed processes may take to go: only one that waits for a device takes any time at all.
const KILL_BOUND: Duration = Duration::from_secs(5);

/// Ends everything and powers off. What cannot be done is said on the console, and the rest is done.
pub fn off() -> ! {
    kill_all();
    mounts::unmount_all();
    now()
}

/// Powers off as it is: for a machine that has not begun, or cannot go on.
pub fn now() -> ! {
    nix::unistd::sync();
    let Err(errno) = reboot(RebootMode::RB_POWER_OFF) as Result<Infallible, _>;
    eprintln!("tether: cannot power off: {errno}");
    // PID 1 must not end
    loop {
        nix::unistd::pause();
    }
}

fn kill_all() {
    let deadline = clock::now() + KILL_BOUND;
    // every process but this one; ESRCH when there is none
    let _none_left = kill(Pid::from_raw(-1), Signal::SIGKILL);
    loop {
        reap::ended_children();
        if !reap::has_children() {
            return;
        }
        if clock::now() > deadline {
            eprintln!("tether: some processes do not end; the file systems may need a check");
            return;
        }
        // SIGCHLD is blocked and would wake nobody: this short sleep is the wait, and it is bounded
        std::thread::sleep(Duration::from_millis(1));
    }
}
