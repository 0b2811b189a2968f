//! Disks made here, read and written as a container's: no machine, no mount, no root.

use std::io::Write as _;

use iso_builder::ext4::{Options, Size};
use iso_builder::tree::Time;
use tempfile::TempDir;

use super::*;

fn dir(mode: u16) -> Node {
    Node { meta: Meta { mode, ..Meta::default() }, kind: Kind::Dir(BTreeMap::new()) }
}

fn file(text: &str) -> Node {
    Node { meta: Meta { mode: 0o644, ..Meta::default() }, kind: Kind::File(Content::from_bytes(text.as_bytes())) }
}

fn whiteout() -> Node {
    Node { meta: Meta::default(), kind: Kind::CharDevice { major: 0, minor: 0 } }
}

/// Puts something at a path; directories on its way are made.
fn put(tree: &mut Tree, path: &str, node: Node) -> NodeId {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut at = ROOT;
    for part in path::names(above) {
        at = tree.child(at, part.as_bytes()).unwrap_or_else(|| tree.insert(at, part.as_bytes(), dir(0o755)));
    }
    tree.insert(at, name.as_bytes(), node)
}

/// A container with one layer, on disks in a directory.
struct Made {
    dir: TempDir,
    place: Place,
}

fn disk(path: &Path, tree: &Tree) {
    let options =
        Options { label: "name".into(), size: Size::Exactly(64 << 20), uuid: Some([7; 16]), ..Options::default() };
    ext4::write(
        tree,
        &options,
        &File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap(),
        &mut |_, _| {},
    )
    .unwrap();
}

fn made(fill: impl FnOnce(&mut Tree)) -> Made {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let mut layer = Tree::new(dir(0o755).meta);
    for path in ["etc/passwd", "etc/gone", "usr/bin/vi", "usr/lib/x", "data/seed"] {
        put(&mut layer, path, file(path));
    }
    put(&mut layer, "link", Node { meta: Meta::default(), kind: Kind::Symlink(b"/usr/bin".to_vec()) });
    disk(&at("layer"), &layer);
    let mut top = Tree::new(dir(0o755).meta);
    put(&mut top, "upper", dir(0o755));
    put(&mut top, "work", dir(0o755));
    disk(&at("blank"), &top);
    fill(&mut top);
    disk(&at("top"), &top);
    let place =
        Place { layers: vec![at("layer")], top: at("top"), blank: at("blank"), mounts: Vec::new(), read_only: false };
    Made { dir: root, place }
}

/// What a container did of every kind.
fn changed() -> Made {
    made(|top| {
        put(top, "upper/etc/gone", whiteout());
        put(top, "upper/etc/new", file("new"));
        let usr = put(top, "upper/usr", dir(0o755));
        top.node_mut(usr).meta.xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
        put(top, "upper/usr/lib", dir(0o700));
        let one = put(top, "upper/one", file("linked"));
        top.node_mut(one).meta.mtime = Time { secs: 5, nanos: 7 };
        let upper = top.child(ROOT, b"upper").unwrap();
        top.link(upper, b"two", one);
    })
}

fn archive(fill: impl FnOnce(&mut tar::Builder<&File>)) -> Arc<File> {
    let file = tempfile::tempfile().unwrap();
    let mut builder = tar::Builder::new(&file);
    fill(&mut builder);
    builder.finish().unwrap();
    drop(builder);
    Arc::new(file)
}

fn entry(kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o640);
    header.set_uid(12);
    header.set_size(size);
    header
}

const KEEP: Unpack = Unpack { owners: true, replace: true };

fn names(disk: &RootDisk) -> Vec<String> {
    let mut out = Vec::new();
    pack(&disk.tree, ROOT, &Names::Within, &mut out).unwrap();
    listed(&out)
}

