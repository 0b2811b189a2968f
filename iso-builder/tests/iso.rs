//! ISO images as others see them: `xorriso` reads the tree, the boot catalog and the contents back.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use iso_builder::digest;
use iso_builder::iso9660::{self, BiosBoot, Boot, Options};
use iso_builder::tree::{Content, Kind, Meta, Node, NodeId, ROOT, ReadAt, Time, Tree};

#[test]
fn xorriso_reads_back_every_name_owner_mode_and_byte() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("x.iso");
    write(&image, &sample(), None);
    let Some(listing) = xorriso(&image, &["-find", "/", "-exec", "lsdl", "--"]) else { return };
    let lines: Vec<String> =
        listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let has = |start: &str, end: &str| lines.iter().any(|line| line.starts_with(start) && line.ends_with(end));
    assert!(has("-rwsr-xr-x 1 7 9 3", "Sep 9 2001 '/bin/a longer name than 8.3, Ünïcode'"), "{listing}");
    assert!(has("drwx------", "'/bin'"), "{listing}");
    assert!(has("lrwxrwxrwx", "'/link' -> '/bin/../x'"), "{listing}");
    assert!(has("crw-r--r--", "4,64 Jan 1 1970 '/tty'") || has("crw-r--r--", "'/tty'"), "{listing}");
    // Extraction sets owners, which needs root; contents are what counts here.
    let out = dir.path().join("out");
    xorriso(&image, &["-osirrox", "on", "-extract", "/big", out.to_str().unwrap()]).unwrap();
    assert_eq!(digest::bytes(&fs::read(out).unwrap()), digest::bytes(&big()));
}

#[test]
fn the_boot_catalog_and_the_mbr_are_what_isolinux_needs() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("x.iso");
    write(&image, &bootable(), Some(boot()));
    let Some(report) = xorriso(&image, &["-report_el_torito", "plain", "-report_system_area", "plain"]) else { return };
    let report = report.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "El Torito boot img : 1 BIOS y none 0x0000 0x00 4",
        "El Torito img path : 1 /boot/isolinux.bin",
        "boot-info-table",
        "MBR partition : 1 0x80 0x17 0",
    ] {
        assert!(report.contains(expected), "{expected:?} is not in {report}");
    }
}

#[test]
fn the_descriptor_tells_volume_and_version() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("x.iso");
    write(&image, &sample(), None);
    let bytes = fs::read(&image).unwrap();
    let descriptor = &bytes[16 * 2048..];
    assert_eq!(&descriptor[..6], b"\x01CD001");
    assert!(descriptor[40..72].starts_with(b"SAMPLE "));
    // The publisher, where VIC's tools look for the version.
    assert!(descriptor[318..446].starts_with(b"tester 1.2.3 "));
}

#[test]
fn the_dump_tells_everything() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("x.iso");
    write(&image, &bootable(), Some(boot()));
    let dump = iso9660::dump::dump(&File::open(&image).unwrap()).unwrap();
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for expected in [
        "volume \"SAMPLE\", publisher \"tester 1.2.3\"",
        "partition: active, type 0x17",
        "boot: boots BIOS, emulation 0, 4 sectors from block",
        "/bin\n    040700 0:0 1970-01-01 00:00:00\n",
        "/bin/a longer name than 8.3, Ünïcode\n    104755 7:9 2001-09-09 01:46:40 3 bytes at block ",
        abc,
        &digest::bytes(&big()),
        "/link\n    120777 0:0 1970-01-01 00:00:00 -> /bin/../x\n",
        "/tty\n    020644 0:0 1970-01-01 00:00:00 device 4,64\n",
    ] {
        assert!(dump.contains(expected), "{expected:?} is not in {dump}");
    }
}

#[test]
fn a_damaged_image_is_an_error_not_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("x.iso");
    let mut tree = bootable();
    tree.unlink(ROOT, b"big");
    write(&image, &tree, Some(boot()));
    let image = File::options().read(true).write(true).open(&image).unwrap();
    // The descriptors and the directories lie in these blocks; a prime step meets every field in some block.
    for at in (16 * 2048..28 * 2048).step_by(127) {
        let mut byte = [0];
        FileExt::read_exact_at(&image, &mut byte, at).unwrap();
        image.write_all_at(&[byte[0] ^ 0x85], at).unwrap();
        // Whether it is an error depends on the byte; that it ends is what counts.
        drop(iso9660::dump::dump(&image));
        image.write_all_at(&byte, at).unwrap();
    }
}

