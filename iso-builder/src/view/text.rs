//! What people read of files: names that cannot speak to a terminal, modes as `ls -l` has them, times in UTC.
//!
//! The names in an image are its maker's words. A terminal obeys some of them, so those are spelled out, whether or not a terminal reads: a log is shown on
//! one later.

use std::fmt::{self, Write as _};

use crate::tree::{Kind, Meta, Time};

/// Bytes on one line. What is UTF-8 and visible stays as it is; a backslash is doubled, so that no two names look the same.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                match char {
                    '\\' => out.write_str(r"\\")?,
                    '\n' => out.write_str(r"\n")?,
                    '\t' => out.write_str(r"\t")?,
                    char if char.is_ascii_control() => write!(out, r"\x{:02x}", u32::from(char))?,
                    char if commands(char) => write!(out, r"\u{{{:x}}}", u32::from(char))?,
                    char => out.write_char(char)?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(out, r"\x{byte:02x}"))?;
        }
        Ok(())
    }
}

/// What makes a terminal do something, or a reader see something else than is there.
pub(super) fn commands(char: char) -> bool {
    char.is_control() || unseen(char)
}

/// Marks that turn the direction of text or join it invisibly, with which a name can pass for another; and line ends that are no control characters.
fn unseen(char: char) -> bool {
    matches!(char, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(char, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Ten characters and, where there are xattrs, a `+`.
pub fn mode(kind: &Kind, meta: &Meta) -> String {
    let letter = match kind {
        Kind::Dir(_) => 'd',
        Kind::File(_) => '-',
        Kind::Symlink(_) => 'l',
        Kind::CharDevice { .. } => 'c',
        Kind::BlockDevice { .. } => 'b',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
    };
    let mut text = String::from(letter);
    for (shift, special, lower, upper) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = meta.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, meta.mode & special != 0) {
            (true, true) => lower,
            (false, true) => upper,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    if !meta.xattrs.is_empty() {
        text.push('+');
    }
    text
}

/// What a file is, in a word.
pub fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::Dir(_) => "directory",
        Kind::File(_) => "file",
        Kind::Symlink(_) => "symlink",
        Kind::CharDevice { .. } => "character device",
        Kind::BlockDevice { .. } => "block device",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    }
}

/// `YYYY-MM-DD hh:mm:ss` in UTC; nanoseconds only where asked for.
pub fn time(time: Time) -> String {
    let (days, secs) = (time.secs.div_euclid(86400), time.secs.rem_euclid(86400));
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
}

/// The same with all that is known, for comparing.
pub fn exact_time(at: Time) -> String {
    match at.nanos {
        0 => time(at),
        nanos => format!("{}.{nanos:09}", time(at)),
    }
}

/// The date of a day counted from 1970-01-01, in the Gregorian calendar. Years are counted from March, so that the leap day is a year's last; 400 of them
/// have 146,097 days.
fn date(days: i64) -> (i64, i64, i64) {
    let since = days + 719_468; // 0000-03-01
    let (cycle, day) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (month, day) = (if month < 10 { month + 3 } else { month - 9 }, day - (153 * month + 2) / 5 + 1);
    (400 * cycle + year + i64::from(month <= 2), month, day)
}

/// Bytes as people count them.
pub fn size(bytes: u64) -> String {
    let units = [("EiB", 6), ("PiB", 5), ("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1)];
    let unit = units.into_iter().find(|(_, power)| bytes >> (10 * power) > 0);
    match unit {
        None => format!("{bytes} B"),
        Some((unit, power)) => {
            // Tenths, rounded down: enough to see something move.
            let tenths = (u128::from(bytes) * 10) >> (10 * power);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn names_are_shown_and_do_nothing() {
        let cases: [(&[u8], &str); 9] = [
            (b"plain name", "plain name"),
            ("Gr\u{fc}\u{df}e \u{4f60}".as_bytes(), "Gr\u{fc}\u{df}e \u{4f60}"),
            (b"\x1b[31mred\x07", r"\x1b[31mred\x07"),
            (b"two\nlines\t\r\x7f", r"two\nlines\t\x0d\x7f"),
            ("\u{9b}2J".as_bytes(), r"\u{9b}2J"),
            (b"\x9b2J\xff", r"\x9b2J\xff"),
            ("a\u{202e}b\u{2066}\u{200d}".as_bytes(), r"a\u{202e}b\u{2066}\u{200d}"),
            (br"back\slash", r"back\\slash"),
            (b"", ""),
        ];
        for (name, text) in cases {
            assert_eq!(Shown(name).to_string(), text);
        }
    }

    #[test]
    fn no_byte_reaches_a_terminal_as_a_command() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let text = Shown(&[first, second]).to_string();
                assert!(!text.chars().any(char::is_control), "{first:02x} {second:02x}");
            }
        }
    }

    #[test]
    fn modes_as_ls_has_them() {
        let shown = |bits, dir: bool| {
            let node = if dir { Kind::Dir(BTreeMap::new()) } else { Kind::Fifo };
            mode(&node, &Meta { mode: bits, ..Meta::default() })
        };
        for (bits, dir, text) in [
            (0o755, true, "drwxr-xr-x"),
            (0o1777, true, "drwxrwxrwt"),
            (0o1776, true, "drwxrwxrwT"),
            (0o4755, false, "prwsr-xr-x"),
            (0o6644, false, "prwSr-Sr--"),
            (0, false, "p---------"),
        ] {
            assert_eq!(shown(bits, dir), text);
        }
    }

    #[test]
    fn dates_of_every_kind_of_year() {
        for (secs, text) in [
            (0, "1970-01-01 00:00:00"),
            (-1, "1969-12-31 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_799, "2000-02-29 23:59:59"),
            (1_000_000_000, "2001-09-09 01:46:40"),
            (4_107_542_399, "2100-02-28 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (15_032_385_535, "2446-05-10 22:38:55"),
            (-2_147_483_648, "1901-12-13 20:45:52"),
        ] {
            assert_eq!(time(Time { secs, nanos: 5 }), text);
        }
        assert_eq!(exact_time(Time { secs: 0, nanos: 5 }), "1970-01-01 00:00:00.000000005");
    }

    #[test]
    fn sizes_in_the_largest_unit() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_700_000, "1.6 MiB"), (u64::MAX, "15.9 EiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
