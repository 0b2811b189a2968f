//! A file of an image as a source of bytes of its own, and its way to where somebody wants it.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::tree::{Content, ReadAt};

/// What a file holds, to be read as an image.
pub(crate) fn image_of(content: Content) -> Arc<dyn ReadAt> {
    Arc::new(Inner(content))
}

#[derive(Debug)]
struct Inner(Content);

impl ReadAt for Inner {
    fn read_exact_at(&self, buf: &mut [u8], from: u64) -> io::Result<()> {
        match from.checked_add(buf.len() as u64).is_some_and(|end| end <= self.0.size) {
            true => self.0.read_exact_at(buf, from),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.size)
    }
}

/// `len` bytes of an image from `start` on, as a partition is.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) image: Arc<dyn ReadAt>,
    pub(super) start: u64,
    pub(super) len: u64,
}

impl ReadAt for Window {
    fn read_exact_at(&self, buf: &mut [u8], from: u64) -> io::Result<()> {
        match from.checked_add(buf.len() as u64).is_some_and(|end| end <= self.len) {
            true => self.image.read_exact_at(buf, self.start + from),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len)
    }
}

/// An image on its own, for readers that want a path.
pub(super) struct TakenOut {
    dir: tempfile::TempDir,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[error("{}", dir.display())]
pub struct Error {
    dir: PathBuf,
    source: io::Error,
}

impl TakenOut {
    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join(NAME)
    }
}

/// Copies an image to a directory below `spool` where nothing else is, so that it can name no other file. Zeros become holes. It is gone when the last
/// reader closes it.
pub(super) fn taken_out(image: &Arc<dyn ReadAt>, spool: &Path) -> Result<TakenOut, Error> {
    let copied = || {
        let dir = tempfile::tempdir_in(spool)?;
        let file = File::create_new(dir.path().join(NAME))?;
        let (size, mut buf, mut at) = (image.size()?, vec![0; CHUNK], 0);
        file.set_len(size)?;
        while at < size {
            let len = usize::try_from((size - at).min(CHUNK as u64)).expect("at most the buffer's length");
            image.read_exact_at(&mut buf[..len], at)?;
            if buf[..len].iter().any(|byte| *byte != 0) {
                FileExt::write_all_at(&file, &buf[..len], at)?;
            }
            at += len as u64;
        }
        Ok(TakenOut { dir })
    };
    copied().map_err(|source| Error { dir: spool.to_owned(), source })
}

/// Writes what a file holds. Where `sparse` is given, a file that `out` ends in, holes are left holes: it stands where the content is to begin, and what
/// lies behind it is gone.
pub fn copy(content: &Content, out: &mut dyn Write, sparse: Option<&File>) -> io::Result<()> {
    let mut buf = vec![0; CHUNK];
    let mut at = 0;
    let begin = match sparse {
        Some(mut file) => file.stream_position()?,
        None => 0,
    };
    for extent in &content.extents {
        match sparse {
            Some(mut file) => {
                file.seek(SeekFrom::Start(begin + extent.at))?;
            }
            None => zeros(extent.at - at, &mut buf, out)?,
        }
        let end = extent.at + extent.len;
        at = extent.at;
        while at < end {
            let len = usize::try_from((end - at).min(CHUNK as u64)).expect("at most the buffer's length");
            extent.source.read_exact_at(&mut buf[..len], extent.from + (at - extent.at))?;
            out.write_all(&buf[..len])?;
            at += len as u64;
        }
    }
    match sparse {
        Some(mut file) => {
            file.set_len(begin + content.size)?;
            file.seek(SeekFrom::Start(begin + content.size))?;
            Ok(())
        }
        None => zeros(content.size - at, &mut buf, out),
    }
}

fn zeros(mut count: u64, buf: &mut [u8], out: &mut dyn Write) -> io::Result<()> {
    buf.fill(0);
    while count > 0 {
        let len = usize::try_from(count.min(buf.len() as u64)).expect("at most the buffer's length");
        out.write_all(&buf[..len])?;
        count -= len as u64;
    }
    Ok(())
}

/// Of the only file in its directory.
const NAME: &str = "image";

/// Bytes moved at once.
const CHUNK: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::tree::{Extent, Source};

    fn holey() -> Content {
        let part =
            |at, bytes: &[u8]| Extent { at, len: bytes.len() as u64, source: Source::Memory(bytes.into()), from: 0 };
        Content { size: 3 << 20, extents: vec![part(5, b"first"), part(1 << 20, b"second")].into() }
    }

    #[test]
    fn holes_are_zeros_in_a_pipe_and_holes_in_a_file() {
        let mut piped = Vec::new();
        copy(&holey(), &mut piped, None).unwrap();
        assert_eq!(piped.len(), 3 << 20);
        assert_eq!(&piped[..12], b"\0\0\0\0\0first\0\0");
        assert_eq!(&piped[1 << 20..][..7], b"second\0");

        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before").unwrap();
        let end = file.try_clone().unwrap();
        copy(&holey(), &mut file, Some(&end)).unwrap();
        file.write_all(b"after").unwrap();
        let mut copied = vec![0; (3 << 20) + 11];
        ReadAt::read_exact_at(&file, &mut copied, 0).unwrap();
        assert_eq!(copied, [b"before", &piped[..], b"after"].concat());
        let stored = file.metadata().unwrap().blocks() * 512;
        let alone = tempfile::tempfile().unwrap();
        copy(&holey(), &mut &alone, Some(&alone)).unwrap();
        assert_eq!(alone.metadata().unwrap().len(), 3 << 20, "it ends in a hole");
        assert!(stored < 1 << 20, "{stored} bytes are stored of 3 MiB that are mostly holes");
    }

    #[test]
    fn a_window_ends_where_it_ends() {
        let whole = image_of(Content::from_bytes(*b"0123456789"));
        let window = Window { image: whole, start: 2, len: 5 };
        let mut buf = [0; 3];
        window.read_exact_at(&mut buf, 2).unwrap();
        assert_eq!(&buf, b"456");
        assert!(window.read_exact_at(&mut buf, 3).is_err());
        assert!(window.read_exact_at(&mut buf, u64::MAX).is_err());
    }
}
