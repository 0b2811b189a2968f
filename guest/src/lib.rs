//! What any PID 1 in our VMs needs, and nothing that only one of them does.
//!
//! ```text
//! guestinfo   where keys come from          disks    a disk by its label
//! pipe        the device under the link     mounts   early file systems, the container's root
//! events      the one place that waits      reap     which children ended, and how
//! sys         the unsafe fence              power    the only way out
//! log         the device of the log
//! ```

pub mod clock;
pub mod disks;
pub mod events;
pub mod guestinfo;
pub mod log;
pub mod mounts;
pub mod pipe;
pub mod power;
pub mod power_button;
pub mod reap;
#[allow(unsafe_code)]
pub mod sys;
