//! The file of the master key, from which each VM's link key follows: only its owner can read it. How keys follow is [`wire::handshake`]'s.
//!
//! `vch serve` holds it, and whoever makes VMs for that serve needs the same one.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;
use tempfile::NamedTempFile;
use wire::handshake::MasterKey;

use crate::state;

/// Where the key lies: in that file, else in that directory, else in the user's state.
pub fn path(file: Option<&Path>, state: Option<&Path>) -> Result<PathBuf> {
    match (file, state) {
        (Some(file), _) => Ok(file.to_owned()),
        (None, Some(dir)) => Ok(dir.join("master.key")),
        (None, None) => Ok(state::state_dir()?.join("master.key")),
    }
}

/// Reads the file, or makes it with a key that was drawn at random.
pub fn at(path: &Path) -> Result<MasterKey> {
    match File::open(path) {
        Ok(file) => read(file, path),
        Err(error) if error.kind() == ErrorKind::NotFound => make(path),
        Err(error) => Err(error).with_context(|| format!("cannot read the master key {}", path.display())),
    }
}

fn read(mut file: File, path: &Path) -> Result<MasterKey> {
    let shown = path.display();
    let meta = file.metadata().with_context(|| format!("cannot look at {shown}"))?;
    let owner = geteuid().as_raw();
    if !meta.is_file() || (meta.uid() != owner && meta.uid() != 0) || meta.mode() & 0o077 != 0 {
        bail!(
            "the master key {shown} can be used by others (owner {}, mode {:o}): make it yours, and `chmod 600` it",
            meta.uid(),
            meta.mode() & 0o7777
        );
    }
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(|| format!("cannot read the master key {shown}"))?;
    MasterKey::from_hex(text.trim_end()).with_context(|| format!("the master key {shown} is not 64 hexadecimal digits"))
}

fn make(path: &Path) -> Result<MasterKey> {
    let key = MasterKey::new(state::random()?);
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    state::make_dir(dir)?;
    // beside it, under another name, until it is whole: only its owner may read it
    let made = NamedTempFile::new_in(dir).and_then(|mut file| {
        writeln!(file, "{}", key.to_hex())?;
        file.as_file().sync_all()?;
        Ok(file.persist_noclobber(path)?)
    });
    made.with_context(|| format!("cannot make the master key {}", path.display()))?;
    eprintln!("vch: made the master key {}: keep it, the VMs' keys follow from it", path.display());
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/master.key");
        let made = at(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = at(&path).unwrap();
        assert!(made.to_hex() == read.to_hex());
        assert!(made.link_key("a") == read.link_key("a") && read.link_key("a") != read.link_key("b"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = at(&path).err().unwrap().to_string();
        assert!(error.contains("can be used by others"), "{error}");
        for text in ["", "12", &"g".repeat(64), &"0".repeat(66)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = at(&path).err().unwrap().to_string();
            assert!(error.contains("is not 64 hexadecimal digits"), "{error}");
        }
    }
}
