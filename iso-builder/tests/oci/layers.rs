//! Layers as trees of their own: under overlayfs they are the image. Overlayfs is played here by its rules: Documentation/filesystems/overlayfs.rst.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use iso_builder::oci;
use iso_builder::recipe::layer_disk;
use iso_builder::tree::{Kind, Meta, Node, NodeId, ROOT, Tree};

use crate::build::{config, content, docker_archive, layer, lines, open, saved};

/// The trees of an image's layers, the lowest first.
fn trees(layers: &[Vec<u8>]) -> Vec<Tree> {
    let (_dir, path) = saved(&docker_archive(&config(layers), layers).end());
    let image = open(path.to_str().unwrap()).unwrap();
    let spool = tempfile::tempdir().unwrap();
    let mut trees = Vec::new();
    image
        .layers::<oci::Error>(spool.path(), &|_| true, &mut |_| {}, &mut |number, tree| {
            assert_eq!(number, trees.len());
            trees.push(tree);
            Ok(())
        })
        .unwrap();
    trees
}

/// What a process sees of the layers' disks.
pub(crate) fn overlaid(layers: &[Vec<u8>]) -> Tree {
    let trees = trees(layers);
    let stack: Vec<(&Tree, NodeId)> = trees.iter().rev().map(|tree| (tree, ROOT)).collect();
    let mut seen = Tree::new(stack.first().map_or_else(Meta::default, |(tree, dir)| tree.node(*dir).meta.clone()));
    merge(&stack, &mut seen, ROOT);
    seen
}

fn is_whiteout(node: &Node) -> bool {
    matches!(node.kind, Kind::CharDevice { major: 0, minor: 0 })
}

/// Directories of one path, the highest first.
fn merge(stack: &[(&Tree, NodeId)], seen: &mut Tree, to: NodeId) {
    let mut names: BTreeMap<&[u8], Vec<(&Tree, NodeId)>> = BTreeMap::new();
    for &(tree, dir) in stack {
        for (name, &id) in tree.entries(dir).unwrap() {
            assert!(
                stack.len() > 1 || !is_whiteout(tree.node(id)),
                "a whiteout would be seen: {}",
                String::from_utf8_lossy(name)
            );
            names.entry(name).or_default().push((tree, id));
        }
    }
    for (name, found) in names {
        let (tree, top) = found[0];
        let node = tree.node(top);
        if is_whiteout(node) {
            continue;
        }
        if tree.entries(top).is_none() {
            seen.insert(to, name, node.clone());
            continue;
        }
        // directories merge down to what is none, or to one that hides what is below
        let mut stack = Vec::new();
        for (tree, id) in found {
            if tree.entries(id).is_none() {
                break;
            }
            stack.push((tree, id));
            if tree.node(id).meta.xattrs.contains_key(&b"trusted.overlay.opaque"[..]) {
                break;
            }
        }
        let mut meta = node.meta.clone();
        meta.xattrs.retain(|name, _| !name.starts_with(b"trusted.overlay."));
        let dir = seen.insert(to, name, Node { meta, kind: Kind::Dir(BTreeMap::new()) });
        merge(&stack, seen, dir);
    }
}

/// Everything but which names are links of one inode: those of different layers are not, under overlayfs.
pub(crate) fn told(tree: &Tree) -> Vec<String> {
    let (mut told, mut todo) = (Vec::new(), vec![(String::new(), ROOT)]);
    while let Some((path, id)) = todo.pop() {
        let node = tree.node(id);
        let kind = match &node.kind {
            Kind::Dir(entries) => {
                todo.extend(
                    entries.iter().map(|(name, id)| (format!("{path}/{}", String::from_utf8_lossy(name)), *id)),
                );
                "dir".to_owned()
            }
            Kind::File(_) => format!("{:?}", String::from_utf8_lossy(&content(tree, id))),
            other => format!("{other:?}"),
        };
        told.push(format!("{path} {:?} {kind}", node.meta));
    }
    told.sort();
    told
}

#[test]
fn a_layer_is_what_it_adds_and_what_it_hides() {
    let layers: Vec<_> = [
        &["usr/", "usr/lib/", "usr/lib/a=1", "lib -> usr/lib", "etc/", "etc/x=1", "etc/y=1"][..],
        &["lib/b=2", "etc/.wh.x=", "usr/lib/c => usr/lib/a"],
        &["etc/.wh..wh..opq=", "etc/z=3"],
    ]
    .iter()
    .map(|lines| layer(lines))
    .collect();
    let trees = trees(&layers);
    // a path through a symlink of a layer below leads where it leads there
    assert_eq!(
        lines(&trees[1]),
        ["etc/", "etc/x CharDevice { major: 0, minor: 0 }", "usr/", "usr/lib/", "usr/lib/b=2", "usr/lib/c=1"]
    );
    assert_eq!(lines(&trees[2]), ["etc/", "etc/y CharDevice { major: 0, minor: 0 }", "etc/z=3"]);
}

