//! What the VM's console says when the guest itself can say nothing any more. How tether writes its lines there: `guest::journal`.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The line that tells most: the last one of a panic or of an error of tether's, else the last one at all.
pub fn telling_line(console: &Path) -> Option<String> {
    choose(&tail(console).ok()?)
}

/// Whether these words are on it.
pub(crate) fn holds(console: &Path, words: &[u8]) -> bool {
    fs::read(console).is_ok_and(|text| text.windows(words.len()).any(|window| window == words))
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn choose(text: &str) -> Option<String> {
    let lines: Vec<String> = text.lines().map(plain).filter(|line| !line.is_empty()).collect();
    let telling = |line: &String| match line.strip_prefix(ERROR) {
        // the part of tether that it comes from says nothing to a user
        Some(error) => Some(format!("tether: {}", error.split_once(": ").map_or(error, |(_, text)| text))),
        None => (line.contains("Kernel panic") && !line.contains("end Kernel panic")).then(|| line.clone()),
    };
    lines.iter().rev().find_map(telling).or_else(|| lines.last().cloned())
}

/// How a line of tether's that tells of an error begins, behind its time.
const ERROR: &str = "tether: error ";

/// A line without control characters, escape sequences and the kernel's time stamp.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\x1b' if chars.next_if_eq(&'[').is_some() => {
                // a control sequence ends with its first letter
                while chars.next().is_some_and(|char| !char.is_ascii_alphabetic()) {}
            }
            '\x1b' => {
                chars.next();
            }
            char if char.is_control() => {}
            char => text.push(char),
        }
    }
    let text = text.trim();
    match text.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((stamp, rest)) if stamp.trim().parse::<f64>().is_ok() => rest.trim().to_owned(),
        _ => text.to_owned(),
    }
}

/// Enough for a panic with its call trace.
const TAIL: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_tells_most() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(choose(text).as_deref(), expected, "{text:?}");
        check("", None);
        check("\x1bc\x1b[?7l\x1b[2J\r\n\n", None);
        check("one\r\n[    0.300000] two\r\n\r\n", Some("two"));
        check(
            "[    0.9] tether: error agent: no disk: none is there\n[ 1.1] tether: info power: off\n[ 1.2] reboot: Power down\n",
            Some("tether: no disk: none is there"),
        );
        check(
            "[  0.4] Kernel panic - not syncing: VFS\n[  0.4] CPU: 0\n[  0.5] ---[ end Kernel panic - not syncing ]---\n",
            Some("Kernel panic - not syncing: VFS"),
        );
        check("[note] kept", Some("[note] kept"));
    }
}
