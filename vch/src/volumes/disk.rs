//! The disk of a new volume: an empty ext4 file system, thin and labelled.

use std::path::Path;

use anyhow::{Context, Result};
use iso_builder::ext4;
use iso_builder::output::Output;
use iso_builder::tree::{Kind, Meta, Node, ROOT, Time, Tree};
use sha2::{Digest, Sha256};

use crate::state;

/// Makes an empty file system. It takes no room of the host until it is used.
pub fn make(path: &Path, name: &str, size: Option<u64>) -> Result<()> {
    let size = size.unwrap_or(SIZE);
    let options = ext4::Options {
        label: label(name),
        size: ext4::Size::Exactly(size),
        journal: true,
        uuid: Some(uuid(state::random()?)),
        time: Time::default(),
    };
    let made = Output::create(path).map_err(anyhow::Error::from).and_then(|output| {
        let directory = || Meta { mode: 0o755, ..Meta::default() };
        let mut tree = Tree::new(directory());
        tree.insert(ROOT, INNER, Node { meta: directory(), kind: Kind::Dir(Default::default()) });
        ext4::write(&tree, &options, output.file(), &mut |_, _| {})?;
        Ok(output.publish()?)
    });
    made.with_context(|| format!("cannot make volume {name} of {size} bytes in {}", path.display()))
}

/// The label of a volume: 16 hexadecimal digits that follow from its name, as in vSphere Integrated Containers, where the digest was MD5.
fn label(name: &str) -> String {
    Sha256::digest(name.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Version 4: RFC 9562.
fn uuid(random: [u8; 32]) -> [u8; 16] {
    let mut uuid: [u8; 16] = std::array::from_fn(|at| random[at]);
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// As much as a container's own disk has at least. Only what is used takes room.
pub(super) const SIZE: u64 = 8 << 30;
/// The directory of a volume that is mounted, as in vSphere Integrated Containers: a database would not begin in one that holds `lost+found`.
const INNER: &[u8] = b".vic.vol.data";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_new_volume_is_clean_thin_and_labelled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.raw");
        make(&path, "data", None).unwrap();
        let check = Command::new("e2fsck").arg("-fn").arg(&path).output().expect("e2fsck");
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
        let header = Command::new("dumpe2fs").arg("-h").arg(&path).output().expect("dumpe2fs");
        let header = String::from_utf8_lossy(&header.stdout).into_owned();
        assert!(header.contains(&label("data")) && header.contains("has_journal"), "{header}");
        let meta = fs::metadata(&path).unwrap();
        let stored = std::os::unix::fs::MetadataExt::blocks(&meta) * 512;
        assert!(meta.len() == SIZE && stored < 2 << 20, "{stored} bytes");
    }
}
