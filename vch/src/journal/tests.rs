//! The journal on real files: what is written is read, whatever happens in between.

use std::fs::OpenOptions;

use tempfile::TempDir;

use super::*;

const BOOT: [u8; 16] = [7; 16];
const PLENTY: u64 = 1 << 30;

struct Rig {
    dir: TempDir,
    journal: Journal,
}

/// A journal that has begun.
async fn begun(limit: u64) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), limit).unwrap();
    journal.begin(BOOT, Offsets::default()).await.unwrap();
    Rig { dir, journal }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Bytes that differ wherever they are cut.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251).to_le_bytes()[0] ^ (at >> 13).to_le_bytes()[0]).collect()
}

fn at(stdout: u64, stderr: u64) -> Offsets {
    Offsets { stdin: 0, stdout, stderr }
}

impl Journal {
    /// Sends its writes where this file leads, and tells where they went.
    pub(crate) fn swap_file(&self, file: File) -> File {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.open.as_mut().unwrap().file, Arc::new(file));
        before.try_clone().unwrap()
    }

    /// Waits until nobody else has it: what a killed program had under way ends with it.
    pub(crate) async fn until_alone(&self) {
        while Arc::strong_count(&self.0) > 1 {
            tokio::task::yield_now().await;
        }
    }

    /// Its last file, and how much of it must be there after a crash.
    pub(crate) fn must_last(&self) -> Option<(PathBuf, u64)> {
        self.state().open.as_ref().map(|open| (open.segment.path.clone(), open.synced.0))
    }

    /// Everything that is there now: standard output, and standard error.
    pub(crate) async fn everything(&self) -> (Vec<u8>, Vec<u8>) {
        let mut reader = self.read(Selection { from: Position::default(), to: Some(self.end()) });
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(record) = reader.next().await.unwrap() {
            match record.stream {
                Stream::Stdout => stdout.extend(record.bytes),
                Stream::Stderr => stderr.extend(record.bytes),
            }
        }
        (stdout, stderr)
    }
}

#[tokio::test]
async fn what_is_appended_is_read_in_order_with_its_times() {
    let Rig { dir, journal } = begun(PLENTY).await;
    let long = pattern(3 * MAX_BYTES + 5);
    let pieces = [(Stream::Stdout, &b"one\0\n"[..]), (Stream::Stderr, b"error"), (Stream::Stdout, &long)];
    let mut ends = vec![journal.end()];
    for (time, (stream, bytes)) in (1..).zip(pieces) {
        journal.append(stream, time, bytes).unwrap();
        ends.push(journal.end());
    }
    assert!(ends.is_sorted());
    assert_eq!(journal.sync().await.unwrap(), at(5 + long.len() as u64, 5));
    // once more, from where each of them ended, and by the next serve
    let journal = [journal, Journal::open(dir.path(), PLENTY).unwrap()];
    for journal in journal {
        for (first, &from) in ends.iter().enumerate() {
            let mut reader = journal.read(Selection { from, to: Some(journal.end()) });
            let mut read: Vec<(Stream, u64, Vec<u8>)> = Vec::new();
            while let Some(record) = reader.next().await.unwrap() {
                match read.last_mut().filter(|last| (last.0, last.1) == (record.stream, record.time_ns)) {
                    Some(last) => last.2.extend(record.bytes),
                    None => read.push((record.stream, record.time_ns, record.bytes)),
                }
            }
            let expected: Vec<_> =
                (1..).zip(pieces).map(|(time, (stream, bytes))| (stream, time, bytes.to_vec())).collect();
            assert!(read == expected[first..], "from {from:?}");
        }
    }
}

