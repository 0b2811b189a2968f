//! Guestinfo from QEMU's fw_cfg device: one read-only file in VMX syntax, as the kernel shows it in sysfs
//! (Linux, Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg).

use std::fs::File;
use std::io::{self, Read as _, Seek as _};

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
        let (mut file, mut text) = (&self.0, String::new());
        file.rewind().and_then(|()| file.read_to_string(&mut text)).map_err(unreadable)?;
        Dictionary::parse(&text).map_err(|source| StoreError::Malformed { from: PATH.into(), source })
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn set(&mut self, key: &str, _value: &str) -> Result<(), StoreError> {
        let source = io::ErrorKind::ReadOnlyFilesystem.into();
        Err(StoreError::Unwritable { key: key.into(), place: "QEMU's fw_cfg".into(), source })
    }
}

fn unreadable(source: io::Error) -> StoreError {
    StoreError::Unreadable { from: PATH.into(), source }
}
