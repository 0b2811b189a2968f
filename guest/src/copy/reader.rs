//! Entries from the bytes of an archive: ustar, PAX, GNU's long names, and what was before all of them.
//!
//! An archive ends with two blocks of zeros, or with the input between two entries. What this file cannot read is an error that names the entry;
//! whether an entry may be unpacked is decided elsewhere.

use std::ffi::CString;
use std::io::{BufRead, BufReader, ErrorKind, Read};

use super::entry::{Entry, Kind, Meta, Time};
use super::header::{self, BLOCK, Field, USTAR, XATTR, padding};
use super::{BUFFER, CopyError, broken};

/// The longest header that extends another: Go's, and so docker's, bound.
const LONGEST_EXTENSION: u64 = 1024 * 1024;
const TRUNCATED: &str = "it ends there";

pub(super) struct Reader<'a> {
    input: BufReader<&'a mut dyn Read>,
    /// The last entry, for errors.
    name: Vec<u8>,
    /// Of the last entry: bytes that were not read yet, and what follows them up to a block.
    left: u64,
    padding: usize,
}

/// What PAX and GNU headers say of the entry that follows.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    linkpath: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    devmajor: Option<u64>,
    devminor: Option<u64>,
    xattrs: Vec<(CString, Vec<u8>)>,
    sparse: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a mut dyn Read) -> Reader<'a> {
        let name = b"its beginning".to_vec();
        Reader { input: BufReader::with_capacity(BUFFER, input), name, left: 0, padding: 0 }
    }

    /// The next entry; `None` at the end. What was not read of the last one is passed over.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, CopyError> {
        let mut pax = Extension::default();
        // GNU's stand for themselves: a later PAX header does not undo them
        let (mut long_name, mut long_link) = (None, None);
        let mut zeros = 0;
        loop {
            self.skip()?;
            let Some(block) = self.block()? else {
                let extended = long_name.is_some() || long_link.is_some() || !pax.is_empty();
                return if extended { Err(broken(&self.name, TRUNCATED)) } else { Ok(None) };
            };
            if block.iter().all(|&byte| byte == 0) {
                zeros += 1;
                if zeros == 2 {
                    return Ok(None);
                }
                continue;
            }
            zeros = 0;
            let (unsigned, signed) = header::checksums(&block);
            let sum = number(&block, header::CHECKSUM).and_then(|sum| i64::try_from(sum).ok());
            if sum != Some(unsigned) && sum != Some(signed) {
                return Err(broken(&self.name, "what follows it is no header: its checksum is wrong"));
            }
            let kind = block[header::TYPE];
            let size = number(&block, header::SIZE);
            let extends = |size: Option<u64>| match size {
                Some(size) if size <= LONGEST_EXTENSION => Ok(size),
                _ => Err("a header that extends another is too long"),
            };
            match kind {
                b'x' | b'X' => {
                    let bytes = self.extension(extends(size).map_err(|reason| broken(&self.name, reason))?)?;
                    pax = Extension::parse(&bytes).map_err(|reason| broken(&self.name, reason))?;
                }
                b'L' | b'K' => {
                    let mut bytes = self.extension(extends(size).map_err(|reason| broken(&self.name, reason))?)?;
                    bytes.truncate(bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()));
                    *(if kind == b'L' { &mut long_name } else { &mut long_link }) = Some(bytes);
                }
                // defaults for all that follows (comments, in practice), and a label of the tape
                b'g' | b'V' => {
                    let size = size.ok_or_else(|| broken(&self.name, "its size is no number"))?;
                    (self.left, self.padding) = (size, padding(size));
                }
                _ => {
                    pax.path = pax.path.or(long_name);
                    pax.linkpath = pax.linkpath.or(long_link);
                    return self.entry(&block, pax).map(Some);
                }
            }
        }
    }

    /// The next bytes of the last entry; empty at its end.
    pub(super) fn data(&mut self) -> Result<&[u8], CopyError> {
        if self.left == 0 {
            return Ok(&[]);
        }
        // a second look after the loop, because the borrow of the first would last
        while let Err(error) = self.input.fill_buf() {
            if error.kind() != ErrorKind::Interrupted {
                return Err(CopyError::Read(error));
            }
        }
        let bytes = self.input.buffer();
        if bytes.is_empty() {
            return Err(broken(&self.name, TRUNCATED));
        }
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[..count])
    }

    /// That many bytes of [`Reader::data`] are done with.
    pub(super) fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.left -= count as u64;
    }

    fn skip(&mut self) -> Result<(), CopyError> {
        self.left += std::mem::take(&mut self.padding) as u64;
        loop {
            let count = self.data()?.len();
            if count == 0 {
                return Ok(());
            }
            self.consume(count);
        }
    }

    /// `None` at the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, CopyError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(broken(&self.name, TRUNCATED)),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(CopyError::Read(error)),
            }
        }
        Ok(Some(block))
    }

    /// All bytes of a header that extends another.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, CopyError> {
        (self.left, self.padding) = (size, padding(size));
        let mut bytes = Vec::new();
        loop {
            let data = self.data()?;
            if data.is_empty() {
                return Ok(bytes);
            }
            let count = data.len();
            bytes.extend_from_slice(data);
            self.consume(count);
        }
    }

    fn entry(&mut self, block: &[u8; BLOCK], extension: Extension) -> Result<Entry, CopyError> {
        self.name = extension.path.unwrap_or_else(|| name(block));
        let wrong = |reason| broken(&self.name, reason);
        let or_field =
            |said: Option<u64>, field, reason| said.or_else(|| number(block, field)).ok_or_else(|| wrong(reason));
        let target = || extension.linkpath.clone().unwrap_or_else(|| text(block, header::LINK).to_vec());
        let device = || -> Result<(u64, u64), CopyError> {
            Ok((
                or_field(extension.devmajor, header::MAJOR, "its device is no number")?,
                or_field(extension.devminor, header::MINOR, "its device is no number")?,
            ))
        };
        let kind = match block[header::TYPE] {
            // before there were types, a directory was told by its name
            0 | b'0' if self.name.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => Kind::File { size: or_field(extension.size, header::SIZE, "its size is no number")? },
            b'1' => Kind::HardLink { target: target() },
            b'2' => Kind::Symlink { target: target() },
            b'3' => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(wrong("sparse files are not supported: make the archive without them")),
            _ => return Err(wrong("its type is unknown")),
        };
        if extension.sparse {
            return Err(wrong("sparse files are not supported: make the archive without them"));
        }
        let id = |said, field| {
            let id = or_field(said, field, "its owner is no number")?;
            // the greatest means nobody: chown(2)
            u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or_else(|| wrong("its owner is too great a number"))
        };
        let mode = number(block, header::MODE).ok_or_else(|| wrong("its mode is no number"))?;
        let mtime = match extension.mtime {
            Some(time) => time,
            None => Time {
                seconds: signed_number(block, header::MTIME).ok_or_else(|| wrong("its time is no number"))?,
                nanos: 0,
            },
        };
        let (uid, gid) = (id(extension.uid, header::UID)?, id(extension.gid, header::GID)?);
        // as Go does: only a file has bytes, whatever the size of the others says
        let size = if let Kind::File { size } = kind { size } else { 0 };
        if i64::try_from(size).is_err() {
            return Err(wrong("its size is too great"));
        }
        #[allow(clippy::cast_possible_truncation)] // masked
        let mode = (mode & 0o7777) as u32;
        let meta = Meta { mode, uid, gid, mtime, xattrs: extension.xattrs };
        (self.left, self.padding) = (size, padding(size));
        Ok(Entry { name: self.name.clone(), kind, meta })
    }
}

