//! What a machine's console said last of its process: for an end that no link could tell, because nobody listened then.
//!
//! It decides nothing: it reads one line of the guest's own journal.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::machine::CONSOLE;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) code: u8,
    pub(super) oom: bool,
}

/// How the main process ended in the last boot of the machine whose files are in `dir`; none if its guest did not come to say so.
pub(super) fn ending(dir: &Path) -> Option<Ending> {
    let id = dir.file_name()?.to_str()?;
    let mut file = File::open(dir.join(CONSOLE)).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(END))).ok()?;
    let mut text = Vec::new();
    file.take(END).read_to_end(&mut text).ok()?;
    read(&String::from_utf8_lossy(&text), id)
}

fn read(console: &str, id: &str) -> Option<Ending> {
    console.lines().rev().find_map(|line| {
        let (_, fields) = line.split_once(ENDED)?;
        let field =
            |name: &str| fields.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        (field("session")? == id).then_some(())?;
        Some(Ending { code: field("code")?.parse().ok()?, oom: field("oom")? == "true" })
    })
}

/// Bytes at the console's end: what is said between a process's end and its machine's is less, and what was said before may be any amount.
const END: u64 = 256 * 1024;
/// How the guest begins that line.
const ENDED: &str = "a session's process has ended ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_was_said_before_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut text = "x".repeat(3 << 20);
        text.push_str("\n[    1.3] tether: info life: a session's process has ended session=ab code=7 oom=true\n");
        let own = dir.path().join("ab");
        std::fs::create_dir(&own).unwrap();
        assert_eq!(ending(&own), None);
        std::fs::write(own.join(CONSOLE), &text).unwrap();
        assert_eq!(ending(&own), Some(Ending { code: 7, oom: true }));
        // an end that lies so far back is another boot's, or somebody's who fills the console
        text.push_str(&"y".repeat(1 << 20));
        std::fs::write(own.join(CONSOLE), &text).unwrap();
        assert_eq!(ending(&own), None);
    }

    #[test]
    fn the_last_word_of_the_main_process_counts() {
        let line = |session: &str, code: u8| {
            format!(
                "[    1.3] tether: info life: a session's process has ended session={session} code={code} oom=false\r\n"
            )
        };
        let console = line("ab", 1) + &line("ab", 3) + &line("other", 4) + "[    1.4] reboot: Power down";
        assert_eq!(read(&console, "ab"), Some(Ending { code: 3, oom: false }));
        assert_eq!(read(&console, "abc"), None);
        assert_eq!(read("[    1.3] tether: info life: a session's process has ended session=ab co", "ab"), None);
    }
}
