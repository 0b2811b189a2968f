//! Guestinfo from QEMU's fw_cfg device: one read-only file in VMX syntax, as the kernel shows it in sysfs
//! (Linux, Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use wire::vmx::Dictionary;

use super::{Store, StoreError};

const PATH: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/guestinfo/raw";

/// The device's file.
#[derive(Debug)]
pub(super) struct FwCfg(File);

impl FwCfg {
    pub(super) fn open() -> Result<FwCfg, StoreError> {
        File::open(PATH).map(FwCfg).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::Absent("fw_cfg file opt/guestinfo"),
            _ => unreadable(source),
        })
    }
}

impl Store for FwCfg {
    fn read(&self) -> Result<Dictionary, StoreError> {
        parse(&self.text(usize::MAX).map_err(unreadable)?)
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn set(&mut self, key: &str, _value: &str) -> Result<(), StoreError> {
        let source = io::ErrorKind::ReadOnlyFilesystem.into();
        Err(StoreError::Unwritable { key: key.into(), place: "QEMU's fw_cfg".into(), source })
    }

    /// A clone's device has other bytes. To look for them again and again is the quickest way to see it, and all that a template does until it is saved,
    /// a moment later. A reading that the fork has cut through may be half the one's and half the other's: the next one is not.
    fn freeze(&mut self) -> Result<Dictionary, StoreError> {
        let look = || self.text(HEAD).map_err(unreadable);
        let before = look()?;
        loop {
            let now = look()?;
            if now != before && now == look()? {
                // the last line may be a part of one
                let whole = now.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                return parse(&now[..whole]);
            }
        }
    }
}

impl FwCfg {
    /// What the file holds up to its end or the first zero, a page at a time, of `most` bytes. To read on costs the kernel to read all before it again.
    fn text(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let mut page = [0; PAGE];
        while text.len() < most {
            let count = self.0.read_at(&mut page[..PAGE.min(most - text.len())], text.len() as u64)?;
            let end = page[..count].iter().position(|&byte| byte == 0);
            text.extend_from_slice(&page[..end.unwrap_or(count)]);
            if end.is_some() || count == 0 {
                break;
            }
        }
        Ok(text)
    }
}

fn parse(text: &[u8]) -> Result<Dictionary, StoreError> {
    let malformed = |source| StoreError::Malformed { from: PATH.into(), source };
    let text = std::str::from_utf8(text).map_err(|_| unreadable(io::ErrorKind::InvalidData.into()))?;
    Dictionary::parse(text).map_err(malformed)
}

/// As much as a read of this file gives at once.
const PAGE: usize = 4096;
/// In so many bytes at the beginning are the keys that tell a clone.
const HEAD: usize = 512;

fn unreadable(source: io::Error) -> StoreError {
    StoreError::Unreadable { from: PATH.into(), source }
}
