//! ext4 images before foreign judges: `e2fsck` must find nothing, and `debugfs` must see what the tree says.
//!
//! A missing tool fails the test that needs it (Debian: `e2fsprogs`); nothing is skipped.

#[path = "ext4/boundaries.rs"]
mod boundaries;
#[path = "ext4/compare.rs"]
mod compare;
#[path = "ext4/foreign.rs"]
mod foreign;
#[path = "ext4/journal.rs"]
mod journal;
#[path = "ext4/judges.rs"]
mod judges;
#[path = "ext4/samples.rs"]
mod samples;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use compare::assert_same;
use iso_builder::ext4::{self, Error, Options, Size};
use iso_builder::tree::{Content, Extent, Kind, Meta, ROOT, Source, Time, Tree};
use judges::build;
use samples::{Random, dir, everything, file, node, random_tree, with_xattrs};

fn fit(spare: u64) -> Options {
    Options { size: Size::Fit { spare }, ..Options::default() }
}

fn resize(image: &judges::Image, size: u64) {
    image.file.set_len(size).unwrap();
    image.resize();
}

fn exactly(size: u64) -> Options {
    Options { size: Size::Exactly(size), ..Options::default() }
}

#[test]
fn an_empty_tree() {
    for journal in [false, true] {
        let image = build(&Tree::new(Meta::default()), &Options { journal, ..fit(0) });
        image.assert_clean();
        assert!(image.dump().contains("\n/lost+found dir ino=11 mode=0700"));
    }
}

#[test]
fn every_kind_of_file() {
    let image = build(&everything(), &Options { label: "sixteen bytes ok".into(), ..fit(8 << 20) });
    image.assert_clean();
    assert_same(&everything(), &image.read());
    let cases: [(&str, &[&str]); 9] = [
        ("/dev/null", &["Type: character special", "Device major/minor number: 01:03", "Mode:  0666"]),
        ("/dev/big", &["Type: block special", "major/minor number: 10:70000"]),
        ("/run/fifo", &["Type: FIFO"]),
        ("/run/socket", &["Type: socket"]),
        ("/bin/su", &["Mode:  04755", "User:    -2   Group: 65536", "Links: 3"]),
        ("/bin/link59", &["Fast link dest: \"aaaaaaaaaa"]),
        ("/bin/link60", &["Size: 60", "EXTENTS:\n(0)"]),
        ("/times/2040", &["mtime: 0x83aa7e80:00000015", "2040"]),
        ("/times/1960", &["1960", ":ee6b27fc"]),
    ];
    for (path, facts) in cases {
        let said = image.debugfs(&format!("stat {path}"));
        facts.iter().for_each(|fact| assert!(said.contains(fact), "{path} lacks {fact}:\n{said}"));
    }
}

#[test]
fn xattrs_as_debugfs_reads_them() {
    let image = build(&everything(), &fit(0));
    let cases: [(&str, &[&str]); 4] = [
        ("/xattr/small", &["user.note (5) = \"hello\"", "security.capability (20) = 01 00 00 02"]),
        ("/xattr/large", &["user.large (2500)", "trusted.overlay (1)", "user.\\xffodd"]),
        ("/xattr/acl", &["system.posix_acl_access (28) = 01 00 00 00 01 00 06 00 02 00 07 00 e8 03 00 00"]),
        ("/xattr/dir", &["system.posix_acl_default (28)", "user.\\xffodd"]),
    ];
    for (path, facts) in cases {
        let said = image.debugfs(&format!("ea_list {path}"));
        for fact in facts.iter().filter(|fact| !fact.contains('\\')) {
            assert!(said.contains(fact), "{path} lacks {fact}:\n{said}");
        }
    }
    let dump = image.dump();
    assert!(dump.contains("user.\\xffodd=\"\\x00\\x01\""), "{dump}");
    assert!(dump.contains("system.posix_acl_access=\"\\x02\\x00\\x00\\x00\\x01\\x00\\x06"), "{dump}");
}