impl Extension {
    fn is_empty(&self) -> bool {
        self.path.is_none() && self.linkpath.is_none() && self.size.is_none() && self.xattrs.is_empty()
    }

    fn parse(mut bytes: &[u8]) -> Result<Extension, &'static str> {
        const MALFORMED: &str = "an extended header is malformed";
        let mut extension = Extension::default();
        while !bytes.is_empty() {
            let space = bytes.iter().take(20).position(|&byte| byte == b' ').ok_or(MALFORMED)?;
            let length = decimal(&bytes[..space]).and_then(|length| usize::try_from(length).ok()).ok_or(MALFORMED)?;
            let record = bytes.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or(MALFORMED)?;
            bytes = &bytes[length..];
            // the name of an attribute has its own `=` encoded
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(MALFORMED)?;
            extension.take(&record[..equals], &record[equals + 1..]).ok_or(MALFORMED)?;
        }
        Ok(extension)
    }

    /// `None` when the value is not what the key wants.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        // an empty value takes back what an earlier record said
        let number = || if value.is_empty() { Some(None) } else { decimal(value).map(Some) };
        let bytes = || Some(value).filter(|value| !value.is_empty()).map(<[u8]>::to_vec);
        match key {
            b"path" => self.path = bytes(),
            b"linkpath" => self.linkpath = bytes(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"SCHILY.devmajor" => self.devmajor = number()?,
            b"SCHILY.devminor" => self.devminor = number()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value)?),
            _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.push((CString::new(decode_name(name)).ok()?, value.into()));
                }
            }
        }
        Some(())
    }
}

