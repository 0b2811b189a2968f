//! The fields of a 512-byte tar header, in the three ways that tar writers have of writing numbers and names.

/// Bytes of a tar block.
pub(super) const BLOCK: usize = 512;

type Field<T> = Result<T, &'static str>;

/// A header whose checksum is right.
#[derive(Debug)]
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    pub(super) fn new(block: &[u8; BLOCK]) -> Field<Header<'_>> {
        let said = number(&block[148..156])?;
        let byte = |(at, &byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { byte };
        let unsigned: i64 = block.iter().enumerate().map(byte).map(i64::from).sum();
        // Some old writers added the bytes up as signed characters.
        let signed: i64 = block.iter().enumerate().map(byte).map(|byte| i64::from(byte.cast_signed())).sum();
        if said != unsigned && said != signed {
            return Err("its checksum is wrong");
        }
        Ok(Header(block))
    }

    pub(super) fn flag(&self) -> u8 {
        self.0[156]
    }

    /// The name, behind the prefix that POSIX headers have.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = string(&self.0[..100]);
        let prefix = if self.is_posix() { string(&self.0[345..500]) } else { b"" };
        match prefix {
            b"" => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    pub(super) fn link(&self) -> &[u8] {
        string(&self.0[157..257])
    }

    pub(super) fn mode(&self) -> Field<u16> {
        u16::try_from(number(&self.0[100..108])? & 0o7777).map_err(|_| "its mode is out of range")
    }

    pub(super) fn uid(&self) -> Field<u32> {
        u32::try_from(number(&self.0[108..116])?).map_err(|_| "its uid is out of range")
    }

    pub(super) fn gid(&self) -> Field<u32> {
        u32::try_from(number(&self.0[116..124])?).map_err(|_| "its gid is out of range")
    }

    /// At most `i64::MAX`, so that sums of a few sizes do not overflow.
    pub(super) fn size(&self) -> Field<u64> {
        u64::try_from(number(&self.0[124..136])?).map_err(|_| "its size is out of range")
    }

    pub(super) fn mtime(&self) -> Field<i64> {
        number(&self.0[136..148])
    }

    pub(super) fn device(&self) -> Field<(u32, u32)> {
        let part = |field| u32::try_from(number(field)?).map_err(|_| "its device number is out of range");
        Ok((part(&self.0[329..337])?, part(&self.0[337..345])?))
    }

    /// The first entries of an old GNU sparse map, and whether blocks with more follow.
    pub(super) fn sparse_map(&self) -> (&[u8], bool) {
        (&self.0[386..482], self.0[482] != 0)
    }

    /// The size that an old GNU sparse file has once it is unpacked.
    pub(super) fn sparse_size(&self) -> Field<u64> {
        u64::try_from(number(&self.0[483..495])?).map_err(|_| "its real size is out of range")
    }

    /// GNU headers say `ustar  ` and keep other things where POSIX has the prefix.
    fn is_posix(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }
}

/// The bytes of a field up to the first NUL.
pub(super) fn string(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits between spaces and NULs (none are 0), or two's complement behind a set top bit.
pub(super) fn number(field: &[u8]) -> Field<i64> {
    if field[0] & 0x80 != 0 {
        let sign = if field[0] & 0x40 != 0 { -1 } else { 0 };
        let first = i128::from(field[0] & 0x3f) | sign << 6;
        let value = field[1..].iter().fold(first, |value, &byte| value << 8 | i128::from(byte));
        return i64::try_from(value).map_err(|_| "a number is out of range");
    }
    let padding = |byte: &u8| matches!(byte, b' ' | 0);
    let digits = field.iter().skip_while(|byte| padding(byte)).take_while(|byte| !padding(byte));
    digits.into_iter().try_fold(0i64, |value, &byte| match byte {
        b'0'..=b'7' => Ok(value << 3 | i64::from(byte - b'0')),
        _ => Err("a number is not octal"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_all_their_forms() {
        let cases: [(&[u8], Field<i64>); 10] = [
            (b"0000644\0", Ok(0o644)),
            (b"   644 \0", Ok(0o644)),
            (b"\0\0\0\0\0\0\0\0", Ok(0)),
            (b"77777777", Ok(0o77777777)),
            (b"0000648\0", Err("a number is not octal")),
            (b"-0000001", Err("a number is not octal")),
            (&[0x80, 0, 0, 0, 0, 1, 0, 0], Ok(65536)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Ok(-1)),
            (&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0], Err("a number is out of range")),
            (&[0xff, 0xff, 0xff, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], Ok(i64::MIN)),
        ];
        for (field, expected) in cases {
            assert_eq!(number(field), expected, "{field:02x?}");
        }
    }
}