#[test]
fn contents_as_debugfs_reads_them() {
    let mut tree = Tree::new(Meta::default());
    let mut random = Random::new(7);
    let contents: Vec<Vec<u8>> = [0, 1, 4095, 4096, 4097, 1_000_000, 3 << 20].map(|len| random.bytes(len)).into();
    for (n, bytes) in contents.iter().enumerate() {
        tree.insert(ROOT, format!("f{n}").as_bytes(), file(bytes.clone()));
    }
    let image = build(&tree, &fit(0));
    image.assert_clean();
    for (n, bytes) in contents.iter().enumerate() {
        assert!(image.contents(&format!("/f{n}")) == *bytes, "file {n} differs");
    }
}

#[test]
fn a_directory_of_ten_thousand() {
    let mut tree = Tree::new(Meta::default());
    let big = tree.insert(ROOT, b"big", dir());
    for n in 0..10_000 {
        tree.insert(big, format!("entry-{n:05}-with-some-length").as_bytes(), node(Kind::Fifo));
    }
    let longest = tree.insert(ROOT, b"longest", dir());
    for n in 0..=255u8 {
        let name: Vec<u8> = (0..255).map(|_| if matches!(n, 0 | b'/') { 1 } else { n }).collect();
        tree.insert(longest, &name, node(Kind::Socket));
    }
    let image = build(&tree, &fit(0));
    image.assert_clean();
    assert_same(&tree, &image.read());
    assert!(image.debugfs("stat /big/entry-09999-with-some-length").contains("Type: FIFO"));
    let dump = image.dump();
    assert_eq!(dump.matches("\n/big/entry-").count(), 10_000);
    assert!(dump.contains("\n/big indexed-dir ") && dump.contains("\n/longest indexed-dir "));
    assert!(image.debugfs("htree_dump /big").contains("Indirect levels: 0"));
}

#[test]
fn a_directory_whose_index_has_two_levels() {
    let mut tree = Tree::new(Meta::default());
    let big = tree.insert(ROOT, b"big", dir());
    let one = tree.insert(ROOT, b"one", node(Kind::Fifo));
    for n in 0..30_000 {
        tree.link(big, format!("{n:0>200}").as_bytes(), one);
    }
    let image = build(&tree, &fit(0));
    image.assert_clean();
    assert_same(&tree, &image.read());
    let said = image.debugfs("htree_dump /big");
    assert!(said.contains("Indirect levels: 1"), "{said}");
    assert!(image.debugfs(&format!("stat /big/{:0>200}", 29_999)).contains("Links: 30001"));
    assert_eq!(image.dump().matches("\n/big/0").count(), 30_000);
}

/// One link count for each subdirectory has no room in 16 bits.
#[test]
fn more_subdirectories_than_links() {
    let mut tree = Tree::new(Meta::default());
    let parent = tree.insert(ROOT, b"parent", dir());
    for n in 0..65_001 {
        tree.insert(parent, format!("{n}").as_bytes(), dir());
    }
    let image = build(&tree, &Options { journal: false, ..fit(0) });
    image.assert_clean();
    assert_same(&tree, &image.read());
    assert!(image.debugfs("stat /parent").contains("Links: 1 "));
}

#[test]
fn a_sparse_file_of_six_gib_with_thousands_of_extents() {
    const STEP: u64 = 1 << 20;
    let bytes: Arc<[u8]> = vec![0x5A; 4096].into();
    let part = |at| Extent { at, len: 4096, source: Source::Memory(bytes.clone()), from: 0 };
    let content = Content { size: 6144 * STEP + 5, extents: (0..6144).map(|n| part(n * STEP)).collect() };
    let mut tree = Tree::new(Meta::default());
    tree.insert(ROOT, b"sparse", node(Kind::File(content)));
    let empty = Content { size: 5 << 40, extents: Default::default() };
    tree.insert(ROOT, b"nothing", node(Kind::File(empty)));
    let image = build(&tree, &fit(0));
    image.assert_clean();
    assert_same(&tree, &image.read());
    assert!(image.file.metadata().unwrap().blocks() * 512 < 40 << 20);
    let said = image.debugfs("stat /sparse");
    assert!(said.contains("(ETB0)") && said.contains(&format!("Size: {}", 6144 * STEP + 5)), "{said}");
    let dump = image.dump();
    assert!(dump.contains("and 6136 more\n  extent_tree=20 blocks"), "{dump}");
}

