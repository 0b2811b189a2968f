//! The manifest of files: each file in each image, with mode, owner, size and digest, as JSON.
//!
//! It is made of trees that were read back from the finished images, so it says what is in them, not what was meant to be. The format is described in
//! docs/artifacts.md; its name changes when its meaning does.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::digest::Hasher;
use crate::tree::{Content, Kind, Node, NodeId, ROOT, Tree};

/// The manifest.
#[derive(Debug, Default, Serialize)]
pub(super) struct Manifest {
    format: Format,
    pub(super) images: Vec<Image>,
}

/// One image, or one that lies in another: then its name is the outer one's, a colon, and the path in it.
#[derive(Debug, Serialize)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) sha256: String,
    /// A directory before what is in it, names in order of their bytes.
    pub(super) files: Vec<Entry>,
}

/// One name in an image.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Entry {
    /// From the image's root. What is no printable ASCII, quotes and backslashes are written as in a Rust string of bytes.
    pub(super) path: String,
    /// Four octal digits: permissions, with suid, sgid and sticky.
    pub(super) mode: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970.
    pub(super) mtime: i64,
    #[serde(flatten)]
    pub(super) what: What,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum What {
    Directory,
    File { size: u64, sha256: String },
    Symlink { target: String },
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Fifo,
    Socket,
}

#[derive(Debug, Default, Serialize)]
enum Format {
    #[default]
    #[serde(rename = "https://tether.invalid/files/v1")]
    V1,
}

impl Manifest {
    /// Adds an image that holds the files of `tree`.
    pub(super) fn add(&mut self, name: &str, size: u64, sha256: String, tree: &Tree) -> io::Result<&Image> {
        let mut files = Vec::new();
        list(tree, ROOT, "", &mut files)?;
        self.images.push(Image { name: name.to_owned(), size, sha256, files });
        Ok(&self.images[self.images.len() - 1])
    }

    /// Does any image hold a file of this content?
    pub(super) fn holds(&self, image: &str, digest: &str) -> bool {
        let of =
            |one: &&Image| one.name == image || one.name.strip_prefix(image).is_some_and(|rest| rest.starts_with(':'));
        let files = self.images.iter().filter(of).flat_map(|image| &image.files);
        files.into_iter().any(|file| matches!(&file.what, What::File { sha256, .. } if sha256 == digest))
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        super::json(self)
    }
}

fn list(tree: &Tree, dir: NodeId, path: &str, files: &mut Vec<Entry>) -> io::Result<()> {
    for (name, &id) in tree.entries(dir).into_iter().flatten() {
        let path = format!("{path}/{}", name.escape_ascii());
        let Node { meta, kind } = tree.node(id);
        let what = match kind {
            Kind::Dir(_) => What::Directory,
            Kind::File(content) => What::File { size: content.size, sha256: sha256(content)? },
            Kind::Symlink(target) => What::Symlink { target: target.escape_ascii().to_string() },
            Kind::CharDevice { major, minor } => What::CharDevice { major: *major, minor: *minor },
            Kind::BlockDevice { major, minor } => What::BlockDevice { major: *major, minor: *minor },
            Kind::Fifo => What::Fifo,
            Kind::Socket => What::Socket,
        };
        let mode = format!("{:04o}", meta.mode);
        files.push(Entry { path: path.clone(), mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime.secs, what });
        list(tree, id, &path, files)?;
    }
    Ok(())
}

/// The digest of a file's bytes, holes as zeros.
pub(super) fn sha256(content: &Content) -> io::Result<String> {
    let mut hasher = Hasher::default();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < content.size {
        let part = usize::try_from(content.size - at).unwrap_or(usize::MAX).min(buf.len());
        content.read_exact_at(&mut buf[..part], at)?;
        hasher.write_all(&buf[..part])?;
        at += part as u64;
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest;
    use crate::tree::{Meta, Time};

    #[test]
    fn each_kind_of_file_as_json() {
        let mut tree = Tree::new(Meta::default());
        let meta = |mode| Meta { mode, uid: 1, gid: 2, mtime: Time { secs: 3, nanos: 4 }, ..Meta::default() };
        let mut insert = |dir, name: &[u8], mode, kind| tree.insert(dir, name, Node { meta: meta(mode), kind });
        let dir = insert(ROOT, b"d", 0o1777, Kind::Dir(Default::default()));
        insert(dir, b"\xff\"", 0o644, Kind::File(Content::from_bytes(*b"abc")));
        insert(ROOT, b"l", 0o777, Kind::Symlink(b"d/\n".to_vec()));
        insert(ROOT, b"c", 0o600, Kind::CharDevice { major: 5, minor: 1 });
        let mut manifest = Manifest::default();
        manifest.add("x", 9, "digest".into(), &tree).unwrap();
        let expected = serde_json::json!({
            "format": "https://tether.invalid/files/v1",
            "images": [{ "name": "x", "size": 9, "sha256": "digest", "files": [
                { "path": "/c", "mode": "0600", "uid": 1, "gid": 2, "mtime": 3, "type": "char-device", "major": 5, "minor": 1 },
                { "path": "/d", "mode": "1777", "uid": 1, "gid": 2, "mtime": 3, "type": "directory" },
                { "path": "/d/\\xff\\\"", "mode": "0644", "uid": 1, "gid": 2, "mtime": 3, "type": "file", "size": 3,
                  "sha256": digest::bytes(b"abc") },
                { "path": "/l", "mode": "0777", "uid": 1, "gid": 2, "mtime": 3, "type": "symlink", "target": "d/\\n" },
            ]}],
        });
        let json: serde_json::Value = serde_json::from_slice(&manifest.to_json()).unwrap();
        assert_eq!(json, expected);
        assert!(manifest.holds("x", &digest::bytes(b"abc")));
        assert!(!manifest.holds("y", &digest::bytes(b"abc")) && !manifest.holds("x", &digest::bytes(b"")));
    }
}
