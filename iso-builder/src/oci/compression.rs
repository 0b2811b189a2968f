//! How a stream is compressed, told by its first bytes; media types and file names are not asked.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// What the first bytes of a stream say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
    /// Known by name, not read.
    Unsupported(&'static str),
}

impl Compression {
    pub(super) fn sniff(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame may come before the first zstd frame.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Unsupported("xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => Compression::Unsupported("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Compression::Unsupported("lz4"),
            _ => Compression::None,
        }
    }
}

/// A decompressor that gives its source back for a last look.
pub(super) enum Decoder<R: Read> {
    None(R),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    Zstd(Box<zstd::Decoder<'static, BufReader<R>>>),
}

impl<R: Read> Decoder<R> {
    pub(super) fn new(compression: Compression, source: R) -> io::Result<Decoder<R>> {
        let buffered = |source| BufReader::with_capacity(BUFFER, source);
        match compression {
            Compression::None => Ok(Decoder::None(source)),
            Compression::Gzip => Ok(Decoder::Gzip(Box::new(MultiGzDecoder::new(buffered(source))))),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(buffered(source))?;
                decoder.window_log_max(WINDOW_LOG)?;
                Ok(Decoder::Zstd(Box::new(decoder)))
            }
            Compression::Unsupported(name) => {
                let text = format!("compressed with {name}, which is not read: use gzip, zstd or none");
                Err(io::Error::new(io::ErrorKind::Unsupported, text))
            }
        }
    }

    pub(super) fn source_mut(&mut self) -> &mut R {
        match self {
            Decoder::None(source) => source,
            Decoder::Gzip(decoder) => decoder.get_mut().get_mut(),
            Decoder::Zstd(decoder) => decoder.get_mut().get_mut(),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::None(source) => source.read(buf),
            Decoder::Gzip(decoder) => decoder.read(buf),
            Decoder::Zstd(decoder) => decoder.read(buf).map_err(|error| match error.to_string().contains(TOO_LARGE) {
                true => io::Error::new(error.kind(), "its zstd window is larger than 128 MiB, the limit"),
                false => error,
            }),
        }
    }
}

/// The logarithm of the most memory that a zstd stream may ask for: what `zstd --ultra -22` and `--long` use, and no more.
const WINDOW_LOG: u32 = 27;

/// How the library words that a stream asks for more.
const TOO_LARGE: &str = "too much memory";

/// Bytes asked of a file at once; larger reads measured no faster.
const BUFFER: usize = 128 << 10;