#[tokio::test]
async fn whatever_a_crash_leaves_of_the_end_the_rest_is_whole() {
    let Rig { dir, journal } = begun(PLENTY).await;
    let (mut whole, mut ends) = ((Vec::new(), Vec::new()), vec![(0, at(0, 0))]);
    for count in 0..6u8 {
        let (stream, bytes) = match count % 2 {
            0 => (Stream::Stdout, [count, 0, count]),
            _ => (Stream::Stderr, [count; 3]),
        };
        journal.append(stream, 1, &bytes).unwrap();
        let of = if count % 2 == 0 { &mut whole.0 } else { &mut whole.1 };
        of.extend(bytes);
        ends.push((journal.end().byte, at(whole.0.len() as u64, whole.1.len() as u64)));
    }
    drop(journal);
    let path = files(dir.path()).remove(0);
    let written = fs::read(&path).unwrap();
    for cut in 0..=written.len() {
        // ends there; goes on with zeros that never became data; goes on with old bytes of the disk
        for behind in [&[][..], &[0; 40], &[0xff; 40], &[0xff, 0, 4, 0]] {
            fs::write(&path, [&written[..cut], behind].concat()).unwrap();
            let journal = Journal::open(dir.path(), PLENTY).unwrap();
            // a delimiter of its own, should the cut have been there
            let last = |cut: u64| ends.iter().rev().find(|(end, _)| *end <= cut).unwrap();
            let (end, offsets) = match behind.first() {
                Some(0) => last(cut as u64 + 1),
                _ => last(cut as u64),
            };
            assert_eq!((journal.end().byte, journal.offsets(BOOT)), (*end, Some(*offsets)), "{cut} {behind:?}");
            journal.append(Stream::Stdout, 2, b"next").unwrap();
            let (stdout, stderr) = journal.everything().await;
            let expected = [&whole.0[..usize::try_from(offsets.stdout).unwrap()], b"next"].concat();
            assert_eq!(stdout, expected);
            assert_eq!(stderr, whole.1[..usize::try_from(offsets.stderr).unwrap()]);
        }
    }
}

