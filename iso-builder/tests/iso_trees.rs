//! Random trees through the ISO 9660 writer: what is read back, by us and by xorriso, is what was written.
//!
//! Trees come from seeds, so that what fails once fails again.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use iso_builder::iso9660::{self, BiosBoot, Boot, Options, UefiBoot};
use iso_builder::tree::{Content, Extent, Kind, Meta, Node, NodeId, ROOT, ReadAt, Source, Time, Tree};

/// What is made of a seed.
struct Chance(u64);

impl Chance {
    /// Below `limit`. xorshift64*.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % limit
    }

    fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }
}

/// A tree of so many inodes. `tame`: only what every judge can make of it.
fn tree(seed: u64, size: usize, tame: bool) -> Tree {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut tree = Tree::new(meta(&mut chance, tame));
    let mut dirs = vec![ROOT];
    let mut others: Vec<NodeId> = Vec::new();
    for _ in 0..size {
        // the newest half the time: so some go deep
        let dir = if chance.below(2) == 0 { dirs[dirs.len() - 1] } else { dirs[chance.index(dirs.len())] };
        let name = name(&mut chance, tame);
        if tree.child(dir, &name).is_some() {
            continue;
        }
        let kind = match chance.below(16) {
            0..3 => Kind::Dir(Default::default()),
            3..6 => Kind::Symlink(target(&mut chance, tame)),
            6 => Kind::CharDevice { major: chance.pick(&[0, 1, 4, 255]), minor: chance.pick(&[0, 3, 255]) },
            7 => Kind::BlockDevice { major: chance.pick(&[1, 8, 259]), minor: chance.pick(&[0, 16, 255]) },
            8 => Kind::Fifo,
            9 => Kind::Socket,
            10..12 if !others.is_empty() => {
                tree.link(dir, &name, others[chance.index(others.len())]);
                continue;
            }
            _ => Kind::File(content(&mut chance)),
        };
        let is_dir = matches!(kind, Kind::Dir(_));
        let id = tree.insert(dir, &name, Node { meta: meta(&mut chance, tame), kind });
        if is_dir { dirs.push(id) } else { others.push(id) }
    }
    tree
}

fn meta(chance: &mut Chance, tame: bool) -> Meta {
    // not every file system that xorriso extracts to has the others
    let seconds: &[i64] =
        if tame { &[0, 1_000_000_000] } else { &[0, -2_208_988_800, 5_869_583_999, -1, 4_294_967_296] };
    Meta {
        mode: u16::try_from(chance.below(0o10000)).unwrap(),
        uid: chance.pick(&[0, 1, 1000, 65_535, 65_536, u32::MAX - 1]),
        gid: chance.pick(&[0, 5, 65_536, 4_000_000_000]),
        mtime: Time { secs: chance.pick(seconds), nanos: 0 },
        ..Meta::default()
    }
}

/// Short ones often, so that they are alike in their first characters; long ones around what a field and a record hold.
fn name(chance: &mut Chance, tame: bool) -> Vec<u8> {
    let len = match chance.below(4) {
        0..2 => 1 + chance.index(4),
        2 => chance.pick(&[28, 30, 31, 64, 110, 113, 114, 249, 250, 251, 255]),
        _ => 1 + chance.index(255),
    };
    let name: Vec<u8> = (0..len)
        .map(|_| match chance.below(3) {
            0 => chance.pick(b"aAbB._-~"),
            1 if !tame => u8::try_from(1 + chance.below(255)).unwrap(),
            _ => chance.pick(b"xyz01 "),
        })
        .map(|byte| if byte == b'/' { b'+' } else { byte })
        .collect();
    if name == b"." || name == b".." { b"dots".to_vec() } else { name }
}

fn target(chance: &mut Chance, tame: bool) -> Vec<u8> {
    // xorriso refuses symlinks whose fields do not fit its own buffers
    let max = if tame { 200 } else { 4095 };
    let len = match chance.below(3) {
        0 => 1 + chance.index(8),
        1 => chance.pick(&[150, 100, 200]),
        _ => 1 + chance.index(max),
    };
    (0..len)
        .map(|at| match chance.below(6) {
            // xorriso drops empty components, and kinds of dots within a component confuse nobody
            0 if !tame || at % 7 == 3 => b'/',
            1 => b'.',
            _ => chance.pick(b"abcdef"),
        })
        .collect()
}

/// Sizes around a sector, and holes.
fn content(chance: &mut Chance) -> Content {
    let size = chance.pick(&[0, 0, 1, 2047, 2048, 2049, 4096, 6143, 10_000]);
    let bytes: Vec<u8> = (0..size).map(|_| u8::try_from(chance.below(256)).unwrap()).collect();
    let mut content = Content::from_bytes(bytes);
    if size > 4096 && chance.below(2) == 0 {
        content.size += 5000;
        content.extents[0].at = 3000;
    }
    content
}

