//! SHA-256 in hex, of bytes, of files, and the `.sha256` file beside an artifact.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::output::Output;

/// The digest of `bytes`.
pub fn bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Takes bytes as a writer does and gives their digest.
#[derive(Debug, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

impl Write for Hasher {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.update(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The digest of a whole file, wherever its offset stands.
pub fn file(file: &File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        match file.read_at(&mut buf, at)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => {
                hasher.update(&buf[..n]);
                at += n as u64;
            }
        }
    }
}

/// Writes `FILE.sha256`, in the form that `sha256sum -c` reads in FILE's directory.
pub fn write_beside(artifact: &Path, digest: &str) -> io::Result<()> {
    let name = artifact.file_name().unwrap_or_default();
    let mut beside = artifact.as_os_str().to_owned();
    beside.push(".sha256");
    let mut output = Output::create(&PathBuf::from(beside))?;
    let line = [digest.as_bytes(), b"  ", name.as_encoded_bytes(), b"\n"].concat();
    output.file_mut().write_all(&line)?;
    output.publish()
}

/// Bytes as two digits each.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_well_known_digest() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(bytes(b"abc"), abc);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(file(&File::open(&path).unwrap()).unwrap(), abc);
        write_beside(&path, abc).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("abc.sha256")).unwrap(), format!("{abc}  abc\n"));
    }
}
