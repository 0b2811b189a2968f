//! What must hold for any bytes at all that are given for an image: nothing panics, and nothing is read for ever. Each says whether the image could be read. The fuzz targets call these functions, and so does `iso-builder/tests/seeds.rs` in every
//! test run.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use iso_builder::oci::{self, Reference};
use iso_builder::tree::{Kind, ReadAt, Tree};
use iso_builder::vmdk::{self, Raw};
use iso_builder::{cpio, digest, ext4, iso9660};

/// An image in memory.
#[derive(Debug)]
struct Memory(Vec<u8>);

impl ReadAt for Memory {
    fn read_exact_at(&self, buf: &mut [u8], from: u64) -> io::Result<()> {
        let start = usize::try_from(from).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(self.0.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

/// Bytes of an image at most.
const LARGEST: usize = 8 << 20;

/// An image out of records: 3 bytes of place, one of length, and what is there. Images are mostly zeros, and nothing is found by changing those.
pub fn image(mut records: &[u8]) -> Vec<u8> {
    let mut image = Vec::new();
    while let [a, b, c, length, rest @ ..] = records {
        let at = u32::from_le_bytes([*a, *b, *c, 0]) as usize % (LARGEST + 1);
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        if image.len() < at + bytes.len() {
            image.resize((at + bytes.len()).next_multiple_of(4096), 0);
        }
        image[at..at + bytes.len()].copy_from_slice(bytes);
        records = rest;
    }
    image
}

/// The records of an image; the last, of no bytes, is its end.
#[allow(dead_code, reason = "seeds are made by the tests")]
pub fn records(image: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    for (number, piece) in image.chunks(64).enumerate() {
        let (Some(first), Some(last)) = (piece.iter().position(|&b| b != 0), piece.iter().rposition(|&b| b != 0))
        else {
            continue;
        };
        records.extend(&(u32::try_from(number * 64 + first).unwrap().to_le_bytes())[..3]);
        records.push(u8::try_from(last + 1 - first).unwrap());
        records.extend(&piece[first..=last]);
    }
    records.extend(&(u32::try_from(image.len().min(LARGEST)).unwrap().to_le_bytes())[..3]);
    records.push(0);
    records
}

/// Every file that a tree names can be read, or is an error.
fn walk(tree: &Tree) -> bool {
    for id in tree.reachable() {
        if let Kind::File(content) = &tree.node(id).kind {
            let mut buf = vec![0; usize::try_from(content.size.min(8192)).unwrap()];
            let end = content.size - buf.len() as u64;
            for at in [0, end] {
                drop(content.read_exact_at(&mut buf, at));
            }
        }
    }
    true
}

fn in_memory(image: Vec<u8>) -> Arc<dyn ReadAt> {
    Arc::new(Memory(image))
}

pub fn ext4(bytes: &[u8]) -> bool {
    ext4::read(&in_memory(image(bytes))).is_ok_and(|tree| walk(&tree))
}

pub fn iso(bytes: &[u8]) -> bool {
    iso9660::read(&in_memory(image(bytes))).is_ok_and(|tree| walk(&tree))
}

pub fn cpio(bytes: &[u8]) -> bool {
    cpio::read(&in_memory(bytes.to_vec())).is_ok_and(|tree| walk(&tree))
}

/// A disk whose descriptor, or whose extent, is any bytes; nothing but itself lies beside it.
pub fn vmdk(bytes: &[u8]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.vmdk");
    let bytes = if bytes.starts_with(b"#") { bytes.to_vec() } else { image(bytes) };
    fs::write(&path, bytes).unwrap();
    drop(vmdk::dump(&fs::File::open(&path).unwrap()));
    let Ok(disk) = vmdk::Stored::open(&path) else { return false };
    let mut at = 0;
    for _ in 0..64 {
        let Ok(Some(next)) = disk.next_data(at) else { break };
        assert!(next >= at && next < disk.size(), "{at} {next}");
        drop(disk.fill(&mut vec![0; 100_000], next));
        at = next + 65_536;
    }
    true
}

/// Where a block is dressed as a tar header, its checksum made right: nobody guesses one, and so nothing behind it would be reached.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        let said = String::from_utf8_lossy(&block[148..156]).trim_matches(['\0', ' ']).to_owned();
        let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        let sum = sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..]);
        // one that is right stays as it is written: it has a part in the digest of its layer
        if u32::from_str_radix(&said, 8) != Ok(sum) {
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}

/// `docker save` of any bytes.
pub fn archive(bytes: &[u8]) -> bool {
    let bytes = sealed(bytes);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    fs::write(&path, bytes).unwrap();
    let saved = unpack(&Reference::DockerArchive { path: path.clone(), name: None }, dir.path());
    unpack(&Reference::Oci { path, tag: None }, dir.path()) || saved
}

/// An OCI layout in which any bytes are in turn the index, the manifest and the config.
pub fn document(bytes: &[u8]) -> bool {
    let mut read = false;
    for place in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let layer = blob(dir.path(), LAYER, &[0; 1024]);
        let config = match place {
            2 => blob(dir.path(), CONFIG, bytes),
            _ => blob(dir.path(), CONFIG, config(&[digest::bytes(&[0; 1024])]).as_bytes()),
        };
        layout(dir.path(), (place == 1).then_some(bytes), &config, &[layer]);
        if place == 0 {
            fs::write(dir.path().join("index.json"), bytes).unwrap();
        }
        read |= unpack(&Reference::Oci { path: dir.path().to_owned(), tag: None }, dir.path());
    }
    read
}

