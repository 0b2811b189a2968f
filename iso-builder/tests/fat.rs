//! FAT file systems as others see them: `fsck.vfat` checks them, `mtools` read every file back.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use iso_builder::fat;
use iso_builder::tree::{Content, Kind, Meta, Node, NodeId, ROOT, Time, Tree};

/// 2024-02-29 12:34:56 UTC
const LEAP_DAY: Time = Time { secs: 1_709_210_096, nanos: 0 };

#[test]
fn every_size_is_sound_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("esp.img");
    // Around a sector, a cluster, and the line between FAT12 and FAT16.
    let sizes = [0, 1, 512, 2047, 2048, 2049, 700_000, 8_325_000, 8_329_216, 8_400_000, 9_000_000];
    for size in sizes {
        let tree = sample(size);
        let image = fat::image(&tree, "TETHER", LEAP_DAY).unwrap();
        write(&path, &image);
        let Some(checked) = run("fsck.vfat", "dosfstools", &["-n", "-v", path.to_str().unwrap()]) else { return };
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(checked.status.success(), "{size}: {said}");
        assert!(said.contains("5 files"), "{size}: {said}");
        let drive = path.to_str().unwrap();
        let Some(file) = run("mtype", "mtools", &["-i", drive, "::EFI/BOOT/BOOTX64.EFI"]) else { return };
        assert!(file.stdout == bytes(size), "{size}: {}", String::from_utf8_lossy(&file.stderr));
        let listing = run("mdir", "mtools", &["-i", drive, "-/", "-b", "::"]).unwrap();
        let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
        let names: Vec<&str> = listing.lines().collect();
        assert_eq!(names, ["::/EFI/", "::/README", "::/EFI/BOOT/", "::/EFI/BOOT/BOOTX64.EFI"], "{size}");
    }
}

#[test]
fn clusters_grow_with_what_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.img");
    // 65,508 clusters of 2 KiB are the most; besides the file there is one of a directory.
    for (clusters, size) in [(65_507, 2048), (65_508, 4096), (1_000_000, 32_768)] {
        let mut tree = Tree::new(meta());
        let below = tree.insert(ROOT, b"BELOW", Node { meta: meta(), kind: Kind::Dir(Default::default()) });
        let kind = Kind::File(Content { size: clusters * 2048, extents: Default::default() });
        tree.insert(below, b"HOLE", Node { meta: meta(), kind });
        write(&path, &fat::image(&tree, "LARGE", LEAP_DAY).unwrap());
        let Some(checked) = run("fsck.vfat", "dosfstools", &["-n", "-v", path.to_str().unwrap()]) else { return };
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(checked.status.success(), "{clusters}: {said}");
        assert!(said.contains(&format!("{size} bytes per cluster")), "{clusters}: {said}");
    }
}

#[test]
fn a_directory_has_as_many_entries_as_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("many.img");
    let mut tree = Tree::new(meta());
    let below = tree.insert(ROOT, b"MANY", Node { meta: meta(), kind: Kind::Dir(Default::default()) });
    for number in 0..1000 {
        for parent in [ROOT, below] {
            insert(&mut tree, parent, &format!("F{number}"), bytes(number));
        }
    }
    write(&path, &fat::image(&tree, "MANY", LEAP_DAY).unwrap());
    let Some(checked) = run("fsck.vfat", "dosfstools", &["-n", "-v", path.to_str().unwrap()]) else { return };
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let drive = path.to_str().unwrap();
    let Some(file) = run("mtype", "mtools", &["-i", drive, "::MANY/F999"]) else { return };
    assert!(file.stdout == bytes(999));
    let dated = run("mdir", "mtools", &["-i", drive, "::F999"]).unwrap();
    let dated = String::from_utf8_lossy(&dated.stdout).into_owned();
    assert!(dated.contains("2024-02-29  12:34"), "{dated}");
}

fn sample(size: usize) -> Tree {
    let mut tree = Tree::new(meta());
    let efi = tree.insert(ROOT, b"EFI", Node { meta: meta(), kind: Kind::Dir(Default::default()) });
    let boot = tree.insert(efi, b"BOOT", Node { meta: meta(), kind: Kind::Dir(Default::default()) });
    insert(&mut tree, boot, "BOOTX64.EFI", bytes(size));
    insert(&mut tree, ROOT, "README", b"read me".to_vec());
    tree
}

fn insert(tree: &mut Tree, parent: NodeId, name: &str, content: Vec<u8>) {
    tree.insert(parent, name.as_bytes(), Node { meta: meta(), kind: Kind::File(Content::from_bytes(content)) });
}

fn meta() -> Meta {
    Meta { mode: 0o755, mtime: LEAP_DAY, ..Meta::default() }
}

/// Bytes that differ from one cluster to the next.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at / 7 + at / 2048) % 251).unwrap()).collect()
}

fn write(path: &Path, image: &Content) {
    let file = File::create(path).unwrap();
    file.set_len(image.size).unwrap();
    for extent in &image.extents {
        let mut part = vec![0; usize::try_from(extent.len).unwrap()];
        extent.source.read_exact_at(&mut part, extent.from).unwrap();
        file.write_all_at(&part, extent.at).unwrap();
    }
}

/// Runs a tool; `None`, and a word about it, where it is not installed.
fn run(tool: &str, package: &str, arguments: &[&str]) -> Option<Output> {
    // in sbin, which is not in everyone's PATH
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    match Command::new("env").arg(format!("PATH={path}")).args(["TZ=UTC", tool]).args(arguments).output() {
        Ok(output) if output.status.code() != Some(127) => Some(output),
        _ => {
            eprintln!("SKIPPED fat: no {tool} (apt-get install {package})");
            None
        }
    }
}
