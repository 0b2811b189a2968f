//! The master key, from which each VM's link key follows: a file that only its owner can read.
//!
//! key of a VM = HKDF-SHA256 (RFC 5869): salt `tether master key`, input the master key, info `link ` and the VM's id, 32 bytes.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;
use sha2::{Digest, Sha256};
use wire::handshake::LinkKey;

use crate::state;

/// Never shown.
pub(super) struct MasterKey([u8; 32]);

impl MasterKey {
    /// Reads the file, or makes it with a key that was drawn at random.
    pub(super) fn at(path: &Path) -> Result<MasterKey> {
        match File::open(path) {
            Ok(file) => MasterKey::read(file, path),
            Err(error) if error.kind() == ErrorKind::NotFound => MasterKey::make(path),
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
        match parse(text.trim_end()) {
            Some(key) => Ok(MasterKey(key)),
            None => bail!("the master key {shown} is not 64 hexadecimal digits"),
        }
    }

    fn make(path: &Path) -> Result<MasterKey> {
        let key = state::random()?;
        let mut text = key.iter().fold(String::new(), |mut text, byte| {
            // a String takes everything
            write!(text, "{byte:02x}").unwrap_or_default();
            text
        });
        text.push('\n');
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            state::make_dir(dir)?;
        }
        let made = File::options().write(true).create_new(true).mode(0o600).open(path);
        made.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .with_context(|| format!("cannot make the master key {}", path.display()))?;
        super::say(&format!("made the master key {}: keep it, the VMs' keys follow from it", path.display()));
        Ok(MasterKey(key))
    }

    /// The key of a VM's link.
    pub(super) fn link_key(&self, vm: &str) -> LinkKey {
        let extracted = hmac(b"tether master key", &[&self.0]);
        LinkKey::new(hmac(&extracted, &[b"link ", vm.as_bytes(), &[1]]))
    }
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let plain = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = if plain { (0..64).step_by(2).map(byte).collect() } else { None };
    bytes?.try_into().ok()
}

/// HMAC-SHA256 (RFC 2104) under a key of at most 64 bytes.
fn hmac(key: &[u8], message: &[&[u8]]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let hash = |pad: [u8; 64], parts: &[&[u8]]| {
        let mut hash = Sha256::new();
        hash.update(pad);
        parts.iter().for_each(|part| hash.update(part));
        <[u8; 32]>::from(hash.finalize())
    };
    hash(pad(0x5c), &[&hash(pad(0x36), message)])
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// RFC 5869, appendix A.1, up to its first block.
    #[test]
    fn the_derivation_is_hkdf() {
        let extracted = hmac(&hex("000102030405060708090a0b0c"), &[&[0x0b; 22]]);
        assert_eq!(extracted.to_vec(), hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"));
        let first = hmac(&extracted, &[&hex("f0f1f2f3f4f5f6f7f8f9"), &[1]]);
        assert_eq!(first.to_vec(), hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"));
    }

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/master.key");
        let made = MasterKey::at(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = MasterKey::at(&path).unwrap();
        assert_eq!(made.0, read.0);
        assert!(made.link_key("a") == read.link_key("a") && read.link_key("a") != read.link_key("b"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = MasterKey::at(&path).err().unwrap().to_string();
        assert!(error.contains("can be used by others"), "{error}");
        for text in ["", "12", &"g".repeat(64), &"0".repeat(66)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = MasterKey::at(&path).err().unwrap().to_string();
            assert!(error.contains("is not 64 hexadecimal digits"), "{error}");
        }
    }
}