/// `%3D` and `%25` are what GNU tar writes for `=` and `%`.
fn decode_name(mut name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    while let Some((&first, rest)) = name.split_first() {
        let (byte, rest) = match (first, rest) {
            (b'%', [b'3', b'D', rest @ ..]) => (b'=', rest),
            (b'%', [b'2', b'5', rest @ ..]) => (b'%', rest),
            other => other,
        };
        decoded.push(byte);
        name = rest;
    }
    decoded
}

fn text(block: &[u8; BLOCK], (start, length): Field) -> &[u8] {
    let field = &block[start..start + length];
    field.split(|&byte| byte == 0).next().unwrap_or(field)
}

fn name(block: &[u8; BLOCK]) -> Vec<u8> {
    let (name, prefix) = (text(block, header::NAME), text(block, header::PREFIX));
    // GNU's header has times where the standard has the prefix, and another magic
    let (start, length) = header::MAGIC;
    let standard = block[start..start + length].starts_with(&USTAR[..6]);
    match standard && !prefix.is_empty() {
        true => [prefix, b"/", name].concat(),
        false => name.to_vec(),
    }
}

fn number(block: &[u8; BLOCK], field: Field) -> Option<u64> {
    signed_number(block, field).and_then(|number| u64::try_from(number).ok())
}

/// Octal with spaces or NULs around it, or as GNU writes great and negative numbers: the first bit set, big-endian.
fn signed_number(block: &[u8; BLOCK], (start, length): Field) -> Option<i64> {
    let field = &block[start..start + length];
    if field[0] & 0x80 != 0 {
        // sign and value begin at the second bit
        let first = i128::from((field[0] << 1).cast_signed() >> 1);
        let value = field[1..].iter().fold(first, |value, &byte| (value << 8) | i128::from(byte));
        return i64::try_from(value).ok();
    }
    let digits = field.iter().copied().skip_while(|&byte| byte == b' ').take_while(|&byte| byte != b' ' && byte != 0);
    let mut value: i64 = 0;
    for digit in digits {
        let digit = (b'0'..=b'7').contains(&digit).then(|| i64::from(digit - b'0'))?;
        value = value.checked_mul(8)?.checked_add(digit)?;
    }
    Some(value)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// Decimal, with a fraction of any length.
fn time(value: &[u8]) -> Option<Time> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |&byte| byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = (0..9).fold(0, |nanos, at| nanos * 10 + u32::from(fraction.get(at).map_or(0, |digit| digit - b'0')));
    Some(match (negative, nanos) {
        (false, nanos) => Time { seconds, nanos },
        (true, 0) => Time { seconds: -seconds, nanos: 0 },
        (true, nanos) => Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}
