//! What any PID 1 in our VMs needs, and nothing that only one of them does.
//!
//! ```text
//! guestinfo   where keys come from          disks    a disk by its label
//! pipe        the device under the link     mounts   early file systems, the container's root
//! events      the one place that waits      reap     which children ended, and how
//! cgroup      the container's group         stats    what it uses
//! processes   what runs in it               inspect  what lies at a path
//! copy        files in and out              log      the device of the log
//! journal     PID 1's own log               syslog   output, for a server of logs
//! devices     what a container can use      uevents  devices that come
//! net         cards, addresses, netlink     reclaim  memory, given back while idle
//! hotplug     processors, taken into use    filter   system calls that nobody may use
//! image       files that it brings          power    the only way out
//! protection  PID 1 and its container       kernel_log  what the kernel has said
//! sys         the unsafe fence
//! ```

pub mod cgroup;
pub mod clock;
pub mod copy;
pub mod devices;
pub mod disks;
pub mod events;
pub mod filter;
pub mod guestinfo;
pub mod hotplug;
pub mod image;
pub mod inspect;
pub mod journal;
pub mod kernel_log;
pub mod log;
pub mod mounts;
pub mod net;
pub mod pipe;
pub mod power;
pub mod power_button;
pub mod processes;
pub mod protection;
pub mod reap;
pub mod reclaim;
pub mod stats;
#[allow(unsafe_code)]
pub mod sys;
pub mod syslog;
pub mod uevents;
