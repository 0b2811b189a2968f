//! Where the host's keys come from. What they mean is decided in `wire::guestinfo`.

mod fw_cfg;

use std::io;

use wire::vmx::{Dictionary, SyntaxError};

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no guestinfo: this machine has no {0} (QEMU: -fw_cfg name=opt/guestinfo,file=...)")]
    Absent(&'static str),
    #[error("cannot read guestinfo from {from}")]
    Unreadable { from: &'static str, source: io::Error },
    #[error("guestinfo in {from} is not a dictionary: {source}")]
    Malformed { from: &'static str, source: SyntaxError },
}

/// The keys that the hypervisor holds for this machine.
pub fn read() -> Result<Dictionary, StoreError> {
    fw_cfg::read()
}
