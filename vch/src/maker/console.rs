//! What a machine's console said last of its process: for an end that no link could tell, because nobody listened then.
//!
//! It decides how much room of the host's that takes: who has all rights in a guest can say there whatever they want, for as long as they want. Of what is said
//! it reads one line of the guest's own journal.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};
use tokio::time::{MissedTickBehavior, interval};

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

/// Keeps it short, for as long as the machine is on whose files are in `dir`.
pub(super) async fn keep_short(dir: &Path) -> Infallible {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let dir = dir.to_owned();
        // what cannot be done now is tried again
        let _again = tokio::task::spawn_blocking(move || shorten(&dir)).await;
    }
}

/// Gives back what all but its end takes, if that is much. The file stays as long as it was, and QEMU goes on behind its end: nothing of what is said meanwhile is
/// lost.
pub(super) fn shorten(dir: &Path) -> io::Result<()> {
    let file = File::options().write(true).open(dir.join(CONSOLE))?;
    let meta = file.metadata()?;
    if meta.blocks() * 512 > MOST {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, flags, 0, meta.len().saturating_sub(END))?;
    }
    Ok(())
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
/// Bytes of disk that a console may take for longer than until the next look.
const MOST: u64 = 2 << 20;
/// Between two looks: a serial port takes a few megabytes in that time.
const LOOK: Duration = Duration::from_secs(10);
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

    #[tokio::test(start_paused = true)]
    async fn whoever_says_much_takes_little_room_and_is_heard_to_the_end() {
        use std::io::Write as _;

        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("ab");
        std::fs::create_dir(&own).unwrap();
        assert_eq!(shorten(&own).unwrap_err().kind(), io::ErrorKind::NotFound);
        // as QEMU writes it: at its own place, whatever is done to the file
        let mut console = File::create(own.join(CONSOLE)).unwrap();
        let room = || std::fs::metadata(own.join(CONSOLE)).unwrap().blocks() * 512;
        for _ in 0..3 {
            console.write_all(&vec![b'x'; 6 << 20]).unwrap();
            console.sync_all().unwrap();
            assert!(room() >= 6 << 20);
            // the end is between two looks: none is under way when more is said
            assert!(tokio::time::timeout(LOOK + LOOK / 2, keep_short(&own)).await.is_err());
            assert!(room() <= 2 * END, "{}", room());
        }
        let end = b"\n[    1.3] tether: info life: a session's process has ended session=ab code=7 oom=false\n";
        console.write_all(end).unwrap();
        assert_eq!(ending(&own), Some(Ending { code: 7, oom: false }));
        // little is let be
        std::fs::write(own.join(CONSOLE), vec![b'x'; 1 << 20]).unwrap();
        shorten(&own).unwrap();
        assert!(!std::fs::read(own.join(CONSOLE)).unwrap().contains(&0));
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