/// What a change of the writer would show first. A new digest is a decision: compare the
/// dumps.
/// Every record may say that its fields go on where another's do. What is small would then be read, and kept, as if it were large.
#[test]
fn fields_that_lie_in_one_place_are_counted_each_time() {
    let mut tree = Tree::new(Meta::default());
    let target = "a target that takes as much room as a field which says where others are";
    for number in 0..600 {
        add(&mut tree, ROOT, &format!("link{number}"), 0o777, Kind::Symlink(target.into()));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.iso");
    write(&path, &tree, None);
    let mut image = fs::read(&path).unwrap();
    // in the first block there is room for them: a short target, and what is no field of anybody's
    let elsewhere =
        [b"SL\x08\x01\0\0\x01x".to_vec(), [b"ZZ\xff\x01".to_vec(), vec![0; 251]].concat().repeat(7)].concat();
    image[..elsewhere.len()].copy_from_slice(&elsewhere);
    let both = |number: usize| {
        let number = u32::try_from(number).unwrap();
        [number.to_le_bytes(), number.to_be_bytes()].concat()
    };
    let field = [b"CE\x1c\x01".to_vec(), both(0), both(0), both(elsewhere.len())].concat();
    let links = image.windows(4).enumerate().filter(|(_, bytes)| *bytes == b"SL\x4e\x01");
    let links: Vec<usize> = links.map(|(at, _)| at).collect();
    assert_eq!(links.len(), 600);
    for at in links {
        image[at..at + 28].copy_from_slice(&field);
        // the rest of the field becomes one that says nothing
        image[at + 28..at + 32].copy_from_slice(b"ZZ\x32\x01");
    }
    fs::write(&path, &image).unwrap();
    let image: Arc<dyn ReadAt> = Arc::new(File::open(&path).unwrap());
    let error = iso9660::read(&image).unwrap_err().to_string();
    assert!(error.contains("the fields of files overlap"), "{error}");
}

#[test]
fn the_bytes_are_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("x.iso");
    write(&image, &bootable(), Some(boot()));
    let digest = digest::file(&File::open(&image).unwrap()).unwrap();
    assert_eq!(digest, "06c2144a9476ed917d56a83e259e60bf0183e3040a1189e026c85a511e5a964d");
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("1"), dir.path().join("2"));
    write(&one, &bootable(), Some(boot()));
    write(&two, &bootable(), Some(boot()));
    assert_eq!(fs::read(one).unwrap(), fs::read(two).unwrap());
}

