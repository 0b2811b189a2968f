//! An archive into a tree: `docker cp` to a container whose machine is off, by the rules that a guest has for one that runs (guest/src/copy).
//!
//! It decides what an entry replaces and where it may go. Links that were there before are the container's own choice and are followed, within its root; those
//! that the archive brought lead nowhere out of the directory. What files hold stays in the archive until the disk is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::Arc;

use iso_builder::oci::archive::{Entries, Entry, What};
use iso_builder::tree::{Kind, Meta, Node, NodeId, Tree};

use super::DiskError;
use super::path::{self, PathError};

/// How it is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unpack {
    /// Owners are kept; else all is root's.
    pub(crate) owners: bool,
    /// A directory may take a file's place, and the other way round.
    pub(crate) replace: bool,
}

/// Puts all entries below a directory. Gives the directories whose entries have changed.
pub(super) fn unpack(
    tree: &mut Tree,
    directory: &str,
    archive: &Arc<File>,
    how: Unpack,
) -> Result<BTreeSet<NodeId>, DiskError> {
    let directory = path::follow(tree, directory)?;
    let root = match path::find(tree, &directory)? {
        Some((_, _, id)) if tree.entries(id).is_some() => id,
        Some(_) => return Err(PathError::NoDirectory.into()),
        None => return Err(PathError::Missing(directory).into()),
    };
    let mut unpacker = Unpacker { tree, directory, root, how, trusts_links: true, changed: BTreeSet::new() };
    for entry in Entries::of(archive)? {
        unpacker.put(entry?)?;
    }
    Ok(unpacker.changed)
}

struct Unpacker<'a> {
    tree: &'a mut Tree,
    /// Where it is unpacked, without links.
    directory: String,
    root: NodeId,
    how: Unpack,
    /// No link of the archive can lead out of the directory.
    trusts_links: bool,
    changed: BTreeSet<NodeId>,
}

fn refused(name: &[u8], reason: impl Into<String>) -> DiskError {
    DiskError::Refused { name: String::from_utf8_lossy(name).into_owned(), reason: reason.into() }
}

fn components(name: &[u8]) -> Result<Vec<&[u8]>, DiskError> {
    let components = name.split(|&byte| byte == b'/').filter(|component| !matches!(*component, b"" | b"."));
    let components: Vec<_> = components.collect();
    if components.contains(&&b".."[..]) {
        return Err(refused(name, "its name leads out of the directory"));
    }
    if let Some(long) = components.iter().find(|component| component.len() > LONGEST) {
        return Err(refused(name, format!("{} bytes are too many for a name", long.len())));
    }
    Ok(components)
}

fn leads_out(target: &[u8]) -> bool {
    target.starts_with(b"/") || target.split(|&byte| byte == b'/').any(|component| component == b"..")
}

impl Unpacker<'_> {
    fn put(&mut self, mut entry: Entry) -> Result<(), DiskError> {
        let name = std::mem::take(&mut entry.path);
        let components = components(&name)?;
        let is_dir = matches!(entry.what, What::Node(Kind::Dir(_)));
        let Some((&last, above)) = components.split_last() else {
            // as docker does: the directory itself keeps what it has
            return if is_dir {
                Ok(())
            } else {
                Err(refused(&name, "it would take the place of the directory itself"))
            };
        };
        if !self.how.owners {
            (entry.meta.uid, entry.meta.gid) = (0, 0);
        }
        let parent = self.enter(&name, above, true)?;
        let there = self.tree.child(parent, last);
        let (id, is_link) = match entry.what {
            What::HardLink(target) => {
                let id = self.target(&name, &target)?;
                if there == Some(id) {
                    return Ok(());
                }
                (id, true)
            }
            What::Node(kind) => {
                if let (true, Some(there)) = (is_dir, there)
                    && self.tree.entries(there).is_some()
                {
                    self.tree.node_mut(there).meta = entry.meta;
                    self.changed.insert(parent);
                    return Ok(());
                }
                let leads_out = matches!(&kind, Kind::Symlink(target) if leads_out(target));
                (self.tree.add(Node { meta: entry.meta, kind }), leads_out)
            }
        };
        if let Some(there) = there {
            self.clear(&name, is_dir, there)?;
        }
        if is_link && matches!(self.tree.node(id).kind, Kind::Symlink(_)) {
            self.trusts_links = false;
        }
        self.tree.link(parent, last, id);
        self.changed.insert(parent);
        Ok(())
    }

    /// What an entry may replace. The texts are docker's.
    fn clear(&self, name: &[u8], becomes_dir: bool, there: NodeId) -> Result<(), DiskError> {
        let text = String::from_utf8_lossy(name);
        match self.tree.entries(there).is_some() {
            true if !self.how.replace => {
                Err(refused(name, format!("cannot overwrite directory {text:?} with non-directory {text:?}")))
            }
            false if becomes_dir && !self.how.replace => {
                Err(refused(name, format!("cannot overwrite non-directory {text:?} with directory {text:?}")))
            }
            _ => Ok(()),
        }
    }

    fn target(&mut self, name: &[u8], target: &[u8]) -> Result<NodeId, DiskError> {
        let components = components(target)?;
        let Some((&last, above)) = components.split_last() else {
            return Err(refused(name, "it is a hard link to the directory itself"));
        };
        let parent = self.enter(name, above, false)?;
        match self.tree.child(parent, last) {
            Some(id) if self.tree.entries(id).is_none() => Ok(id),
            Some(_) => Err(refused(name, "it is a hard link to a directory")),
            None => {
                let target = String::from_utf8_lossy(target);
                Err(refused(name, format!("it is a hard link to {target:?}, which is not there")))
            }
        }
    }

    /// The directory of this path, from the one that the archive is unpacked in.
    fn enter(&mut self, name: &[u8], above: &[&[u8]], makes: bool) -> Result<NodeId, DiskError> {
        let mut id = self.root;
        for (at, component) in above.iter().enumerate() {
            let child = match self.tree.child(id, component) {
                Some(child) => child,
                None if makes => {
                    self.changed.insert(id);
                    let meta = Meta { mode: 0o755, ..Meta::default() };
                    self.tree.insert(id, component, Node { meta, kind: Kind::Dir(BTreeMap::new()) })
                }
                None => return Err(refused(name, "what it is a hard link to is not there")),
            };
            id = match &self.tree.node(child).kind {
                Kind::Dir(_) => child,
                Kind::Symlink(_) => self.through(name, &above[..=at], makes)?,
                _ => return Err(refused(name, "a file is on its way")),
            };
        }
        Ok(id)
    }

    /// Where a link on the way leads.
    fn through(&self, name: &[u8], so_far: &[&[u8]], makes: bool) -> Result<NodeId, DiskError> {
        let inside = String::from_utf8_lossy(&so_far.join(&b'/')).into_owned();
        let leads = path::follow(self.tree, &format!("{}/{inside}", self.directory))?;
        let below = |leads: &str| {
            let rest = leads.strip_prefix(self.directory.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // one that the archive brought could be made to lead anywhere
        if !(below(&leads) || self.trusts_links && makes) {
            return Err(refused(name, "a symbolic link on the way to it leads out of the directory"));
        }
        match path::find(self.tree, &leads)? {
            Some((_, _, id)) if self.tree.entries(id).is_some() => Ok(id),
            _ => Err(refused(name, "a symbolic link on the way to it leads nowhere that an archive may go")),
        }
    }
}

/// Bytes of a name.
const LONGEST: usize = 255;
