//! What kind of image some bytes are, by what stands at their beginning; names are not asked.

use std::io::{self, Read};

use crate::tree::ReadAt;

/// What can be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Iso,
    Cpio,
    Ext4,
    Vmdk,
    /// An archive, compressed or not: only a container image is one.
    Tar,
    /// A disk with a GPT or MBR.
    Partitions,
}

/// `None` is what nobody here can read.
pub(super) fn kind(image: &dyn ReadAt) -> io::Result<Option<Kind>> {
    let size = image.size()?;
    let mut start = vec![0; usize::try_from(size.min(START)).expect("it is far less than the memory")];
    image.read_exact_at(&mut start, 0)?;
    let mut volume = [0; 5];
    // A hybrid ISO has a partition table too, and is first of all an ISO.
    if size >= 0x8006 {
        image.read_exact_at(&mut volume, 0x8001)?;
    }
    Ok(if &volume == b"CD001" { Some(Kind::Iso) } else { by_start(&start) })
}

fn by_start(start: &[u8]) -> Option<Kind> {
    let has = |at: usize, magic: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(magic));
    // Archives may have zeros before them, but not others: then it would be anything.
    if has(0, b"070701") || has(0, b"070702") || has(0, b"070707") {
        return Some(Kind::Cpio);
    }
    if has(0, b"KDMV") || has(0, b"# Disk DescriptorFile") {
        return Some(Kind::Vmdk);
    }
    if has(1024 + 56, &[0x53, 0xef]) {
        return Some(Kind::Ext4);
    }
    if has(512, b"EFI PART") || (has(510, &[0x55, 0xaa]) && start[446..510].chunks(16).any(|entry| entry[4] != 0)) {
        return Some(Kind::Partitions);
    }
    if has(257, b"ustar") {
        return Some(Kind::Tar);
    }
    match unpacked(start)? {
        inside if inside.starts_with(b"0707") => Some(Kind::Cpio),
        inside if inside.get(257..262) == Some(b"ustar") => Some(Kind::Tar),
        _ => None,
    }
}

/// The first bytes of what is compressed; a stream that is cut off, as `start` cuts it, gives what it can.
fn unpacked(start: &[u8]) -> Option<Vec<u8>> {
    let mut decoder: Box<dyn Read + '_> = match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(start)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(start).ok()?),
        // xz, lzma, bzip2, lz4, lzo: the reader of an initramfs knows them by name, to say that it does not read them.
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] | [0x02, 0x21, 0x4c, 0x18, ..] => return Some(b"070701".to_vec()),
        _ => return None,
    };
    let mut inside = vec![0; 512];
    let mut len = 0;
    while let Some(read) = decoder.read(&mut inside[len..]).ok().filter(|read| *read > 0) {
        len += read;
    }
    inside.truncate(len);
    Some(inside)
}

/// Enough for the first block of what zstd compresses: without the whole block, nothing of it is known (RFC 8878, 3.1.1.2.4: 128 KiB).
const START: u64 = 160 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn with(at: usize, magic: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        bytes
    }

    #[test]
    fn each_is_known_by_its_magic() {
        let mut mbr = with(510, &[0x55, 0xaa]);
        assert_eq!(by_start(&mbr), None, "a boot sector without partitions");
        mbr[450] = 0x83;
        for (bytes, kind) in [
            (with(0, b"070701"), Some(Kind::Cpio)),
            (gzip(b"070701000"), Some(Kind::Cpio)),
            (zstd::encode_all(&b"070701000"[..], 3).unwrap(), Some(Kind::Cpio)),
            (with(0, b"KDMV"), Some(Kind::Vmdk)),
            (b"# Disk DescriptorFile\n".to_vec(), Some(Kind::Vmdk)),
            (with(1080, &[0x53, 0xef]), Some(Kind::Ext4)),
            (with(512, b"EFI PART"), Some(Kind::Partitions)),
            (mbr, Some(Kind::Partitions)),
            (with(257, b"ustar\0"), Some(Kind::Tar)),
            (gzip(&with(257, b"ustar\0")), Some(Kind::Tar)),
            (gzip(b"something else"), None),
            (vec![0x1f, 0x8b], None),
            (Vec::new(), None),
        ] {
            assert_eq!(by_start(&bytes), kind, "{:?}", bytes.escape_ascii().to_string().get(..40));
        }
    }
}
