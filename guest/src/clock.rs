//! Time since the machine began, which no administrator can set; and the time of day, for those who read a log.

use std::io;
use std::time::Duration;

use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::time::{ClockId, clock_gettime, clock_settime};

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

/// How far the machine's clock may be off before it is set: the least that a host, busy as it is, can tell for sure.
const TOLERANCE_NS: u64 = 100_000_000;

/// Sets the time of day, in nanoseconds since 1970, if the clock is off by more than 100 ms; true if it was. A step is felt by programs, a tenth of a second is not.
pub fn set_wall(unix_ns: i64) -> io::Result<bool> {
    let is_off = is_off(i64::try_from(wall_nanos()).unwrap_or(i64::MAX), unix_ns);
    if is_off {
        clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::nanoseconds(unix_ns))?;
    }
    Ok(is_off)
}

fn is_off(ours: i64, theirs: i64) -> bool {
    ours.abs_diff(theirs) > TOLERANCE_NS
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_clock_is_set_only_when_it_is_off() {
        let check = |ours, theirs, expected| assert_eq!(super::is_off(ours, theirs), expected, "{ours} {theirs}");
        check(0, 100_000_000, false);
        check(100_000_001, 0, true);
        check(i64::MIN, i64::MAX, true);
    }
}
