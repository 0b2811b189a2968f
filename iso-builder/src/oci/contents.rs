//! What the files of one layer hold, named by their places in its tar.
//!
//! The tar of a layer that is not compressed lies in a file, where any byte is at hand. That of a compressed one is had in order only, which is how a writer
//! should ask for it; when somebody asks for a place nevertheless, it is unpacked once into an unlinked file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::compression::{Compression, Decoder};
use super::section::{Section, SectionReader};
use super::spool::{Spool, SpoolError};
use crate::scan::{Scan, Scans};
use crate::tree::ReadAt;

/// The tar of a layer.
#[derive(Debug)]
pub(super) struct Contents {
    blob: Section,
    compression: Compression,
    /// Where a compressed tar goes if it must.
    spool: Option<Mutex<Unpacked>>,
    /// What the files hold, once they have passed by; by where their stored bytes start.
    scans: OnceLock<Scans>,
}

#[derive(Debug)]
enum Unpacked {
    Not(Spool),
    Whole(File),
    /// An earlier attempt failed half-way.
    Failed,
}

impl Contents {
    pub(super) fn new(blob: Section, compression: Compression, spool: &Path) -> Result<Contents, SpoolError> {
        let spool = match compression {
            Compression::None => None,
            _ => Some(Mutex::new(Unpacked::Not(Spool::create(spool)?))),
        };
        Ok(Contents { blob, compression, spool, scans: OnceLock::new() })
    }

    pub(super) fn learn(&self, scans: Scans) {
        // a layer is read once
        self.scans.set(scans).ok();
    }

    fn decoder(&self) -> io::Result<Decoder<SectionReader>> {
        Decoder::new(self.compression, self.blob.reader())
    }

    /// Unpacks everything into `spool`.
    fn unpack(&self, mut spool: Spool) -> io::Result<File> {
        let mut decoder = self.decoder()?;
        let mut chunk = vec![0; 256 << 10];
        loop {
            match decoder.read(&mut chunk) {
                Ok(0) => break,
                Ok(len) => spool.append(&chunk[..len]).map_err(io::Error::other)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        spool.flush().map_err(io::Error::other)?;
        spool.file().try_clone()
    }
}

impl ReadAt for Contents {
    fn read_exact_at(&self, buf: &mut [u8], from: u64) -> io::Result<()> {
        let Some(spool) = &self.spool else {
            if from.checked_add(buf.len() as u64).is_none_or(|end| end > self.blob.len) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            return FileExt::read_exact_at(&*self.blob.file, buf, self.blob.start + from);
        };
        let mut unpacked = spool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Unpacked::Not(_) = &*unpacked
            && let Unpacked::Not(spool) = std::mem::replace(&mut *unpacked, Unpacked::Failed)
        {
            *unpacked = Unpacked::Whole(self.unpack(spool)?);
        }
        match &*unpacked {
            Unpacked::Whole(file) => FileExt::read_exact_at(file, buf, from),
            _ => Err(io::Error::other("the layer could not be unpacked")),
        }
    }

    /// Of the tar, as far as it is known without unpacking it.
    fn size(&self) -> io::Result<u64> {
        match self.spool {
            None => Ok(self.blob.len),
            Some(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "a compressed layer does not tell its size")),
        }
    }

    fn in_order(&self) -> Option<io::Result<Box<dyn Read + Send>>> {
        self.spool.as_ref()?;
        Some(self.decoder().map(|decoder| Box::new(decoder) as Box<dyn Read + Send>))
    }

    fn known(&self, from: u64) -> Option<Scan> {
        self.scans.get()?.get(from)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A layer in an archive has neighbours, which are no part of it.
    #[test]
    fn nothing_beyond_a_layer_is_read() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before|layer|behind").unwrap();
        let blob = Section { file: file.into(), start: 7, len: 5 };
        let contents = Contents::new(blob, Compression::None, Path::new("/nonexistent")).unwrap();
        let mut bytes = [0; 5];
        contents.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!((&bytes, contents.size().unwrap()), (b"layer", 5));
        for from in [1, 5, u64::MAX] {
            let error = contents.read_exact_at(&mut bytes, from).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
