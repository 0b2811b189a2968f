//! One inode as the 256 bytes of an inode table.
//!
//! Decides how times, owners and device numbers are packed. All four times of an inode are its mtime: a tree knows no
//! other, and the clock is not asked.

use super::format::{Checksum, INODE_SIZE, get_u16, get_u32, high16, high32, low16, low32, put_u16, put_u32};
use crate::tree::Time;

/// Bytes of fields behind the 128 of ext2: up to and including the project id.
pub(super) const EXTRA_SIZE: u16 = 32;

/// Bytes of an inode of ext2.
const LEAST_SIZE: usize = 128;

/// Where xattrs start in an inode.
pub(super) const BODY: usize = 128 + 32;

/// `i_block` holds an extent tree.
pub(super) const EXTENTS: u32 = 0x8_0000;
/// The directory has an index.
pub(super) const INDEXED: u32 = 0x1000;

/// First and last second that fit: 32 bits with sign and 2 bits of epoch, 1901 to 2446.
const TIMES: std::ops::RangeInclusive<i64> = -(1 << 31)..=(1 << 34) - (1 << 31) - 1;

/// What a file may be that can not be read, by its flag.
pub(super) const UNREAD: [(u32, &str); 3] = [
    (0x800, "encrypted"),
    (0x20_0000, "an xattr of another, too large to be beside it"),
    (0x1000_0000, "in its inode instead of blocks (inline_data)"),
];

const CHECKSUM_LOW: usize = 0x7C;
const CHECKSUM_HIGH: usize = 0x82;

/// The fields of an inode that vary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Type and permissions.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: Time,
    pub(super) links: u16,
    /// Blocks of data, extent tree and xattrs in units of 512 bytes.
    pub(super) sectors: u64,
    pub(super) flags: u32,
    /// Extent tree, short symlink or device number.
    pub(super) block: [u8; 60],
    /// The block of large xattrs, 0 for none.
    pub(super) xattr_block: u64,
    /// Small xattrs, or nothing.
    pub(super) xattrs: Vec<u8>,
    /// Which file this is of those that had the number.
    pub(super) generation: u32,
}

impl Record {
    pub(super) fn encode(&self, number: u32, seed: Checksum) -> [u8; INODE_SIZE] {
        let mut bytes = [0; INODE_SIZE];
        put_u16(&mut bytes, 0x00, self.mode);
        put_u16(&mut bytes, 0x02, low16(self.uid));
        put_u32(&mut bytes, 0x04, low32(self.size));
        put_u16(&mut bytes, 0x18, low16(self.gid));
        put_u16(&mut bytes, 0x1A, self.links);
        put_u32(&mut bytes, 0x1C, low32(self.sectors));
        put_u32(&mut bytes, 0x20, self.flags);
        bytes[0x28..0x64].copy_from_slice(&self.block);
        put_u32(&mut bytes, 0x68, low32(self.xattr_block));
        put_u32(&mut bytes, 0x6C, high32(self.size));
        put_u16(&mut bytes, 0x74, low16(high32(self.sectors)));
        put_u16(&mut bytes, 0x76, low16(high32(self.xattr_block)));
        put_u16(&mut bytes, 0x78, high16(self.uid));
        put_u16(&mut bytes, 0x7A, high16(self.gid));
        put_u16(&mut bytes, 0x80, EXTRA_SIZE);
        let (seconds, extra) = encode_time(self.mtime);
        for (at, extra_at) in [(0x08, 0x8C), (0x0C, 0x84), (0x10, 0x88), (0x90, 0x94)] {
            put_u32(&mut bytes, at, seconds);
            put_u32(&mut bytes, extra_at, extra);
        }
        bytes[BODY..BODY + self.xattrs.len()].copy_from_slice(&self.xattrs);
        put_u32(&mut bytes, 0x64, self.generation);
        let checksum = seed.of_inode(number, self.generation).add(&bytes).value();
        put_u16(&mut bytes, CHECKSUM_LOW, low16(checksum));
        put_u16(&mut bytes, CHECKSUM_HIGH, high16(checksum));
        bytes
    }

    /// Reads an inode back, of 128 bytes or more. Without `seed` it has no checksum.
    pub(super) fn decode(bytes: &[u8], number: u32, seed: Option<Checksum>) -> Result<Record, &'static str> {
        let extra = if bytes.len() > LEAST_SIZE { usize::from(get_u16(bytes, 0x80)) } else { 0 };
        if LEAST_SIZE + extra > bytes.len() || extra % 4 != 0 {
            return Err("it has more fields than bytes");
        }
        let pair = |low, high| u32::from(get_u16(bytes, high)) << 16 | u32::from(get_u16(bytes, low));
        let generation = get_u32(bytes, 0x64);
        if let Some(seed) = seed {
            let has_high = LEAST_SIZE + extra >= CHECKSUM_HIGH + 2;
            let mut plain = bytes.to_vec();
            put_u16(&mut plain, CHECKSUM_LOW, 0);
            if has_high {
                put_u16(&mut plain, CHECKSUM_HIGH, 0);
            }
            let value = seed.of_inode(number, generation).add(&plain).value();
            let (value, stored) = match has_high {
                true => (value, pair(CHECKSUM_LOW, CHECKSUM_HIGH)),
                false => (value & 0xFFFF, u32::from(get_u16(bytes, CHECKSUM_LOW))),
            };
            if value != stored {
                return Err("its checksum is wrong");
            }
        }
        let mtime_extra = if LEAST_SIZE + extra >= 0x8C { get_u32(bytes, 0x88) } else { 0 };
        Ok(Record {
            mode: get_u16(bytes, 0x00),
            uid: pair(0x02, 0x78),
            gid: pair(0x18, 0x7A),
            size: u64::from(get_u32(bytes, 0x6C)) << 32 | u64::from(get_u32(bytes, 0x04)),
            mtime: decode_time(get_u32(bytes, 0x10), mtime_extra),
            links: get_u16(bytes, 0x1A),
            sectors: u64::from(get_u16(bytes, 0x74)) << 32 | u64::from(get_u32(bytes, 0x1C)),
            flags: get_u32(bytes, 0x20),
            block: bytes[0x28..0x64].try_into().expect("60 bytes"),
            xattr_block: u64::from(get_u16(bytes, 0x76)) << 32 | u64::from(get_u32(bytes, 0x68)),
            xattrs: bytes[LEAST_SIZE + extra..].to_vec(),
            generation,
        })
    }
}

