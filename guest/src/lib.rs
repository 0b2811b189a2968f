//! What any PID 1 in our VMs needs, and nothing that only one of them does.
//!
//! ```text
//! guestinfo   where keys come from          disks    a disk by its label
//! pipe        the device under the link     mounts   early file systems, the container's root
//! events      the one place that waits      reap     which children ended, and how
//! cgroup      the container's group         stats    what it uses
//! processes   what runs in it               inspect  what lies at a path
//! copy        files in and out              log      the device of the log
//! masks       what a container cannot see   sysctl   kernel parameters
//! power       the only way out              sys      the unsafe fence
//! ```

pub mod cgroup;
pub mod clock;
pub mod copy;
pub mod disks;
pub mod events;
pub mod guestinfo;
pub mod inspect;
pub mod log;
pub mod masks;
pub mod mounts;
pub mod pipe;
pub mod power;
pub mod power_button;
pub mod processes;
pub mod reap;
pub mod stats;
#[allow(unsafe_code)]
pub mod sys;
pub mod sysctl;
