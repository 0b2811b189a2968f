//! The machine's power button: how a hypervisor asks a guest to shut down in order (QEMU's `system_powerdown`, ACPI).
//!
//! The kernel makes an input device of it: Linux, Documentation/input/input.rst (event interface).

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc;

/// An open power button.
#[derive(Debug)]
pub struct PowerButton(File);

const DEVICES: &str = "/sys/class/input";
const NAME: &str = "Power Button";

impl PowerButton {
    /// The first one that the machine has.
    pub fn open() -> Option<PowerButton> {
        fs::read_dir(DEVICES).ok()?.flatten().find_map(|entry| {
            let name = fs::read_to_string(entry.path().join("device/name")).ok()?;
            let file_name = entry.file_name();
            let is_ours = name.trim_end() == NAME && file_name.to_string_lossy().starts_with("event");
            let path = is_ours.then(|| std::path::Path::new("/dev/input").join(file_name))?;
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok().map(PowerButton)
        })
    }

    /// Whether it has been pressed since the last call.
    pub fn was_pressed(&self) -> bool {
        let mut events = [0; 32 * EVENT];
        let count = (&self.0).read(&mut events).unwrap_or(0);
        events[..count].chunks_exact(EVENT).any(is_press)
    }
}

impl AsFd for PowerButton {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `struct input_event` on a 64-bit machine: 16 bytes of time, type u16, code u16, value i32.
const EVENT: usize = 24;
const EV_KEY: [u8; 2] = [1, 0];
const KEY_POWER: [u8; 2] = [116, 0];
const PRESSED: [u8; 4] = [1, 0, 0, 0];

fn is_press(event: &[u8]) -> bool {
    event[16..18] == EV_KEY && event[18..20] == KEY_POWER && event[20..24] == PRESSED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_press_is_told_from_a_release_and_from_other_keys() {
        let event = |kind: u8, code: u8, value: u8| {
            let mut event = [9; EVENT];
            event[16..].copy_from_slice(&[kind, 0, code, 0, value, 0, 0, 0]);
            event
        };
        assert!(is_press(&event(1, 116, 1)));
        for other in [event(1, 116, 0), event(1, 30, 1), event(0, 0, 0)] {
            assert!(!is_press(&other));
        }
    }
}