#[test]
fn directories_come_and_go() {
    for layers in [
        [&["d/", "d/a=1"][..], &[".wh.d="], &["d/", "d/b=1"]],
        [&["d/", "d/a=1"], &["d=file"], &["d/", "d/b=1"]],
        [&["d/", "d/a=1"], &[".wh.d=", "d/", "d/b=1"], &["d/c=1"]],
        [&["d/", "d/s/", "d/s/a=1"], &["d/.wh..wh..opq=", "d/s/", "d/s/b=2"], &["d/s/.wh.b="]],
        [&["d/", "d/a=1"], &["d -> e", "e/", "e/f=1"], &["d/g=1", ".wh.e="]],
        [&[], &["d/.wh.a="], &["d/a=1"]],
    ] {
        let layers: Vec<_> = layers.iter().map(|lines| layer(lines)).collect();
        let merged = crate::build::flatten_layers(&layers).unwrap();
        assert_eq!(told(&overlaid(&layers)), told(&merged));
    }
}

#[test]
fn equal_layers_have_one_name_if_all_below_are_equal() {
    let chain = |layers: &[&[&str]]| {
        let layers: Vec<_> = layers.iter().map(|lines| layer(lines)).collect();
        let (_dir, path) = saved(&docker_archive(&config(&layers), &layers).end());
        open(path.to_str().unwrap()).unwrap().chain().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let (one, two) = (chain(&[&["a=1"], &["b=1"], &["c=1"]]), chain(&[&["a=1"], &["x=1"], &["c=1"]]));
    assert_eq!(one[0], two[0]);
    assert_ne!(one[2], two[2]);
    assert_eq!(one[..2], chain(&[&["a=1"], &["b=1"]])[..]);
}

/// Disks are shared by name. One that is whole is not touched, as a machine may run on it; one that is not is made again, alone.
#[test]
fn a_disk_that_is_there_and_whole_is_left() {
    let layers = [layer(&["a=1"]), layer(&["b=2"])];
    let (dir, path) = saved(&docker_archive(&config(&layers), &layers).end());
    let image = open(path.to_str().unwrap()).unwrap();
    let disks = dir.path().join("disks");
    fs::create_dir(&disks).unwrap();
    let index = layer_disk::write_all(&image, &disks, &mut |_, _| {}).unwrap();
    let [first, second] = [0, 1].map(|number| disks.join(layer_disk::file_name(&image.chain()[number])));
    let said: serde_json::Value = serde_json::from_slice(&fs::read(index).unwrap()).unwrap();
    assert_eq!(said["layers"][1]["disk"], second.file_name().unwrap().to_str().unwrap());
    let whole = fs::read(&second).unwrap();
    // bytes that nobody looks at, so that a disk made anew is told from one that was left
    let marked = |path: &Path| fs::File::options().write(true).open(path).unwrap().write_all_at(b"mark", 100).unwrap();
    let is_marked = |path: &Path| fs::read(path).unwrap()[100..104] == *b"mark";
    let damages: [&dyn Fn(); 4] = [
        &|| fs::remove_file(&second).unwrap(),
        &|| fs::write(&second, &whole[..whole.len() - 1]).unwrap(),
        &|| {
            fs::write(&second, [&whole[..1024 + 104], &[whole[1024 + 104] ^ 1], &whole[1024 + 105..]].concat()).unwrap()
        },
        &|| fs::write(&second, vec![0; whole.len()]).unwrap(),
    ];
    for damage in damages {
        marked(&first);
        damage();
        layer_disk::write_all(&image, &disks, &mut |_, _| {}).unwrap();
        assert!(fs::read(&second).unwrap() == whole, "it is made again");
        assert!(is_marked(&first), "the other one is left");
    }
    marked(&second);
    layer_disk::write_all(&image, &disks, &mut |_, _| {}).unwrap();
    assert!(is_marked(&first) && is_marked(&second));
}

/// Other people's tools look at the disks.
#[test]
fn the_disk_of_a_layer_has_whiteouts_and_opaque_directories() {
    let lower = &["d/", "d/a=1", "e/", "e/gone=1"][..];
    let layers = [lower, &[".wh.d=", "d/", "d/b=22", "d/link => d/b", "e/.wh.gone="], &[]].map(layer);
    let disks: Vec<tempfile::NamedTempFile> = trees(&layers)
        .iter()
        .map(|tree| {
            let disk = tempfile::NamedTempFile::new().unwrap();
            layer_disk::write(tree, disk.as_file(), &mut |_, _| {}).unwrap();
            let check = Command::new("e2fsck").arg("-fn").arg(disk.path()).output().expect("e2fsck");
            assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
            disk
        })
        .collect();
    let debugfs = |request: &str| {
        let output = Command::new("debugfs").args(["-R", request]).arg(disks[1].path()).output().expect("debugfs");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(debugfs("ea_get d trusted.overlay.opaque").contains("\"y\""), "{}", debugfs("ea_list d"));
    let gone = debugfs("stat e/gone");
    assert!(gone.contains("Type: character special") && gone.contains("Device major/minor number: 00:00"), "{gone}");
    let file = debugfs("stat d/link");
    assert!(file.contains("Links: 2") && file.contains("Size: 2"), "{file}");
    assert!(!debugfs("features").contains("has_journal"));
}
