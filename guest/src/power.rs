//! The only way out of PID 1: every process ended, every file system clean, power off.

use std::convert::Infallible;
use std::fs;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{clock, reap};

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
    unmount_all();
    nix::unistd::sync();
    let mode = match ending {
        Ending::PowerOff => RebootMode::RB_POWER_OFF,
        Ending::Reboot => RebootMode::RB_AUTOBOOT,
    };
    let Err(errno) = reboot(mode) as Result<Infallible, _>;
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

/// Unmounts from the last mounted to the first; what is busy, as the root always is, becomes read-only, which writes its journal out.
fn unmount_all() {
    for target in mounted_on().iter().rev() {
        if target != "/" && umount2(target.as_str(), MntFlags::empty()).is_ok() {
            continue;
        }
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        if let Err(errno) = mount(None::<&str>, target.as_str(), None::<&str>, flags, None::<&str>)
            && target == "/"
        {
            eprintln!("tether: the root file system cannot be made read-only: {errno}");
        }
    }
}

/// Mount points in the order in which they were mounted: proc(5), `/proc/pid/mountinfo`, field 5.
fn mounted_on() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect()
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (escape, char)| text.replace(escape, char))
}

#[cfg(test)]
mod tests {
    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(super::unescape(r"/a\040b\134040"), r"/a b\040");
    }
}
