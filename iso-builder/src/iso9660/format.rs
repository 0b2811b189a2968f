//! The units of ISO 9660: sectors, numbers in both byte orders, and times. ECMA-119 (4th edition), sections 7 and 8.4.26.
//!
//! It decides nothing: what the numbers mean is decided where they are used.

use crate::tree::Time;

/// Bytes of a logical sector, and of a logical block in every image here.
pub(super) const SECTOR: usize = 2048;
pub(super) const SECTOR_BYTES: u64 = 2048;

/// A little-endian number at `at`; zero beyond the end.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_le_bytes)
}

/// A little-endian number at `at`; zero beyond the end.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_le_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// A number of 16 bits, little-endian and then big-endian (ECMA-119, 7.2.3).
pub(super) fn both16(value: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d]
}

/// A number of 32 bits, little-endian and then big-endian (ECMA-119, 7.3.3).
pub(super) fn both32(value: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d, e, f, g, h]
}

/// Year, month, day, hour, minute, second of UTC.
pub(super) type Civil = (i64, u8, u8, u8, u8, u8);

/// The calendar's reading of a time, whose part of a second is dropped. Years are those of the Gregorian calendar, also before it was known.
pub(super) fn civil(time: Time) -> Civil {
    let (days, within) = (time.secs.div_euclid(86_400), time.secs.rem_euclid(86_400));
    // the era of 400 years, of 146,097 days, that begins on the 1st of March: leap days come last in it
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * day + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let small = |number: i64| u8::try_from(number).expect("below 60");
    let day = day - (153 * shifted_month + 2) / 5 + 1;
    (year, small(month), small(day), small(within / 3600), small(within / 60 % 60), small(within % 60))
}

/// The time that a calendar's reading stands for; `None` where there is no such day or hour.
pub(super) fn time(civil: Civil) -> Option<Time> {
    let (year, month, day, hour, minute, second) = civil;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month = (i64::from(month) + 9) % 12;
    let of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let secs = days * 86_400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    Some(Time { secs, nanos: 0 })
}

/// Whether the 7 bytes of a record hold this time.
pub(super) fn has_date(time: Time) -> bool {
    (1900..=2155).contains(&civil(time).0)
}

/// The 7 bytes of a record's time (ECMA-119, 9.1.5), in UTC. The year must be one of 1900 to 2155.
pub(super) fn date(time: Time) -> [u8; 7] {
    let (year, month, day, hour, minute, second) = civil(time);
    [u8::try_from(year - 1900).unwrap_or(0), month, day, hour, minute, second, 0]
}

/// What [`date`] wrote; none for bytes that are no time, as all zeros.
pub(super) fn from_date(bytes: &[u8]) -> Option<Time> {
    let &[year, month, day, hour, minute, second, zone] = bytes.first_chunk()?;
    zoned(time((1900 + i64::from(year), month, day, hour, minute, second))?, zone)
}

/// The 17 bytes of a volume's time: digits, and hundredths (ECMA-119, 8.4.26.1), in UTC.
pub(super) fn digits(time: Time) -> [u8; 17] {
    let (year, month, day, hour, minute, second) = civil(time);
    let text = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}{:02}\0", time.nanos / 10_000_000);
    text.into_bytes().try_into().unwrap_or(NEVER)
}

/// The digits of a time that is not given.
pub(super) const NEVER: [u8; 17] = *b"0000000000000000\0";

/// What [`digits`] wrote.
pub(super) fn from_digits(bytes: &[u8]) -> Option<Time> {
    let bytes: &[u8; 17] = bytes.first_chunk()?;
    let number = |at: usize, len: usize| {
        let digits = bytes[at..at + len].iter();
        digits
            .map(|digit| digit.is_ascii_digit().then(|| i64::from(digit - b'0')))
            .try_fold(0, |sum, digit| Some(sum * 10 + digit?))
    };
    let small = |at| number(at, 2).and_then(|value| u8::try_from(value).ok());
    let seconds = time((number(0, 4)?, small(4)?, small(6)?, small(8)?, small(10)?, small(12)?))?;
    let nanos = u32::from(small(14)?) * 10_000_000;
    Some(Time { nanos, ..zoned(seconds, bytes[16])? })
}

/// Zones are quarters of an hour east of Greenwich, from -48 to 52.
fn zoned(time: Time, zone: u8) -> Option<Time> {
    let quarters = i64::from(zone.cast_signed());
    (-48..=52).contains(&quarters).then_some(Time { secs: time.secs - quarters * 900, ..time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_that_a_record_holds_is_read_back() {
        let mut secs = -2_208_988_800; // 1900-01-01
        let mut days = 0;
        while has_date(Time { secs, nanos: 0 }) {
            let instant = Time { secs: secs + 3723, nanos: 0 };
            assert_eq!(from_date(&date(instant)), Some(instant));
            assert_eq!(from_digits(&digits(instant)), Some(instant));
            secs += 86_400;
            days += 1;
        }
        assert_eq!(days, 256 * 365 + 62);
    }

    #[test]
    fn known_times() {
        assert_eq!(civil(Time { secs: 0, nanos: 0 }), (1970, 1, 1, 0, 0, 0));
        assert_eq!(civil(Time { secs: 951_782_400, nanos: 0 }), (2000, 2, 29, 0, 0, 0));
        assert_eq!(civil(Time { secs: -1, nanos: 0 }), (1969, 12, 31, 23, 59, 59));
        assert_eq!(from_date(&[70, 1, 1, 1, 0, 0, 4]), Some(Time::default()), "an hour east");
        assert_eq!(from_date(&[0; 7]), None);
        assert_eq!(from_digits(&NEVER), None);
    }
}
