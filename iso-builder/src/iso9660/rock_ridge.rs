//! Rock Ridge: what Linux knows of a file and ISO 9660 does not, as fields of the system use area (SUSP 1.12 and RRIP 1.12).
//!
//! [`Attributes`] gathers the fields of one record, whichever areas they lie in. Where those areas are is found by the reader.

use super::format::{from_date, from_digits, u32_at};
use crate::tree::Time;

/// Types of a file, in PX's mode, as `stat(2)` has them.
pub(super) const TYPE: u32 = 0o170_000;
pub(super) const FIFO: u32 = 0o010_000;
pub(super) const CHAR: u32 = 0o020_000;
pub(super) const DIR: u32 = 0o040_000;
pub(super) const BLOCK: u32 = 0o060_000;
pub(super) const REGULAR: u32 = 0o100_000;
pub(super) const SYMLINK: u32 = 0o120_000;
pub(super) const SOCKET: u32 = 0o140_000;

/// The longest name and symlink that Linux has.
pub(super) const MAX_NAME: usize = 255;
pub(super) const MAX_TARGET: usize = 4095;

/// PX: mode, links, owner and, since RRIP 1.12, the inode's number (0: not given).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Posix {
    pub(super) mode: u32,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) serial: u32,
}

/// CE: where a record's fields go on, within one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Continuation {
    pub(super) block: u32,
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// What the fields of one record say.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    pub(super) posix: Option<Posix>,
    pub(super) name: Vec<u8>,
    pub(super) target: Vec<u8>,
    pub(super) device: Option<(u32, u32)>,
    pub(super) modified: Option<Time>,
    /// CL: this is a directory that lies elsewhere, since the tree is deeper than the standard has it.
    pub(super) child: Option<u32>,
    /// RE: the directory is named elsewhere by a CL.
    pub(super) relocated: bool,
    /// SP: bytes to skip at the beginning of every other area. Only the root's first record has it.
    pub(super) skip: Option<u8>,
    /// The target's last component ended, and another is to be parted from it.
    slash: bool,
}

impl Attributes {
    /// Takes the fields of one area, and says where they go on.
    pub(super) fn take(&mut self, mut area: &[u8]) -> Result<Option<Continuation>, &'static str> {
        let mut next = None;
        while let Some((field, after)) = field(area) {
            area = after;
            match (&field[..2], field.len()) {
                (b"PX", 36..) => {
                    let [mode, links, uid, gid, serial] = [4, 12, 20, 28, 36].map(|at| u32_at(field, at));
                    self.posix = Some(Posix { mode, links, uid, gid, serial });
                }
                // flags 2 and 4 mean `.` and `..`, which need no name
                (b"NM", 5..) if field[4] & 6 == 0 => self.name.extend(&field[5..]),
                (b"SL", 5..) => self.link(&field[5..])?,
                (b"PN", 20..) => self.device = Some(device(u32_at(field, 4), u32_at(field, 12))),
                (b"TF", 5..) => self.modified = modified(field[4], &field[5..]).or(self.modified),
                (b"CL", 12..) => self.child = Some(u32_at(field, 4)),
                (b"RE", _) => self.relocated = true,
                (b"SP", 7..) if field[4..6] == [0xbe, 0xef] => self.skip = Some(field[6]),
                (b"CE", 28..) => {
                    let [block, offset, len] = [4, 12, 20].map(|at| u32_at(field, at));
                    next = Some(Continuation { block, offset, len });
                }
                (b"ST", _) => break,
                _ => {}
            }
            if self.name.len() > MAX_NAME {
                return Err("a name is longer than 255 bytes");
            }
            if self.target.len() > MAX_TARGET {
                return Err("a symlink's target is longer than 4095 bytes");
            }
        }
        Ok(next)
    }

    /// Adds the components of a symlink: flags, length and text of each.
    fn link(&mut self, mut rest: &[u8]) -> Result<(), &'static str> {
        while let [flags, len, after @ ..] = rest {
            let (text, after) =
                after.split_at_checked(usize::from(*len)).ok_or("a component of a symlink is cut off")?;
            rest = after;
            if std::mem::take(&mut self.slash) {
                self.target.push(b'/');
            }
            let text = match flags & 0b1110 {
                0 => text,
                0b0010 => b".",
                0b0100 => b"..",
                0b1000 => b"/",
                _ => return Err("a symlink has a component of no known kind"),
            };
            self.target.extend(text);
            // 1: the component goes on in the next one; 8: the root, which ends in its slash already
            self.slash = flags & 0b1001 == 0;
        }
        Ok(())
    }
}

/// Some writers have the whole of `dev_t` in the lower half, as 16 bits. Linux reads it so too.
fn device(high: u32, low: u32) -> (u32, u32) {
    if high == 0 && low > 0xff { (low >> 8, low & 0xff) } else { (high, low) }
}

/// The time of modification: bit 1 of the flags, after that of creation, bit 0. Bit 7 says that times are digits.
fn modified(flags: u8, times: &[u8]) -> Option<Time> {
    if flags & 2 == 0 {
        return None;
    }
    let before = usize::from(flags & 1);
    if flags & 0x80 != 0 { from_digits(times.get(before * 17..)?) } else { from_date(times.get(before * 7..)?) }
}

/// The first field of an area and what follows it.
fn field(area: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::from(*area.get(2)?);
    if len < 4 { None } else { area.split_at_checked(len) }
}