fn listed(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

fn text(disk: &RootDisk, path: &str) -> String {
    let (_, _, id) = path::find(&disk.tree, path).unwrap().unwrap_or_else(|| panic!("no {path}"));
    let Kind::File(content) = &disk.tree.node(id).kind else { panic!("{path} is no file") };
    io::read_to_string(Bytes::of(content)).unwrap()
}

#[test]
fn what_a_container_sees_and_what_it_changed() {
    let made = changed();
    let disk = RootDisk::open(made.place.clone()).unwrap();
    let seen = ["data/", "data/seed", "etc/", "etc/new", "etc/passwd", "link", "one", "two", "usr/", "usr/lib/"];
    assert_eq!(names(&disk), seen);
    let told: Vec<String> = changes(&disk)
        .into_iter()
        .map(|Change { kind, path }| format!("{kind:?} {}", String::from_utf8(path).unwrap()))
        .collect();
    let expected = [
        "Changed /etc",
        "Deleted /etc/gone",
        "Added /etc/new",
        "Added /one",
        "Added /two",
        "Changed /usr",
        "Deleted /usr/bin",
        "Changed /usr/lib",
        "Deleted /usr/lib/x",
    ];
    assert_eq!(told, expected);
    let fresh = RootDisk::open(Place { top: made.dir.path().join("none"), ..made.place }).unwrap();
    assert_eq!(changes(&fresh), []);
}

#[test]
fn changes_become_a_layer() {
    let made = changed();
    let mut disk = RootDisk::open(made.place.clone()).unwrap();
    let mut out = Vec::new();
    pack(&whiteouts(&mut disk), ROOT, &Names::Layer, &mut out).unwrap();
    let expected =
        ["etc/", "etc/.wh.gone", "etc/new", "one", "two", "usr/", "usr/.wh.bin", "usr/lib/", "usr/lib/.wh..wh..opq"];
    assert_eq!(listed(&out), expected);
    let mut again = Vec::new();
    pack(&whiteouts(&mut disk), ROOT, &Names::Layer, &mut again).unwrap();
    assert_eq!(out, again);
    let mut archive = tar::Archive::new(&out[..]);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut one = entries.find(|entry| entry.path_bytes().as_ref() == b"one").unwrap();
    let records = one.pax_extensions().unwrap().unwrap();
    let records: Vec<String> = records
        .map(|record| record.unwrap())
        .map(|record| format!("{}={}", record.key().unwrap(), record.value().unwrap()))
        .collect();
    assert_eq!(records, ["mtime=5.000000007"]);
    let two = entries.find(|entry| entry.path_bytes().as_ref() == b"two").unwrap();
    assert_eq!(two.header().entry_type(), tar::EntryType::Link);
    assert_eq!(two.link_name_bytes().unwrap().as_ref(), b"one");
}

#[test]
fn an_archive_is_put_on_the_disk() {
    let made = changed();
    let before = ext4::options(&*open(&made.place.top).unwrap()).unwrap();
    let archive = archive(|tar| {
        tar.append_data(&mut entry(tar::EntryType::Directory, 0), "d", io::empty()).unwrap();
        tar.append_data(&mut entry(tar::EntryType::Regular, 5), "d/f", &b"hello"[..]).unwrap();
        tar.append_link(&mut entry(tar::EntryType::Link, 0), "hard", "d/f").unwrap();
        tar.append_data(&mut entry(tar::EntryType::Regular, 3), "passwd", &b"own"[..]).unwrap();
    });
    RootDisk::open_with_mounts(made.place.clone()).unwrap().unpack("/etc/../etc", &archive, KEEP).unwrap();
    let disk = RootDisk::open(made.place.clone()).unwrap();
    assert_eq!(
        (text(&disk, "/etc/hard"), text(&disk, "/etc/passwd"), text(&disk, "/one")),
        ("hello".into(), "own".into(), "linked".into())
    );
    let (_, _, id) = path::find(&disk.tree, "/etc/d/f").unwrap().unwrap();
    assert_eq!((disk.tree.node(id).meta.uid, disk.tree.node(id).meta.mode), (12, 0o640));
    assert!(
        path::find(&disk.tree, "/etc/gone").unwrap().is_none() && path::find(&disk.tree, "/usr/bin").unwrap().is_none()
    );
    // the same disk to whoever knows it, and no larger
    let after = ext4::options(&*open(&made.place.top).unwrap()).unwrap();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
    let stored = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&made.place.top).unwrap()) * 512;
    assert!(stored < 2 << 20, "{stored}");
    // one that was never started has a disk now
    let none = Place { top: made.dir.path().join("none"), ..made.place.clone() };
    RootDisk::open_with_mounts(none.clone()).unwrap().unpack("/", &archive, KEEP).unwrap();
    assert_eq!(text(&RootDisk::open(none).unwrap(), "/hard"), "hello");
}

