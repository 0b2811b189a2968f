//! A thin qcow2 disk over a raw one: what a container writes lands here, and the image's disk stays as it is.
//!
//! It writes the few structures of an empty image (qcow2 version 3, from QEMU's `docs/interop/qcow2.txt`) and never reads one.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Writes an overlay of `size` bytes over the raw disk `base`, which must be an absolute path of at most 1023 bytes.
pub fn write(file: &File, base: &Path, size: u64) -> io::Result<()> {
    let name = base.as_os_str().as_bytes();
    if name.len() > 1023 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path of the base disk is longer than 1023 bytes"));
    }
    // One L1 entry leads to a cluster of L2 entries, each of which leads to a cluster.
    let l1_entries = size.div_ceil(CLUSTER * (CLUSTER / 8));
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER).max(1);
    let clusters = L1_AT + l1_clusters;

    let name_at = (HEADER_WORDS + EXTENSION_WORDS) as u64 * 4;
    let header: [u32; HEADER_WORDS] = [
        MAGIC,
        3, // version
        high(name_at),
        low(name_at),
        low(name.len() as u64),
        CLUSTER.trailing_zeros(),
        high(size),
        low(size),
        0, // no encryption
        low(l1_entries),
        high(L1_AT * CLUSTER),
        low(L1_AT * CLUSTER),
        high(REFCOUNT_TABLE_AT * CLUSTER),
        low(REFCOUNT_TABLE_AT * CLUSTER),
        1, // clusters of the refcount table
        0, // no snapshots, nor a table of them
        0,
        0,
        0, // features, three times 64 bits: none that is incompatible, compatible or cleared on write
        0,
        0,
        0,
        0,
        0,
        REFCOUNT_ORDER,
        low(HEADER_WORDS as u64 * 4),
    ];
    // Without the backing format QEMU would guess, and a guest could write a header that makes it guess wrong.
    let extensions: [u32; EXTENSION_WORDS] =
        [BACKING_FORMAT, 3, u32::from_be_bytes(*b"raw\0"), 0, END_OF_EXTENSIONS, 0];
    let mut bytes: Vec<u8> = header.into_iter().chain(extensions).flat_map(u32::to_be_bytes).collect();
    bytes.extend_from_slice(name);

    file.set_len(clusters * CLUSTER)?;
    file.write_all_at(&bytes, 0)?;
    file.write_all_at(&(REFCOUNT_BLOCK_AT * CLUSTER).to_be_bytes(), REFCOUNT_TABLE_AT * CLUSTER)?;
    let counts: Vec<u8> = (0..clusters).flat_map(|_| 1u16.to_be_bytes()).collect();
    file.write_all_at(&counts, REFCOUNT_BLOCK_AT * CLUSTER)
}

#[allow(clippy::cast_possible_truncation)]
fn low(value: u64) -> u32 {
    value as u32
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}

const MAGIC: u32 = u32::from_be_bytes(*b"QFI\xfb");
const CLUSTER: u64 = 64 * 1024;
const HEADER_WORDS: usize = 26;
const EXTENSION_WORDS: usize = 6;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const END_OF_EXTENSIONS: u32 = 0;
/// Reference counts of 16 bits.
const REFCOUNT_ORDER: u32 = 4;
// Cluster 0 is the header's. One refcount block counts 32768 clusters, more than an empty image can have.
const REFCOUNT_TABLE_AT: u64 = 1;
const REFCOUNT_BLOCK_AT: u64 = 2;
const L1_AT: u64 = 3;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn qemu_img(args: &[&str], file: &Path) -> String {
        let output = Command::new("qemu-img").args(args).arg(file).output().expect("qemu-img (package qemu-utils)");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn qemu_img_finds_nothing_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let (base, top) = (dir.path().join("base, raw"), dir.path().join("top.qcow2"));
        for size in [1 << 20, 8 << 30, (5 << 40) + 512] {
            File::create(&base).unwrap().set_len(size).unwrap();
            std::fs::write(&base, "at the front").unwrap();
            File::options().write(true).open(&base).unwrap().set_len(size).unwrap();
            write(&File::create(&top).unwrap(), &base, size).unwrap();

            assert!(qemu_img(&["check"], &top).contains("No errors were found"));
            let info = qemu_img(&["info", "--output=json"], &top);
            let info: serde_json::Value = serde_json::from_str(&info).unwrap();
            assert_eq!(info["virtual-size"], size);
            assert_eq!(info["backing-filename"], base.to_str().unwrap());
            assert_eq!(info["backing-filename-format"], "raw");
            assert!(qemu_img(&["map"], &top).contains(base.to_str().unwrap()), "data comes from the base");
            assert!(std::fs::metadata(&top).unwrap().len() < 1 << 20);
        }
    }

    #[test]
    fn what_is_written_lands_in_the_overlay() {
        let dir = tempfile::tempdir().unwrap();
        let (base, top) = (dir.path().join("base"), dir.path().join("top"));
        std::fs::write(&base, vec![7; 1 << 20]).unwrap();
        write(&File::create(&top).unwrap(), &base, 1 << 20).unwrap();
        let commands = ["-f", "qcow2", "-c", "read -P 7 0 1M", "-c", "write -P 9 4k 4k", "-c", "read -P 9 4k 4k"];
        let output = Command::new("qemu-io").args(commands).arg(&top).output().expect("qemu-io (package qemu-utils)");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && !text.contains("failed"), "{text}");
        assert!(std::fs::read(&base).unwrap().iter().all(|&byte| byte == 7));
        qemu_img(&["check"], &top);
    }
}