#[test]
fn one_file_larger_than_groups() {
    // 260 MiB of data: extents end at groups and at 32768 blocks.
    const MIB: u64 = 1 << 20;
    let chunk: Arc<[u8]> = Random::new(3).bytes(1 << 20).into();
    let part = |at| Extent { at, len: MIB, source: Source::Memory(chunk.clone()), from: 0 };
    let content = Content { size: 260 * MIB, extents: (0..260).map(|n| part(n * MIB)).collect() };
    let mut tree = Tree::new(Meta::default());
    tree.insert(ROOT, b"large", node(Kind::File(content)));
    tree.insert(ROOT, b"small", file(b"behind".to_vec()));
    let image = build(&tree, &fit(0));
    image.assert_clean();
    assert_same(&tree, &image.read());
    assert!(image.contents("/large").chunks(1 << 20).all(|part| *part == *chunk));
    assert_eq!(image.contents("/small"), b"behind");
}

#[test]
fn large_images_cost_little() {
    let mut tree = everything();
    tree.insert(ROOT, b"five-mb", file(Random::new(1).bytes(5 << 20)));
    for size in [8 << 30, 40 << 30, 40 << 30 | 5000] {
        let image = build(&tree, &exactly(size));
        image.assert_clean();
        let meta = image.file.metadata().unwrap();
        assert_eq!(meta.size(), size);
        assert!(meta.blocks() * 512 < 8 << 20, "{} bytes on disk", meta.blocks() * 512);
        assert!(image.dump().contains(" inode_uninit block_uninit zeroed\n"));
        assert_eq!(image.copy_number(3), 3);
    }
}

#[test]
fn every_size_near_the_edges_of_groups_is_clean() {
    let tree = everything();
    for blocks in [32_767, 32_768, 32_769, 32_817, 32_818, 32_819, 32_900, 65_535, 65_600, 16 * 32_768 + 3000] {
        for journal in [false, true] {
            build(&tree, &Options { journal, ..exactly(blocks * 4096) }).assert_clean();
        }
    }
}

#[test]
fn too_small_says_what_it_takes() {
    let mut tree = Tree::new(Meta::default());
    tree.insert(ROOT, b"f", file(vec![1; 10 << 20]));
    let out = tempfile::tempfile().unwrap();
    let error = ext4::write(&tree, &exactly(1 << 20), &out, &mut |_, _| {}).unwrap_err();
    let Error::TooSmall { size: 1_048_576, needed } = error else { panic!("{error}") };
    assert!((14 << 20..18 << 20).contains(&needed), "{needed}");
    build(&tree, &exactly(needed)).assert_clean();
}

#[test]
fn an_unreadable_file_is_named() {
    let extents = vec![Extent { at: 0, len: 9, source: Source::Memory(Arc::new([1; 4])), from: 0 }];
    let mut tree = Tree::new(Meta::default());
    let sub = tree.insert(ROOT, b"sub", dir());
    tree.insert(sub, b"short", node(Kind::File(Content { size: 9, extents: extents.into() })));
    let out = tempfile::tempfile().unwrap();
    let error = ext4::write(&tree, &fit(0), &out, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.to_string(), "can not read the contents of /sub/short");
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn xattrs_too_large_are_named() {
    let mut tree = Tree::new(Meta::default());
    tree.insert(ROOT, b"f", with_xattrs(node(Kind::Fifo), &[(b"user.huge", &[1; 5000])]));
    let out = tempfile::tempfile().unwrap();
    let error = ext4::write(&tree, &fit(0), &out, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.to_string(), "can not store /f: xattrs of 5020 bytes do not fit the 4060 in a block");
}

#[test]
fn a_label_has_at_most_sixteen_bytes() {
    for label in ["seventeen bytes ..", "a\0b"] {
        let out = tempfile::tempfile().unwrap();
        let options = Options { label: label.into(), ..fit(0) };
        let error = ext4::write(&everything(), &options, &out, &mut |_, _| {}).unwrap_err();
        assert!(matches!(error, Error::Label { .. }), "{error}");
    }
}

#[test]
fn an_output_that_can_not_be_written_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let error = ext4::write(&everything(), &fit(0), &full, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, Error::Write { .. }), "{error}");
}

