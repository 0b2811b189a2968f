//! A whole spec in one value: a dictionary as text, as it is, in base64, or compressed, in the convention of cloud-init's keys for VMware.
//!
//! A host that answers a key at a time answers one in place of hundreds.

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};
use miniz_oxide::inflate::decompress_to_vec_with_limit;

use super::node::Node;
use super::{SpecError, base64};
use crate::vmx::Dictionary;

/// A dictionary that is longer is none of ours: of a few bytes gzip can make very many.
const MOST_BYTES: usize = 4 << 20;

/// The dictionary, if there is one.
pub(crate) fn read(root: &Node<'_>) -> Result<Option<Dictionary>, SpecError> {
    let Some(text) = root.filled("spec") else { return Ok(None) };
    let encoding = root.filled("spec.encoding");
    let is_compressed = match encoding.as_deref() {
        None => return parse(root, &text).map(Some),
        Some("base64" | "b64") => false,
        Some("gzip+base64" | "gz+b64") => true,
        Some(other) => return Err(root.invalid("spec.encoding", other, "`base64` or `gzip+base64`")),
    };
    let text: String = text.split_ascii_whitespace().collect();
    let bytes = base64::decode(&text).ok_or_else(|| root.invalid("spec", "...", "base64"))?;
    let bytes = match is_compressed {
        false => bytes,
        true => gunzip(&bytes).map_err(|expected| root.invalid("spec", "...", expected))?,
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| root.invalid("spec", "...", "text in UTF-8"))?;
    parse(root, text).map(Some)
}

fn parse(root: &Node<'_>, text: &str) -> Result<Dictionary, SpecError> {
    Dictionary::parse(text).map_err(|source| SpecError::Syntax { key: format!("{}spec", root.path), source })
}

/// One member of a gzip file, RFC 1952: header, compressed data, checksum and length.
fn gunzip(file: &[u8]) -> Result<Vec<u8>, &'static str> {
    const NO_GZIP: &str = "a gzip file";
    let (header, rest) = file.split_first_chunk::<10>().ok_or(NO_GZIP)?;
    let (rest, &[a, b, c, d, lengths @ ..]) = rest.split_last_chunk::<8>().ok_or(NO_GZIP)?;
    let &[0x1f, 0x8b, 8, flags, ..] = header else { return Err(NO_GZIP) };
    let data = skip_names(flags, rest).ok_or(NO_GZIP)?;
    let bytes = decompress_to_vec_with_limit(data, MOST_BYTES).map_err(|_| "a whole gzip file of at most 4 MiB")?;
    let is_whole = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC).checksum(&bytes) == u32::from_le_bytes([a, b, c, d])
        && u32::try_from(bytes.len()) == Ok(u32::from_le_bytes(lengths));
    if is_whole { Ok(bytes) } else { Err("a gzip file with a right checksum") }
}

/// What lies behind the header's optional parts.
fn skip_names(flags: u8, mut rest: &[u8]) -> Option<&[u8]> {
    const HEADER_SUM: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const RESERVED: u8 = 0xe0;
    if flags & RESERVED != 0 {
        return None;
    }
    if flags & EXTRA != 0 {
        let (length, behind) = rest.split_first_chunk()?;
        rest = behind.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            rest = &rest[rest.iter().position(|&byte| byte == 0)? + 1..];
        }
    }
    rest.get(usize::from(flags & HEADER_SUM)..)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::GzEncoder;
    use flate2::{Compression, GzBuilder};

    use super::super::{Spec, read};
    use super::*;

    const SEED: &str = include_str!("../../fuzz/seeds/spec/vic");

    fn spec() -> Spec {
        read(&Dictionary::parse(SEED).unwrap()).unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn packed(text: &str, encoding: Option<&str>) -> Result<Spec, SpecError> {
        let mut keys = Dictionary::default();
        keys.set("guestinfo.vice./spec", text);
        if let Some(encoding) = encoding {
            keys.set("guestinfo.vice./spec.encoding", encoding);
        }
        read(&keys)
    }

    #[test]
    fn one_value_is_a_whole_spec_in_each_encoding() {
        assert_eq!(packed(SEED, None), Ok(spec()));
        assert_eq!(packed(SEED, Some("<nil>")), Ok(spec()));
        let plain = base64::encode(SEED.as_bytes());
        let small = base64::encode(&gzip(SEED.as_bytes()));
        assert!(small.len() < SEED.len() / 2, "{}", small.len());
        for (text, encodings) in [(plain, ["base64", "b64"]), (small, ["gzip+base64", "gz+b64"])] {
            for encoding in encodings {
                assert_eq!(packed(&text, Some(encoding)), Ok(spec()));
                // base64(1) breaks lines
                let lines: Vec<&str> =
                    (0..text.len()).step_by(76).map(|at| &text[at..text.len().min(at + 76)]).collect();
                assert_eq!(packed(&lines.join("\r\n"), Some(encoding)), Ok(spec()));
            }
        }
    }

    #[test]
    fn it_counts_alone() {
        let mut keys = Dictionary::parse(SEED).unwrap();
        keys.set("guestinfo.vice./hostname", "beside");
        keys.set("guestinfo.vice./spec", SEED);
        assert_eq!(read(&keys), Ok(spec()));
    }

    #[test]
    fn what_gzip_puts_before_the_data_is_passed_over() {
        let mut file = GzBuilder::new()
            .filename("spec")
            .comment("of a VM")
            .extra(vec![1, 2, 3])
            .write(Vec::new(), Compression::fast());
        file.write_all(SEED.as_bytes()).unwrap();
        let mut file = file.finish().unwrap();
        assert_eq!(gunzip(&file).unwrap(), SEED.as_bytes());
        for end in 0..file.len() {
            assert!(gunzip(&file[..end]).is_err(), "{end}");
        }
        file[3] |= 0x20;
        assert_eq!(gunzip(&file), Err("a gzip file"));
    }

    #[test]
    fn what_is_wrong_is_named_and_not_shown() {
        let check = |text: &str, encoding: Option<&str>, expected: &str| {
            assert_eq!(packed(text, encoding).unwrap_err().to_string(), expected);
        };
        let key = "guestinfo guestinfo.vice./spec";
        check("a", Some("gzip"), &format!("{key}.encoding: \"gzip\" is not `base64` or `gzip+base64`"));
        check("a", Some("b64"), &format!("{key}: \"...\" is not base64"));
        check("/w==", Some("b64"), &format!("{key}: \"...\" is not text in UTF-8"));
        check("nothing", None, &format!("{key} is not a dictionary: line 1: no `=` in it"));
        check("/w==", Some("gz+b64"), &format!("{key}: \"...\" is not a gzip file"));
        let check = |file: &[u8], expected: &str| {
            check(&base64::encode(file), Some("gz+b64"), &format!("{key}: \"...\" is not {expected}"));
        };
        let bomb = gzip(&vec![b' '; MOST_BYTES + 1]);
        assert!(bomb.len() < 10_000);
        check(&bomb, "a whole gzip file of at most 4 MiB");
        let mut file = gzip(SEED.as_bytes());
        let end = file.len();
        check(&file[..end - 20], "a whole gzip file of at most 4 MiB");
        file[end - 8] ^= 1;
        check(&file, "a gzip file with a right checksum");
        file[end - 8] ^= 1;
        file[end - 1] ^= 1;
        check(&file, "a gzip file with a right checksum");
    }

    #[test]
    fn of_an_empty_dictionary_the_first_key_is_missing() {
        assert_eq!(packed("# nothing", None), Err(SpecError::Missing("guestinfo.vice./common/id".into())));
    }
}
