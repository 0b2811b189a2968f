//! What tools tell of their guest, kept for tests to look at.

use std::collections::BTreeMap;

/// What was told, the last of each kind; of events all, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The words behind `tools.set.version` or `tools.set.versiontype`: `2147483647` for tools that the guest's maker looks after.
    pub version: Option<String>,
    /// `tools.capability.NAME` and the words behind it.
    pub capabilities: BTreeMap<String, String>,
    /// `SetGuestInfo  SLOT DATA`.
    pub guest: BTreeMap<u32, Vec<u8>>,
    /// The document of `SetGuestDiskInfo`.
    pub disks: Option<Vec<u8>>,
    /// `tools.os.statechange.status`: whether it went well, and which change (1 halt, 2 reboot, 3 power on, 4 resume, 5 suspend).
    pub state_changes: Vec<(bool, u32)>,
    /// `log`: lines for vmware.log.
    pub log: Vec<String>,
}