#[tokio::test]
async fn the_oldest_go_and_a_reader_that_is_behind_goes_on_where_there_is_something() {
    let limit = 256 * 1024;
    let Rig { dir, journal } = begun(limit).await;
    let mut behind = journal.read(Selection::default());
    let mut inside = journal.read(Selection::default());
    let total = 100u64;
    for number in 0..total {
        let bytes = [&number.to_le_bytes()[..], &pattern(10_000)].concat();
        journal.append(Stream::Stdout, number, &bytes).unwrap();
        journal.sync().await.unwrap();
        if number == 0 {
            assert_eq!(inside.next().await.unwrap().unwrap().time_ns, 0);
        }
        let on_disk: u64 = files(dir.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
        assert_eq!(on_disk, journal.size());
        assert!(on_disk <= limit + 12_000, "{on_disk} after {number}");
    }
    assert!(journal.size() > limit / 2, "{}", journal.size());
    journal.finish();
    for reader in [&mut behind, &mut inside] {
        let mut times = Vec::new();
        while let Some(record) = reader.next().await.unwrap() {
            times.push(record.time_ns);
        }
        assert!(times.windows(2).all(|two| two[0] < two[1]), "{times:?}");
        assert_eq!(times.last(), Some(&(total - 1)));
        assert!(times.len() < 50, "{times:?}");
    }
    // the next serve goes on there
    let next = Journal::open(dir.path(), limit).unwrap();
    assert_eq!(next.offsets(BOOT), Some(at(total * 10_008, 0)));
}

#[tokio::test]
async fn a_follower_hears_what_comes_and_ends_with_the_process() {
    let Rig { dir: _dir, journal } = begun(PLENTY).await;
    let mut follower = journal.read(Selection::default());
    let writer = journal.clone();
    let writing = tokio::spawn(async move {
        for count in 0..50u8 {
            writer.append(Stream::Stdout, 1, &[count]).unwrap();
            tokio::task::yield_now().await;
            if count % 10 == 0 {
                writer.begin([count; 16], Offsets::default()).await.unwrap();
            }
        }
        writer.finish();
    });
    let mut heard = Vec::new();
    loop {
        tokio::select! {
            // dropped whenever it has to wait, it goes on where it was
            biased;
            record = follower.next() => match record.unwrap() {
                Some(record) => heard.extend(record.bytes),
                None => break,
            },
            () = tokio::task::yield_now() => {}
        }
    }
    writing.await.unwrap();
    assert_eq!(heard, (0..50).collect::<Vec<u8>>());
    // the next boot
    let late = journal.resume();
    let turn = journal.resume();
    journal.append(Stream::Stderr, 2, b"again").unwrap();
    assert_eq!(follower.next().await.unwrap().unwrap().bytes, b"again");
    // the end of an earlier turn is not that of this one
    journal.finish_turn(late);
    let waits = tokio::time::timeout(std::time::Duration::from_millis(1), follower.next());
    assert!(waits.await.is_err());
    journal.finish_turn(turn);
    assert_eq!(follower.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_full_disk_takes_nothing_and_tells_it() {
    let Rig { dir: _dir, journal } = begun(PLENTY).await;
    journal.append(Stream::Stdout, 1, b"before").unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let file = journal.swap_file(full);
    let error = journal.append(Stream::Stdout, 1, b"lost?").unwrap_err();
    assert!(matches!(error, JournalError::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("no room"), "{error}");
    assert_eq!(journal.everything().await.0, b"before");
    journal.swap_file(file);
    journal.append(Stream::Stdout, 1, b" and after").unwrap();
    assert_eq!(journal.everything().await.0, b"before and after");
    assert_eq!(journal.sync().await.unwrap(), at(16, 0));
}

#[tokio::test]
async fn what_could_not_be_synced_is_asked_for_again() {
    let Rig { dir, journal } = begun(PLENTY).await;
    journal.append(Stream::Stdout, 1, b"safe").unwrap();
    journal.sync().await.unwrap();
    journal.append(Stream::Stdout, 1, b"in memory").unwrap();
    // it cannot be synced, as after an error of the disk
    journal.swap_file(OpenOptions::new().write(true).open("/dev/null").unwrap());
    assert!(journal.sync().await.is_err());
    assert_eq!(journal.offsets(BOOT), Some(at(4, 0)));
    assert!(matches!(journal.append(Stream::Stdout, 1, b"x"), Err(JournalError::NotBegun { .. })));
    journal.begin(BOOT, at(4, 0)).await.unwrap();
    journal.append(Stream::Stdout, 1, b" on disk").unwrap();
    assert_eq!(journal.everything().await.0, b"safe on disk");
    assert_eq!(journal.sync().await.unwrap(), at(12, 0));
    let next = Journal::open(dir.path(), PLENTY).unwrap();
    assert_eq!(next.offsets(BOOT), Some(at(12, 0)));
}

#[tokio::test]
async fn each_boot_has_offsets_of_its_own() {
    let Rig { dir, journal } = begun(PLENTY).await;
    assert_eq!((journal.offsets(BOOT), journal.offsets([8; 16])), (Some(at(0, 0)), None));
    // nothing came of these
    for boot in 8..20 {
        journal.begin([boot; 16], Offsets::default()).await.unwrap();
    }
    assert_eq!(files(dir.path()).len(), 1);
    journal.begin([30; 16], at(100, 7)).await.unwrap();
    journal.append(Stream::Stdout, 1, b"five!").unwrap();
    for journal in [&journal, &Journal::open(dir.path(), PLENTY).unwrap()] {
        assert_eq!((journal.offsets([30; 16]), journal.offsets(BOOT)), (Some(at(105, 7)), None));
    }
    assert!(files(dir.path())[0].ends_with(format!("00000014.{}.100.7.log", "1e".repeat(16))));
    let mut follower = journal.read(Selection { from: journal.end(), to: None });
    journal.remove().unwrap();
    assert_eq!(follower.next().await.unwrap(), None);
    assert!(!dir.path().exists());
}
