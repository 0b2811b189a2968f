//! What a kernel's file says about itself: its version, its sizes, and the options that it was built with where it carries them (CONFIG_IKCONFIG).
//!
//! The header is that of the kernel's Documentation/arch/x86/boot.rst. The rest of the file is packed in one of many ways; gzip, LZ4 and Zstandard are
//! unpacked here, of the others the name is told. The file is somebody else's: sizes in it bound nothing but themselves.

use std::io::{self, Read};

use flate2::read::GzDecoder;
use memchr::memmem;

/// A bzImage in memory.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    bytes: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Image<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Image<'a>, &'static str> {
        if bytes.get(0x202..0x206) != Some(b"HdrS") {
            return Err("it is no x86 kernel (bzImage)");
        }
        // setup_sects says 0 where it means 4; the boot sector is not among them.
        let setup = (usize::from(bytes[0x1f1]).max(1) + if bytes[0x1f1] == 0 { 3 } else { 0 } + 1) * 512;
        let start = word(bytes, 0x248).and_then(|offset| setup.checked_add(offset));
        let end = start.zip(word(bytes, 0x24c)).and_then(|(start, len)| start.checked_add(len));
        let payload = start.zip(end).and_then(|(start, end)| bytes.get(start..end));
        match payload {
            Some(payload) if payload.len() > 4 => Ok(Image { bytes, payload }),
            _ => Err("its header says that the packed kernel lies outside the file"),
        }
    }

    /// As in `6.12.85-tether (tether@iso-builder) #1 SMP …`.
    pub fn version(&self) -> String {
        let at = u16::from_le_bytes([self.bytes[0x20e], self.bytes[0x20f]]);
        let text = self.bytes.get(usize::from(at) + 0x200..).filter(|_| at != 0).unwrap_or_default();
        let text = &text[..text.iter().take(256).position(|byte| *byte == 0).unwrap_or(0)];
        String::from_utf8_lossy(text).into_owned()
    }

    /// Bytes of the kernel when it is unpacked, as the file says.
    pub fn unpacked_size(&self) -> u32 {
        u32::from_le_bytes(self.payload[self.payload.len() - 4..].try_into().expect("4 bytes"))
    }

    /// How it is packed.
    pub fn packing(&self) -> &'static str {
        let known = PACKINGS.iter().find(|(magic, _)| self.payload.starts_with(magic));
        known.map_or("an unknown way", |(_, name)| name)
    }

    /// The options that the kernel carries, as a `.config`; an error says why they cannot be had.
    pub fn config(&self) -> Result<String, String> {
        let kernel = self.unpack()?;
        let start = memmem::find(&kernel, b"IKCFG_ST").ok_or("it is built without CONFIG_IKCONFIG")? + 8;
        let mut text = String::new();
        let read = GzDecoder::new(&kernel[start..]).take(MAX_CONFIG).read_to_string(&mut text);
        read.map_err(|error| format!("its options at offset {start} of the unpacked kernel cannot be read: {error}"))?;
        Ok(text)
    }

    fn unpack(&self) -> Result<Vec<u8>, String> {
        let mut kernel = Vec::new();
        let unpacked = match self.packing() {
            GZIP => GzDecoder::new(self.payload).take(MAX_KERNEL).read_to_end(&mut kernel),
            ZSTD => zstd::Decoder::new(self.payload)
                .and_then(|decoder| decoder.single_frame().take(MAX_KERNEL).read_to_end(&mut kernel)),
            LZ4 => lz4(&self.payload[4..self.payload.len() - 4], &mut kernel).map(|()| kernel.len()),
            other => return Err(format!("it is packed in {other}, which is not unpacked here")),
        };
        unpacked.map_err(|error| format!("it cannot be unpacked from {}: {error}", self.packing()))?;
        Ok(kernel)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().expect("4 bytes"));
    usize::try_from(word).ok()
}

/// Blocks of at most 8 MiB, each with its size before it: LZ4's legacy frame, after its magic.
fn lz4(mut packed: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    while let Some(size) = word(packed, 0) {
        let block = packed.get(4..4_usize.saturating_add(size)).ok_or_else(|| bad("a block ends beyond the file"))?;
        lz4_block(block, out)?;
        packed = &packed[4 + size..];
    }
    Ok(())
}

