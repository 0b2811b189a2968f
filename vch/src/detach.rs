//! Detach keys: the keys by which a person leaves a session without ending it.
//!
//! A state machine over chunks of input, in docker's grammar: keys separated by commas, each a character or `ctrl-` and one of `a` to `z`, `@`, `[`, `\`, `]`,
//! `^`, `_`, or `DEL`. Keys that begin the sequence are held back until the next key decides; then they go on, in order, or the sequence is complete.

use std::str::FromStr;

/// A sequence of keys that detaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(Vec<u8>);

/// A text that names no keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no key to detach by: write keys like `a`, `ctrl-p` or `DEL`, with commas between them")]
pub struct NoKey(String);

impl Default for Keys {
    fn default() -> Keys {
        Keys(vec![0x10, 0x11])
    }
}

impl Keys {
    /// What a terminal sends for them, in order.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Keys {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Keys, NoKey> {
        text.split(',').map(|key| code(key).ok_or_else(|| NoKey(key.into()))).collect::<Result<_, _>>().map(Keys)
    }
}

/// What a terminal sends for a key.
fn code(key: &str) -> Option<u8> {
    match (key, key.as_bytes()) {
        ("DEL", _) => Some(0x7f),
        (_, &[byte]) => Some(byte),
        (_, &[b'c', b't', b'r', b'l', b'-', byte @ (b'a'..=b'z' | b'@' | b'['..=b'_')]) => Some(byte & 0x1f),
        _ => None,
    }
}

/// Watches input for the keys.
#[derive(Debug)]
pub struct Watch {
    keys: Vec<u8>,
    /// How many of them have come, and are held back.
    held: usize,
}

/// What becomes of a chunk of input.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// These bytes are for the session.
    Pass(Vec<u8>),
    /// So were these; then came the keys.
    Detach(Vec<u8>),
}

impl Watch {
    pub fn new(keys: Keys) -> Watch {
        Watch { keys: keys.0, held: 0 }
    }

    pub fn feed(&mut self, chunk: &[u8]) -> Input {
        let mut pass = Vec::with_capacity(chunk.len() + self.held);
        for &byte in chunk {
            self.held = self.step(byte, &mut pass);
            if self.held == self.keys.len() {
                self.held = 0;
                return Input::Detach(pass);
            }
        }
        Input::Pass(pass)
    }

    /// The input is over: what was held back is for the session.
    pub fn end(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        self.keys[..held].to_vec()
    }

    /// How many keys are held after one more byte; those that turn out to be none pass.
    fn step(&self, byte: u8, pass: &mut Vec<u8>) -> usize {
        let seen = [&self.keys[..self.held], &[byte]].concat();
        // the end of what was seen may begin the sequence anew
        let keep = (0..=seen.len()).rev().find(|&keep| self.keys.starts_with(&seen[seen.len() - keep..])).unwrap_or(0);
        pass.extend_from_slice(&seen[..seen.len() - keep]);
        keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_dockers() {
        let check = |text: &str, codes: &[u8]| assert_eq!(text.parse(), Ok(Keys(codes.to_vec())), "{text}");
        check("ctrl-p,ctrl-q", &[0x10, 0x11]);
        check("a,B,7,-", b"aB7-");
        check("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_,DEL", &[0, 27, 28, 29, 30, 31, 127]);
        assert_eq!(Keys::default(), "ctrl-p,ctrl-q".parse().unwrap());
        for text in ["", "ab", "ctrl-", "ctrl-A", "ctrl-1", "ctrl-p,", "a,,b", "shift-a", "é"] {
            assert!(text.parse::<Keys>().is_err(), "{text}");
        }
    }

    /// Feeds pieces; tells what passed and whether the keys came.
    fn feed(keys: &str, pieces: &[&str]) -> (String, bool) {
        let mut watch = Watch::new(keys.parse().unwrap());
        let mut passed = Vec::new();
        for piece in pieces {
            match watch.feed(piece.as_bytes()) {
                Input::Pass(bytes) => passed.extend(bytes),
                Input::Detach(bytes) => {
                    passed.extend(bytes);
                    return (String::from_utf8(passed).unwrap(), true);
                }
            }
        }
        passed.extend(watch.end());
        (String::from_utf8(passed).unwrap(), false)
    }

    #[test]
    fn everything_but_the_keys_passes_in_order() {
        let check = |keys: &str, pieces: &[&str], passed: &str, detached: bool| {
            assert_eq!(feed(keys, pieces), (passed.into(), detached), "{keys}: {pieces:?}");
        };
        check("p,q", &["abc"], "abc", false);
        check("p,q", &["apqb"], "a", true);
        check("p,q", &["ap", "q"], "a", true);
        check("p,q", &["a", "p", "", "q"], "a", true);
        check("p,q", &["ap", "b"], "apb", false);
        check("p,q", &["p", "p", "q"], "p", true);
        check("p,q", &["ppppq"], "ppp", true);
        check("p,q", &["qp"], "qp", false);
        check("a", &["xya"], "xy", true);
        check("a,a,b", &["aaab"], "a", true);
        check("a,b,a,c", &["aba", "bac"], "ab", true);
        check("a,b,a,c", &["ab", "x"], "abx", false);
    }
}
