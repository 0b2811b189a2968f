//! What any PID 1 in our VMs needs, and nothing that only one of them does.
//!
//! ```text
//! guestinfo   where keys come from          disks    a disk by its label
//! pipe        the device under the link     mounts   early file systems, the container's root
//! events      the one place that waits      reap     which children ended, and how
//! cgroup      the container's group         stats    what it uses
//! processes   what runs in it               inspect  what lies at a path
//! copy        files in and out              log      the device of the log
//! net         cards, addresses, netlink     uevents  devices that come
//! hotplug     processors, taken into use    reclaim  memory, given back while idle
//! protection  PID 1 and its container       filter   system calls that nobody may use
//! devices     what a container can use      masks    what it cannot see
//! image       files that it brings          sysctl   kernel parameters
//! journal     PID 1's own log               syslog   output, for a server of logs
//! kernel_log  what the kernel has said      fork     a machine that is a copy
//! power       the only way out              vmware   VMware's GuestRPC
//! toolbox     what vCenter asks of a guest   sys      the unsafe fence
//! ```

pub mod cgroup;
pub mod clock;
pub mod copy;
pub mod devices;
pub mod disks;
pub mod events;
pub mod filter;
pub mod fork;
pub mod guestinfo;
pub mod hotplug;
pub mod image;
pub mod inspect;
pub mod journal;
pub mod kernel_log;
pub mod log;
pub mod masks;
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
pub mod sysctl;
pub mod syslog;
pub mod toolbox;
pub mod transfer;
pub mod uevents;
pub mod vmware;
mod within;
