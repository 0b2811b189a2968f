//! Where the host's keys come from, and where the guest's own go. What they mean is decided in `wire::guestinfo`.

mod file;
mod fw_cfg;
mod vmware;

use std::fmt;
use std::io;

use wire::guestinfo::{Generation, Keys};
use wire::vmx::{Dictionary, SyntaxError};

pub use file::FileStore;
pub use vmware::VmwareStore;

use crate::vmware::RpcError;

/// Keys that guest and host share.
pub trait Store: fmt::Debug {
    /// Every key of the spec that it holds, as it is now.
    fn read(&self) -> Result<Dictionary, StoreError>;

    /// One key, as it is now.
    fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.read()?.get(key).map(str::to_owned))
    }

    /// [`Store::set`] can be used.
    fn is_writable(&self) -> bool;

    /// Sets a key, at once and whole: nobody reads half of a value.
    fn set(&mut self, key: &str, value: &str) -> Result<(), StoreError>;

    /// Waits until this machine goes on as a copy of itself, and gives the keys of [`wire::guestinfo::generation`] as they are then.
    fn freeze(&mut self) -> Result<Dictionary, StoreError>;
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
    #[error(
        "no guestinfo: nothing is set for this VM. Set guestinfo.vice./spec, or guestinfo.vice./common/id and what else docs/guestinfo.md requires, in its .vmx file or its advanced parameters (ExtraConfig)"
    )]
    Empty,
    #[error("cannot reach VMware's guestinfo")]
    Unreachable(#[source] RpcError),
    #[error("cannot read {key} of VMware's guestinfo")]
    Unasked { key: String, source: RpcError },
    #[error("cannot set {key} of VMware's guestinfo")]
    Unset { key: String, source: RpcError },
    #[error("guestinfo {key} is not text in UTF-8")]
    NoText { key: String },
    #[error("{0} cannot have this machine wait for being cloned")]
    NoClones(&'static str),
    #[error("VMware cannot have this machine wait for being cloned")]
    Unfrozen(#[source] RpcError),
    #[error("guestinfo has more keys, or longer values, than any spec needs")]
    Endless,
}

/// Asks for the keys that make a spec of some kind, by reading one. VMware lists none: who wants all has to know which there may be.
pub type Walk = fn(&dyn Keys);

/// The store that the hypervisor has for this machine. It stays open: whatever the container mounts over its place, it is still the hypervisor's.
pub fn open() -> Result<Box<dyn Store>, StoreError> {
    open_for(walk)
}

/// A template has no spec to ask for, and only a clone has devices that its template had not. What is wrong is found again by whoever reads the dictionary.
fn walk(keys: &dyn Keys) {
    match wire::guestinfo::generation(keys) {
        Ok(Some(Generation::Template { .. })) | Err(_) => {}
        Ok(Some(Generation::Clone { .. })) => {
            drop(wire::guestinfo::cards(keys));
            wire::guestinfo::has_more_disks(keys);
            drop(wire::guestinfo::read(keys));
        }
        Ok(None) => drop(wire::guestinfo::read(keys)),
    }
}

/// The same for keys that are not a containerVM's.
pub fn open_for(walk: Walk) -> Result<Box<dyn Store>, StoreError> {
    if crate::vmware::is_here() {
        return vmware::VmwareStore::open(walk).map(|store| Box::new(store) as Box<dyn Store>);
    }
    fw_cfg::FwCfg::open().map(|store| Box::new(store) as Box<dyn Store>)
}