#[test]
fn archives_go_nowhere_else() {
    let made = changed();
    let refused = |how: Unpack, directory: &str, fill: &dyn Fn(&mut tar::Builder<&File>)| {
        let archive = archive(|tar| fill(tar));
        let disk = RootDisk::open_with_mounts(made.place.clone()).unwrap();
        disk.unpack(directory, &archive, how).unwrap_err().to_string()
    };
    let regular = |tar: &mut tar::Builder<&File>, path: &str| {
        let mut header = entry(tar::EntryType::Regular, 0);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, io::empty()).unwrap();
    };
    let strict = Unpack { replace: false, ..KEEP };
    assert!(refused(KEEP, "/etc", &|tar| regular(tar, "../x")).contains("leads out of the directory"));
    assert!(
        refused(KEEP, "/etc", &|tar| {
            tar.append_link(&mut entry(tar::EntryType::Symlink, 0), "l", "/usr").unwrap();
            regular(tar, "l/x");
        })
        .contains("leads out of the directory")
    );
    assert_eq!(
        refused(strict, "/", &|tar| regular(tar, "etc")),
        "cannot unpack \"etc\": cannot overwrite directory \"etc\" with non-directory \"etc\""
    );
    assert_eq!(refused(KEEP, "/one", &|_| {}), "extraction point is not a directory");
    assert!(refused(KEEP, "/nosuch", &|_| {}).starts_with("Could not find the file"));
    // the disk is as it was
    assert_eq!(names(&RootDisk::open(made.place.clone()).unwrap()).len(), 10);
}

#[test]
fn links_are_followed_within_the_root() {
    let mut tree = Tree::new(Meta::default());
    put(&mut tree, "a/b/file", file(""));
    let link = |target: &str| Node { meta: Meta::default(), kind: Kind::Symlink(target.into()) };
    for (name, target) in
        [("up", "../../../../a"), ("abs", "/a/b"), ("a/rel", "b/file"), ("loop", "loop"), ("gone", "/x/y")]
    {
        put(&mut tree, name, link(target));
    }
    let found = |path: &str| path::find(&tree, path).unwrap().map(|(_, name, _)| name);
    assert_eq!(found("/up/b/file").as_deref(), Some("file"));
    assert_eq!(found("/abs").as_deref(), Some("abs"));
    assert_eq!(found("/abs/").as_deref(), Some("b"));
    assert_eq!(found("/a/rel/"), None);
    assert_eq!(found("/a/b/file/x"), None);
    assert_eq!(found("/").as_deref(), Some(""));
    assert_eq!(path::follow(&tree, "/a/rel").unwrap(), "/a/b/file");
    assert_eq!(path::follow(&tree, "/gone").unwrap(), "/x/y");
    assert!(path::follow(&tree, "/loop").unwrap_err().to_string().contains("too many symbolic links"));
}

#[test]
fn what_is_mounted_lies_over_the_root() {
    let mut made = changed();
    let volume = made.dir.path().join("volume");
    let mut files = Tree::new(dir(0o755).meta);
    put(&mut files, "kept", file("kept"));
    disk(&volume, &files);
    let mount = |destination: &str, disk: Option<PathBuf>, read_only| Mount {
        destination: destination.into(),
        disk,
        read_only,
        seed: true,
        held: true,
    };
    made.place.mounts = vec![mount("/data", Some(volume.clone()), false), mount("/etc", None, false)];
    let seen = names(&RootDisk::open_with_mounts(made.place.clone()).unwrap());
    assert!(seen.contains(&"data/kept".into()) && !seen.contains(&"data/seed".into()), "{seen:?}");
    assert!(seen.contains(&"etc/".into()) && !seen.contains(&"etc/passwd".into()), "{seen:?}");
    let archive = archive(|tar| tar.append_data(&mut entry(tar::EntryType::Regular, 2), "more", &b"in"[..]).unwrap());
    let before = std::fs::read(&made.place.top).unwrap();
    RootDisk::open_with_mounts(made.place.clone()).unwrap().unpack("/data", &archive, KEEP).unwrap();
    let written = read(&volume).unwrap();
    let names: Vec<_> = written.entries(ROOT).unwrap().keys().map(|name| String::from_utf8_lossy(name)).collect();
    assert_eq!(names, ["kept", "lost+found", "more"]);
    assert!(before == std::fs::read(&made.place.top).unwrap(), "the root was not changed");
    let refused = RootDisk::open_with_mounts(made.place.clone()).unwrap().unpack("/etc", &archive, KEEP);
    assert!(refused.unwrap_err().to_string().starts_with("/etc is memory"));
    made.place.mounts[0].held = false;
    let refused = RootDisk::open_with_mounts(made.place.clone()).unwrap().unpack("/data", &archive, KEEP);
    assert_eq!(refused.unwrap_err().to_string(), "/data is a volume: copy to it by its own path");
    made.place.mounts[0].read_only = true;
    let refused = RootDisk::open_with_mounts(made.place.clone()).unwrap().unpack("/data", &archive, KEEP);
    assert_eq!(refused.unwrap_err().to_string(), "mounted volume is marked read-only");
    made.place.read_only = true;
    let refused = RootDisk::open_with_mounts(made.place).unwrap().unpack("/", &archive, KEEP);
    assert_eq!(refused.unwrap_err().to_string(), "container rootfs is marked read-only");
}

