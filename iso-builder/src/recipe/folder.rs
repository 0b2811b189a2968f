//! A folder of this machine as an ISO 9660 image: what `xorriso -as mkisofs -R` makes, for files that a machine is given beside its disk.
//!
//! It decides what a folder is as a tree: owners, modes and times as they are, no xattrs, and contents that are read when
//! they are written, so that no more than one file is ever open.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::stat::{major, minor};
use nix::unistd::{Whence, lseek};

use crate::digest;
use crate::iso9660::{self, Options};
use crate::output::Output;
use crate::tree::{Content, Extent, Extents, Kind, Meta, Node, NodeId, ROOT, ReadAt, Source, Time, Tree};

/// Writes the ISO of `folder` to `output` and its digest beside it.
pub fn write(folder: &Path, options: &Options, output: &Path) -> Result<(), Error> {
    let tree = tree(folder)?;
    let at = |source| Error::File { path: output.to_owned(), source };
    let out = Output::create(output).map_err(at)?;
    iso9660::write(&tree, options, out.file()).map_err(|source| Error::Image { path: output.to_owned(), source })?;
    let digest = digest::file(out.file()).map_err(at)?;
    out.publish().map_err(at)?;
    digest::write_beside(output, &digest).map_err(at)
}

/// What is in a folder. It must not change until the image is written: a file that became shorter is an error then.
pub fn tree(folder: &Path) -> Result<Tree, Error> {
    let about = fs::metadata(folder).map_err(|source| Error::File { path: folder.to_owned(), source })?;
    let mut tree = Tree::new(meta(&about));
    let mut links = HashMap::new();
    let mut waiting = vec![(folder.to_owned(), ROOT)];
    while let Some((folder, dir)) = waiting.pop() {
        let at = |source| Error::File { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(at)? {
            let name = entry.map_err(at)?.file_name();
            let path = folder.join(&name);
            let id = node(&mut tree, &path, &mut links).map_err(|source| Error::File { path: path.clone(), source })?;
            tree.link(dir, name.as_bytes(), id);
            if tree.entries(id).is_some() {
                waiting.push((path, id));
            }
        }
    }
    Ok(tree)
}

/// One file, to be read when it is written.
pub fn file(path: &Path) -> Result<Content, Error> {
    let content = fs::metadata(path).and_then(|about| match about.is_file() {
        true => content(path, &about),
        false => Err(io::Error::other("not a regular file")),
    });
    content.map_err(|source| Error::File { path: path.to_owned(), source })
}

/// The inode at `path`, which may be there under another name already.
fn node(tree: &mut Tree, path: &Path, links: &mut HashMap<(u64, u64), NodeId>) -> io::Result<NodeId> {
    let about = path.symlink_metadata()?;
    let kind = about.file_type();
    let inode = (about.dev(), about.ino());
    let linked = about.nlink() > 1 && !kind.is_dir();
    if let Some(id) = links.get(&inode).filter(|_| linked) {
        return Ok(*id);
    }
    // device numbers of this machine are 32 bits and less
    let number = |part: u64| u32::try_from(part).map_err(io::Error::other);
    let (major, minor) = (number(major(about.rdev()))?, number(minor(about.rdev()))?);
    let kind = if kind.is_dir() {
        Kind::Dir(Default::default())
    } else if kind.is_file() {
        Kind::File(content(path, &about)?)
    } else if kind.is_symlink() {
        Kind::Symlink(fs::read_link(path)?.into_os_string().into_vec())
    } else if kind.is_char_device() {
        Kind::CharDevice { major, minor }
    } else if kind.is_block_device() {
        Kind::BlockDevice { major, minor }
    } else if kind.is_fifo() {
        Kind::Fifo
    } else {
        Kind::Socket
    };
    let id = tree.add(Node { meta: meta(&about), kind });
    if linked {
        links.insert(inode, id);
    }
    Ok(id)
}

fn meta(about: &Metadata) -> Meta {
    Meta {
        mode: u16::try_from(about.mode() & 0o7777).expect("twelve bits"),
        uid: about.uid(),
        gid: about.gid(),
        mtime: Time { secs: about.mtime(), nanos: u32::try_from(about.mtime_nsec()).unwrap_or(0) },
        ..Meta::default()
    }
}

/// A file that is opened for every read of it.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    size: u64,
}

impl ReadAt for Named {
    fn read_exact_at(&self, buf: &mut [u8], from: u64) -> io::Result<()> {
        ReadAt::read_exact_at(&File::open(&self.path)?, buf, from)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

/// Looks for holes in files that take less of the disk than their size.
fn content(path: &Path, about: &Metadata) -> io::Result<Content> {
    let size = about.size();
    let source = Source::Image(Arc::new(Named { path: path.to_owned(), size }));
    let extent = |at, end| Extent { at, len: end - at, source: source.clone(), from: at };
    if about.blocks() * 512 >= size {
        let extents = if size == 0 { Extents::default() } else { extent(0, size).into() };
        return Ok(Content { size, extents });
    }
    let file = File::open(path)?;
    let seek = |to: u64, whence| match lseek(&file, i64::try_from(to).map_err(io::Error::other)?, whence) {
        Ok(found) => Ok(u64::try_from(found).unwrap_or(size).min(size)),
        // nothing but a hole to the end
        Err(nix::errno::Errno::ENXIO) => Ok(size),
        Err(error) => Err(io::Error::from(error)),
    };
    let mut extents = Vec::new();
    let mut at = seek(0, Whence::SeekData)?;
    while at < size {
        let end = seek(at, Whence::SeekHole)?;
        extents.push(extent(at, end));
        at = seek(end, Whence::SeekData)?;
    }
    Ok(Content { size, extents: extents.into() })
}

/// Why there is no image of a folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}", path.display())]
    Image { path: PathBuf, source: iso9660::Error },
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn a_folder_is_a_tree_with_its_links_and_holes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("dir/file"), "abc").unwrap();
        fs::hard_link(at("dir/file"), at("other")).unwrap();
        std::os::unix::fs::symlink("dir/file", at("link")).unwrap();
        let holes = File::create(at("holes")).unwrap();
        holes.set_len(9 << 20).unwrap();
        holes.write_all_at(b"end", (9 << 20) - 3).unwrap();
        File::create(at("nothing")).unwrap().set_len(1 << 20).unwrap();
        let tree = tree(dir.path()).unwrap();
        let file = tree.child(tree.child(ROOT, b"dir").unwrap(), b"file");
        assert!(file.is_some() && tree.child(ROOT, b"other") == file);
        let kind = |name: &[u8]| &tree.node(tree.child(ROOT, name).unwrap()).kind;
        assert!(matches!(kind(b"link"), Kind::Symlink(target) if target == b"dir/file"));
        let Kind::File(content) = kind(b"holes") else { panic!("no file") };
        assert_eq!(content.size, 9 << 20);
        assert!(content.extents.iter().map(|extent| extent.len).sum::<u64>() <= 1 << 20, "{content:?}");
        let mut end = [0; 4];
        content.read_exact_at(&mut end, (9 << 20) - 4).unwrap();
        assert_eq!(&end, b"\0end");
        let error = super::tree(&at("missing")).unwrap_err();
        assert_eq!(error.to_string(), at("missing").display().to_string());
    }
}
