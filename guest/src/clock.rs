//! Time since the machine began, which no administrator can set.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since boot, suspension included.
pub fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// A time since boot in the unit of messages.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
