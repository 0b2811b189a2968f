//! Whose turn it is to make a disk in the cache, when several programs want it; and what is left there of turns that ended with their program.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::whole::if_there;

/// The turn of whoever has it, until it is dropped. The kernel ends it with its program, however that ends.
#[derive(Debug)]
pub(super) struct Turn {
    #[expect(dead_code, reason = "locked, not read")]
    file: File,
    path: PathBuf,
}

impl Turn {
    /// Takes the turn at what `key` names. If somebody else has it, calls `waits` and waits.
    pub(super) fn wait(cache: &Path, key: &str, waits: impl FnOnce()) -> io::Result<Turn> {
        if let Some(turn) = Turn::take(cache, key)? {
            return Ok(turn);
        }
        waits();
        loop {
            let path = cache.join(format!("{key}{LOCK}"));
            let file = File::create(&path)?;
            file.lock()?;
            if is_same(&file, &path)? {
                return Ok(Turn { file, path });
            }
        }
    }

    /// None if somebody else has it.
    fn take(cache: &Path, key: &str) -> io::Result<Option<Turn>> {
        let path = cache.join(format!("{key}{LOCK}"));
        loop {
            let file = File::create(&path)?;
            match file.try_lock() {
                Ok(()) if is_same(&file, &path)? => return Ok(Some(Turn { file, path })),
                // who had it took the file away
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// The directory to work in, which nobody else touches.
    pub(super) fn partial(&self) -> PathBuf {
        self.path.with_extension("partial")
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // only who has the turn removes its file, so it is ours
        fs::remove_file(&self.path).ok();
    }
}

/// Removes what is left of turns that nobody has.
pub(super) fn clear(cache: &Path) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let key = |name: String| Some(name.strip_suffix(LOCK).or_else(|| name.strip_suffix(PARTIAL))?.to_owned());
    for key in names.filter_map(key).collect::<BTreeSet<String>>() {
        // what cannot be removed now is tried again by the next
        if let Ok(Some(turn)) = Turn::take(cache, &key) {
            fs::remove_dir_all(turn.partial()).ok();
        }
    }
}

/// Whether that is the file of this name still.
fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    Ok(if_there(fs::metadata(path))?.is_some_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())))
}

const LOCK: &str = ".lock";
const PARTIAL: &str = ".partial";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_leave_nothing_and_only_what_nobody_has_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let names = || {
            let entries = fs::read_dir(dir.path()).unwrap().flatten();
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
        };
        let turn = Turn::wait(dir.path(), "x-v1.raw", || panic!("nobody has it")).unwrap();
        assert!(Turn::take(dir.path(), "x-v1.raw").unwrap().is_none());
        fs::create_dir(turn.partial()).unwrap();
        // killed with its turn, and killed in between
        fs::write(dir.path().join("y.lock"), "").unwrap();
        fs::create_dir_all(dir.path().join("y.partial/z")).unwrap();
        fs::create_dir(dir.path().join("w.partial")).unwrap();
        fs::write(dir.path().join("disk.raw"), "").unwrap();
        clear(dir.path());
        let left = ["disk.raw", "x-v1.raw.lock", "x-v1.raw.partial"];
        assert_eq!(names(), left.map(str::to_owned).into());
        let (path, waiting) = (dir.path().to_owned(), std::sync::mpsc::channel());
        let next = std::thread::spawn(move || Turn::wait(&path, "x-v1.raw", || waiting.0.send(()).unwrap()));
        waiting.1.recv().unwrap();
        fs::remove_dir(turn.partial()).unwrap();
        drop(turn);
        drop(next.join().unwrap().unwrap());
        assert_eq!(names(), ["disk.raw".to_owned()].into());
    }
}