/// A device number as `i_block` has it; `None` when Linux has no such number (12 bits of major, 20 of minor).
pub(super) fn encode_device(major: u32, minor: u32) -> Option<[u8; 60]> {
    let mut block = [0; 60];
    match (major, minor) {
        (0..=0xFF, 0..=0xFF) => put_u32(&mut block, 0, major << 8 | minor),
        (0..=0xFFF, 0..=0xF_FFFF) => put_u32(&mut block, 4, minor & 0xFF | major << 8 | (minor & !0xFF) << 12),
        _ => return None,
    }
    Some(block)
}

/// Major and minor of what [`encode_device`] made.
pub(super) fn decode_device(block: &[u8; 60]) -> (u32, u32) {
    match (get_u32(block, 0), get_u32(block, 4)) {
        (0, new) => (new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xF_FF00),
        (old, _) => (old >> 8, old & 0xFF),
    }
}

/// Seconds modulo 2^32, and nanoseconds over 2 bits of epoch. What does not fit becomes the nearest that does, as the
/// kernel has it.
fn encode_time(time: Time) -> (u32, u32) {
    let secs = time.secs.clamp(*TIMES.start(), *TIMES.end());
    let seconds = low32(secs.cast_unsigned());
    let epoch = (secs - i64::from(seconds.cast_signed())) >> 32;
    let epoch = u32::try_from(epoch).expect("0 to 3 within TIMES");
    (seconds, time.nanos.min(999_999_999) << 2 | epoch)
}

fn decode_time(seconds: u32, extra: u32) -> Time {
    Time { secs: i64::from(seconds.cast_signed()) + (i64::from(extra & 3) << 32), nanos: (extra >> 2).min(999_999_999) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_from_1901_to_2446_survive() {
        for secs in [0, 1, -1, -(1 << 31), (1 << 31) - 1, 1 << 31, 2_208_988_800, (1 << 34) - (1 << 31) - 1] {
            let time = Time { secs, nanos: 999_999_999 };
            let (seconds, extra) = encode_time(time);
            assert_eq!(decode_time(seconds, extra), time);
        }
        // 2040-01-01: the word looks like 1903, the epoch bit says otherwise.
        assert_eq!(encode_time(Time { secs: 2_208_988_800, nanos: 5 }), (2_208_988_800, 5 << 2 | 1));
        assert_eq!(encode_time(Time { secs: i64::MIN, nanos: 0 }), (1 << 31, 0));
    }

    #[test]
    fn devices_survive() {
        for (major, minor) in [(0, 0), (1, 3), (255, 255), (8, 256), (259, 0), (10, 70_000), (0xFFF, 0xF_FFFF)] {
            assert_eq!(decode_device(&encode_device(major, minor).unwrap()), (major, minor));
        }
        assert_eq!(encode_device(0x1000, 0), None);
        assert_eq!(encode_device(0, 0x10_0000), None);
        // makedev(10, 70000) of glibc, as `stat` prints it: 0x11100a70.
        assert_eq!(get_u32(&encode_device(10, 70_000).unwrap(), 4), 0x1110_0A70);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let record = Record {
            mode: 0o100_755,
            uid: 4_294_967_294,
            gid: 65_536,
            size: 0x1_0000_0001,
            mtime: Time { secs: -5, nanos: 7 },
            links: 3,
            sectors: 0x1_2345_6789,
            flags: EXTENTS,
            block: [9; 60],
            xattr_block: 0x1_0000_0002,
            xattrs: vec![5; INODE_SIZE - BODY],
            generation: 3,
        };
        let mut bytes = record.encode(12, Checksum::START);
        let seed = Some(Checksum::START);
        assert_eq!(Record::decode(&bytes, 12, seed).as_ref(), Ok(&record));
        assert!(Record::decode(&bytes, 13, seed).is_err());
        bytes[0x90] ^= 1;
        assert!(Record::decode(&bytes, 12, seed).is_err());
        let old = Record::decode(&bytes[..LEAST_SIZE], 12, None).unwrap();
        assert_eq!(old, Record { mtime: Time { secs: -5, nanos: 0 }, xattrs: Vec::new(), ..record });
    }
}