#[test]
fn nothing_is_lost_in_silence() {
    let file = tempfile::tempfile().unwrap();
    let check = |meta: Meta, kind, boot, expected: &str| {
        let mut tree = Tree::new(Meta::default());
        tree.insert(ROOT, b"it", Node { meta, kind });
        let error = iso9660::write(&tree, &options(boot), &file).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    let meta = Meta::default();
    let xattrs = Meta { xattrs: [(b"user.a".to_vec(), vec![])].into(), ..meta.clone() };
    check(xattrs, Kind::Fifo, None, "/it cannot be stored in an ISO 9660 image: it has extended attributes");
    for secs in [-2_208_988_801, 5_869_584_000, i64::MIN, i64::MAX] {
        let meta = Meta { mtime: Time { secs, nanos: 0 }, ..meta.clone() };
        check(meta, Kind::Socket, None, "not within ISO 9660's years");
    }
    check(meta.clone(), Kind::Symlink(vec![b'x'; 4096]), None, "longer than 4095 bytes");
    check(meta.clone(), Kind::Fifo, Some(boot()), "/boot/isolinux.bin cannot be stored");
    check(meta, Kind::File(Content { size: 1 << 43, extents: Default::default() }), None, "more than 2^32 blocks");
}

#[test]
fn an_image_of_xorrisos_is_read_with_all_that_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (files, image) = (dir.path().join("files"), dir.path().join("x.iso"));
    let mut deep = files.clone();
    for number in 0..12 {
        deep.push(format!("{number}-{}", "d".repeat(20)));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f".repeat(200)), "abc").unwrap();
    fs::hard_link(deep.join("f".repeat(200)), files.join("linked")).unwrap();
    std::os::unix::fs::symlink(format!("/../.{}/x", "/s".repeat(200)), files.join("link")).unwrap();
    for options in [&["-R"][..], &["-R", "-rr_reloc_dir", "moved"], &["-R", "-J"]] {
        let made = Command::new("xorriso")
            .args(["-as", "mkisofs", "-quiet", "--hardlinks", "-o"])
            .arg(&image)
            .args(options)
            .arg(&files)
            .output();
        let Ok(made) = made else { return };
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let tree = read(&image);
        let mut at = ROOT;
        for name in deep.strip_prefix(&files).unwrap() {
            at = tree.child(at, name.as_encoded_bytes()).unwrap();
        }
        let file = tree.child(at, &[b'f'; 200]).unwrap();
        let Kind::File(content) = &tree.node(file).kind else { panic!("{:?}", tree.node(file)) };
        let mut bytes = [0; 3];
        content.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!((&bytes, content.size), (b"abc", 3));
        assert_eq!(tree.child(ROOT, b"linked"), Some(file));
        let link = &tree.node(tree.child(ROOT, b"link").unwrap()).kind;
        assert!(matches!(link, Kind::Symlink(target) if *target == format!("/../.{}/x", "/s".repeat(200)).as_bytes()));
        assert!(
            tree.entries(ROOT).unwrap().len() - usize::from(tree.child(ROOT, b"moved").is_some()) == 3,
            "{options:?}: {:?}",
            tree.entries(ROOT)
        );
    }
}

fn read(image: &Path) -> Tree {
    let image: Arc<dyn ReadAt> = Arc::new(File::open(image).unwrap());
    iso9660::read(&image).unwrap()
}

fn write(image: &Path, tree: &Tree, boot: Option<BiosBoot>) {
    let file = File::options().read(true).write(true).create_new(true).open(image).unwrap();
    iso9660::write(tree, &options(boot), &file).unwrap();
}

fn options(boot: Option<BiosBoot>) -> Options {
    Options {
        volume: "SAMPLE".into(),
        publisher: "tester 1.2.3".into(),
        time: Time::default(),
        joliet: false,
        boot: Boot { bios: boot, uefi: None },
    }
}

fn boot() -> BiosBoot {
    BiosBoot { image: "boot/isolinux.bin".into(), mbr: vec![0xfa; 432] }
}

fn sample() -> Tree {
    let mut tree = Tree::new(Meta { mode: 0o755, ..Meta::default() });
    let bin = add(&mut tree, ROOT, "bin", 0o700, Kind::Dir(Default::default()));
    let meta = Meta { mode: 0o4755, uid: 7, gid: 9, mtime: Time { secs: 1_000_000_000, nanos: 0 }, ..Meta::default() };
    let kind = Kind::File(Content::from_bytes(*b"abc"));
    tree.insert(bin, "a longer name than 8.3, Ünïcode".as_bytes(), Node { meta, kind });
    add(&mut tree, ROOT, "link", 0o777, Kind::Symlink(b"/bin/../x".to_vec()));
    add(&mut tree, ROOT, "tty", 0o644, Kind::CharDevice { major: 4, minor: 64 });
    add(&mut tree, ROOT, "big", 0o644, Kind::File(Content::from_bytes(big())));
    tree
}

fn bootable() -> Tree {
    let mut tree = sample();
    let boot = add(&mut tree, ROOT, "boot", 0o755, Kind::Dir(Default::default()));
    add(&mut tree, boot, "isolinux.bin", 0o644, Kind::File(Content::from_bytes(vec![0x90; 5000])));
    tree
}

fn big() -> Vec<u8> {
    (0..300_007u32).flat_map(|n| (n % 251).to_le_bytes()).collect()
}

fn add(tree: &mut Tree, dir: NodeId, name: &str, mode: u16, kind: Kind) -> NodeId {
    tree.insert(dir, name.as_bytes(), Node { meta: Meta { mode, ..Meta::default() }, kind })
}

/// What xorriso says about the image; `None`, and a word about it, where there is no xorriso.
fn xorriso(image: &Path, args: &[&str]) -> Option<String> {
    let output = match Command::new("xorriso").env("LC_ALL", "C.UTF-8").arg("-indev").arg(image).args(args).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: xorriso: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}
