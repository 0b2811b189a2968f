//! Where the host's keys come from, and where the guest's own go. What they mean is decided in `wire::guestinfo`.

mod file;
mod fw_cfg;

use std::fmt;
use std::io;

use wire::vmx::{Dictionary, SyntaxError};

pub use file::FileStore;

/// Keys that guest and host share.
pub trait Store: fmt::Debug {
    /// Every key that it holds, as it is now.
    fn read(&self) -> Result<Dictionary, StoreError>;

    /// One key, as it is now.
    fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.read()?.get(key).map(str::to_owned))
    }

    /// [`Store::set`] can be used.
    fn is_writable(&self) -> bool;

    /// Sets a key, at once and whole: nobody reads half of a value.
    fn set(&mut self, key: &str, value: &str) -> Result<(), StoreError>;
}

/// Why there are no keys, or why one could not be set.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no guestinfo: this machine has no {0} (QEMU: -fw_cfg name=opt/guestinfo,file=...)")]
    Absent(&'static str),
    #[error("cannot read guestinfo from {from}")]
    Unreadable { from: String, source: io::Error },
    #[error("guestinfo in {from} is not a dictionary: {source}")]
    Malformed { from: String, source: SyntaxError },
    #[error("cannot set {key} in {place}")]
    Unwritable { key: String, place: String, source: io::Error },
}

/// The store that the hypervisor has for this machine. It stays open: whatever the container mounts over its place, it is still the hypervisor's.
pub fn open() -> Result<Box<dyn Store>, StoreError> {
    fw_cfg::FwCfg::open().map(|store| Box::new(store) as Box<dyn Store>)
}
