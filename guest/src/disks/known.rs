//! What a disk says of itself: its file system's superblock, and the serial number that the hypervisor gave it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use nix::libc;
use wire::spec::DiskId;

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The kernel's name for it, as `vda` or `sda1`.
    pub name: String,
    /// None for what we do not mount.
    pub kind: Option<FsKind>,
    pub(super) label: String,
    pub(super) uuid: String,
    /// A partition has none.
    pub(super) serial: Option<String>,
}

/// A file system that we mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsKind {
    Ext4,
    /// It cannot be written.
    Erofs,
}

impl Disk {
    /// Whether that is its id. What is empty is nobody's.
    pub(super) fn is(&self, id: &DiskId) -> bool {
        match id {
            DiskId::Label(label) => self.label == *label && !label.is_empty(),
            DiskId::Uuid(uuid) => self.uuid == *uuid && !uuid.is_empty(),
            DiskId::Serial(serial) => self.serial.as_ref() == Some(serial),
        }
    }

    /// For a person who looks for another.
    pub(super) fn described(&self) -> String {
        let kind = match self.kind {
            None => "no file system",
            Some(FsKind::Ext4) => "ext4",
            Some(FsKind::Erofs) => "EROFS",
        };
        let mut text = format!("{} ({kind}", self.name);
        let serial = self.serial.clone().map(DiskId::Serial);
        let label = (!self.label.is_empty()).then(|| DiskId::Label(self.label.clone()));
        for id in label.into_iter().chain(serial) {
            text.push_str(", ");
            text.push_str(&id.to_string());
        }
        text.push(')');
        text
    }
}

/// Asks a device. None for one that the kernel is about to add: it is listed before it can be opened.
pub(super) fn look(name: String) -> Option<Disk> {
    let mut block = [0; SUPERBLOCK];
    let opened = File::open(format!("dev/{name}"));
    if opened.as_ref().is_err_and(|error| matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENXIO))) {
        return None;
    }
    let read = opened.and_then(|file| file.read_exact_at(&mut block, OFFSET));
    let (kind, label, uuid) = match read {
        Ok(()) => superblock(&block),
        // no medium, or too small
        Err(_) => (None, String::new(), String::new()),
    };
    Some(Disk { serial: serial(&name), name, kind, label, uuid })
}

/// Both have it at the same place.
const OFFSET: u64 = 1024;
/// As much of it as matters.
const SUPERBLOCK: usize = 0x88;

/// Linux, Documentation/filesystems/ext4/super.rst, and fs/erofs/erofs_fs.h: kind, label and UUID.
fn superblock(block: &[u8; SUPERBLOCK]) -> (Option<FsKind>, String, String) {
    const EXT4: [u8; 2] = [0x53, 0xef];
    const EROFS: [u8; 4] = [0xe2, 0xe1, 0xf5, 0xe0];
    let (kind, label, uuid) = if block[0x38..0x3a] == EXT4 {
        (FsKind::Ext4, &block[0x78..0x88], &block[0x68..0x78])
    } else if block[..4] == EROFS {
        (FsKind::Erofs, &block[0x40..0x50], &block[0x30..0x40])
    } else {
        return (None, String::new(), String::new());
    };
    let label = label.split(|&byte| byte == 0).next().unwrap_or_default();
    (Some(kind), String::from_utf8_lossy(label).into_owned(), uuid_text(uuid))
}

fn uuid_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    if bytes.iter().any(|&byte| byte != 0) {
        for (at, &byte) in bytes.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')));
        }
    }
    text
}

/// virtio-blk and NVMe tell it as text; of a SCSI disk it is the page that the kernel has asked it for.
fn serial(name: &str) -> Option<String> {
    let file = |below: &str| fs::read(format!("sys/class/block/{name}/{below}")).ok();
    let text = file("serial").or_else(|| file("device/serial")).or_else(|| {
        let page = file("device/vpd_pg80")?;
        serial_page(&page).map(<[u8]>::to_vec)
    })?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_matches(|char: char| char.is_whitespace() || char == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// SCSI Primary Commands, "Unit Serial Number VPD page": type, page code, a length in two bytes, the text.
fn serial_page(page: &[u8]) -> Option<&[u8]> {
    let (&[_, 0x80, high, low], text) = page.split_first_chunk::<4>()? else { return None };
    text.get(..usize::from(u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblocks_say_label_and_uuid() {
        let mut block = [0; SUPERBLOCK];
        assert_eq!(superblock(&block), (None, String::new(), String::new()));
        block[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        block[0x78..0x7c].copy_from_slice(b"data");
        assert_eq!(superblock(&block), (Some(FsKind::Ext4), "data".into(), String::new()));
        block[0x68..0x78].copy_from_slice(&[0x0f, 0x3c, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        assert_eq!(superblock(&block).2, "0f3c0203-0405-0607-0809-0a0b0c0d0eff");
        let mut block = [0; SUPERBLOCK];
        block[..4].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
        block[0x40..0x50].copy_from_slice(b"sixteen bytes it");
        block[0x3f] = 1;
        let uuid = "00000000-0000-0000-0000-000000000001".into();
        assert_eq!(superblock(&block), (Some(FsKind::Erofs), "sixteen bytes it".into(), uuid));
    }

    #[test]
    fn a_scsi_serial_is_as_long_as_its_page_says() {
        assert_eq!(serial_page(b"\0\x80\0\x03S12 "), Some(&b"S12"[..]));
        for broken in [&b""[..], b"\0\x83\0\x01x", b"\0\x80\0\x09short", b"\0\x80\0"] {
            assert_eq!(serial_page(broken), None);
        }
    }
}
