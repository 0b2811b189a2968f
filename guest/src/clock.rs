//! Time since the machine began, which no administrator can set; and the time of day, for those who read a log.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
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
        set_wall_exactly(unix_ns)?;
    }
    Ok(is_off)
}

/// Sets the time of day, in nanoseconds since 1970, however little it is off.
pub fn set_wall_exactly(unix_ns: i64) -> io::Result<()> {
    Ok(clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::nanoseconds(unix_ns))?)
}

fn is_off(ours: i64, theirs: i64) -> bool {
    let ahead = ours.saturating_sub(theirs);
    !(-BEHIND_NS..=AHEAD_NS).contains(&ahead)
}

/// The machine's own clock, which goes on while the machine is suspended: its hypervisor keeps it. Linux, Documentation/ABI/testing/rtc-cdev and -sysfs.
///
/// It is opened at boot and stays open: what a container finds at `/sys` may be anything.
#[derive(Debug)]
pub struct HardwareClock(File);

impl HardwareClock {
    pub fn open() -> io::Result<HardwareClock> {
        File::open("/sys/class/rtc/rtc0/since_epoch").map(HardwareClock)
    }

    /// Nanoseconds since 1970, in whole seconds.
    pub fn read(&self) -> io::Result<i64> {
        let mut text = [0; 32];
        let count = self.0.read_at(&mut text, 0)?;
        seconds(&text[..count]).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

fn seconds(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.trim().parse::<i64>().ok()?.checked_mul(1_000_000_000)
}

/// A time of day, in nanoseconds since 1970, as RFC 3339 writes it: in UTC, with microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc(pub u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0 / 1_000_000_000, self.0 / 1000 % 1_000_000);
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// The date so many days after 1970-01-01. A year is counted from March, so that the leap day is its last, and 400 years are 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    // 0000-03-01 lies that many days before
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let first = (153 * month + 2) / 5;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * era + year + next, month, day - first + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_set_only_when_it_is_off() {
        let check = |ours, theirs, expected| assert_eq!(is_off(ours, theirs), expected, "{ours} {theirs}");
        check(0, 100_000_000, false);
        check(0, 100_000_001, true);
        check(5_000_000_000, 0, false);
        check(5_000_000_001, 0, true);
        check(i64::MIN, i64::MAX, true);
        check(i64::MAX, i64::MIN, true);
    }

    #[test]
    fn a_hardware_clock_that_says_nothing_sensible_says_nothing() {
        assert_eq!(seconds(b"1700000000\n"), Some(1_700_000_000_000_000_000));
        for text in [&b""[..], b"\n", b"x", b"99999999999999", &[0xff]] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }

    #[test]
    fn dates_are_those_of_date_1() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_799, "2000-02-29T23:59:59.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (13_569_465_600, "2400-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(Utc(seconds * 1_000_000_000).to_string(), expected);
        }
        assert_eq!(Utc(1_500_000_000_123_456_789).to_string(), "2017-07-14T02:40:00.123456Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = date(0);
        assert_eq!(before, (1970, 1, 1));
        for days in 1..200_000 {
            let (year, month, day) = date(days);
            let next = [(year, month, day - 1), (year, month - 1, before.2), (year - 1, 12, 31)];
            assert!((day > 1 && before == next[0]) || (day == 1 && next[1..].contains(&before)), "{days}");
            before = (year, month, day);
        }
    }
}
