//! This side of a copy: packing local files in an archive, and unpacking one.
//!
//! What comes out of a VM is not trusted: names cannot climb, and links are not followed on the way (the crate `tar` sees to it). Owners of what is unpacked are
//! the user's, as docker has it. Extended attributes are lost here; an archive (`-`) keeps them.

use std::fs;
use std::io::{self, PipeReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use tar::{Archive, Builder, EntryType, Header};

use super::plan::{Kind, Plan, Side};

/// What lies at a local path. A symbolic link to a directory is one, at the end of a destination as of a source that ends in `/`.
pub(super) fn side(path: &str) -> Result<Side> {
    let kind = match fs::metadata(path) {
        Ok(found) => Some(if found.is_dir() { Kind::Directory } else { Kind::Other }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::symlink_metadata(path).ok().map(|_| Kind::Other),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {path}")),
    };
    Ok(Side { shown: path.into(), path: path.into(), kind })
}

/// Where a path leads when its last component is a symbolic link.
pub(super) fn resolve(path: &str) -> Result<String> {
    let resolved = fs::canonicalize(path).with_context(|| format!("cannot follow {path}"))?;
    resolved.into_os_string().into_string().map_err(|_| anyhow::anyhow!("{path} leads to a name that is not UTF-8"))
}

/// Writes the archive of a local source, under the plan's name.
pub(super) fn pack(source: &str, plan: &Plan, out: impl Write) -> Result<()> {
    let mut builder = Builder::new(out);
    builder.follow_symlinks(false);
    let found = fs::symlink_metadata(source).with_context(|| format!("cannot read {source}"))?;
    // a link that is followed by its trailing slash is the directory
    let directory = found.is_dir() || source.ends_with('/') || source.ends_with("/.");
    let packed = match directory {
        true => builder.append_dir_all(&plan.name, source),
        false => builder.append_path_with_name(source, &plan.name),
    };
    match packed.and_then(|()| builder.finish()) {
        // the guest has stopped reading, and says why
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.with_context(|| format!("cannot read {source}")),
    }
}

/// Unpacks an archive whose names begin with the source's name, under the plan's.
pub(super) fn unpack(archive: PipeReader, plan: &Plan) -> Result<()> {
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let dir = PathBuf::from(&plan.dir);
    let unpacking = std::thread::spawn(move || {
        let mut renamed = Archive::new(reader);
        renamed.set_preserve_permissions(true);
        renamed.set_overwrite(true);
        let unpacked = renamed.unpack(&dir);
        // to the end of the archive: the writer must not be left with a broken pipe
        let rest = unpacked.is_ok().then(|| io::copy(&mut renamed.into_inner(), &mut io::sink()));
        unpacked.and(rest.transpose().map(|_| ()))
    });
    let renamed = rename(archive, &plan.name, writer);
    let unpacked = unpacking.join().map_err(|_| anyhow::anyhow!("unpacking went wrong"))?;
    unpacked.with_context(|| format!("cannot unpack in {}", plan.dir))?;
    renamed.context("cannot read the archive that the VM sends")
}

/// Gives the first component of each name another name.
fn rename(archive: impl Read, name: &str, out: impl Write) -> Result<()> {
    let (mut archive, mut builder) = (Archive::new(archive), Builder::new(out));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = renamed(&entry.path()?, name)?;
        let link = entry.link_name()?.map(std::borrow::Cow::into_owned);
        let mut header = Header::new_gnu();
        let from = entry.header();
        let kind = from.entry_type();
        header.set_mode(from.mode()? & 0o7777);
        header.set_mtime(from.mtime()?);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_entry_type(kind);
        match (kind, link) {
            (EntryType::Symlink, Some(link)) => builder.append_link(&mut header, path, link)?,
            (EntryType::Link, Some(link)) => builder.append_link(&mut header, path, renamed(&link, name)?)?,
            (EntryType::Directory, _) => builder.append_data(&mut header, path, io::empty())?,
            (EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse, _) => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(entry.size());
                builder.append_data(&mut header, path, &mut entry)?;
            }
            _ => eprintln!("vch: {} is a device or pipe, and left out", entry.path()?.display()),
        }
    }
    builder.finish()?;
    drop(builder);
    // what follows the archive's end is padding; who writes it should not find the pipe closed
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

fn renamed(path: &Path, name: &str) -> Result<PathBuf> {
    let mut parts = path.components().filter(|part| !matches!(part, Component::CurDir | Component::RootDir));
    parts.next();
    let mut renamed = PathBuf::from(name);
    for part in parts {
        match part {
            Component::Normal(part) => renamed.push(part),
            _ => bail!("the archive names {}, which leads elsewhere", path.display()),
        }
    }
    Ok(renamed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn through(source: &Path, plan: &Plan, as_name: &str) -> Result<()> {
        // as a guest sends it: names begin with the source's
        let (reader, writer) = io::pipe().unwrap();
        let (source, from) = (source.display().to_string(), Plan { dir: String::new(), name: as_name.into() });
        let packing = std::thread::spawn(move || pack(&source, &from, writer));
        let unpacked = unpack(reader, plan);
        packing.join().unwrap().unwrap();
        unpacked
    }

    fn plan(dir: &Path, name: &str) -> Plan {
        Plan { dir: dir.display().to_string(), name: name.into() }
    }

    #[test]
    fn files_go_and_come_under_another_name() {
        let root = tempfile::tempdir().unwrap();
        let (tree, to) = (root.path().join("tree"), root.path().join("to"));
        let long = "n".repeat(150);
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(tree.join("sub").join(&long), "hello").unwrap();
        fs::set_permissions(tree.join("sub").join(&long), fs::Permissions::from_mode(0o751)).unwrap();
        symlink("nowhere", tree.join("link")).unwrap();
        through(&tree, &plan(&to, "copy"), "tree").unwrap();
        let copy = to.join("copy");
        assert_eq!(fs::read_to_string(copy.join("sub").join(&long)).unwrap(), "hello");
        assert_eq!(fs::metadata(copy.join("sub").join(&long)).unwrap().permissions().mode() & 0o7777, 0o751);
        assert_eq!(fs::read_link(copy.join("link")).unwrap(), Path::new("nowhere"));
        // the content into what is there, over what is there
        fs::write(tree.join("sub").join(&long), "again").unwrap();
        through(&tree, &plan(&copy, "."), "tree").unwrap();
        assert_eq!(fs::read_to_string(copy.join("sub").join(&long)).unwrap(), "again");
        through(&tree.join("sub").join(&long), &plan(&to, "file"), &long).unwrap();
        assert_eq!(fs::read_to_string(to.join("file")).unwrap(), "again");
    }

    #[test]
    fn nothing_climbs_out() {
        let root = tempfile::tempdir().unwrap();
        let to = root.path().join("to");
        fs::create_dir(&to).unwrap();
        assert!(renamed(Path::new("a/../../b"), "x").is_err());
        assert_eq!(renamed(Path::new("/a/b"), "x").unwrap(), Path::new("x/b"));
        // a link, and a file through it
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_mtime(0);
        builder.append_link(&mut header, "a/out", root.path()).unwrap();
        header.set_entry_type(EntryType::Regular);
        header.set_size(4);
        builder.append_data(&mut header, "a/out/evil", &b"evil"[..]).unwrap();
        let bytes = builder.into_inner().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&bytes));
        let unpacked = unpack(reader, &plan(&to, "."));
        drop(writing.join());
        assert!(unpacked.is_err());
        assert!(!root.path().join("evil").exists());
    }

    #[test]
    fn what_lies_here_is_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).display().to_string();
        fs::write(path("file"), "").unwrap();
        symlink(root.path(), path("link")).unwrap();
        symlink("nowhere", path("broken")).unwrap();
        let kind = |name: &str| side(&path(name)).unwrap().kind;
        assert_eq!(kind(""), Some(Kind::Directory));
        assert_eq!(kind("file"), Some(Kind::Other));
        assert_eq!(kind("link"), Some(Kind::Directory));
        assert_eq!(kind("broken"), Some(Kind::Other));
        assert_eq!(kind("none"), None);
        assert_eq!(resolve(&path("link")).unwrap(), fs::canonicalize(root.path()).unwrap().display().to_string());
    }
}
