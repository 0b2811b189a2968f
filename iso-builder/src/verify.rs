//! Whether a file is what it should be: by the digest beside it, by reading all that it holds, and against the bytes of another.
//!
//! How the other is made is the caller's affair: what is built twice from the same inputs has the same bytes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::digest;
use crate::tree::{Kind, Tree};
use crate::view::text::Shown;

/// What a digest that was published with a file says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// No `FILE.sha256`, and no `SHA256SUMS` that names the file.
    Nowhere,
    Same {
        beside: PathBuf,
    },
    Other {
        beside: PathBuf,
        said: String,
        found: String,
    },
}

/// Compares `file` with the digest in `FILE.sha256`, or else in `SHA256SUMS` of its directory.
pub fn digest(file: &Path) -> Result<Published, Error> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let name = file.file_name().unwrap_or_default().as_encoded_bytes();
    let mut own = file.as_os_str().to_owned();
    own.push(".sha256");
    for beside in [PathBuf::from(own), file.with_file_name("SHA256SUMS")] {
        let text = match fs::read(&beside) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(at(&beside)(error)),
        };
        let Some(said) = said(&text, name) else { continue };
        let found = File::open(file).and_then(|file| digest::file(&file)).map_err(at(file))?;
        return Ok(match said == found {
            true => Published::Same { beside },
            false => Published::Other { beside, said, found },
        });
    }
    Ok(Published::Nowhere)
}

/// The digest of `name` in what `sha256sum` wrote: the digest, two characters, the name.
fn said(text: &[u8], name: &[u8]) -> Option<String> {
    let line = text.split(|byte| *byte == b'\n').find(|line| line.len() > 66 && &line[66..] == name)?;
    String::from_utf8(line[..64].to_ascii_lowercase()).ok()
}

/// Reads every byte of every file, and gives their number. `read` is told how many more.
pub fn contents(tree: &Tree, read: &mut dyn FnMut(u64)) -> Result<u64, Error> {
    let mut buf = vec![0; 1 << 18];
    let mut sum = 0;
    for dir in tree.reachable() {
        for (name, &id) in tree.entries(dir).into_iter().flatten() {
            let Kind::File(content) = &tree.node(id).kind else { continue };
            for extent in content.extents.iter() {
                let mut at = 0;
                while at < extent.len {
                    let len =
                        usize::try_from((extent.len - at).min(buf.len() as u64)).expect("at most the buffer's length");
                    extent.source.read_exact_at(&mut buf[..len], extent.from + at).map_err(|source| {
                        Error::Content { name: Shown(name).to_string(), at: extent.at + at, source }
                    })?;
                    at += len as u64;
                    sum += len as u64;
                    read(len as u64);
                }
            }
        }
    }
    Ok(sum)
}

/// How two files are not the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differs {
    /// At this offset first.
    At(u64),
    /// One is the other's beginning.
    Size(u64, u64),
}

/// Compares two files byte by byte. `read` is told how many more.
pub fn bytes(first: &Path, second: &Path, read: &mut dyn FnMut(u64)) -> Result<Option<Differs>, Error> {
    let open = |path: &Path| {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        opened.map_err(|source| Error::Read { path: path.to_owned(), source })
    };
    let ((len, ours), (other, theirs)) = (open(first)?, open(second)?);
    let (mut a, mut b) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    let common = len.min(other);
    let mut at = 0;
    while at < common {
        let part = usize::try_from((common - at).min(a.len() as u64)).expect("at most the buffer's length");
        let (a, b) = (&mut a[..part], &mut b[..part]);
        ours.read_exact_at(a, at).map_err(|source| Error::Read { path: first.to_owned(), source })?;
        theirs.read_exact_at(b, at).map_err(|source| Error::Read { path: second.to_owned(), source })?;
        if a != b {
            let within = a.iter().zip(&*b).position(|(a, b)| a != b).expect("they differ");
            return Ok(Some(Differs::At(at + within as u64)));
        }
        at += part as u64;
        read(part as u64);
    }
    Ok((len != other).then_some(Differs::Size(len, other)))
}

/// What could not be compared, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("a file {name:?} of the image cannot be read at byte {at}")]
    Content { name: String, at: u64, source: io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Extent, Meta, Node, ROOT, Source};

    #[test]
    fn a_published_digest_is_found_and_compared() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a.iso"), b"hello\n").unwrap();
        assert_eq!(digest(&path("a.iso")).unwrap(), Published::Nowhere);
        let right = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        fs::write(path("SHA256SUMS"), format!("{}  b.iso\n{right} *a.iso\n", "0".repeat(64))).unwrap();
        assert_eq!(digest(&path("a.iso")).unwrap(), Published::Same { beside: path("SHA256SUMS") });
        fs::write(path("a.iso.sha256"), format!("{}  a.iso\n", "0".repeat(64))).unwrap();
        let other = Published::Other { beside: path("a.iso.sha256"), said: "0".repeat(64), found: right.to_owned() };
        assert_eq!(digest(&path("a.iso")).unwrap(), other);
    }

    #[test]
    fn bytes_differ_at_an_offset_or_in_number() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        let of = |one: &[u8], two: &[u8]| {
            fs::write(&a, one).unwrap();
            fs::write(&b, two).unwrap();
            bytes(&a, &b, &mut |_| ()).unwrap()
        };
        assert_eq!(of(b"same", b"same"), None);
        assert_eq!(of(b"same", b"samE"), Some(Differs::At(3)));
        assert_eq!(of(b"same", b"same and more"), Some(Differs::Size(4, 13)));
        let mut large = vec![7; (1 << 18) + 10];
        let copy = large.clone();
        large[(1 << 18) + 5] = 8;
        assert_eq!(of(&large, &copy), Some(Differs::At((1 << 18) + 5)));
    }

    #[test]
    fn every_byte_is_read() {
        let mut tree = Tree::new(Meta::default());
        let part = |at: u64, len: u64, stored: usize| Extent {
            at,
            len,
            source: Source::Memory(vec![1; stored].into()),
            from: 0,
        };
        let file = |extents| Node { meta: Meta::default(), kind: Kind::File(Content { size: 2 << 20, extents }) };
        tree.insert(ROOT, b"whole", file(vec![part(5, 10, 10), part(1 << 20, 600_000, 600_000)].into()));
        let mut told = 0;
        assert_eq!(contents(&tree, &mut |more| told += more).unwrap(), 600_010);
        assert_eq!(told, 600_010);
        tree.insert(ROOT, b"z", file(vec![part(7, 600_000, 599_999)].into()));
        let error = contents(&tree, &mut |_| ()).unwrap_err().to_string();
        assert_eq!(error, r#"a file "z" of the image cannot be read at byte 524295"#);
    }

    #[test]
    fn a_content_that_is_not_there_is_named() {
        let mut tree = Tree::new(Meta::default());
        let source = Source::Memory(b"short".as_slice().into());
        let content = Content { size: 9, extents: Extent { at: 0, len: 9, source, from: 0 }.into() };
        tree.insert(ROOT, b"f", Node { meta: Meta::default(), kind: Kind::File(content) });
        let error = contents(&tree, &mut |_| ()).unwrap_err().to_string();
        assert_eq!(error, r#"a file "f" of the image cannot be read at byte 0"#);
    }
}
