//! Sizes on both sides of every boundary of the format, each written, judged and read back.

use std::sync::Arc;

use iso_builder::tree::{Content, Extent, Kind, Meta, Node, NodeId, ROOT, Source, Tree};

use crate::compare::assert_same;
use crate::judges::build;
use crate::samples::{Random, dir, file, node, with_xattrs};
use crate::{fit, resize};

const BLOCK: u64 = 4096;

/// A file with one stored block at each of these, and no other.
fn scattered(places: impl Iterator<Item = u64>) -> Node {
    let bytes: Arc<[u8]> = vec![0xA5; 4096].into();
    let part = |block| Extent { at: block * BLOCK, len: BLOCK, source: Source::Memory(bytes.clone()), from: 0 };
    let extents: iso_builder::tree::Extents = places.map(part).collect();
    let size = extents.last().map_or(0, |last| last.at + last.len);
    node(Kind::File(Content { size, extents }))
}

fn folder(tree: &mut Tree, name: &str) -> NodeId {
    tree.insert(ROOT, name.as_bytes(), dir())
}

#[test]
fn both_sides_of_every_boundary() {
    let mut tree = Tree::new(Meta { mode: 0o755, ..Meta::default() });
    let mut random = Random::new(11);
    let links = folder(&mut tree, "links");
    for len in [1, 58, 59, 60, 61, 4094, 4095] {
        tree.insert(links, len.to_string().as_bytes(), node(Kind::Symlink(vec![b't'; len])));
    }
    let sizes = folder(&mut tree, "sizes");
    for size in [0, 1, 4095, 4096, 4097, 12 * 4096, 12 * 4096 + 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1] {
        let mut bytes = random.bytes(size);
        bytes.iter_mut().for_each(|byte| *byte |= 1);
        tree.insert(sizes, size.to_string().as_bytes(), file(bytes));
    }
    let extents = folder(&mut tree, "extents");
    for count in [1, 3, 4, 5, 339, 340, 341, 1359, 1360, 1361, 1701] {
        tree.insert(extents, count.to_string().as_bytes(), scattered((0..count).map(|n| 2 * n)));
    }
    // 32768 blocks are the most of one extent, 2^32 bytes the most of a size of 32 bits, 2^32 - 1 blocks of a file.
    for block in [32_766, 32_767, 32_768, 32_769, (1 << 20) - 1, 1 << 20, (1 << 32) - 3] {
        tree.insert(extents, format!("hole-{block}").as_bytes(), scattered([0, block].into_iter()));
    }
    let xattrs = folder(&mut tree, "xattrs");
    for len in (0..80).chain(4030..=4040) {
        let value = random.bytes(len);
        let made = with_xattrs(node(Kind::Fifo), &[(b"user.a", &value)]);
        tree.insert(xattrs, format!("one-{len}").as_bytes(), made);
        if len < 80 {
            let more: &[(&[u8], &[u8])] = &[(b"user.b", &value), (b"trusted.overlay.x", &value), (b"user.a", &[7; 40])];
            tree.insert(xattrs, format!("three-{len}").as_bytes(), with_xattrs(file(value.clone()), more));
        }
    }
    // An index begins with the second block: 4084 bytes less 24 for `.` and `..`, records of 16 for names of 5 to 8.
    for count in [252, 253, 254, 255, 400, 513] {
        let full = folder(&mut tree, &format!("dir-{count}"));
        for n in 0..count {
            tree.insert(full, format!("{n:06}").as_bytes(), node(Kind::Socket));
        }
    }
    let names = folder(&mut tree, "names");
    for byte in (1..=255).filter(|&byte| byte != b'/') {
        for len in [1, 3, 4, 255] {
            let name = vec![byte; len];
            if name != b"." {
                tree.insert(names, &name, node(Kind::Fifo));
            }
        }
    }
    let image = build(&tree, &fit(0));
    image.assert_clean();
    assert_same(&tree, &image.read());
}

#[test]
fn a_hundred_thousand_extents() {
    let mut tree = Tree::new(Meta::default());
    tree.insert(ROOT, b"scattered", scattered((0..100_001).map(|n| 2 * n)));
    let image = build(&tree, &fit(0));
    image.assert_clean();
    assert!(image.dump().contains("extent_tree=296 blocks"));
    assert_same(&tree, &image.read());
}

#[test]
fn a_hundred_thousand_names() {
    let mut tree = Tree::new(Meta::default());
    let big = folder(&mut tree, "big");
    for n in 0..100_000 {
        tree.insert(big, format!("name-{n}").as_bytes(), node(Kind::Fifo));
    }
    let image = build(&tree, &fit(0));
    image.assert_clean();
    assert_same(&tree, &image.read());
}

/// Nothing has to be set aside for growth: what is in the way of more group descriptors, `resize2fs` moves.
#[test]
fn an_image_grows() {
    let mut tree = crate::samples::everything();
    tree.insert(ROOT, b"five-mb", file(Random::new(1).bytes(5 << 20)));
    for size in [300 << 20, 20 << 30, 300 << 30] {
        let image = build(&tree, &fit(1 << 20));
        resize(&image, size);
        image.assert_clean();
        assert_same(&tree, &image.read());
    }
}
