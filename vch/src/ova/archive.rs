//! The package: a tar archive in the old POSIX format, with the descriptor first, the manifest of SHA-256 digests next, and the files in the order of
//! their references: DSP0243 1.1, "OVF package", which lets a reader begin before it has all.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail};
use iso_builder::digest::{self, Hasher};
use iso_builder::output::Output;
use tar::{Builder, Header};

/// What goes into the package.
pub(super) struct Package<'a> {
    /// Of the descriptor and the manifest, without what follows the dot.
    pub(super) name: &'a str,
    pub(super) descriptor: String,
    pub(super) medium: &'a File,
    pub(super) medium_name: &'a str,
    pub(super) medium_size: u64,
    /// Of all files in it, in seconds since 1970.
    pub(super) time: u64,
}

impl Package<'_> {
    /// Writes it; a reader of `path` sees the old file or the whole new one.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let mut output = Output::create(path)?;
        let mut archive = Builder::new(BufWriter::with_capacity(1 << 20, output.file_mut()));
        let descriptor = self.descriptor.as_bytes();
        let digest = digest::file(self.medium).context("cannot read the medium")?;
        let ovf = format!("{}.ovf", self.name);
        let manifest = manifest(&[(&ovf, &digest::bytes(descriptor)), (self.medium_name, &digest)]);
        self.append(&mut archive, &ovf, descriptor.len() as u64, descriptor)?;
        self.append(&mut archive, &format!("{}.mf", self.name), manifest.len() as u64, manifest.as_bytes())?;
        let mut medium = self.medium;
        medium.rewind()?;
        let mut hashed = Hashed { inner: medium.take(self.medium_size), hasher: Hasher::default() };
        self.append(&mut archive, self.medium_name, self.medium_size, &mut hashed)?;
        if hashed.hasher.finish() != digest {
            bail!("the medium was changed while it was read");
        }
        archive.into_inner()?.flush()?;
        Ok(output.publish()?)
    }

    fn append(&self, archive: &mut Builder<impl io::Write>, name: &str, size: u64, bytes: impl Read) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_path(name)?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(self.time);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        Ok(archive.append(&header, bytes)?)
    }
}

/// As OpenSSL writes digests, which DSP0243 took over.
fn manifest(files: &[(&str, &str)]) -> String {
    files.iter().map(|(name, digest)| format!("SHA256({name})= {digest}\n")).collect()
}

/// Bytes on their way, and their digest.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.hasher.write_all(&buf[..count])?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    fn package(dir: &Path, time: u64) -> (Vec<u8>, Vec<u8>) {
        let medium: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(dir.join("medium"), &medium).unwrap();
        let file = File::open(dir.join("medium")).unwrap();
        let package = Package {
            name: "vch",
            descriptor: "<Envelope/>".into(),
            medium: &file,
            medium_name: "vch.iso",
            medium_size: 100_000,
            time,
        };
        package.write(&dir.join("vch.ova")).unwrap();
        (fs::read(dir.join("vch.ova")).unwrap(), medium)
    }

    #[test]
    fn descriptor_manifest_and_files_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, medium) = package(dir.path(), 1_700_000_000);
        assert_eq!(&bytes[257..265], b"ustar\x0000", "the POSIX format, and not GNU's");
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut files = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header().clone();
            assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (1_700_000_000, 0));
            let name = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.push((name, bytes));
        }
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["vch.ovf", "vch.mf", "vch.iso"]);
        assert!(files[2].1 == medium);
        let (ovf, iso) = (digest::bytes(b"<Envelope/>"), digest::bytes(&medium));
        assert_eq!(String::from_utf8_lossy(&files[1].1), format!("SHA256(vch.ovf)= {ovf}\nSHA256(vch.iso)= {iso}\n"));
    }

    /// The judge is the system's tar and sha256sum.
    #[test]
    fn other_tools_read_it() {
        let dir = tempfile::tempdir().unwrap();
        package(dir.path(), 0);
        let script = "tar -xf vch.ova && sed 's/SHA256(\\(.*\\))= \\(.*\\)/\\2  \\1/' vch.mf | sha256sum -c --quiet";
        let output = Command::new("sh").args(["-c", script]).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(package(one.path(), 5).0 == package(other.path(), 5).0);
        assert!(package(one.path(), 5).0 != package(other.path(), 6).0);
    }

    #[test]
    fn a_medium_that_is_cut_short_gives_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("medium"), "short").unwrap();
        let file = File::open(dir.path().join("medium")).unwrap();
        let package = Package {
            name: "vch",
            descriptor: String::new(),
            medium: &file,
            medium_name: "vch.iso",
            medium_size: 2,
            time: 0,
        };
        let error = package.write(&dir.path().join("vch.ova")).unwrap_err();
        assert_eq!(error.to_string(), "the medium was changed while it was read");
        assert!(!dir.path().join("vch.ova").exists());
    }
}
