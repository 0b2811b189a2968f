//! Keys and values as text: the dictionary syntax of a `.vmx` file.
//!
//! ```text
//! guestinfo.vice./common/id = "3f0c"
//! ```
//!
//! One `key = "value"` a line; `#` begins a comment line. In keys and values a byte that would break the line or the quotes, and `|` itself, is
//! written `|XX` in hexadecimal, as VMware does. This file knows no key.

use std::collections::BTreeMap;

/// Keys, in lower case, and their values. VMX keys are compared without case. Some values are secrets, so `Debug` shows none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Dictionary(BTreeMap<String, String>);

/// A line that is not `key = "value"`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct SyntaxError {
    /// Counted from one.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Dictionary {
    /// The value of a key in whatever case.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(&key.to_lowercase()).map(String::as_str)
    }

    /// Sets a key.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(key.to_lowercase(), value.into());
    }

    /// All of it, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether any key begins so.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        let prefix = prefix.to_lowercase();
        self.0.range(prefix.clone()..).next().is_some_and(|(key, _)| key.starts_with(&prefix))
    }

    /// Reads the text of a dictionary. Of a key that is written twice, the last counts.
    pub fn parse(text: &str) -> Result<Dictionary, SyntaxError> {
        let mut dictionary = Dictionary::default();
        for (index, line) in text.lines().enumerate() {
            let wrong = |problem| SyntaxError { line: index + 1, problem };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').ok_or(wrong("no `=` in it"))?;
            let quoted = value.trim().strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            let value = quoted.ok_or(wrong("the value is not in double quotes"))?;
            if value.contains('"') {
                return Err(wrong("a double quote within the value is not written |22"));
            }
            let text = |escaped| unescape(escaped).ok_or(wrong("a `|` is not followed by two hexadecimal digits"));
            dictionary.set(&text(key.trim())?, text(value)?);
        }
        Ok(dictionary)
    }
}

/// The text of the dictionary, sorted by key.
impl std::fmt::Display for Dictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(key, value)| writeln!(f, "{}", line(key, value)))
    }
}

/// One key and its value as a dictionary has them, the key spelled as it is given. No line end.
pub fn line(key: &str, value: &str) -> String {
    [&escape(key, true), " = \"", &escape(value, false), "\""].concat()
}

impl std::fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} keys]", self.0.len())
    }
}

fn escape(text: &str, is_key: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        let breaks = matches!(char, '|' | '"' | '\0'..='\x1f' | '\x7f') || is_key && matches!(char, '=' | '#' | ' ');
        match u8::try_from(char) {
            Ok(byte) if breaks => {
                let digit = |digit: u8| char::from(b"0123456789ABCDEF"[usize::from(digit)]);
                escaped.extend(['|', digit(byte >> 4), digit(byte & 15)]);
            }
            _ => escaped.push(char),
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'|' => {
                let (digits, after) = rest.split_first_chunk::<2>()?;
                rest = after;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_survives() {
        let mut dictionary = Dictionary::default();
        let hostile = "a|b \"c\"\n\t\r|22 é \u{7f} # = \0";
        dictionary.set("guestinfo.vice./sessions|3f0c/cmd/Path", hostile);
        dictionary.set("odd key = #", "");
        let text = dictionary.to_string();
        assert_eq!(text.lines().count(), 2);
        assert_eq!(Dictionary::parse(&text), Ok(dictionary.clone()));
        assert_eq!(dictionary.get("GUESTINFO.VICE./SESSIONS|3F0C/CMD/PATH"), Some(hostile));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Dictionary::parse(text).unwrap_err().to_string(), expected);
        };
        check("# a comment\n\nkey", "line 3: no `=` in it");
        check("key = value", "line 1: the value is not in double quotes");
        check("key = \"", "line 1: the value is not in double quotes");
        check("key = \"a\"b\"", "line 1: a double quote within the value is not written |22");
        check("key = \"a|2\"", "line 1: a `|` is not followed by two hexadecimal digits");
    }
}