/// A tree as one value: what each path is, and which paths are one inode.
#[derive(Debug, PartialEq)]
struct Seen {
    paths: Vec<(Vec<u8>, Meta, String)>,
    /// For each path the first one of the same inode.
    same: Vec<usize>,
}

fn seen(tree: &Tree) -> Seen {
    let mut seen = Seen { paths: Vec::new(), same: Vec::new() };
    let mut first = HashMap::new();
    let mut waiting = vec![(Vec::new(), ROOT)];
    while let Some((path, id)) = waiting.pop() {
        let node = tree.node(id);
        for (name, child) in tree.entries(id).into_iter().flatten() {
            waiting.push(([&path[..], b"/", name].concat(), *child));
        }
        let what = match &node.kind {
            Kind::Dir(_) => "directory".to_owned(),
            Kind::File(content) => {
                let mut bytes = vec![0; usize::try_from(content.size).unwrap()];
                content.read_exact_at(&mut bytes, 0).unwrap();
                format!("file {} {}", bytes.len(), iso_builder::digest::bytes(&bytes))
            }
            kind => format!("{kind:?}"),
        };
        seen.same.push(*first.entry(id).or_insert(seen.paths.len()));
        seen.paths.push((path, node.meta.clone(), what));
    }
    seen
}

fn options(joliet: bool, boot: Boot) -> Options {
    Options { volume: "RANDOM".into(), publisher: "tests 1".into(), time: Time::default(), joliet, boot }
}

fn write(tree: &Tree, options: &Options) -> Arc<dyn ReadAt> {
    let file = tempfile::tempfile().unwrap();
    iso9660::write(tree, options, &file).unwrap();
    Arc::new(file)
}

#[test]
fn what_is_written_is_read_back() {
    for seed in 0..40 {
        let tree = tree(seed, 20 + usize::try_from(seed).unwrap() * 8, false);
        let image = write(&tree, &options(seed % 2 == 0, Boot::default()));
        assert_eq!(seen(&iso9660::read(&image).unwrap()), seen(&tree), "seed {seed}");
    }
}

/// A part of an image as a disk of its own, as the kernel shows a partition.
#[derive(Debug)]
struct Partition(Arc<dyn ReadAt>, u64, u64);

impl ReadAt for Partition {
    fn read_exact_at(&self, buf: &mut [u8], from: u64) -> std::io::Result<()> {
        if from + buf.len() as u64 > self.2 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.0.read_exact_at(buf, self.1 + from)
    }

    fn size(&self) -> std::io::Result<u64> {
        Ok(self.2)
    }
}

#[test]
fn the_first_partition_shows_the_same_tree() {
    for seed in 0..10 {
        let tree = tree(seed, 150, false);
        let system = Content::from_bytes(vec![9; 70_000 + usize::try_from(seed).unwrap() * 1000]);
        let boot = Boot { bios: None, uefi: Some(UefiBoot { image: system }) };
        let image = write(&tree, &options(seed % 2 == 0, boot));
        let mut entries = [0; 256];
        image.read_exact_at(&mut entries, 1024).unwrap();
        let at = |at: usize| u64::from_le_bytes(entries[at..at + 8].try_into().unwrap());
        let partition = |entry: usize| (at(entry + 32) * 512, (at(entry + 40) - at(entry + 32) + 1) * 512);
        let ((start, len), (system, system_len)) = (partition(0), partition(128));
        assert!(start == 32 << 10 && start + len <= system && system + system_len < image.size().unwrap());
        let partition: Arc<dyn ReadAt> = Arc::new(Partition(image.clone(), start, len));
        let expected = seen(&tree);
        assert_eq!(seen(&iso9660::read(&partition).unwrap()), expected, "seed {seed}");
        assert_eq!(seen(&iso9660::read(&image).unwrap()), expected, "seed {seed}");
        let mut byte = [0; 2];
        image.read_exact_at(&mut byte, system).unwrap();
        assert_eq!(byte, [9, 9]);
    }
}

#[test]
fn directories_of_sixty_levels_and_ten_thousand_files() {
    let mut tree = Tree::new(Meta::default());
    let node = |kind| Node { meta: Meta::default(), kind };
    let mut dir = ROOT;
    for level in 0..60 {
        dir = tree.insert(
            dir,
            format!("level {level} {}", "d".repeat(200)).as_bytes(),
            node(Kind::Dir(Default::default())),
        );
    }
    let file = tree.insert(dir, b"first", node(Kind::File(Content::from_bytes(*b"abc"))));
    for number in 0..10_000 {
        tree.link(dir, format!("the same long beginning of many names {number}").as_bytes(), file);
    }
    let image = write(&tree, &options(true, Boot::default()));
    assert_eq!(seen(&iso9660::read(&image).unwrap()), seen(&tree));
}

