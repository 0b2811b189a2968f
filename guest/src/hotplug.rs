//! Processors that were added to a running machine, taken into use. Memory needs nobody: the kernel takes it online by itself (kernel-config/memory.config).
//!
//! Source: Linux, Documentation/ABI/testing/sysfs-devices-system-cpu.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// The kernel's list of processors. It is opened at boot and stays open: what a container finds at `/sys` is read-only, and may be anything.
#[derive(Debug)]
pub struct Processors(OwnedFd);

impl Processors {
    pub fn open() -> io::Result<Processors> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Processors(nix::fcntl::open("/sys/devices/system/cpu", flags, Mode::empty())?))
    }

    /// Takes every processor online that is there and is not, and says how many came.
    pub fn bring_online(&self) -> io::Result<u32> {
        let mut came = 0;
        for number in numbers(&self.read("present")?) {
            // the first one cannot be taken offline, and has no such file
            let file = format!("cpu{number}/online");
            if self.read(&file).is_ok_and(|state| state.trim_end() == "0") {
                self.open_file(&file, OFlag::O_WRONLY)?.write_all(b"1")?;
                came += 1;
            }
        }
        Ok(came)
    }

    fn read(&self, name: &str) -> io::Result<String> {
        let mut text = String::new();
        self.open_file(name, OFlag::O_RDONLY)?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn open_file(&self, name: &str, flags: OFlag) -> io::Result<File> {
        Ok(File::from(openat(&self.0, name, flags | OFlag::O_CLOEXEC, Mode::empty())?))
    }
}

/// The numbers of a list like `0-2,5`: Linux, Documentation/admin-guide/cputopology.rst. What is no number is passed over.
fn numbers(list: &str) -> impl Iterator<Item = u32> {
    /// More processors than Linux can have.
    const MOST: u32 = 8192;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse::<u32>().ok()?.min(MOST))
    };
    list.trim().split(',').filter_map(range).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_processors_is_read() {
        let check = |list, expected: &[u32]| assert_eq!(numbers(list).collect::<Vec<_>>(), expected, "{list:?}");
        check("0\n", &[0]);
        check("0-2,5,7-8\n", &[0, 1, 2, 5, 7, 8]);
        check("", &[]);
        check("x,1-,3-2,4\n", &[4]);
        assert_eq!(numbers("0-4294967295").count(), 8193);
    }
}
