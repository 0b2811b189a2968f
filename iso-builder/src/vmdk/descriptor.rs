//! The text that says what a disk is: its content ids, its parent, and the extents that its bytes are in.
//!
//! After VMware's "Virtual Disk Format 5.0", sections 2 and 3. What is read here was written by anybody.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::Error;

/// In the place of a parent's content id: there is no parent.
pub(super) const NO_PARENT: u32 = u32::MAX;

/// Bytes of a descriptor at most; the limit is QEMU's.
pub(super) const TEXT_LIMIT: usize = 1 << 20;

/// Extents of a disk at most: 1 TiB of extents of 2 GiB. Each is a file that is held open.
const EXTENT_LIMIT: usize = 512;

/// What a descriptor says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) cid: u32,
    /// The content id that the parent had when this disk was begun.
    pub(super) parent_cid: Option<u32>,
    /// Where the parent is said to be.
    pub(super) parent: Option<PathBuf>,
    pub(super) extents: Vec<Extent>,
}

/// A part of a disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) sectors: u64,
    pub(super) stored: Stored,
}

/// How a part of a disk is stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// As it is, in a file, from a sector of it on.
    Flat {
        file: PathBuf,
        from: u64,
    },
    Sparse {
        file: PathBuf,
    },
    /// Nowhere: it is zero.
    Zero,
}

impl Descriptor {
    /// Whether a file that starts like this is a descriptor.
    pub(super) fn starts(bytes: &[u8]) -> bool {
        bytes.len() >= MARK.len() && bytes[..MARK.len()].eq_ignore_ascii_case(MARK)
    }

    /// Reads a text that ends with its bytes, or at the first zero.
    pub(super) fn parse(bytes: &[u8]) -> Result<Descriptor, Error> {
        let (mut cid, mut parent_cid, mut parent, mut extents) = (None, None, None, Vec::new());
        let mut at = 0;
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        for line in text.split(|&byte| byte == b'\n') {
            let malformed = |why| Error::Malformed { why, at };
            let trimmed = line.trim_ascii();
            if let Some(extent) = extent(trimmed).map_err(malformed)? {
                if extents.len() == EXTENT_LIMIT {
                    return Err(malformed("it has more than 512 extents"));
                }
                extents.push(extent);
            } else if let Some((key, value)) = assignment(trimmed) {
                match key.to_ascii_lowercase().as_slice() {
                    b"cid" => cid = Some(content_id(value).ok_or_else(|| malformed("a CID is no hexadecimal number"))?),
                    b"parentcid" => {
                        let id = content_id(value).ok_or_else(|| malformed("a parentCID is no hexadecimal number"))?;
                        parent_cid = Some(id).filter(|&id| id != NO_PARENT);
                    }
                    b"parentfilenamehint" => parent = Some(PathBuf::from(OsStr::from_bytes(value))),
                    _ => {}
                }
            }
            at += line.len() as u64 + 1;
        }
        let cid = cid.ok_or(Error::Malformed { why: "its descriptor has no CID", at: 0 })?;
        Ok(Descriptor { cid, parent_cid, parent, extents })
    }
}

const MARK: &[u8] = b"# Disk DescriptorFile";

/// `KEY = VALUE`, with or without blanks and quotes.
fn assignment(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = line.iter().position(|&byte| byte == b'=').filter(|_| !line.starts_with(b"#"))?;
    let value = line[equals + 1..].trim_ascii();
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some((line[..equals].trim_ascii_end(), unquoted.unwrap_or(value)))
}

fn content_id(text: &[u8]) -> Option<u32> {
    u32::from_str_radix(str::from_utf8(text).ok()?, 16).ok()
}

/// `ACCESS SECTORS TYPE "FILE" OFFSET`; the last two not for every type. `None` for a line that says something else.
fn extent(line: &[u8]) -> Result<Option<Extent>, &'static str> {
    let (access, rest) = word(line);
    match access {
        b"RW" | b"RDONLY" => {}
        b"NOACCESS" => return Err("an extent may not be read"),
        _ => return Ok(None),
    }
    let (sectors, rest) = word(rest);
    let sectors = number(sectors).ok_or("an extent's size is no number")?;
    let (kind, rest) = word(rest);
    let file = || -> Result<(PathBuf, &[u8]), &'static str> {
        let rest = rest.strip_prefix(b"\"").ok_or("an extent's file has no name in quotes")?;
        let end = rest.iter().position(|&byte| byte == b'"').ok_or("an extent's name has no end")?;
        Ok((PathBuf::from(OsStr::from_bytes(&rest[..end])), rest[end + 1..].trim_ascii_start()))
    };
    let stored = match kind {
        b"ZERO" => Stored::Zero,
        b"SPARSE" => Stored::Sparse { file: file()?.0 },
        // what is flat on a VMFS has the type VMFS there, and has no offset
        b"FLAT" | b"VMFS" => match file()? {
            (file, []) => Stored::Flat { file, from: 0 },
            (file, from) => Stored::Flat { file, from: number(from).ok_or("an extent's offset is no number")? },
        },
        _ => return Err("an extent is none of FLAT, VMFS, SPARSE and ZERO; VMware's tools convert others to these"),
    };
    Ok(Some(Extent { sectors, stored }))
}

fn word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    (&line[..end], line[end..].trim_ascii_start())
}

