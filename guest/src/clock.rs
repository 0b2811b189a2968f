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

/// How far the machine's clock may be behind before it is set: a step is felt by programs, a tenth of a second is not.
const BEHIND_NS: i64 = 100_000_000;
/// How far it may be ahead. What the host says may have been under way for a while, and is older then than it sounds.
const AHEAD_NS: i64 = 5_000_000_000;

/// Sets the time of day, in nanoseconds since 1970, if the clock is more than 100 ms behind it or 5 s ahead of it; true if it was. A machine that has slept, or
/// is a copy of another, is behind.
pub fn set_wall(unix_ns: i64) -> io::Result<bool> {
    let is_off = is_off(i64::try_from(wall_nanos()).unwrap_or(i64::MAX), unix_ns);
    if is_off {
        clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::nanoseconds(unix_ns))?;
    }
    Ok(is_off)
}

fn is_off(ours: i64, theirs: i64) -> bool {
    let ahead = ours.saturating_sub(theirs);
    !(-BEHIND_NS..=AHEAD_NS).contains(&ahead)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_clock_is_set_only_when_it_is_off() {
        let check = |ours, theirs, expected| assert_eq!(super::is_off(ours, theirs), expected, "{ours} {theirs}");
        check(0, 100_000_000, false);
        check(0, 100_000_001, true);
        check(5_000_000_000, 0, false);
        check(5_000_000_001, 0, true);
        check(i64::MIN, i64::MAX, true);
        check(i64::MAX, i64::MIN, true);
    }
}
