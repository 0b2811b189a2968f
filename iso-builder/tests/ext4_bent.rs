//! ext4 images bent a byte at a time, in what describes files and in journals: each is read or refused, soon, and without much memory. Images without checksums, so
//! that what is bent is believed until something else tells. `mke2fs` and `debugfs` (Debian: `e2fsprogs`) make them.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use iso_builder::ext4;
use iso_builder::tree::{Kind, ReadAt};

/// An image of which a byte is another one.
#[derive(Debug)]
struct Bent {
    whole: Arc<Vec<u8>>,
    at: usize,
    byte: u8,
    read: AtomicU64,
}

impl ReadAt for Bent {
    fn read_exact_at(&self, buf: &mut [u8], from: u64) -> io::Result<()> {
        let read = self.read.fetch_add(buf.len() as u64 + 1, Ordering::Relaxed);
        assert!(read < MOST_READ, "it is read for ever");
        let start = usize::try_from(from).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.whole.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        if (start..end).contains(&self.at) {
            buf[self.at - start] = self.byte;
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.whole.len() as u64)
    }
}

fn run(program: &str, args: &[&str], more: &[&Path]) {
    let output = Command::new(program).args(args).args(more).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An image with a bit of everything. The journal, if there is one, holds what was not yet written to its place.
fn image(features: &str, journal: bool) -> Arc<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let from = at("from");
    fs::create_dir_all(from.join("sub/deep")).unwrap();
    for number in 0..40 {
        fs::write(from.join(format!("sub/a-name-that-takes-some-room-{number}")), "").unwrap();
    }
    // several blocks, so that maps have levels; of zeros, so that few bytes of the image are its content
    fs::write(from.join("data"), vec![0; 20 << 10]).unwrap();
    fs::write(from.join("sub/deep/file"), "x").unwrap();
    fs::hard_link(from.join("data"), from.join("again")).unwrap();
    std::os::unix::fs::symlink("sub/deep", from.join("short")).unwrap();
    std::os::unix::fs::symlink("long/".repeat(30), from.join("long")).unwrap();
    let mut args = vec!["-q", "-F", "-t", "ext4", "-b", "1024", "-I", "256", "-N", "128", "-O", features];
    if journal {
        args.extend(["-J", "size=1"]);
    }
    args.extend(["-d", from.to_str().unwrap()]);
    let image = at("image");
    args.extend([image.to_str().unwrap(), "4M"]);
    run("/usr/sbin/mke2fs", &args, &[]);
    let script = [
        "ea_set /data user.one some".to_owned(),
        format!("ea_set /data user.much {}", "x".repeat(300)),
        "cd sub".into(),
        "mknod pipe p".into(),
    ];
    debugfs(dir.path(), &script.each_ref().map(String::as_str));
    if journal {
        // the inode table's first blocks, and a block that is revoked
        fs::write(at("one"), vec![7; 1024]).unwrap();
        debugfs(dir.path(), &["jo", &format!("jw -b 3000 {}", at("one").display()), "jw -r 3001", "jc"]);
    }
    Arc::new(fs::read(at("image")).unwrap())
}

fn debugfs(dir: &Path, commands: &[&str]) {
    let script = dir.join("script");
    fs::write(&script, commands.join("\n")).unwrap();
    run("/usr/sbin/debugfs", &["-w", "-f"], &[&script, &dir.join("image")]);
}

/// Whether it could be read: all that is named, and of each file the first and the last bytes.
fn read(whole: &Arc<Vec<u8>>, at: usize, byte: u8) -> bool {
    let file: Arc<dyn ReadAt> = Arc::new(Bent { whole: whole.clone(), at, byte, read: AtomicU64::new(0) });
    let Ok(tree) = ext4::read(&file) else { return false };
    for id in tree.reachable() {
        if let Kind::File(content) = &tree.node(id).kind {
            let mut buf = vec![0; usize::try_from(content.size.min(8192)).unwrap()];
            let end = content.size - buf.len() as u64;
            for from in [0, end] {
                drop(content.read_exact_at(&mut buf, from));
            }
        }
    }
    true
}

/// The most memory that this program has had, bytes.
fn most_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn any_byte_of_an_image_may_be_another() {
    // numbers that are always the same: xorshift
    let mut random = 0x9E37_79B9_u32;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        random
    };
    for (features, journal) in [
        ("^has_journal,^metadata_csum,^resize_inode,extent,64bit", false),
        ("^has_journal,^metadata_csum,^resize_inode,^extent,^64bit", false),
        ("^metadata_csum,^resize_inode,extent,64bit", true),
    ] {
        let whole = image(features, journal);
        let byte = |at: usize| whole[at];
        assert!(read(&whole, 0, byte(0)), "{features}: whole");
        let before = most_memory();
        let (mut good, mut bad) = (0, 0);
        for (number, piece) in whole.chunks(16).enumerate() {
            // what is zero for long is not used, or is content
            if piece.iter().all(|&byte| byte == 0) {
                continue;
            }
            for at in number * 16..number * 16 + piece.len() {
                // mostly one bit: numbers that are nearly right
                let flipped = byte(at) ^ (1 << (next() % 8));
                let other = match next() % 4 {
                    0 if byte(at) != 0 => 0,
                    1 if byte(at) != 0xFF => 0xFF,
                    _ => flipped,
                };
                let outcome = catch_unwind(AssertUnwindSafe(|| read(&whole, at, other)));
                match outcome.unwrap_or_else(|_| panic!("{features}: byte {at:#x} is {other:#x}")) {
                    true => good += 1,
                    false => bad += 1,
                }
            }
        }
        println!("{features}: {good} read, {bad} refused");
        assert!(good > 1000 && bad > 500, "{features}: {good} read, {bad} refused");
        let grown = most_memory() - before;
        assert!(grown < MOST_MEMORY, "{features}: {grown} bytes of memory");
    }
}

/// Bytes that are read of an image of 4 MiB, each read counted as one more.
const MOST_READ: u64 = 256 << 20;
const MOST_MEMORY: u64 = 64 << 20;