/// Sequences of literals and a match in what is unpacked already (lz4_Block_format.md); matches do not reach before the block.
fn lz4_block(block: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let begin = out.len();
    let mut input = block.iter().copied();
    let mut next = || input.next().ok_or_else(|| bad("a block ends within a sequence"));
    loop {
        let token = next()?;
        let literals = length(token >> 4, &mut next)?;
        for _ in 0..literals {
            out.push(next()?);
        }
        // The last sequence is literals alone.
        let Ok(low) = next() else { return Ok(()) };
        let distance = usize::from(u16::from_le_bytes([low, next()?]));
        let len = length(token & 15, &mut next)? + 4;
        if distance == 0 || distance > out.len() - begin || out.len() as u64 > MAX_KERNEL {
            return Err(bad("a match lies outside the block"));
        }
        for _ in 0..len {
            out.push(out[out.len() - distance]);
        }
    }
}

/// 15 goes on in bytes, of which 255 goes on.
fn length(first: u8, next: &mut impl FnMut() -> io::Result<u8>) -> io::Result<usize> {
    let mut length = usize::from(first);
    let mut last = if first == 15 { 255 } else { first };
    while last == 255 {
        last = next()?;
        length += usize::from(last);
        if length as u64 > MAX_KERNEL {
            return Err(bad("a length has no end"));
        }
    }
    Ok(length)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const GZIP: &str = "gzip";
const ZSTD: &str = "Zstandard";
const LZ4: &str = "LZ4";

/// What packed kernels begin with.
const PACKINGS: &[(&[u8], &str)] = &[
    (b"\x1f\x8b", GZIP),
    (b"\x28\xb5\x2f\xfd", ZSTD),
    (b"\x02\x21\x4c\x18", LZ4),
    (b"\xfd7zXZ", "XZ"),
    (b"BZh", "bzip2"),
    (b"\x5d\0\0", "LZMA"),
    (b"\x89LZO", "LZO"),
];

/// Distributions' kernels have some 60 MB.
const MAX_KERNEL: u64 = 256 << 20;

/// A configuration has some 300 KB.
const MAX_CONFIG: u64 = 4 << 20;

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A kernel with that configuration, packed by `pack`.
    pub(crate) fn kernel(config: &str, pack: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let kernel = [b"code IKCFG_ST", &gzip(config.as_bytes())[..], b"IKCFG_ED more code"].concat();
        let mut payload = pack(&kernel);
        payload.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
        let mut bytes = vec![0; 1024];
        bytes[0x1f1] = 1;
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e] = 0x90;
        bytes[0x290..0x296].copy_from_slice(b"6.12.3");
        bytes[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        bytes.extend(payload);
        bytes
    }

    /// Literals alone.
    fn lz4_of(bytes: &[u8]) -> Vec<u8> {
        let mut block = vec![0xf0];
        block.extend(vec![255; (bytes.len() - 15) / 255]);
        block.push(u8::try_from((bytes.len() - 15) % 255).unwrap());
        block.extend(bytes);
        let size = u32::try_from(block.len()).unwrap().to_le_bytes();
        [b"\x02\x21\x4c\x18", &size[..], &block].concat()
    }

    pub(crate) fn packed_by_gzip(config: &str) -> Vec<u8> {
        kernel(config, gzip)
    }

    #[test]
    fn options_are_found_however_the_kernel_is_packed() {
        let config = "CONFIG_A=y\n".repeat(100);
        for (name, bytes) in [
            (GZIP, kernel(&config, gzip)),
            (ZSTD, kernel(&config, |bytes| zstd::encode_all(bytes, 1).unwrap())),
            (LZ4, kernel(&config, lz4_of)),
        ] {
            let image = Image::parse(&bytes).unwrap();
            assert_eq!((image.packing(), image.version().as_str()), (name, "6.12.3"));
            assert_eq!(image.config().unwrap(), config, "{name}");
        }
    }

    #[test]
    fn lz4_repeats_what_was_there() {
        let mut out = b"before".to_vec();
        // 3 literals, a match of 4+15+2 from 3 back; then 1 literal
        lz4_block(b"\x3fabc\x03\x00\x02\x10d", &mut out).unwrap();
        assert_eq!(out, b"beforeabcabcabcabcabcabcabcabcd");
        for broken in [&b"\x10a\x02\x00"[..], b"\x00\x01\x00", b"\xf0\xff", b"", b"\x10a\x00\x00"] {
            assert!(lz4_block(broken, &mut out).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_told() {
        let without = kernel("", |_| gzip(b"a kernel without options"));
        assert_eq!(Image::parse(&without).unwrap().config().unwrap_err(), "it is built without CONFIG_IKCONFIG");
        let xz = kernel("", |_| b"\xfd7zXZ and so on".to_vec());
        assert!(Image::parse(&xz).unwrap().config().unwrap_err().contains("packed in XZ"));
        let mut beyond = kernel("", gzip);
        beyond[0x24f] = 0xff;
        assert!(Image::parse(&beyond).is_err());
        assert!(Image::parse(b"MZ").is_err());
    }
}