fn number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// Writes the text. `cid` tells versions of the contents apart; a parent comes with the content id that it had, and its name beside the disk.
pub(super) fn write(
    kind: &str,
    cid: u32,
    capacity: u64,
    stored: &str,
    name: &str,
    parent: Option<(u32, &str)>,
) -> Result<String, Error> {
    for name in [Some(name), parent.map(|(_, name)| name)].into_iter().flatten() {
        if name.is_empty() || name.len() > NAME_LIMIT || name.contains(|char: char| char == '"' || char.is_control()) {
            return Err(Error::Name { name: name.to_owned() });
        }
    }
    let (heads, sectors) = (255, 63);
    let cylinders = capacity / (heads * sectors);
    let parent_cid = parent.map_or(NO_PARENT, |(cid, _)| cid);
    let hint = parent.map(|(_, name)| format!("parentFileNameHint=\"{name}\"\n")).unwrap_or_default();
    Ok(format!(
        "# Disk DescriptorFile\n\
         version=1\n\
         CID={cid:08x}\n\
         parentCID={parent_cid:08x}\n\
         createType=\"{kind}\"\n\
         {hint}\
         \n\
         # Extent description\n\
         RW {capacity} {}\n\
         \n\
         # The Disk Data Base\n\
         #DDB\n\
         \n\
         ddb.virtualHWVersion = \"4\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"{heads}\"\n\
         ddb.geometry.sectors = \"{sectors}\"\n\
         ddb.adapterType = \"lsilogic\"\n",
        match stored {
            "FLAT" => format!("FLAT \"{name}\" 0"),
            stored => format!("{stored} \"{name}\""),
        }
    ))
}

/// Bytes of an extent's name: more is no file name either.
const NAME_LIMIT: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_the_descriptor() {
        for name in ["", "a\"b", "a\nb", "a\0", &"a".repeat(256)] {
            assert!(matches!(write("a", 0, 0, "SPARSE", name, None), Err(Error::Name { .. })), "{name:?}");
            assert!(matches!(write("a", 0, 0, "FLAT", "a", Some((0, name))), Err(Error::Name { .. })), "{name:?}");
        }
        let long = "a".repeat(255);
        let text = write("streamOptimized", u32::MAX, u64::MAX, "SPARSE", &long, Some((0, &long)));
        assert!(text.unwrap().len() < 20 * 512);
    }

    #[test]
    fn what_is_written_is_read() {
        let text = write("monolithicFlat", 0x1f, 2048, "FLAT", "a b-flat.vmdk", Some((0xfe, "base.vmdk"))).unwrap();
        let flat = Stored::Flat { file: "a b-flat.vmdk".into(), from: 0 };
        let expected = Descriptor {
            cid: 0x1f,
            parent_cid: Some(0xfe),
            parent: Some("base.vmdk".into()),
            extents: vec![Extent { sectors: 2048, stored: flat }],
        };
        assert_eq!(Descriptor::parse(text.as_bytes()).unwrap(), expected);
        assert!(Descriptor::starts(text.as_bytes()) && !Descriptor::starts(b"# Disk"));
    }

    #[test]
    fn descriptors_of_others() {
        let text = b"# Disk DescriptorFile\r\nversion=1\r\nencoding=\"UTF-8\"\r\nCID = fffffffe\r\nparentCID=ffffffff\r\n\
            createType=\"twoGbMaxExtentFlat\"\r\nRW 4192256 FLAT \"a-f001.vmdk\" 63\r\nRDONLY 5 ZERO\r\nRW 7 VMFS \"b\"\r\n\
            RW 9 SPARSE \"c\"\r\nddb.uuid = \"60 00\"\r\n\0\0rest";
        let parsed = Descriptor::parse(text).unwrap();
        assert_eq!((parsed.cid, parsed.parent_cid, parsed.parent), (0xffff_fffe, None, None));
        let stored: Vec<_> = parsed.extents.into_iter().map(|extent| (extent.sectors, extent.stored)).collect();
        let expected = [
            (4_192_256, Stored::Flat { file: "a-f001.vmdk".into(), from: 63 }),
            (5, Stored::Zero),
            (7, Stored::Flat { file: "b".into(), from: 0 }),
            (9, Stored::Sparse { file: "c".into() }),
        ];
        assert_eq!(stored, expected);
    }

    #[test]
    fn what_is_wrong_and_where() {
        for (text, error) in [
            ("", "at byte 0: its descriptor has no CID"),
            ("#\nCID=x", "at byte 2: a CID is no hexadecimal number"),
            ("CID=1\nparentCID=", "at byte 6: a parentCID is no hexadecimal number"),
            ("CID=1\nRW -1 ZERO", "at byte 6: an extent's size is no number"),
            ("CID=1\nRW 1 FLAT x", "at byte 6: an extent's file has no name in quotes"),
            ("CID=1\nRW 1 FLAT \"x", "at byte 6: an extent's name has no end"),
            ("CID=1\nRW 1 FLAT \"x\" y", "at byte 6: an extent's offset is no number"),
            ("CID=1\nNOACCESS 1 ZERO", "at byte 6: an extent may not be read"),
        ] {
            assert_eq!(Descriptor::parse(text.as_bytes()).unwrap_err().to_string(), format!("malformed VMDK, {error}"));
        }
        let se = Descriptor::parse(b"CID=1\nRW 1 SESPARSE \"x\"").unwrap_err().to_string();
        assert!(se.contains("none of FLAT, VMFS, SPARSE and ZERO"), "{se}");
        let many = format!("CID=1\n{}", "RW 1 ZERO\n".repeat(513));
        assert!(Descriptor::parse(many.as_bytes()).unwrap_err().to_string().contains("more than 512"));
    }
}
