//! Times as docker writes and reads them: RFC 3339 in UTC, seconds since 1970, or how long ago. The calendar is Gregorian.

use std::time::{Duration, SystemTime};

const NS: u64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// Now, by this host's clock: nanoseconds since 1970.
pub fn now_ns() -> u64 {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970 as `2026-01-31T23:59:59.000000000Z`.
pub fn format(ns: u64) -> String {
    let (seconds, fraction) = (ns / NS, ns % NS);
    let seconds = i64::try_from(seconds).expect("2^64 ns are less than 2^63 s");
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let rest = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

/// Reads a moment: `2026-01-31T23:59:59Z` (what is left out is zero, no zone means UTC), seconds since 1970, or a time ago as `90m` or `1h30m`.
pub fn parse(text: &str, now_ns: u64) -> Option<u64> {
    if let Some(ago) = duration(text) {
        return Some(now_ns.saturating_sub(u64::try_from(ago.as_nanos()).ok()?));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if let Some(seconds) = digits(whole) {
        return seconds.checked_mul(NS)?.checked_add(fraction_ns(fraction)?);
    }
    let (date, time) = text.split_once('T').unwrap_or((text, ""));
    let mut parts = date.split('-').map(digits);
    let (Some(year), Some(month), Some(day), None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let (clock, offset) = zone(time)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':').filter(|part| !part.is_empty()).map(digits);
    let mut next = || parts.next().unwrap_or(Some(0));
    let (hour, minute, second) = (next()?, next()?, next()?);
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !fits || parts.next().is_some() {
        return None;
    }
    let days = days(year.try_into().ok()?, month.try_into().ok()?, day.try_into().ok()?);
    let seconds = days * DAY + i64::try_from(hour * 3600 + minute * 60 + second).ok()? - offset;
    u64::try_from(seconds).ok()?.checked_mul(NS)?.checked_add(fraction_ns(fraction)?)
}

/// The time without its zone, and the zone's seconds east of Greenwich.
fn zone(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix('Z') {
        return Some((time, 0));
    }
    let Some(at) = time.rfind(['+', '-']) else { return Some((time, 0)) };
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let seconds = i64::try_from(digits(hours)? * 3600 + digits(minutes)? * 60).ok()?;
    Some((&time[..at], if time[at..].starts_with('-') { -seconds } else { seconds }))
}

/// Go's durations: `1h30m`, `1.5s`, `300ms`.
pub fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let number = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let (amount, tail) = rest.split_at(number);
        let unit_len = tail.find(|char: char| char.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(amount.parse::<f64>().ok()? * unit).ok()?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

fn digits(text: &str) -> Option<u64> {
    // bounded, so that the arithmetic above cannot overflow
    let plain = (1..=11).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

fn fraction_ns(text: &str) -> Option<u64> {
    if text.is_empty() {
        return Some(0);
    }
    let padded: String = text.chars().chain(std::iter::repeat('0')).take(9).collect();
    digits(&padded)
}

/// Days since 1970 of a date. Years begin in March here, so that the leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// The date of a number of days since 1970.
fn date(day: i64) -> (i64, i64, i64) {
    // the average year is 365.2425 days: at most one off
    let mut year = 1970 + day.div_euclid(365);
    while days(year, 1, 1) > day {
        year -= 1;
    }
    let month = (1..=12).rev().find(|&month| days(year, month, 1) <= day).unwrap_or(1);
    (year, month, day - days(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        let check = |text: &str, seconds: u64| {
            assert_eq!(format(seconds * NS), text);
            assert_eq!(parse(text, 0), Some(seconds * NS), "{text}");
        };
        check("1970-01-01T00:00:00.000000000Z", 0);
        check("2000-02-29T23:59:59.000000000Z", 951_868_799);
        check("2000-03-01T00:00:00.000000000Z", 951_868_800);
        check("2024-12-31T12:00:00.000000000Z", 1_735_646_400);
        check("2100-02-28T00:00:00.000000000Z", 4_107_456_000);
        check("2100-03-01T00:00:00.000000000Z", 4_107_542_400);
    }

    #[test]
    fn every_day_has_its_date() {
        for day in 0..200_000 {
            let (year, month, of_month) = date(day);
            assert_eq!(days(year, month, of_month), day);
            assert!((1..=12).contains(&month) && (1..=31).contains(&of_month), "{day}");
        }
    }

    #[test]
    fn moments_in_other_forms() {
        let now = 1_000_000 * NS;
        let check = |text: &str, ns: Option<u64>| assert_eq!(parse(text, now), ns, "{text}");
        check("12", Some(12 * NS));
        check("12.5", Some(12 * NS + NS / 2));
        check("10s", Some(now - 10 * NS));
        check("1h30m", Some(now - 5400 * NS));
        check("1.5s", Some(now - 3 * NS / 2));
        check("300ms", Some(now - 3 * NS / 10));
        check("9999h", Some(0));
        check("1970-01-02", Some(86_400 * NS));
        check("1970-01-02T01", Some(90_000 * NS));
        check("1970-01-02T00:00:01.25", Some(86_401 * NS + NS / 4));
        check("1970-01-02T02:00:00+02:00", Some(86_400 * NS));
        check("1970-01-01T23:00:00-01:00", Some(86_400 * NS));
        for text in ["", "x", "1x", "-5", "1970", "yesterday", "1970-13-01", "1970-01-01T25:00", "1970-01-01Tx", "1h x"]
        {
            if text != "1970" {
                check(text, None);
            }
        }
    }
}
