//! Files of one's own in an initramfs: a program's data, another program, whole folders.
//!
//! tether reads none of them, and hides the initramfs from the container when it enters the container's root; they are for an init of one's own.
//! It decides what may lie where, and that nothing of ours is replaced.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::{dir, file, meta};
use crate::tree::{Content, Extent, Extents, Kind, Node, NodeId, ROOT, Source, Time, Tree};

/// A file or folder, and its place in the initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    pub from: PathBuf,
    /// Absolute.
    pub to: String,
    /// Its permissions; none: as it has them.
    pub mode: Option<u16>,
}

/// `FILE:/path`.
impl FromStr for Extra {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Extra, Self::Err> {
        let (from, to) = text.rsplit_once(":/").ok_or("not FILE:/path, the place in the initramfs after the file")?;
        let fit = |part: &str| !part.is_empty() && part != "." && part != "..";
        match !from.is_empty() && to.split('/').all(fit) {
            true => Ok(Extra { from: from.into(), to: format!("/{to}"), mode: None }),
            false => Err("the path in the initramfs names a file: no `.`, no `..`, no `//`, no `/` at its end"),
        }
    }
}

/// Puts `extra` into `tree`. Everything belongs to root and has the image's time; the permissions are those of the file.
pub fn add(tree: &mut Tree, extra: &[Extra], time: Time) -> Result<(), Error> {
    for Extra { from, to, mode } in extra {
        let (parent, name) = parent(tree, to, time)?;
        // What was named is what is meant, and not a link to it; links below it are kept.
        let from = fs::canonicalize(from).map_err(|source| Error::File { path: from.clone(), source })?;
        put(tree, parent, name.as_bytes(), &from, to, time)?;
        if let (Some(mode), Some(id)) = (mode, tree.child(parent, name.as_bytes())) {
            tree.node_mut(id).meta.mode = *mode;
        }
    }
    Ok(())
}

/// Puts a text there, as a file that everybody may read.
pub(super) fn add_text(tree: &mut Tree, to: &str, text: &'static str, time: Time) -> Result<(), Error> {
    let (parent, name) = parent(tree, to, time)?;
    if tree.child(parent, name.as_bytes()).is_some() {
        return Err(Error::Taken { path: to.to_owned() });
    }
    file(tree, parent, name, 0o644, Content::from_bytes(text.as_bytes()), time);
    Ok(())
}

/// The folder of a path, made where there is none, and the name in it.
fn parent<'a>(tree: &mut Tree, to: &'a str, time: Time) -> Result<(NodeId, &'a str), Error> {
    let mut parent = ROOT;
    let (folders, name) = to.trim_start_matches('/').rsplit_once('/').unwrap_or(("", to.trim_start_matches('/')));
    for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
        parent = match tree.child(parent, folder.as_bytes()) {
            Some(there) if tree.entries(there).is_some() => there,
            Some(_) => return Err(Error::Taken { path: to.to_owned() }),
            None => dir(tree, parent, folder, time),
        };
    }
    Ok((parent, name))
}

fn put(tree: &mut Tree, parent: NodeId, name: &[u8], from: &Path, to: &str, time: Time) -> Result<(), Error> {
    let at = |source| Error::File { path: from.to_owned(), source };
    let found = fs::symlink_metadata(from).map_err(at)?;
    let mode = u16::try_from(found.permissions().mode() & 0o7777).expect("12 bits");
    if found.is_dir() {
        let folder = match tree.child(parent, name) {
            Some(there) if tree.entries(there).is_some() => there,
            Some(_) => return Err(Error::Taken { path: to.to_owned() }),
            None => {
                let kind = Kind::Dir(Default::default());
                tree.insert(parent, name, Node { meta: meta(mode, time), kind })
            }
        };
        // The tree sorts them: the order in which a file system lists its files is its own.
        for entry in fs::read_dir(from).map_err(at)? {
            let name = entry.map_err(at)?.file_name();
            let to = format!("{to}/{}", name.as_bytes().escape_ascii());
            put(tree, folder, name.as_bytes(), &from.join(&name), &to, time)?;
        }
        return Ok(());
    }
    if tree.child(parent, name).is_some() {
        return Err(Error::Taken { path: to.to_owned() });
    }
    let node = if found.is_symlink() {
        let target = fs::read_link(from).map_err(at)?;
        Node { meta: meta(0o777, time), kind: Kind::Symlink(target.as_os_str().as_bytes().to_vec()) }
    } else if found.is_file() {
        let file = File::open(from).map_err(at)?;
        let size = file.metadata().map_err(at)?.len();
        let whole = Extent { at: 0, len: size, source: Source::File(Arc::new(file)), from: 0 };
        let extents = if size == 0 { Extents::default() } else { whole.into() };
        Node { meta: meta(mode, time), kind: Kind::File(Content { size, extents }) }
    } else {
        return Err(Error::Kind { path: from.to_owned() });
    };
    tree.insert(parent, name, node);
    Ok(())
}

/// Why a file cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is neither a file nor a folder nor a symlink, and cannot be added to the initramfs", path.display())]
    Kind { path: PathBuf },
    #[error("{path} is in the initramfs already: give what is added another place (another init is given with --init)")]
    Taken { path: String },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio;

    fn listing(extra: &[Extra]) -> Result<String, Error> {
        let mut tree = super::super::initramfs::tree(Content::from_bytes(*b"init"), Time::default());
        add(&mut tree, extra, Time::default())?;
        let mut archive = Vec::new();
        cpio::write(&tree, &mut archive).unwrap();
        Ok(cpio::dump(&mut &archive[..]).unwrap())
    }

    #[test]
    fn what_is_added_keeps_its_permissions_and_gets_its_folders() {
        let dir = tempfile::tempdir().unwrap();
        let tool = dir.path().join("tool");
        fs::write(&tool, b"#!/init\n").unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o750)).unwrap();
        fs::create_dir_all(dir.path().join("data/b")).unwrap();
        fs::write(dir.path().join("data/a"), b"").unwrap();
        std::os::unix::fs::symlink("../a", dir.path().join("data/b/link")).unwrap();
        let extra = |from: &str, to: &str| Extra { from: dir.path().join(from), to: to.to_owned(), mode: None };
        let text = listing(&[extra("tool", "/opt/bin/tool"), extra("data", "/opt/data")]).unwrap();
        for line in ["/opt/bin\n    040755 0:0", "/opt/bin/tool\n    100750 0:0 0 ", "/opt/data/a\n    100", "-> ../a"]
        {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn nothing_of_ours_is_replaced() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for to in ["/init", "/dev/console", "/init/x"] {
            let error = listing(&[Extra { from: file.path().to_owned(), to: to.to_owned(), mode: None }]).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{to} is in the initramfs already")), "{error}");
        }
    }

    #[test]
    fn places_as_people_write_them() {
        let extra = Extra::from_str("a:b:/c/d").unwrap();
        assert_eq!((extra.from.to_str(), extra.to.as_str()), (Some("a:b"), "/c/d"));
        for text in ["a", "a:b", ":/a", "a:/", "a:/b/", "a:/../b", "a:/b/./c", "a://b"] {
            assert!(Extra::from_str(text).is_err(), "{text}");
        }
    }
}