#[test]
fn progress_ends_at_its_total() {
    let mut told = Vec::new();
    let out = tempfile::tempfile().unwrap();
    ext4::write(&everything(), &fit(0), &out, &mut |done, total| told.push((done, total))).unwrap();
    assert!(told.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 == pair[1].1));
    let ends: Vec<bool> = told.iter().rev().take(2).map(|(done, total)| done == total).collect();
    assert_eq!(ends, [true, true], "without zero blocks, all bytes are told before the end is");
}

#[test]
fn equal_trees_give_equal_images_and_others_do_not() {
    let first = build(&everything(), &fit(1 << 20));
    assert_eq!(first.digest(), build(&everything(), &fit(1 << 20)).digest());
    let mut other = everything();
    other.node_mut(ROOT).meta.mtime = Time { secs: 1, nanos: 0 };
    let other = build(&other, &fit(1 << 20));
    assert_ne!(first.stats.uuid, other.stats.uuid);
    assert_eq!(first.stats.uuid[6] >> 4, 8, "a UUID of version 8");
}

/// Every byte of the format on one line. It changes only when the writer means to write other images than before: then
/// look at what `e2fsck` and the dump below say, and pin the new digest together with the reason in the commit.
#[test]
fn the_bytes_of_a_small_image_are_pinned() {
    let options = Options { label: "pinned".into(), uuid: Some(*b"0123456789abcdef"), ..fit(1 << 20) };
    let image = build(&everything(), &Options { journal: false, ..options });
    assert_eq!(image.digest(), "e5d9ae2fc241c03bb44ed3aa33b3c47558d1a99965a9544a7db5e059ff646f49");
}

#[test]
fn the_dump_of_a_small_image() {
    let mut tree = Tree::new(Meta { mode: 0o755, ..Meta::default() });
    let hello = tree.insert(ROOT, b"hello", with_xattrs(file(b"hello, world".to_vec()), &[(b"user.note", b"hi")]));
    tree.link(ROOT, b"again", hello);
    let options = Options { label: "small".into(), uuid: Some([0x11; 16]), time: Time { secs: 9, nanos: 0 }, ..fit(0) };
    let image = build(&tree, &options);
    let expected = include_str!("ext4/small.dump");
    assert_eq!(image.dump(), expected);
}

#[test]
fn a_damaged_image_is_noticed() {
    let image = build(&everything(), &fit(0));
    let dump = image.dump();
    let inode = dump.lines().find(|line| line.starts_with("group 0")).unwrap();
    let table: u64 = inode.split("table=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    image.flip_bit(table * 4096 + 256 + 0x1A);
    let error = ext4::dump(&image.file).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("damaged ext4 image, at byte {}: inode 2: its checksum is wrong", table * 4096 + 256)
    );
    let said = image.e2fsck();
    assert!(!said.status.success(), "e2fsck is no judge");
}

#[test]
fn random_trees() {
    for seed in 1..=12 {
        let mut random = Random::new(seed);
        let (tree, contents) = random_tree(&mut random);
        let options = Options { journal: random.below(2) == 0, ..fit(random.below(64) << 20) };
        let image = build(&tree, &options);
        image.assert_clean_for(&format!("seed {seed}"));
        let unpacked = image.unpack();
        for (path, bytes) in contents {
            let found = std::fs::read(unpacked.path().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(found == bytes, "seed {seed}: {path} differs");
        }
        image.dump();
        assert_same(&tree, &image.read());
    }
}
