//! Guestinfo from QEMU's fw_cfg device: one read-only file in VMX syntax, as the kernel shows it in sysfs
//! (Linux, Documentation/ABI/testing/sysfs-firmware-qemu_fw_cfg).

use std::io;

use wire::vmx::Dictionary;

use super::StoreError;

const PATH: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/guestinfo/raw";

pub(super) fn read() -> Result<Dictionary, StoreError> {
    let text = std::fs::read_to_string(PATH).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => StoreError::Absent("fw_cfg file opt/guestinfo"),
        _ => StoreError::Unreadable { from: PATH, source },
    })?;
    Dictionary::parse(&text).map_err(|source| StoreError::Malformed { from: PATH, source })
}
