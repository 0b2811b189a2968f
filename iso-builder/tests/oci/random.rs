//! Random archives and random layers, against other people's tools and against the rules of overlayfs. The seeds are fixed; a failure names its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use iso_builder::ext4;
use iso_builder::tree::{Kind, Tree};

use crate::build::{at, config, content, docker_archive, flatten, flatten_layers, gzip, layer, saved, zstd};
use crate::layers::{overlaid, told};

/// xorshift64*: good enough to make a mess.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    /// A length around a limit of the formats.
    fn length(&mut self) -> u64 {
        let around = self.one_of(&[0, 1, 511, 512, 4095, 4096, 8192, 20_000]);
        around + self.below(3)
    }

    /// Bytes, of which some blocks are zeros.
    fn bytes(&mut self, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        for part in bytes.chunks_mut(4096) {
            if self.below(3) > 0 {
                let start = self.below(256);
                part.iter_mut().zip(start..).for_each(|(byte, n)| *byte = n.to_le_bytes()[0]);
            }
        }
        bytes
    }
}

/// What is at a path, as a line.
type Said = BTreeMap<Vec<u8>, String>;

/// Files of every kind that needs no right to be made, below `root`.
fn grow(random: &mut Random, root: &Path) {
    let mut dirs = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    for n in 0..40 {
        let dir = dirs[usize::try_from(random.below(dirs.len() as u64)).unwrap()].clone();
        let long = usize::try_from(random.one_of(&[1, 1, 1, 90, 101, 200])).unwrap();
        let mut name = format!("{n}-{}", random.one_of(&["a", "ü", " ", "x"]).repeat(long));
        while name.len() > 255 {
            name.pop();
        }
        let path = dir.join(name);
        match random.below(6) {
            0 if path.as_os_str().len() < 1500 => {
                fs::create_dir(&path).unwrap();
                dirs.push(path);
                continue;
            }
            1 if !files.is_empty() => {
                let target = &files[usize::try_from(random.below(files.len() as u64)).unwrap()];
                fs::hard_link(target, &path).unwrap();
                continue;
            }
            2 => {
                let len = usize::try_from(random.one_of(&[1, 59, 60, 99, 101, 1000])).unwrap();
                std::os::unix::fs::symlink("t".repeat(len), &path).unwrap();
                continue;
            }
            3 => {
                // with holes that GNU tar sees
                let file = fs::File::create(&path).unwrap();
                file.set_len(random.length() * 3).unwrap();
                for _ in 0..random.below(4) {
                    let len = random.length();
                    file.write_all_at(&random.bytes(len), random.below(12) * 5000).unwrap();
                }
            }
            _ => {
                let len = random.length();
                fs::write(&path, random.bytes(len)).unwrap();
            }
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(random.one_of(&[0o644, 0o600, 0o755, 0o4755]))).unwrap();
        files.push(path);
    }
}

/// What the file system says.
fn on_disk(root: &Path) -> Said {
    let (mut said, mut todo, mut links) = (Said::new(), vec![root.to_owned()], BTreeMap::new());
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let kind = if meta.is_dir() {
                todo.push(path.clone());
                "dir".to_owned()
            } else if meta.is_symlink() {
                format!("link {}", fs::read_link(&path).unwrap().display())
            } else {
                format!("file {}", crc32c::crc32c(&fs::read(&path).unwrap()))
            };
            let name = path.strip_prefix(root).unwrap().as_os_str().as_encoded_bytes().to_vec();
            let mode = if meta.is_symlink() { 0o777 } else { meta.mode() & 0o7777 };
            said.insert(name.clone(), format!("{kind} {mode:o} {}.{}", meta.mtime(), meta.mtime_nsec()));
            links.entry(meta.ino()).or_insert_with(Vec::new).push((name, meta.is_dir()));
        }
    }
    note_links(said, links)
}

/// What a tree says.
fn in_tree(tree: &Tree) -> Said {
    let (mut said, mut todo, mut links) = (Said::new(), vec![(Vec::new(), iso_builder::tree::ROOT)], BTreeMap::new());
    while let Some((dir, id)) = todo.pop() {
        for (name, &id) in tree.entries(id).unwrap() {
            let path = if dir.is_empty() { name.to_vec() } else { [&dir[..], b"/", name].concat() };
            let node = tree.node(id);
            let kind = match &node.kind {
                Kind::Dir(_) => {
                    todo.push((path.clone(), id));
                    "dir".to_owned()
                }
                Kind::Symlink(target) => format!("link {}", String::from_utf8_lossy(target)),
                Kind::File(_) => format!("file {}", crc32c::crc32c(&content(tree, id))),
                other => format!("{other:?}"),
            };
            let time = node.meta.mtime;
            let mode = if matches!(node.kind, Kind::Symlink(_)) { 0o777 } else { node.meta.mode };
            said.insert(path.clone(), format!("{kind} {mode:o} {}.{}", time.secs, time.nanos));
            links.entry(id).or_insert_with(Vec::new).push((path, matches!(node.kind, Kind::Dir(_))));
        }
    }
    note_links(said, links)
}

/// Adds to each name the first of its inode.
fn note_links<I: Ord>(mut said: Said, links: BTreeMap<I, Vec<(Vec<u8>, bool)>>) -> Said {
    for names in links.into_values().filter(|names| names.len() > 1 && !names[0].1) {
        let first = names.iter().map(|(name, _)| name.clone()).min().unwrap();
        for (name, _) in names {
            said.get_mut(&name).unwrap().push_str(&format!(" = {}", String::from_utf8_lossy(&first)));
        }
    }
    said
}

