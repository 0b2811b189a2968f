//! What a container's paths name, all links followed within its root alone: path_resolution(7).

use iso_builder::tree::{Kind, Node, NodeId, ROOT, Tree};
use wire::message::PathInfo;

/// Why a path names nothing that it could.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("{0} leads through too many symbolic links")]
    Links(String),
    #[error("Could not find the file {0}")]
    Missing(String),
    #[error("{0} is a socket, which an archive cannot hold")]
    Socket(String),
    #[error("extraction point is not a directory")]
    NoDirectory,
}

/// What there is of a path: `.` is nothing.
pub(super) fn names(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|name| !matches!(*name, "" | "."))
}

/// Where a path leads in the end, as a path without links; also where nothing is.
pub(crate) fn follow(tree: &Tree, path: &str) -> Result<String, PathError> {
    Ok(format!("/{}", walk(tree, path, true)?.join("/")))
}

/// What lies at a path, a link that is its end not followed: its directory, its name there and itself. The root is in itself.
pub(crate) fn find(tree: &Tree, path: &str) -> Result<Option<(NodeId, String, NodeId)>, PathError> {
    // a slash at the end means a directory, also through a link
    let found = walk(tree, path, path.ends_with('/') || path.ends_with("/."))?;
    let (mut parent, mut id) = (ROOT, ROOT);
    for name in &found {
        match tree.child(id, name.as_bytes()) {
            Some(child) => (parent, id) = (id, child),
            None => return Ok(None),
        }
    }
    if (path.ends_with('/') || path.ends_with("/.")) && tree.entries(id).is_none() {
        return Ok(None);
    }
    Ok(Some((parent, found.last().cloned().unwrap_or_default(), id)))
}

fn walk(tree: &Tree, path: &str, follows_last: bool) -> Result<Vec<String>, PathError> {
    let mut ahead: Vec<String> = names(path).rev().map(str::to_owned).collect();
    let mut behind: Vec<(String, Option<NodeId>)> = Vec::new();
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            behind.pop();
            continue;
        }
        let here = behind.last().map_or(Some(ROOT), |(_, id)| *id);
        let child = here.and_then(|here| tree.child(here, name.as_bytes()));
        let target = child.and_then(|child| match &tree.node(child).kind {
            Kind::Symlink(target) => Some(String::from_utf8_lossy(target).into_owned()),
            _ => None,
        });
        let Some(target) = target.filter(|_| follows_last || !ahead.is_empty()) else {
            behind.push((name, child));
            continue;
        };
        links += 1;
        if links > MOST_LINKS {
            return Err(PathError::Links(path.into()));
        }
        if target.starts_with('/') {
            behind.clear();
        }
        ahead.extend(names(&target).rev().map(str::to_owned));
    }
    Ok(behind.into_iter().map(|(name, _)| name).collect())
}

/// What is told of an inode, under the name that was asked for.
pub(crate) fn info(tree: &Tree, id: NodeId, path: &str) -> PathInfo {
    let Node { meta, kind } = tree.node(id);
    let (bits, size, target) = match kind {
        Kind::Dir(_) => (0o040_000, 4096, String::new()),
        Kind::File(content) => (0o100_000, content.size, String::new()),
        Kind::Symlink(target) => (0o120_000, target.len() as u64, String::from_utf8_lossy(target).into_owned()),
        Kind::CharDevice { .. } => (0o020_000, 0, String::new()),
        Kind::BlockDevice { .. } => (0o060_000, 0, String::new()),
        Kind::Fifo => (0o010_000, 0, String::new()),
        Kind::Socket => (0o140_000, 0, String::new()),
    };
    let name = names(path).next_back().unwrap_or("/").to_owned();
    let mtime_ns = meta.mtime.secs.saturating_mul(1_000_000_000).saturating_add(i64::from(meta.mtime.nanos));
    PathInfo { name, size, mode: bits | u32::from(meta.mode), mtime_ns, target }
}

/// As Linux counts them.
const MOST_LINKS: usize = 40;