#[test]
fn a_file_beyond_4_gib_keeps_its_holes() {
    let part = |at, byte: u8| Extent { at, len: 5000, source: Source::Memory(vec![byte; 5000].into()), from: 0 };
    let size = (9 << 30) + 777;
    // the middle one lies across the end of the first record's part
    let places = [0, (1 << 32) - 4000, size - 5000];
    let extents = places.iter().zip(1..).map(|(at, byte)| part(*at, byte)).collect();
    let mut tree = Tree::new(Meta::default());
    let kind = Kind::File(Content { size, extents });
    tree.insert(ROOT, b"large", Node { meta: Meta::default(), kind });
    tree.insert(ROOT, b"next", Node { meta: Meta::default(), kind: Kind::File(Content::from_bytes(*b"abc")) });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.iso");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    iso9660::write(&tree, &options(false, Boot::default()), &file).unwrap();
    assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20, "nothing but what is there was written");
    let image: Arc<dyn ReadAt> = Arc::new(file);
    let read = iso9660::read(&image).unwrap();
    let Kind::File(content) = &read.node(read.child(ROOT, b"large").unwrap()).kind else { panic!("no file") };
    assert_eq!(content.size, size);
    for (at, byte) in places.into_iter().zip(1..) {
        let mut bytes = [0; 5000];
        content.read_exact_at(&mut bytes, at).unwrap();
        assert_eq!(bytes, [byte; 5000]);
        if at > 0 {
            content.read_exact_at(&mut bytes[..1], at - 1).unwrap();
            assert_eq!(bytes[0], 0, "a hole before");
        }
    }
    let listing = Command::new("xorriso").arg("-indev").arg(&path).args(["-find", "/", "-exec", "lsdl"]).output();
    match listing {
        Ok(listing) => assert!(String::from_utf8_lossy(&listing.stdout).contains(&format!(" {size} "))),
        Err(error) => eprintln!("SKIPPED: xorriso: {error}"),
    }
}

#[test]
fn xorriso_takes_out_what_was_put_in() {
    if Command::new("xorriso").arg("-version").output().is_err() {
        return eprintln!("SKIPPED: no xorriso");
    }
    for seed in 100..106 {
        let tree = tree(seed, 120, true);
        let dir = tempfile::tempdir().unwrap();
        let (path, out) = (dir.path().join("x.iso"), dir.path().join("out"));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let mut with_loader = tree.clone();
        let loader = Kind::File(Content::from_bytes(vec![7; 3000]));
        with_loader.insert(ROOT, b"loader", Node { meta: Meta::default(), kind: loader });
        let bios = Some(BiosBoot { image: "loader".into(), mbr: vec![] });
        let boot = if seed % 2 == 0 { Boot::default() } else { Boot { bios, uefi: None } };
        let written = if seed % 2 == 0 { &tree } else { &with_loader };
        iso9660::write(written, &options(seed % 3 == 0, boot), &file).unwrap();
        let taken = Command::new("xorriso")
            .args(["-osirrox", "on:device_files", "-indev"])
            .arg(&path)
            .args(["-extract", "/"])
            .arg(&out)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&taken.stderr);
        assert!(!said.contains("FAILURE") && !said.contains("FATAL"), "seed {seed}: {said}");
        check_taken(&tree, ROOT, &out, seed);
    }
}

/// What xorriso made of a directory, against the tree. Owners and devices need root, as whom it is told apart here.
fn check_taken(tree: &Tree, dir: NodeId, out: &Path, seed: u64) {
    for (name, id) in tree.entries(dir).unwrap() {
        let path = out.join(OsStr::from_bytes(name));
        let node = tree.node(*id);
        // xorriso lists sockets, but makes none
        if matches!(node.kind, Kind::Socket) {
            continue;
        }
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("seed {seed}: {path:?}: {error}"));
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        match &node.kind {
            Kind::Dir(_) => check_taken(tree, *id, &path, seed),
            Kind::File(content) => {
                let mut bytes = vec![0; usize::try_from(content.size).unwrap()];
                content.read_exact_at(&mut bytes, 0).unwrap();
                assert!(fs::read(&path).unwrap() == bytes, "seed {seed}: {path:?}");
            }
            Kind::Symlink(target) => {
                assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), target, "seed {seed}: {path:?}");
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } if is_root => {
                let number = (nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()));
                assert_eq!(number, (u64::from(*major), u64::from(*minor)), "seed {seed}: {path:?}");
            }
            Kind::Fifo => assert!(meta.file_type().is_fifo()),
            _ => {}
        }
        // of a symlink it restores the target alone
        if is_root && !matches!(node.kind, Kind::Symlink(_)) {
            let found = (meta.uid(), meta.gid(), meta.mode() & 0o7777, meta.mtime());
            let Meta { uid, gid, mode, mtime, .. } = node.meta;
            assert_eq!(found, (uid, gid, u32::from(mode), mtime.secs), "seed {seed}: {path:?}");
        }
    }
}