#[test]
fn what_gnu_tar_packs_is_what_was_there() {
    for seed in 1..3 {
        let dir = tempfile::tempdir().unwrap();
        grow(&mut Random(seed), dir.path());
        let expected = on_disk(dir.path());
        for (form, has_nanos) in
            [("--format=gnu", false), ("--format=posix", true), ("--format=gnu -S", false), ("--format=posix -S", true)]
        {
            let mut tar = Command::new("tar");
            tar.args(form.split(' ')).args(["--xattrs", "-cf", "-", "-C"]).arg(dir.path()).arg(".");
            let output = tar.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let found = in_tree(&flatten_layers(&[output.stdout]).unwrap());
            let cut = |said: &Said| -> Said {
                if has_nanos {
                    return said.clone();
                }
                let secs = |line: &String| {
                    let (head, tail) = line.split_once('.').unwrap();
                    let rest = tail.split_once(' ').map_or("", |(_, rest)| rest);
                    format!("{head} {rest}")
                };
                said.iter().map(|(path, line)| (path.clone(), secs(line))).collect()
            };
            assert_eq!(cut(&found), cut(&expected), "seed {seed}, {form}");
        }
    }
}

#[test]
fn what_the_tar_crate_packs_is_what_was_there() {
    for seed in 11..13 {
        let dir = tempfile::tempdir().unwrap();
        grow(&mut Random(seed), dir.path());
        let mut tar = tar::Builder::new(Vec::new());
        tar.follow_symlinks(false);
        tar.append_dir_all(".", dir.path()).unwrap();
        let found = in_tree(&flatten_layers(&[tar.into_inner().unwrap()]).unwrap());
        // it knows neither hard links nor parts of a second
        let plain = |said: &Said| -> Vec<(Vec<u8>, String)> {
            said.iter().map(|(path, line)| (path.clone(), line.split_once('.').unwrap().0.to_owned())).collect()
        };
        assert_eq!(plain(&found), plain(&on_disk(dir.path())), "seed {seed}");
    }
}

/// However a layer is stored, and so however it is read, the disk has the same bytes.
#[test]
fn the_disk_does_not_depend_on_how_layers_are_stored() {
    for seed in 21..22 {
        let layers: Vec<Vec<u8>> = (0..3)
            .map(|n| {
                let dir = tempfile::tempdir().unwrap();
                grow(&mut Random(seed * 10 + n), dir.path());
                let mut tar = Command::new("tar");
                tar.args(["--format=posix", "-S", "-cf", "-", "-C"]).arg(dir.path()).arg(".");
                tar.output().unwrap().stdout
            })
            .collect();
        let disks: Vec<Vec<u8>> = [<[u8]>::to_vec, gzip, zstd]
            .map(|pack: fn(&[u8]) -> Vec<u8>| {
                let blobs: Vec<Vec<u8>> = layers.iter().map(|tar| pack(tar)).collect();
                let (_dir, path) = saved(&docker_archive(&config(&layers), &blobs).end());
                let tree = flatten(path.to_str().unwrap()).unwrap();
                let file = tempfile::tempfile().unwrap();
                let size =
                    ext4::write(&tree, &ext4::Options { journal: false, ..Default::default() }, &file, &mut |_, _| {})
                        .unwrap()
                        .size;
                let mut bytes = vec![0; usize::try_from(size).unwrap()];
                file.read_exact_at(&mut bytes, 0).unwrap();
                bytes
            })
            .to_vec();
        assert!(disks[0] == disks[1] && disks[1] == disks[2], "seed {seed}");
    }
}

/// Lines of a layer over names so few that layers meet.
fn mess(random: &mut Random) -> Vec<String> {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    (0..random.below(12))
        .map(|n| {
            let mut path = random.one_of(&NAMES).to_owned();
            for _ in 0..random.below(3) {
                path = format!("{path}/{}", random.one_of(&NAMES));
            }
            let (dir, name) = path.rsplit_once('/').map_or(("", &path[..]), |(dir, name)| (dir, name));
            let slash = if dir.is_empty() { "" } else { "/" };
            match random.below(8) {
                0 | 1 => format!("{path}/"),
                2 => format!("{dir}{slash}.wh.{name}="),
                3 => format!("{path}/.wh..wh..opq="),
                4 => format!("{path} -> {}", random.one_of(&["a", "/b", "../c", "d/a", "nowhere"])),
                _ => format!("{path}={n}"),
            }
        })
        .collect()
}

#[test]
fn random_layers_are_what_overlayfs_makes_of_their_disks() {
    let (mut good, mut bad) = (0, 0);
    for seed in 1..60 {
        let mut random = Random(seed);
        let lines: Vec<Vec<String>> = (0..2 + random.below(3)).map(|_| mess(&mut random)).collect();
        let layers: Vec<Vec<u8>> =
            lines.iter().map(|lines| layer(&lines.iter().map(String::as_str).collect::<Vec<_>>())).collect();
        // paths through files and loops are errors, each on one line
        match flatten_layers(&layers) {
            Ok(merged) => {
                good += 1;
                assert_eq!(told(&overlaid(&layers)), told(&merged), "seed {seed}: {lines:#?}");
            }
            Err(_) => bad += 1,
        }
    }
    assert!(good > 10 && bad > 3, "{good} good, {bad} bad");
    let tree = flatten_layers(&[layer(&["a=1"])]).unwrap();
    assert_eq!(content(&tree, at(&tree, b"a")), b"1");
}
