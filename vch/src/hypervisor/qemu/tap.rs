//! A tap of the host's kernel, opened for a QEMU that may not open one itself: it is another user, and `/dev/net/tun` need not be open to everybody.
//!
//! It decides nothing but how that is done without unsafe code of ours: smoltcp attaches to the device, and the kernel gives this program one more descriptor of that.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context, Result};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use smoltcp::phy::{Medium, TunTapInterface};

/// Attaches to a tap that nobody else is attached to.
///
/// For a moment there is a descriptor that a program which is started now would inherit: machines are started on this thread, too, and so not now.
pub(super) fn open(device: &str) -> Result<OwnedFd> {
    let tap =
        TunTapInterface::new(device, Medium::Ethernet).with_context(|| format!("cannot open the tap {device}"))?;
    let own = pidfd_open(getpid(), PidfdFlags::empty()).context("pidfd_open needs Linux 5.3")?;
    pidfd_getfd(own, tap.as_raw_fd(), PidfdGetfdFlags::empty()).context("pidfd_getfd needs Linux 5.6")
}
