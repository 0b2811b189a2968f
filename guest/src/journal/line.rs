//! How an entry is written: one line, whatever is in it.

use std::fmt::{self, Display, Write as _};
use std::time::Duration;

use wire::spec::Level;

/// The longest line, in bytes, its end included. The rest of a longer one is left out.
pub(super) const LONGEST: usize = 1024;

/// What stands where the rest was left out.
const CUT: &str = "...";

/// A line in the making: what is written into it is escaped, and cut.
pub(super) struct Line {
    text: String,
    /// Quotes are escaped as well.
    quoted: bool,
    cut: bool,
}

impl Line {
    /// The line of an entry that was made so long after the boot.
    pub(super) fn of(
        time: Duration,
        level: Level,
        place: &str,
        text: fmt::Arguments<'_>,
        fields: &[(&str, &dyn Display)],
    ) -> String {
        let mut line = Line { text: String::new(), quoted: false, cut: false };
        // the crate's own name says nothing more
        let place = place.split_once("::").map_or(place, |(_, place)| place);
        let (seconds, micros) = (time.as_secs(), time.subsec_micros());
        let done = write!(line, "[{seconds:>5}.{micros:06}] {}: {} {place}: ", super::program(), name(level))
            .and_then(|()| line.write_fmt(text))
            .and_then(|()| fields.iter().try_for_each(|(name, value)| line.field(name, *value)));
        if done.is_err() || line.cut {
            line.text.push_str(CUT);
        }
        line.text.push('\n');
        line.text
    }

    /// As logfmt has it: `name=value`, in quotes if the value is more than a word.
    fn field(&mut self, name: &str, value: &dyn Display) -> fmt::Result {
        write!(self, " {name}=")?;
        let at = self.text.len();
        write!(self, "{value}")?;
        let is_word = |text: &str| !text.is_empty() && !text.contains([' ', '"', '=', '\\']);
        if is_word(&self.text[at..]) {
            return Ok(());
        }
        self.text.truncate(at);
        self.text.push('"');
        self.quoted = true;
        let done = write!(self, "{value}");
        self.quoted = false;
        self.text.push('"');
        done
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            // room for the longest escape, a quote, the cut's sign and the line's end
            if self.text.len() + 10 + 1 + CUT.len() + 1 > LONGEST {
                self.cut = true;
                return Err(fmt::Error);
            }
            match char {
                '"' | '\\' if self.quoted => self.text.extend(['\\', char]),
                // what a terminal would obey, and what is read from right to left
                char if char.is_control() || matches!(char, '\u{200e}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                    self.text.extend(char.escape_default());
                }
                char => self.text.push(char),
            }
        }
        Ok(())
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, fields: &[(&str, &dyn Display)]) -> String {
        Line::of(Duration::from_micros(1_234_567), Level::Warn, "tether::session::flow", format_args!("{text}"), fields)
    }

    #[test]
    fn golden_lines() {
        let begin = "[    1.234567] tether: warn session::flow: ";
        assert_eq!(line("a text", &[]), format!("{begin}a text\n"));
        let fields: [(&str, &dyn Display); 5] =
            [("pid", &42), ("by", &"signal 9"), ("none", &""), ("odd", &"a=\"b\\\""), ("path", &"/a/b")];
        let expected = format!("{begin}a text pid=42 by=\"signal 9\" none=\"\" odd=\"a=\\\"b\\\\\\\"\" path=/a/b\n");
        assert_eq!(line("a text", &fields), expected);
        let late = Line::of(Duration::from_secs(1_000_000), Level::Trace, "tether", format_args!("late"), &[]);
        assert_eq!(late, "[1000000.000000] tether: trace tether: late\n");
    }

    #[test]
    fn nothing_ends_a_line_or_commands_a_terminal() {
        let forged = "x\n[    9.000000] tether: info agent: forged\r\x1b[2J\u{7}\u{85}\u{202e}";
        let field: [(&str, &dyn Display); 1] = [("name", &forged)];
        for made in [line(forged, &[]), line("text", &field)] {
            let (last, rest) = made.as_bytes().split_last().unwrap();
            assert_eq!(*last, b'\n');
            assert!(!rest.iter().any(|byte| byte.is_ascii_control()), "{made:?}");
            assert!(made.contains("\\n[    9.000000]") && made.contains("\\u{1b}[2J") && !made.contains('\u{202e}'));
        }
    }

    #[test]
    fn a_long_entry_is_cut_and_says_so() {
        let long = "ä\n".repeat(LONGEST);
        let field: [(&str, &dyn Display); 2] = [("long", &long), ("never", &1)];
        for made in [line(&long, &[]), line("", &field), line(&"x".repeat(LONGEST), &field)] {
            assert!(made.len() <= LONGEST && made.len() > LONGEST - 20, "{}", made.len());
            assert!(made.ends_with("...\n") && !made.contains("never"), "{made}");
        }
    }
}
