//! Images that were not unmounted: what their journals hold is read as `e2fsck` would have put it in its place. `debugfs` writes the journals.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use iso_builder::ext4::{self, Error};
use iso_builder::tree::{Content, Kind, ROOT, ReadAt};

use crate::judges::run;

/// How each block of the journal's own starts.
const MAGIC: [u8; 4] = [0xC0, 0x3B, 0x39, 0x98];

/// An image with a file of three blocks.
struct Image {
    dir: tempfile::TempDir,
    block: usize,
    places: Vec<u64>,
}

impl Image {
    fn new(block: usize, features: &str) -> Image {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir(&from).unwrap();
        fs::write(from.join("data"), b"o".repeat(3 * block)).unwrap();
        let mut image = Image { dir, block, places: Vec::new() };
        let made = run(Command::new("/usr/sbin/mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-b", &block.to_string(), "-O", features, "-J", "size=4", "-d"])
            .arg(&from)
            .arg(image.path())
            .arg("32M"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        image.places = image.debugfs(&["blocks /data"]).split_whitespace().filter_map(|n| n.parse().ok()).collect();
        assert_eq!(image.places.len(), 3);
        image
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn debugfs(&self, commands: &[&str]) -> String {
        let script = self.dir.path().join("script");
        fs::write(&script, commands.join("\n")).unwrap();
        let output = run(Command::new("/usr/sbin/debugfs").arg("-w").arg("-f").arg(&script).arg(self.path()));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // each command is repeated on a line of its own
        said.lines().filter(|line| !line.starts_with("debugfs:")).collect::<Vec<_>>().join("\n")
    }

    /// A file with blocks of these bytes.
    fn bytes(&self, name: &str, blocks: &[&[u8]]) -> String {
        let bytes: Vec<u8> =
            blocks.iter().flat_map(|start| [start, &vec![start[0]; self.block - start.len()][..]].concat()).collect();
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    /// A journal with all that there can be: two blocks, of which one looks like the journal's own; one that is revoked; one that was never committed.
    fn fill(&self, open: &str) {
        let [a, b, c] = self.places[..] else { unreachable!() };
        let (two, one, late) =
            (self.bytes("two", &[b"A", &MAGIC]), self.bytes("one", &[b"C"]), self.bytes("late", &[b"Z"]));
        let commands = [
            open.to_owned(),
            format!("jw -b {a},{b} {two}"),
            format!("jw -b {c} {one}"),
            format!("jw -r {c}"),
            format!("jw -b {a} -c {late}"),
            "jc".into(),
        ];
        self.debugfs(&commands.each_ref().map(String::as_str));
    }

    /// The first bytes of the file's blocks.
    fn read(&self) -> Result<Vec<[u8; 4]>, Error> {
        starts(&self.path(), self.block)
    }

    /// What the journal holds is written, once, and nothing is left to be repaired.
    #[track_caller]
    fn settle(&self, expected: [[u8; 4]; 3]) {
        let file = File::options().read(true).write(true).open(self.path()).unwrap();
        assert!(ext4::settle(&file).unwrap());
        assert!(!ext4::settle(&file).unwrap());
        assert_eq!(self.read().unwrap(), expected);
        assert!(!self.debugfs(&["features"]).contains("needs_recovery"));
        let checked = run(Command::new("/usr/sbin/e2fsck").arg("-fn").arg(self.path()));
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
        // its blocks are still there, and are no transactions any more
        let [a, ..] = self.places[..] else { unreachable!() };
        self.debugfs(&[&format!("zap_block -p 88 {a}"), "feature needs_recovery"]);
        assert_eq!(self.read().unwrap()[0], *b"XXXX");
    }

    fn repaired(&self) -> Vec<[u8; 4]> {
        let copy = self.dir.path().join("copy");
        fs::copy(self.path(), &copy).unwrap();
        run(Command::new("/usr/sbin/e2fsck").args(["-y", "-E", "journal_only"]).arg(&copy));
        starts(&copy, self.block).unwrap()
    }

    /// The first block of the journal's own of this kind, by its place in the image.
    fn own(&self, kind: u8) -> u64 {
        let bytes = fs::read(self.path()).unwrap();
        let found = bytes.chunks(self.block).position(|block| block[..8] == [&MAGIC[..], &[0, 0, 0, kind]].concat());
        (found.expect("there is one") * self.block) as u64
    }

    fn flip(&self, at: u64) {
        let file = File::options().read(true).write(true).open(self.path()).unwrap();
        let mut byte = [0];
        FileExt::read_exact_at(&file, &mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
}

fn starts(image: &Path, block: usize) -> Result<Vec<[u8; 4]>, Error> {
    let file: Arc<dyn ReadAt> = Arc::new(File::open(image).unwrap());
    let tree = ext4::read(&file)?;
    let Kind::File(content) = &tree.node(tree.child(ROOT, b"data").unwrap()).kind else { panic!("no file") };
    let start = |number: usize| {
        let mut bytes = vec![0; block];
        Content::read_exact_at(content, &mut bytes, (number * block) as u64).unwrap();
        assert!(bytes[4..].iter().all(|byte| *byte == bytes[4]));
        [bytes[0], bytes[1], bytes[2], bytes[3]]
    };
    Ok((0..3).map(start).collect())
}

#[test]
fn what_was_committed_is_seen() {
    for (block, features, open) in [
        (4096, "metadata_csum,64bit", "jo -c"),
        (4096, "metadata_csum,64bit", "jo -c -v 2"),
        (4096, "^metadata_csum,64bit", "jo"),
        (4096, "^metadata_csum,^64bit", "jo"),
        (1024, "metadata_csum,64bit", "jo -c -v 3"),
        (1024, "^metadata_csum,^64bit", "jo"),
    ] {
        let image = Image::new(block, features);
        image.fill(open);
        let said = image.read().unwrap_or_else(|error| panic!("{features} {open}: {error}"));
        let expected = [*b"AAAA", MAGIC, *b"oooo"];
        assert_eq!(said, expected, "{features} {open}");
        assert_eq!(said, image.repaired(), "{features} {open}");
        let file = File::open(image.path()).unwrap();
        assert!(ext4::dump(&file).unwrap().contains("/data"));
        drop(file);
        image.settle(expected);
    }
}

#[test]
fn a_journal_of_nothing_is_settled() {
    let image = Image::new(4096, "metadata_csum,64bit");
    image.debugfs(&["feature needs_recovery"]);
    image.settle([*b"oooo"; 3]);
}

#[test]
fn a_journal_that_lies_is_refused() {
    let new = || {
        let image = Image::new(4096, "metadata_csum,64bit");
        image.fill("jo -c");
        image
    };
    let said = |image: &Image| image.read().unwrap_err().to_string();
    // a descriptor, a commit, what is revoked, the journal's superblock, a block
    for (kind, at) in [(1, 40), (2, 20), (5, 20)] {
        let image = new();
        image.flip(image.own(kind) + at);
        let said = said(&image);
        assert!(said.contains("a checksum of transaction") && said.contains("e2fsck"), "{kind}: {said}");
    }
    let image = new();
    image.flip(image.own(4) + 0x60);
    assert!(said(&image).contains("the checksum of its superblock"));
    let image = new();
    image.flip(image.own(1) + 4096 + 100);
    assert!(said(&image).contains("the checksum of block"), "{}", said(&image));
    // a transaction whose commit was never written is none
    let image = new();
    image.flip(image.own(2) + 3);
    assert_eq!(image.read().unwrap(), [*b"oooo"; 3]);
}