/// An image of two layers of the same bytes: what a layer does is done to what it did.
pub fn tar(bytes: &[u8]) -> bool {
    let bytes = &sealed(bytes);
    let dir = tempfile::tempdir().unwrap();
    let layer = blob(dir.path(), LAYER, bytes);
    let id = digest::bytes(bytes);
    let config = blob(dir.path(), CONFIG, config(&[id.clone(), id]).as_bytes());
    layout(dir.path(), None, &config, &[layer.clone(), layer]);
    unpack(&Reference::Oci { path: dir.path().to_owned(), tag: None }, dir.path())
}

/// Layers that are any bytes, said to be packed in each way that there is. That what they unpack to has another digest is only seen at their end.
pub fn packed(bytes: &[u8]) -> bool {
    let mut read = false;
    for way in ["+gzip", "+zstd"] {
        let dir = tempfile::tempdir().unwrap();
        let layer = blob(dir.path(), &format!("{LAYER}{way}"), bytes);
        let config = blob(dir.path(), CONFIG, config(&[digest::bytes(b"")]).as_bytes());
        layout(dir.path(), None, &config, &[layer]);
        read |= unpack(&Reference::Oci { path: dir.path().to_owned(), tag: None }, dir.path());
    }
    read
}

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Stores a blob; its descriptor is the result.
fn blob(dir: &Path, kind: &str, bytes: &[u8]) -> String {
    let digest = digest::bytes(bytes);
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    fs::write(dir.join("blobs/sha256").join(&digest), bytes).unwrap();
    format!(r#"{{"mediaType":"{kind}","digest":"sha256:{digest}","size":{}}}"#, bytes.len())
}

fn config(layers: &[String]) -> String {
    let ids: Vec<String> = layers.iter().map(|id| format!(r#""sha256:{id}""#)).collect();
    let ids = ids.join(",");
    format!(r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#)
}

/// What leads from a directory to an image; the manifest may be other bytes.
fn layout(dir: &Path, manifest: Option<&[u8]>, config: &str, layers: &[String]) {
    let layers = layers.join(",");
    let written = format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{layers}]}}"#);
    let manifest = blob(dir, MANIFEST, manifest.unwrap_or(written.as_bytes()));
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(dir.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{manifest}]}}"#)).unwrap();
}

fn unpack(reference: &Reference, spool: &Path) -> bool {
    let tree = oci::open(reference, spool).and_then(|image| image.flatten(spool, &mut |_| {}));
    tree.is_ok_and(|tree| walk(&tree))
}
