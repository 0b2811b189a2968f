//! Pages of HTML: what is safe in them, and what all of them have around.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

/// The look of all pages: it is in each of them, so that a page that is saved looks the same.
const STYLE: &str = include_str!("style.css");

/// What browsers may load, run and send for these pages: nothing but the style that is in them (Content Security Policy Level 3).
pub(super) fn policy() -> String {
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// Text as it may stand in an element or an attribute in double quotes. What a browser would not show, or would show in another order, is shown as a sign.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' => out.push(char),
            '\u{7f}' => out.push('\u{2421}'),
            '\0'..='\x1f' => out.push(char::from_u32(0x2400 + u32::from(char)).unwrap_or('\u{fffd}')),
            '\u{80}'..='\u{9f}' => out.push('\u{fffd}'),
            // signs that turn the direction of what follows
            '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.push('\u{fffd}');
            }
            char => out.push(char),
        }
    }
    out
}

/// A name that every file system takes.
pub(super) fn file_name(name: &str) -> String {
    let plain = |char: char| if char.is_ascii_alphanumeric() || "_.-".contains(char) { char } else { '_' };
    let name: String = name.chars().take(100).map(plain).collect();
    match name.trim_start_matches('.') {
        "" => "unnamed".into(),
        name => name.into(),
    }
}

/// A page of this title around its content, which is HTML already.
pub(super) fn page(title: &str, content: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <style>{STYLE}</style>\n</head>\n<body>\n{content}</body>\n</html>\n",
        escape(title)
    )
}

pub(super) fn not_found(sentence: &str) -> String {
    let content = format!(
        "<main>\n<header>\n<p class=\"up\"><a href=\"/\">All containers</a></p>\n<h1>Not found</h1>\n</header>\n<p>{}</p>\n</main>\n",
        escape(sentence)
    );
    page("Not found", &content)
}

/// Names and values, as a list; the values are HTML already.
pub(super) fn list(pairs: &[(&str, String)]) -> String {
    let mut out = String::from("<dl>\n");
    for (name, value) in pairs {
        let _infallible = writeln!(out, "<div><dt>{}</dt><dd>{value}</dd></div>", escape(name));
    }
    out + "</dl>\n"
}

/// Bytes as people read them: powers of 1024.
pub(super) fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let power = (count.ilog2() / 10).min(6);
    // with a decimal below ten
    let tenths = (u128::from(count) * 10 + (1 << (10 * power - 1))) >> (10 * power);
    let unit = units[power as usize - 1];
    if tenths < 100 { format!("{}.{} {unit}", tenths / 10, tenths % 10) } else { format!("{} {unit}", tenths / 10) }
}

/// A time span in its two largest units.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if seconds < 60 => format!("{seconds} s"),
        () if minutes < 60 => format!("{minutes} min {} s", seconds % 60),
        () if hours < 24 => format!("{hours} h {} min", minutes % 60),
        () if days == 1 => format!("1 day {} h", hours % 24),
        () => format!("{days} days {} h", hours % 24),
    }
}

/// A moment that [`crate::timestamp`] wrote, to the second.
pub(super) fn moment(text: &str) -> String {
    let shown = text.get(..19).unwrap_or(text).replace('T', " ");
    format!("<time datetime=\"{}\">{} UTC</time>", escape(text), escape(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_becomes_markup() {
        assert_eq!(escape("<a href='x'>&\"</a>"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;&lt;/a&gt;");
        assert_eq!(
            escape("\x1b[31mred\0\r\x7f\u{9b}\u{202e}x\tü\n"),
            "\u{241b}[31mred\u{2400}\u{240d}\u{2421}\u{fffd}\u{fffd}x\tü\n"
        );
        assert_eq!(
            (file_name("../../a b\n\""), file_name(".."), file_name("")),
            ("_.._a_b__".into(), "unnamed".into(), "unnamed".into())
        );
    }

    #[test]
    fn the_policy_lets_the_style_in_and_nothing_else() {
        // the style's end would begin markup
        assert!(!STYLE.contains("</"));
        assert!(policy().starts_with("default-src 'none'; style-src 'sha256-"));
    }

    #[test]
    fn amounts_are_rounded_for_people() {
        let check = |count, text: &str| assert_eq!(bytes(count), text);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(10 << 20, "10 MiB");
        check((1 << 30) + (1 << 29), "1.5 GiB");
        check(u64::MAX, "16 EiB");
        let check = |seconds, text: &str| assert_eq!(span(seconds), text);
        check(59, "59 s");
        check(61, "1 min 1 s");
        check(7260, "2 h 1 min");
        check(86_400, "1 day 0 h");
        check(200_000, "2 days 7 h");
    }
}