#[test]
fn a_volumes_files_lie_in_a_directory_of_its_disk() {
    let mut made = changed();
    let volume = made.dir.path().join("volume");
    let archive = archive(|tar| tar.append_data(&mut entry(tar::EntryType::Regular, 2), "more", &b"in"[..]).unwrap());
    let mount = |destination: &str| Mount {
        destination: destination.into(),
        disk: Some(volume.clone()),
        read_only: false,
        seed: true,
        held: true,
    };
    made.place.mounts = vec![mount("/data")];
    let mut files = Tree::new(dir(0o755).meta);
    let inner = files.insert(ROOT, INNER, dir(0o755));
    disk(&volume, &files);
    let unpack = |place: &Place| {
        RootDisk::open_with_mounts(place.clone()).unwrap().unpack("/data", &archive, KEEP).unwrap();
        names(&RootDisk::open_with_mounts(place.clone()).unwrap())
    };

    // one that is to be filled from the image: what comes is put where it is filled from
    let before = std::fs::read(&volume).unwrap();
    let seen = unpack(&made.place);
    assert!(seen.contains(&"data/seed".into()) && seen.contains(&"data/more".into()), "{seen:?}");
    assert!(before == std::fs::read(&volume).unwrap(), "the volume was changed");

    // one that is mounted read-only is not filled: nothing gets to it, nor beside it
    made.place.mounts[0].read_only = true;
    let top = std::fs::read(&made.place.top).unwrap();
    let refused = RootDisk::open_with_mounts(made.place.clone()).unwrap().unpack("/data", &archive, KEEP);
    assert_eq!(refused.unwrap_err().to_string(), "mounted volume is marked read-only");
    assert!(top == std::fs::read(&made.place.top).unwrap(), "the root was changed");
    made.place.mounts[0].read_only = false;

    // one that was filled, and is empty
    files.node_mut(inner).meta.xattrs.insert(SEED.to_vec(), b"done".to_vec());
    disk(&volume, &files);
    let before = std::fs::read(&made.place.top).unwrap();
    let seen = unpack(&made.place);
    assert!(!seen.contains(&"data/seed".into()) && seen.contains(&"data/more".into()), "{seen:?}");
    assert!(before == std::fs::read(&made.place.top).unwrap(), "the root was changed");
    let files = read(&volume).unwrap();
    let inner = files.child(ROOT, INNER).unwrap();
    assert_eq!(files.node(inner).meta.xattrs[SEED], *b"done");
    assert!(files.child(inner, b"more").is_some() && files.child(ROOT, b"more").is_none());
}

#[test]
fn what_no_kernel_of_ours_writes_is_refused() {
    let made = made(|top| {
        let moved = put(top, "upper/moved", dir(0o755));
        top.node_mut(moved).meta.xattrs.insert(b"trusted.overlay.redirect".to_vec(), b"etc".to_vec());
    });
    let said = RootDisk::open(made.place).unwrap_err().to_string();
    assert!(said.contains("trusted.overlay.redirect"), "{said}");
    let mut none = File::create(made.dir.path().join("none")).unwrap();
    none.write_all(&[0; 4096]).unwrap();
    let said = RootDisk::open(Place { top: made.dir.path().join("none"), ..Place::default() }).unwrap_err();
    assert!(said.to_string().contains("this is no ext4 file system"), "{said}");
}
