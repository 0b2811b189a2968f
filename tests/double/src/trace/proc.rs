//! What /proc tells of a tracee, and its memory: proc(5). It is opened once, by its folder, since a tracee may mount what it likes over the name.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use crate::Memory;

/// The folder.
#[derive(Debug)]
pub(crate) struct Proc(OwnedFd);

/// Memory that holds code out of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Of its first byte in the file.
    pub(crate) offset: u64,
    /// Device and inode.
    pub(crate) identity: String,
    pub(crate) path: PathBuf,
}

impl Proc {
    pub(crate) fn open(folder: &str) -> io::Result<Proc> {
        Ok(Proc(open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?))
    }

    fn file(&self, pid: Pid, name: &str, flags: OFlag) -> io::Result<File> {
        let path = format!("{pid}/{name}");
        Ok(openat(&self.0, path.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())?.into())
    }

    fn text(&self, pid: Pid, name: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.file(pid, name, OFlag::O_RDONLY)?.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The process of a thread, and its parent.
    pub(crate) fn family(&self, thread: Pid) -> io::Result<(Pid, Pid)> {
        let status = self.text(thread, "status")?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.trim().parse().ok()).map(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)
        };
        Ok((number("Tgid")?, number("PPid")?))
    }

    /// Every mapping of a process with code of a file in it.
    pub(crate) fn code(&self, process: Pid) -> io::Result<Vec<Mapping>> {
        Ok(self.text(process, "maps")?.lines().filter_map(mapping).collect())
    }

    /// A process's memory, as the process itself may use it.
    pub(crate) fn memory(&self, process: Pid) -> Remote<'_> {
        Remote { proc: self, process, file: OnceCell::new() }
    }
}

/// `START-END PERMISSIONS OFFSET DEVICE INODE PATH`
fn mapping(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let (field, after) = rest.trim_start().split_once(' ')?;
        rest = after;
        Some(field)
    };
    let (range, permissions, offset, device, inode) = (field()?, field()?, field()?, field()?, field()?);
    let (start, end) = range.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let path = rest.trim_start();
    (permissions.contains('x') && path.starts_with('/')).then_some(Mapping {
        start: number(start)?,
        end: number(end)?,
        offset: number(offset)?,
        identity: format!("{device} {inode}"),
        path: path.into(),
    })
}

/// Another process's memory. A kernel without `process_vm_readv` has it in a file, which heeds no page's protection.
#[derive(Debug)]
pub(crate) struct Remote<'a> {
    proc: &'a Proc,
    process: Pid,
    file: OnceCell<Option<File>>,
}

impl Remote<'_> {
    fn file(&self) -> Option<&File> {
        self.file.get_or_init(|| self.proc.file(self.process, "mem", OFlag::O_RDWR).ok()).as_ref()
    }

    /// As many bytes as there are, up to the end of what can be read.
    pub(crate) fn read_some(&mut self, address: u64, bytes: &mut [u8]) -> usize {
        // what follows may be another page, which may not be there
        let (length, page) = (bytes.len(), 4096);
        let first = length.min(page - usize::try_from(address).unwrap_or_default() % page);
        match (self.read(address, bytes), self.read(address, &mut bytes[..first])) {
            (true, _) => length,
            (_, true) => first,
            _ => 0,
        }
    }
}

impl Memory for Remote<'_> {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        let Ok(base) = usize::try_from(address) else { return false };
        let remote = [RemoteIoVec { base, len: bytes.len() }];
        match process_vm_readv(self.process, &mut [IoSliceMut::new(bytes)], &remote) {
            Err(Errno::ENOSYS) => self.file().is_some_and(|file| file.read_exact_at(bytes, address).is_ok()),
            count => count == Ok(bytes.len()),
        }
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let Ok(base) = usize::try_from(address) else { return false };
        let remote = [RemoteIoVec { base, len: bytes.len() }];
        match process_vm_writev(self.process, &[IoSlice::new(bytes)], &remote) {
            Err(Errno::ENOSYS) => self.file().is_some_and(|file| file.write_all_at(bytes, address).is_ok()),
            count => count == Ok(bytes.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_files_is_told_from_the_rest() {
        let expected = Mapping {
            start: 0x55d0_0000_1000,
            end: 0x55d0_0000_3000,
            offset: 0x1000,
            identity: "fe:00 1234".into(),
            path: "/usr/bin/a b".into(),
        };
        let line = "55d000001000-55d000003000 r-xp 00001000 fe:00 1234                       /usr/bin/a b";
        assert_eq!(mapping(line), Some(expected));
        for other in [
            "55d000001000-55d000003000 r--p 00001000 fe:00 1234                       /usr/bin/a",
            "7ffd0000a000-7ffd0000c000 r-xp 00000000 00:00 0                          [vdso]",
            "7f0000000000-7f0000001000 rwxp 00000000 00:00 0 ",
            "",
        ] {
            assert_eq!(mapping(other), None, "{other}");
        }
    }

    #[test]
    fn memory_is_read_and_written_where_the_process_may() {
        let proc = Proc::open("/proc").unwrap();
        let own = Pid::this();
        assert_eq!(proc.family(own).unwrap(), (own, Pid::parent()));
        assert!(!proc.code(own).unwrap().is_empty());
        let mut memory = proc.memory(own);
        let (mut bytes, mut read) = (*b"before", [0; 6]);
        let address = bytes.as_mut_ptr().expose_provenance() as u64;
        assert!(memory.read(address, &mut read));
        assert_eq!(&read, b"before");
        assert!(memory.write(address, b"after!"));
        assert!(memory.read(address, &mut read));
        assert_eq!(&read, b"after!");
        assert!(!memory.read(8, &mut read) && !memory.write(8, b"x"));
        assert_eq!(memory.read_some(8, &mut read), 0);
    }
}
