//! Images that `mke2fs` made, with the features that it knows and we do not write: the reader finds in each what went in.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use iso_builder::ext4::{self, Error};
use iso_builder::tree::{Content, Kind, ROOT, ReadAt, Tree};

use crate::judges::run;

/// What is to be found: enough names for an index, a file with holes and many extents, links of both kinds.
fn sample(dir: &Path) {
    let big = dir.join("big");
    fs::create_dir(&big).unwrap();
    for n in 0..1200 {
        fs::write(big.join(format!("a-name-of-some-length-{n}")), b"").unwrap();
    }
    fs::write(dir.join("small"), b"small").unwrap();
    fs::hard_link(dir.join("small"), dir.join("again")).unwrap();
    fs::set_permissions(dir.join("small"), fs::Permissions::from_mode(0o4711)).unwrap();
    symlink("small", dir.join("short")).unwrap();
    symlink("x".repeat(800), dir.join("long")).unwrap();
    let sparse = File::create(dir.join("sparse")).unwrap();
    for n in 0..400u64 {
        sparse.write_all_at(&[n.to_le_bytes()[0] | 1; 3000], n * 70_000).unwrap();
    }
    sparse.set_len(40 << 20).unwrap();
}

fn bytes(tree: &Tree, name: &str, at: u64, len: usize) -> Vec<u8> {
    let id = tree.child(ROOT, name.as_bytes()).unwrap_or_else(|| panic!("no {name}"));
    let Kind::File(content) = &tree.node(id).kind else { panic!("{name} is no file") };
    let mut bytes = vec![0; len];
    Content::read_exact_at(content, &mut bytes, at).unwrap();
    bytes
}

fn make(from: &Path, image: &Path, options: &[&str]) {
    let output = run(Command::new("/usr/sbin/mke2fs")
        .args(["-q", "-F"])
        .args(options)
        .arg("-d")
        .arg(from)
        .arg(image)
        .arg("64M"));
    assert!(output.status.success(), "mke2fs {options:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn read(image: &Path) -> Result<Tree, Error> {
    let file: Arc<dyn ReadAt> = Arc::new(File::open(image).unwrap());
    ext4::read(&file)
}

#[test]
fn images_of_every_shape_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    sample(&from);
    let image = dir.path().join("image");
    let shapes: [&[&str]; 12] = [
        &["-t", "ext2", "-b", "1024"],
        &["-t", "ext2", "-b", "4096", "-r", "0"],
        &["-t", "ext3", "-b", "2048"],
        &["-t", "ext4", "-b", "1024"],
        &["-t", "ext4", "-b", "4096"],
        &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit,uninit_bg", "-I", "128"],
        &["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"],
        &["-t", "ext4", "-b", "4096", "-O", "bigalloc", "-C", "16384"],
        &["-t", "ext4", "-b", "1024", "-O", "sparse_super2,metadata_csum_seed,large_dir,ea_inode,casefold,encrypt,mmp"],
        &["-t", "ext4", "-b", "65536", "-N", "2000"],
        &["-t", "ext4", "-b", "1024", "-g", "512", "-N", "3000", "-I", "512"],
        &["-t", "ext4", "-O", "^has_journal,^extents,^64bit,^metadata_csum", "-b", "1024"],
    ];
    for shape in shapes {
        make(&from, &image, shape);
        let tree = read(&image).unwrap_or_else(|error| panic!("{shape:?}: {error}"));
        let big = tree.child(ROOT, b"big").unwrap();
        assert_eq!(tree.entries(big).unwrap().len(), 1200, "{shape:?}");
        assert_eq!(tree.child(ROOT, b"small"), tree.child(ROOT, b"again"), "{shape:?}");
        let small = tree.node(tree.child(ROOT, b"small").unwrap());
        assert_eq!(small.meta.mode, 0o4711, "{shape:?}");
        assert_eq!(bytes(&tree, "small", 0, 5), b"small", "{shape:?}");
        for (name, len) in [("short", 5), ("long", 800)] {
            let id = tree.child(ROOT, name.as_bytes()).unwrap();
            assert!(matches!(&tree.node(id).kind, Kind::Symlink(target) if target.len() == len), "{shape:?}: {name}");
        }
        let whole = fs::read(from.join("sparse")).unwrap();
        assert!(bytes(&tree, "sparse", 0, whole.len()) == whole, "{shape:?}: sparse differs");
        let Kind::File(sparse) = &tree.node(tree.child(ROOT, b"sparse").unwrap()).kind else { panic!("no file") };
        assert_eq!(sparse.size, 40 << 20, "{shape:?}");
        assert!(sparse.extents.iter().map(|extent| extent.len).sum::<u64>() < 30 << 20, "{shape:?}: holes are lost");
        let file = File::open(&image).unwrap();
        ext4::dump(&file).unwrap_or_else(|error| panic!("{shape:?}: {error}"));
    }
}

#[test]
fn what_is_not_read_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("small"), b"small").unwrap();
    let image = dir.path().join("image");
    make(&from, &image, &["-t", "ext4", "-O", "inline_data"]);
    let error = read(&image).unwrap_err().to_string();
    assert!(error.contains("inline_data") && error.contains("byte"), "{error}");
    make(&from, &image, &["-t", "ext4", "-O", "^metadata_csum"]);
    let said = |offset: u64, value: u8| {
        let file = File::options().read(true).write(true).open(&image).unwrap();
        let mut old = [0];
        FileExt::read_exact_at(&file, &mut old, offset).unwrap();
        file.write_all_at(&[old[0] | value], offset).unwrap();
        let error = read(&image).unwrap_err().to_string();
        file.write_all_at(&old, offset).unwrap();
        error
    };
    assert!(said(1024 + 0x60, 0x1).contains("feature compression"));
    assert!(said(1024 + 0x62, 0x4).contains("incompatible 0x40000"));
    assert!(said(1024 + 0x38, 0x80).contains("no ext4 file system"));
    assert!(read(&image).is_ok());
    File::options().write(true).open(&image).unwrap().set_len(40 << 20).unwrap();
    assert!(read(&image).unwrap_err().to_string().contains("shorter than its file system"));
}
