//! Where a copy goes, and under which name: docker's rules for `cp`, as functions of what lies at both ends.
//!
//! | source | destination | copy |
//! |---|---|---|
//! | file | is not there, its directory is | a file of that name |
//! | file | is not there, and ends in `/` | refused |
//! | file | a file | in its place |
//! | directory | is not there, its directory is | a directory of that name |
//! | directory | a file | refused |
//! | `DIRECTORY/.` | a directory | the content, in it |
//! | any other | a directory | in it |

use anyhow::{Result, bail};

/// What was typed for a source or destination.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Vm { vm: String, path: String },
    Local { path: String },
    Stream,
}

impl Place {
    /// As docker: a path that begins with `/` or `.` is a local one, whatever colons it has.
    pub(super) fn parse(text: &str) -> Result<Place> {
        if text == "-" {
            return Ok(Place::Stream);
        }
        match text.split_once(':') {
            Some((vm, path)) if !text.starts_with(['/', '.']) => match (vm, path) {
                ("", _) => bail!("{text:?} names no VM: write VM:PATH"),
                (_, "") => bail!("{text:?} names no path: write VM:PATH"),
                // a container's paths begin at its root
                (vm, path) => Ok(Place::Vm { vm: vm.into(), path: format!("/{}", path.trim_start_matches('/')) }),
            },
            _ if text.is_empty() => bail!("an empty path names nothing"),
            _ => Ok(Place::Local { path: text.into() }),
        }
    }
}

/// What lies at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Other,
}

impl Kind {
    /// Of a mode as Linux has it: inode(7).
    pub(super) fn of(mode: u32) -> Kind {
        if mode & 0o170_000 == 0o040_000 { Kind::Directory } else { Kind::Other }
    }
}

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Side {
    /// As it was typed, for messages.
    pub(super) shown: String,
    pub(super) path: String,
    /// `None`: there is nothing.
    pub(super) kind: Option<Kind>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The directory that takes it in; it is there.
    pub(super) dir: String,
    /// The name of what is copied; `.` for a directory's content.
    pub(super) name: String,
}

pub(super) fn plan(source: &Side, destination: &Side) -> Result<Plan> {
    let Some(kind) = source.kind else { bail!("there is no {}", source.shown) };
    let directory = kind == Kind::Directory;
    if !directory && wants_directory(&source.path) {
        bail!("{} is not a directory", source.shown);
    }
    let path = plain(&destination.path);
    match destination.kind {
        Some(Kind::Directory) if is_content(&source.path) => Ok(Plan { dir: path, name: ".".into() }),
        Some(Kind::Directory) => match name(&plain(&source.path)) {
            // the root has no name of its own
            "" => Ok(Plan { dir: path, name: ".".into() }),
            name => Ok(Plan { dir: path, name: name.into() }),
        },
        Some(Kind::Other) if directory => bail!("cannot copy a directory over the file {}", destination.shown),
        Some(Kind::Other) if wants_directory(&destination.path) => bail!("{} is not a directory", destination.shown),
        None if !directory && wants_directory(&destination.path) => {
            bail!("there is no directory {}", destination.shown)
        }
        Some(Kind::Other) | None => Ok(Plan { dir: parent(&path), name: name(&path).into() }),
    }
}

/// Where a symbolic link at `path` leads.
pub(super) fn follow(path: &str, target: &str) -> String {
    if target.starts_with('/') { target.into() } else { join(&parent(&plain(path)), target) }
}

/// A path without what only says "a directory": `/` and `/.` at its end.
pub(super) fn plain(path: &str) -> String {
    let mut plain = path;
    loop {
        let shorter = plain.strip_suffix("/.").or(plain.strip_suffix('/'));
        match shorter {
            Some("") => return "/".into(),
            Some(shorter) => plain = shorter,
            None => return plain.into(),
        }
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir.ends_with('/') { format!("{dir}{name}") } else { format!("{dir}/{name}") }
}

fn parent(path: &str) -> String {
    match path.rsplit_once('/') {
        Some(("", _)) => "/".into(),
        Some((parent, _)) => parent.into(),
        None => ".".into(),
    }
}

fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn wants_directory(path: &str) -> bool {
    path.ends_with('/') || is_content(path)
}

fn is_content(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_dockers() {
        let vm = |vm: &str, path: &str| Place::Vm { vm: vm.into(), path: path.into() };
        let local = |path: &str| Place::Local { path: path.into() };
        for (text, place) in [
            ("web:/etc", vm("web", "/etc")),
            ("web:etc/", vm("web", "/etc/")),
            ("web:a:b", vm("web", "/a:b")),
            ("./a:b", local("./a:b")),
            ("/a:b", local("/a:b")),
            ("file", local("file")),
            ("-", Place::Stream),
        ] {
            assert_eq!(Place::parse(text).unwrap(), place, "{text}");
        }
        for text in ["", ":", ":/etc", "web:"] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_table_holds() {
        let side = |path: &str, kind| Side { shown: path.into(), path: path.into(), kind };
        let check = |source: (&str, Option<Kind>), to: (&str, Option<Kind>), expected: Option<(&str, &str)>| {
            let plan = plan(&side(source.0, source.1), &side(to.0, to.1)).ok();
            let expected = expected.map(|(dir, name)| Plan { dir: dir.into(), name: name.into() });
            assert_eq!(plan, expected, "{source:?} to {to:?}");
        };
        let (file, dir, none) = (Some(Kind::Other), Some(Kind::Directory), None);
        check(("/a/f", file), ("/b/g", none), Some(("/b", "g")));
        check(("/a/f", file), ("/b/g/", none), None);
        check(("/a/f", file), ("/b/g", file), Some(("/b", "g")));
        check(("/a/f", file), ("/b/g/", file), None);
        check(("/a/f", file), ("/b", dir), Some(("/b", "f")));
        check(("/a/f", file), ("/b/", dir), Some(("/b", "f")));
        check(("/a/f", file), ("/", dir), Some(("/", "f")));
        check(("/a/f", file), (".", dir), Some((".", "f")));
        check(("/a/f", file), ("g", none), Some((".", "g")));
        check(("/a/f", file), ("/g", none), Some(("/", "g")));
        check(("/a/f/", file), ("/b", dir), None);
        check(("/a/d", dir), ("/b/e", none), Some(("/b", "e")));
        check(("/a/d", dir), ("/b/e/", none), Some(("/b", "e")));
        check(("/a/d/.", dir), ("/b/e", none), Some(("/b", "e")));
        check(("/a/d", dir), ("/b/g", file), None);
        check(("/a/d", dir), ("/b", dir), Some(("/b", "d")));
        check(("/a/d/", dir), ("/b", dir), Some(("/b", "d")));
        check(("/a/d/.", dir), ("/b", dir), Some(("/b", ".")));
        check((".", dir), ("/b", dir), Some(("/b", ".")));
        check(("/", dir), ("/b", dir), Some(("/b", ".")));
        check(("/a/none", none), ("/b", dir), None);
    }

    #[test]
    fn links_lead_from_where_they_are() {
        assert_eq!(follow("/a/link", "/x"), "/x");
        assert_eq!(follow("/a/link/", "b/c"), "/a/b/c");
        assert_eq!(follow("/link", "../b"), "/../b");
        assert_eq!(plain("/a//./"), "/a");
        assert_eq!(plain("/."), "/");
        assert_eq!(plain("."), ".");
    }
}
