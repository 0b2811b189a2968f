//! PAX extended headers: records of `LENGTH KEY=VALUE\n`, whose values may hold any byte.
//!
//! Records that say nothing about an image (access times, owners' names, comments) are passed over.

use std::collections::BTreeMap;

use crate::tree::Time;

type Parsed<T> = Result<T, &'static str>;

/// What extended headers override.
#[derive(Clone, Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: SparseKeys,
}

/// The `GNU.sparse.*` records.
#[derive(Clone, Debug, Default)]
pub(super) struct SparseKeys {
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// Format 1.0: the map lies before the data.
    pub(super) map_in_data: bool,
    /// Formats 0.0 and 0.1: offsets and lengths by turns.
    pub(super) map: Vec<u64>,
}

impl SparseKeys {
    pub(super) fn is_used(&self) -> bool {
        self.size.is_some() || self.map_in_data || !self.map.is_empty()
    }
}

impl Extended {
    /// Takes over every record of an extended header; a later one wins, an empty one takes back.
    pub(super) fn read(&mut self, mut rest: &[u8]) -> Parsed<()> {
        while !rest.is_empty() {
            let (key, value, behind) = record(rest)?;
            self.set(key, value)?;
            rest = behind;
        }
        let held: usize = self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        // Headers add up, be they global or of one file; the limit of one holds for their sum.
        if self.sparse.map.len() > MAP_LIMIT {
            return Err("its sparse map has more numbers than one extended header holds");
        }
        if held > 1 << 20 { Err("more than 1 MiB of xattrs") } else { Ok(()) }
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Parsed<()> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            return self.xattr(name.to_vec(), value.to_vec());
        }
        if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            let name = percent_decoded(name);
            // bsdtar writes both forms; the other one is not encoded.
            if self.xattrs.contains_key(&name) {
                return Ok(());
            }
            return self.xattr(name, base64_decoded(value).ok_or("an xattr is not base64")?);
        }
        let bytes = (!value.is_empty()).then(|| value.to_vec());
        let id = |why| optional(value, |text| u32::try_from(decimal(text)?).ok(), why);
        match key {
            b"path" => self.path = bytes,
            b"linkpath" => self.link = bytes,
            b"size" => self.size = optional(value, decimal, "its size is no number")?,
            b"uid" => self.uid = id("its uid is no number of 32 bits")?,
            b"gid" => self.gid = id("its gid is no number of 32 bits")?,
            b"mtime" => self.mtime = optional(value, time, "its mtime is no time")?,
            b"GNU.sparse.name" => self.sparse.name = bytes,
            b"GNU.sparse.major" => self.sparse.map_in_data = value == b"1",
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse.size = optional(value, decimal, "its real size is no number")?;
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.map.push(decimal(value).ok_or("its sparse map is no list of numbers")?);
            }
            b"GNU.sparse.map" => {
                let numbers: Option<_> = value.split(|&byte| byte == b',').map(decimal).collect();
                self.sparse.map = numbers.ok_or("its sparse map is no list of numbers")?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Names outside of Linux's namespaces (macOS writes such) could not be set on Linux and are dropped.
    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>) -> Parsed<()> {
        if !NAMESPACES.iter().any(|space| name.len() > space.len() && name.starts_with(space)) {
            return Ok(());
        }
        if name.len() > 255 || name.contains(&0) {
            return Err("an xattr's name is too long or holds a NUL");
        }
        if value.len() > XATTR_LIMIT {
            return Err("an xattr is larger than 64 KiB");
        }
        self.xattrs.insert(name, value);
        Ok(())
    }
}

/// The first record of `bytes` and what is behind it.
fn record(bytes: &[u8]) -> Parsed<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(LENGTH_DIGITS + 1).position(|&byte| byte == b' ').ok_or("a record has no length")?;
    let len = decimal(&bytes[..space]).and_then(|len| usize::try_from(len).ok()).ok_or("a record has no length")?;
    let (record, behind) = bytes.split_at_checked(len).ok_or("a record is longer than its header")?;
    let body = record.get(space + 1..).and_then(|body| body.strip_suffix(b"\n")).ok_or("a record has no end")?;
    let equals = memchr::memchr(b'=', body).ok_or("a record has no =")?;
    Ok((&body[..equals], &body[equals + 1..], behind))
}

fn optional<T>(value: &[u8], parse: impl Fn(&[u8]) -> Option<T>, why: &'static str) -> Parsed<Option<T>> {
    match value {
        b"" => Ok(None),
        value => parse(value).map(Some).ok_or(why),
    }
}

/// A decimal number of at most `i64::MAX`, so that sums of a few do not overflow.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse::<i64>().ok()?.try_into().ok()
}

/// Seconds with a fraction, of which nine digits count; times before 1970 are rounded down.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let secs = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanos) {
        (false, _) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos: 0 },
        (true, _) => Time { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = behind.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &behind[2..] } else { behind };
    }
    decoded
}

/// Base64 with or without padding.
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0u32, 0);
    for &digit in text.trim_ascii_end().iter().filter(|&&digit| digit != b'=') {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            decoded.push((held >> bits).to_be_bytes()[3]);
            held &= (1 << bits) - 1;
        }
    }
    Some(decoded)
}

/// The beginnings of names that Linux lets anybody set.
const NAMESPACES: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system."];

/// Bytes of one xattr's value: `XATTR_SIZE_MAX` of Linux.
const XATTR_LIMIT: usize = 64 << 10;

/// Numbers of a sparse map: as many as 1 MiB has room for, a digit and a comma each.
const MAP_LIMIT: usize = 1 << 19;

/// A longer length would be of a header larger than may be.
const LENGTH_DIGITS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_do_not_grow_from_header_to_header() {
        let records = b"25 GNU.sparse.numbytes=1\n".repeat(1 << 15);
        let mut extended = Extended::default();
        (0..16).for_each(|_| extended.read(&records).unwrap());
        assert_eq!(extended.sparse.map.len(), MAP_LIMIT);
        let error = extended.read(&records).unwrap_err();
        assert_eq!(error, "its sparse map has more numbers than one extended header holds");
    }

    #[test]
    fn times_are_rounded_down() {
        let cases: [(&str, Option<(i64, u32)>); 9] = [
            ("0", Some((0, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-1", Some((-1, 0))),
            ("7.000000001", Some((7, 1))),
            ("7.0000000019", Some((7, 1))),
            ("1e9", None),
            ("", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(time(text.as_bytes()), expected.map(|(secs, nanos)| Time { secs, nanos }), "{text}");
        }
    }

    #[test]
    fn libarchive_names_and_values_are_decoded() {
        assert_eq!(percent_decoded(b"user.a%3Db%"), b"user.a=b%");
        for (text, expected) in [("", &b""[..]), ("AAo=", b"\0\n"), ("AAo", b"\0\n"), ("/+8A", b"\xff\xef\0")] {
            assert_eq!(base64_decoded(text.as_bytes()).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(base64_decoded(b"A-"), None);
    }

    #[test]
    fn broken_records_are_errors() {
        for bad in [
            "x",
            "6 a=b",
            "5 a=b\n",
            "7 a=b\n",
            "6 aab\n",
            " a=b\n",
            "0 a=b\n",
            "1 a=b\n",
            "99999999999999999999 a=b\n",
        ] {
            assert!(Extended::default().read(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
