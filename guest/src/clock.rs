//! Time since the machine began, which no administrator can set; and the time of day, for those who read a log.

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

/// Nanoseconds since 1970, as the machine's clock has it.
pub fn wall_nanos() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from);
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
