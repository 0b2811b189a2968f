//! What an image calls itself: the label by which a machine finds it, and who made it.

use std::io;

use super::Format;
use crate::digest::hex;
use crate::tree::ReadAt;

/// Bytes without the padding of their field; empty where the image does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    pub label: Vec<u8>,
    /// As Linux writes it; of ext4 alone.
    pub uuid: Option<String>,
    /// Of ISO 9660 alone.
    pub publisher: Vec<u8>,
}

/// Reads the label of an image that its reader has found to be sound.
pub(super) fn read(format: &Format, image: &dyn ReadAt) -> io::Result<Label> {
    let bytes = |at: u64, len: usize| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        image.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    };
    Ok(match format {
        // Documentation/filesystems/ext4/super.rst: s_volume_name, s_uuid
        Format::Ext4 => {
            let uuid = hex(&bytes(1024 + 0x68, 16)?);
            let parts = [&uuid[..8], &uuid[8..12], &uuid[12..16], &uuid[16..20], &uuid[20..]];
            let label = trimmed(bytes(1024 + 0x78, 16)?);
            Label { label, uuid: Some(parts.join("-")), ..Label::default() }
        }
        // ECMA-119 8.4.7 and 8.4.16, counted from the primary volume descriptor
        Format::Iso => {
            let (label, publisher) = (trimmed(bytes(0x8000 + 40, 32)?), trimmed(bytes(0x8000 + 318, 128)?));
            Label { label, publisher, uuid: None }
        }
        _ => Label::default(),
    })
}

fn trimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
    bytes.truncate(end);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Content;

    #[test]
    fn labels_without_their_padding() {
        let mut ext4 = vec![0; 2048];
        ext4[1024 + 0x68..1024 + 0x78].copy_from_slice(&[0xab; 16]);
        ext4[1024 + 0x78..1024 + 0x7b].copy_from_slice(b"two");
        let read = |format: &Format, bytes: Vec<u8>| {
            read(format, &*crate::view::image_of(Content::from_bytes(bytes))).unwrap()
        };
        let found = read(&Format::Ext4, ext4);
        assert_eq!(found.label, b"two");
        assert_eq!(found.uuid.as_deref(), Some("abababab-abab-abab-abab-abababababab"));
        let mut iso = vec![b' '; 0x8800];
        iso[0x8000 + 40..0x8000 + 44].copy_from_slice(b"DISC");
        iso[0x8000 + 318..0x8000 + 323].copy_from_slice(b"A B C");
        let found = read(&Format::Iso, iso);
        assert_eq!((&found.label[..], &found.publisher[..]), (&b"DISC"[..], &b"A B C"[..]));
    }
}
