//! Raw images to store, and QEMU's tools to judge.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use iso_builder::tree::ReadAt;

pub(crate) const GRAIN: u64 = 64 << 10;

/// Bytes at offsets.
pub(crate) type Parts<'a> = &'a [(u64, &'a [u8])];

/// A raw image of `size` bytes with `parts` in it.
pub(crate) fn raw(path: &Path, size: u64, parts: Parts) -> File {
    let file = File::create_new(path).unwrap();
    file.set_len(size).unwrap();
    parts.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
    File::open(path).unwrap()
}

/// Runs `qemu-img`. Where it is not installed the judgement is left out, except under CI.
pub(crate) fn qemu_img(arguments: &[&str], files: &[&Path]) -> bool {
    match Command::new("qemu-img").args(arguments).args(files).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "qemu-img {arguments:?}: {text}");
            true
        }
        Err(error) if error.kind() == ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
            eprintln!("skipped: qemu-img is not installed");
            false
        }
        Err(error) => panic!("qemu-img: {error}"),
    }
}

/// Numbers that look random and are the same each time.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    pub(crate) fn bytes(&mut self, length: u64) -> Vec<u8> {
        // one in four compresses to nothing, so that grains of every length come up
        let mask = if self.below(4) == 0 { 0 } else { 0xff };
        let words = (0..length.div_ceil(8)).flat_map(|_| self.below(u64::MAX).to_le_bytes());
        words.take(to_usize(length)).map(|byte| byte & mask | 1).collect()
    }
}

/// A raw image like no other: runs of bytes and of zeros that begin and end at, before and behind the edges of sectors, grains and tables.
pub(crate) fn any_raw(path: &Path, numbers: &mut Numbers) -> u64 {
    const TABLE: u64 = 512 * GRAIN;
    let near = |numbers: &mut Numbers, unit: u64, size: u64| {
        let edge = numbers.below(size / unit + 1) * unit;
        (edge + [0, 1, 511, 512, 513][to_usize(numbers.below(5))]).saturating_sub(numbers.below(2) * 512)
    };
    let size = [3 * GRAIN, 7 * GRAIN + 512, TABLE - 512, TABLE, TABLE + 512, 2 * TABLE + 5 * GRAIN];
    let size = size[to_usize(numbers.below(6))];
    let file = raw(path, size, &[]);
    for _ in 0..numbers.below(12) {
        let unit = [512, GRAIN, TABLE][to_usize(numbers.below(3))];
        let at = near(numbers, unit, size).min(size - 1);
        let unit = [512, GRAIN][to_usize(numbers.below(2))];
        let length = near(numbers, unit, 3 * GRAIN).clamp(1, size - at);
        let bytes = if numbers.below(4) == 0 { vec![0; to_usize(length)] } else { numbers.bytes(length) };
        File::options().write(true).open(path).unwrap().write_all_at(&bytes, at).unwrap();
    }
    drop(file);
    size
}

/// Panics where the disk is not the raw image. Reads in pieces of a size that fits no edge.
pub(crate) fn same(disk: &dyn ReadAt, raw: &Path) {
    let raw = File::open(raw).unwrap();
    let size = raw.metadata().unwrap().len();
    assert_eq!(disk.size().unwrap(), size.next_multiple_of(512));
    let mut at = 0;
    while at < size {
        let length = to_usize((size - at).min(200_003));
        let (mut ours, mut theirs) = (vec![1; length], vec![2; length]);
        disk.read_exact_at(&mut ours, at).unwrap();
        FileExt::read_exact_at(&raw, &mut theirs, at).unwrap();
        assert!(ours == theirs, "between {at} and {}", at + length as u64);
        at += length as u64;
    }
    let error = disk.read_exact_at(&mut [0; 2], disk.size().unwrap() - 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

pub(crate) fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap()
}
