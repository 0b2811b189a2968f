//! The only way out of PID 1: every process ended, every file system clean, power off.

use std::convert::Infallible;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{clock, journal, mounts, reap, say};

/// How long killed processes may take to go: only one that waits for a device takes any time at all.
const KILL_BOUND: Duration = Duration::from_secs(5);

/// How a machine ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    #[default]
    PowerOff,
    /// It boots again, as after a reset.
    Reboot,
}

/// Ends everything and powers off. What cannot be done is said on the console, and the rest is done.
pub fn off() -> ! {
    end(Ending::PowerOff)
}

/// Ends everything, and the machine as is said.
pub fn end(ending: Ending) -> ! {
    kill_all();
    mounts::unmount_all();
    nix::unistd::sync();
    let mode = match ending {
        Ending::PowerOff => RebootMode::RB_POWER_OFF,
        Ending::Reboot => RebootMode::RB_AUTOBOOT,
    };
    journal::end();
    let Err(errno) = reboot(mode) as Result<Infallible, _>;
    say!(Error, "cannot power off: {errno}");
    journal::end();
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
            say!(Warn, "some processes do not end; the file systems may need a check");
            return;
        }
        // SIGCHLD is blocked and would wake nobody: this short sleep is the wait, and it is bounded
        std::thread::sleep(Duration::from_millis(1));
    }
}
