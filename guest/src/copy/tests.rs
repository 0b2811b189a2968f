//! Copies judged by GNU tar and by attributes, and archives that mean harm. Here: trees, archives and what is kept of a file.

mod bounds;
mod gnu;
mod hostile;
mod pack;
mod unpack;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::unistd::{Gid, Uid};

use super::entry::{Entry, Kind, Meta};
use super::{CopyError, header};
use crate::sys::xattr::{self, Subject};

pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Scratch {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tether-copy-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn is_root(test: &str) -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprintln!("SKIPPED {test}: needs root");
    }
    root
}

fn out(root: &Path, path: &str) -> Result<Vec<u8>, CopyError> {
    let mut bytes = Vec::new();
    super::pack::pack(File::open(root).unwrap().into(), path, &mut bytes).map(|()| bytes)
}

fn unpack_in(root: &Path, dir: &str, replace: bool, mut archive: &[u8]) -> Result<(), CopyError> {
    super::unpack::unpack(File::open(root).unwrap().into(), dir, true, replace, &mut archive)
}

fn file(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut encoded = of_kind(name, Kind::File { size: bytes.len() as u64 });
    encoded.extend_from_slice(bytes);
    encoded.resize(encoded.len() + header::padding(bytes.len() as u64), 0);
    encoded
}

fn of_kind(name: &str, kind: Kind) -> Vec<u8> {
    let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
    let meta = Meta { mode: 0o755, uid, gid, ..Meta::default() };
    header::encode(&Entry { name: name.into(), kind, meta })
}

fn link(name: &str, target: &str) -> Vec<u8> {
    of_kind(name, Kind::Symlink { target: target.into() })
}

fn hard_link(name: &str, target: &str) -> Vec<u8> {
    of_kind(name, Kind::HardLink { target: target.into() })
}

/// All that is kept of a file.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    device: u64,
    content: Vec<u8>,
    xattrs: BTreeMap<CString, Vec<u8>>,
    /// The first of all names of the same file.
    first: Vec<u8>,
}

fn facts(tree: &Path) -> BTreeMap<Vec<u8>, Facts> {
    let (mut all, mut firsts, mut left) = (BTreeMap::new(), BTreeMap::new(), vec![tree.to_path_buf()]);
    let mut paths = Vec::new();
    while let Some(path) = left.pop() {
        if path.symlink_metadata().unwrap().is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        paths.push(path);
    }
    paths.sort();
    for path in paths {
        let meta = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(tree).unwrap().as_os_str().as_bytes().to_vec();
        let content = match meta.file_type() {
            kind if kind.is_file() => fs::read(&path).unwrap(),
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_vec(),
            _ => Vec::new(),
        };
        let parent = File::open(path.parent().unwrap()).unwrap();
        let last = CString::new(path.file_name().unwrap().as_bytes()).unwrap();
        let facts = Facts {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            device: meta.rdev(),
            content,
            xattrs: xattr::all(Subject::Named(parent.as_fd(), &last)).unwrap().into_iter().collect(),
            first: firsts.entry(meta.ino()).or_insert_with(|| name.clone()).clone(),
        };
        all.insert(name, facts);
    }
    all
}

fn assert_same(found: &Path, expected: &Path) {
    let (found, expected) = (facts(found), facts(expected));
    for (name, facts) in &expected {
        assert_eq!(found.get(name), Some(facts), "{:?}", String::from_utf8_lossy(name));
    }
    assert_eq!(found.len(), expected.len());
}

/// A header whose fields are as given, with the right checksum.
fn crafted(kind: u8, fields: &[(header::Field, &[u8])], body: &[u8]) -> Vec<u8> {
    let mut block = [0; header::BLOCK];
    for &((start, _), value) in
        [((257, 8), header::USTAR), ((108, 8), b"0"), ((116, 8), b"0"), ((100, 8), b"644"), ((136, 12), b"0")]
            .iter()
            .chain(fields)
    {
        block[start..start + value.len()].copy_from_slice(value);
    }
    block[header::TYPE] = kind;
    let size = format!("{:o}", body.len());
    if !fields.iter().any(|&(field, _)| field == header::SIZE) {
        block[124..124 + size.len()].copy_from_slice(size.as_bytes());
    }
    let sum = format!("{:06o}\0 ", header::checksums(&block).0);
    block[148..156].copy_from_slice(sum.as_bytes());
    let mut bytes = block.to_vec();
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len() + header::padding(body.len() as u64), 0);
    bytes
}
