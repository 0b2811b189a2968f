//! Amounts as text: times, sizes and shares of processors. Without a unit a time is in seconds and a size in bytes.
//!
//! `inline(never)`: see `node`.

use core::time::Duration;

const TIMES: [(&str, u64); 6] =
    [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000), ("ns", 1)];

/// `30`, `500ms`, `1m30s`.
#[inline(never)]
pub(crate) fn time(text: &str) -> Option<Duration> {
    if let Some(seconds) = number(text) {
        return Some(Duration::from_secs(seconds));
    }
    let (mut rest, mut nanos) = (text, 0_u64);
    while !rest.is_empty() {
        let (digits, behind) = rest.split_at(rest.find(|char: char| !char.is_ascii_digit())?);
        let (unit, behind) = behind.split_at(behind.find(|char: char| char.is_ascii_digit()).unwrap_or(behind.len()));
        let (_, factor) = TIMES.iter().find(|(name, _)| *name == unit)?;
        nanos = nanos.checked_add(number(digits)?.checked_mul(*factor)?)?;
        rest = behind;
    }
    (!text.is_empty()).then(|| Duration::from_nanos(nanos))
}

/// In whole seconds, or else in the greatest unit that leaves no rest.
pub(super) fn time_text(time: Duration) -> String {
    let nanos = time.as_nanos();
    match TIMES[2..].iter().find(|(_, factor)| nanos.is_multiple_of(u128::from(*factor))) {
        Some(("s", _)) | None => time.as_secs().to_string(),
        Some((unit, factor)) => format!("{}{unit}", nanos / u128::from(*factor)),
    }
}

/// `1073741824`, `1g`: as docker's `-m`, a letter stands for a power of 1024, and a `b` may follow.
#[inline(never)]
pub(crate) fn size(text: &str) -> Option<u64> {
    let text = text.strip_suffix(['b', 'B']).unwrap_or(text);
    let power =
        text.as_bytes().last().and_then(|last| b"kmgt".iter().position(|unit| *unit == last.to_ascii_lowercase()));
    let (digits, shift) = match power {
        Some(power) => (&text[..text.len() - 1], 10 * (power + 1)),
        None => (text, 0),
    };
    number(digits)?.checked_mul(1 << shift)
}

/// `2`, `1.5`: processors, in thousandths.
#[inline(never)]
pub(super) fn thousandths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let places = u32::try_from(part.len()).ok().filter(|places| (1..=3).contains(places))?;
    let part = number(part)?.checked_mul(10_u64.pow(3 - places))?;
    u32::try_from(number(whole)?.checked_mul(1000)?.checked_add(part)?).ok()
}

pub(super) fn thousandths_text(thousandths: u32) -> String {
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

/// Digits and nothing else: `parse` takes a sign too.
#[inline(never)]
pub(crate) fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, ms) in [
            ("0", 0),
            ("30", 30_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("1000us", 1),
            ("1s1ms", 1001),
        ] {
            assert_eq!(time(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "-1", "+1", "1d", "s", "1.5s", "1s ", "30x", "99999999999h", "1m30"] {
            assert_eq!(time(text), None, "{text:?}");
        }
        for (nanos, text) in [(0, "0"), (90_000_000_000, "90"), (1_500_000_000, "1500ms"), (1000, "1us"), (7, "7ns")] {
            assert_eq!(time_text(Duration::from_nanos(nanos)), text);
            assert_eq!(time(text), Some(Duration::from_nanos(nanos)));
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("7", 7), ("7b", 7), ("1k", 1024), ("64M", 64 << 20), ("2gb", 2 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "b", "-1", "1.5g", "1x", "1 k", "99999999999t", "1é"] {
            assert_eq!(size(text), None, "{text:?}");
        }
    }

    #[test]
    fn shares() {
        for (text, share) in [("1", 1000), ("0.5", 500), ("1.25", 1250), ("0.001", 1), ("12.000", 12_000)] {
            assert_eq!(thousandths(text), Some(share), "{text}");
            assert_eq!(thousandths(&thousandths_text(share)), Some(share));
        }
        for text in ["", ".", "1.", ".5", "1.0001", "-1", "1,5", "4294968", "1e3"] {
            assert_eq!(thousandths(text), None, "{text:?}");
        }
    }
}
