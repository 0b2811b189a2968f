//! What a machine's console said last of its process: for an end that no link could tell, because nobody listened then.
//!
//! It decides nothing: it reads one line of the guest's own journal.

use std::fs;
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
    read(&String::from_utf8_lossy(&fs::read(dir.join(CONSOLE)).ok()?), id)
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

/// How the guest begins that line.
const ENDED: &str = "a session's process has ended ";

#[cfg(test)]
mod tests {
    use super::*;

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
