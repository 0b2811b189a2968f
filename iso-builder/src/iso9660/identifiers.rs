//! The names that ISO 9660 and Joliet have for files: shorter and poorer than ours, and unique within a directory.
//!
//! Whoever reads Rock Ridge sees none of them. Which identifier a file gets depends on its directory alone.

use std::collections::HashSet;

/// Characters of an identifier, dot and version left out (ECMA-119, 7.5.1, level 2 and 3).
const MAX_PLAIN: usize = 30;
/// Characters of an identifier in Joliet's own words: 64 of UCS-2.
const MAX_JOLIET: usize = 64;
/// More is part of the name rather than an extension.
const MAX_EXTENSION: usize = 12;

/// Gives out the identifiers of one directory.
#[derive(Debug)]
pub(super) struct Namer {
    joliet: bool,
    taken: HashSet<Vec<u16>>,
    /// Counts up over all names that needed a number, so that none is tried twice.
    numbers: u32,
}

impl Namer {
    pub(super) fn new(joliet: bool) -> Namer {
        Namer { joliet, taken: HashSet::new(), numbers: 0 }
    }

    /// The identifier of a file or directory, as a record has it.
    pub(super) fn name(&mut self, name: &[u8], directory: bool) -> Vec<u8> {
        let text: Vec<u16> = match self.joliet {
            true => String::from_utf8_lossy(name).chars().map(joliet).collect(),
            false => name.iter().map(|byte| plain(*byte)).collect(),
        };
        let dot = name_dot(&text).filter(|_| self.joliet || !directory);
        let (stem, extension) = dot.map_or((&text[..], &[][..]), |dot| (&text[..dot], &text[dot + 1..]));
        // what is left of dots is not allowed in plain names
        let without_dots = |unit: &u16| if *unit == DOT && !self.joliet { UNDERSCORE } else { *unit };
        let stem: Vec<u16> = stem.iter().map(without_dots).collect();
        let max = if self.joliet { MAX_JOLIET - 1 } else { MAX_PLAIN } - extension.len();
        let mut chosen = key(&stem[..stem.len().min(max)], extension);
        while !self.taken.insert(chosen.clone()) {
            let number = number(self.numbers);
            self.numbers += 1;
            let mut stem = stem[..stem.len().min(max - number.len())].to_vec();
            stem.extend(number);
            chosen = key(&stem, extension);
        }
        self.finish(chosen, directory)
    }

    /// With the dot that a plain file has even where it has no extension, and a version.
    fn finish(&self, mut chosen: Vec<u16>, directory: bool) -> Vec<u8> {
        let bare = chosen.last() == Some(&DOT);
        if bare && (self.joliet || directory) {
            chosen.pop();
        }
        if !directory {
            chosen.extend(b";1".map(u16::from));
        }
        match self.joliet {
            true => chosen.into_iter().flat_map(u16::to_be_bytes).collect(),
            false => chosen.into_iter().map(|unit| u8::try_from(unit).unwrap_or(b'_')).collect(),
        }
    }
}

const DOT: u16 = b'.' as u16;
const UNDERSCORE: u16 = b'_' as u16;

/// Stem and extension with a dot between them, whether or not there is one: two names that differ in that alone are one
/// to some readers.
fn key(stem: &[u16], extension: &[u16]) -> Vec<u16> {
    [stem, &[DOT], extension].concat()
}

/// Where a short extension begins.
fn name_dot(text: &[u16]) -> Option<usize> {
    let dot = text.iter().rposition(|unit| *unit == DOT)?;
    let extension = text.len() - dot - 1;
    (dot > 0 && (1..=MAX_EXTENSION).contains(&extension)).then_some(dot)
}

/// Letters are upper-case, as are digits; what else there is becomes an underscore.
fn plain(byte: u8) -> u16 {
    let byte = byte.to_ascii_uppercase();
    u16::from(if byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'.' { byte } else { b'_' })
}

/// What Joliet leaves out, and what UCS-2 has no unit for, becomes an underscore.
fn joliet(character: char) -> u16 {
    let allowed = !character.is_control() && !matches!(character, '*' | '/' | ':' | ';' | '?' | '\\');
    u16::try_from(u32::from(character)).ok().filter(|_| allowed).unwrap_or(UNDERSCORE)
}

/// An underscore and five digits of base 36: sixty million in one directory.
fn number(mut value: u32) -> [u16; 6] {
    let mut digits = [UNDERSCORE; 6];
    for digit in digits[1..].iter_mut().rev() {
        *digit = u16::from(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(value % 36) as usize]);
        value /= 36;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(joliet: bool, names: &[(&str, bool, &str)]) {
        let mut namer = Namer::new(joliet);
        for (name, directory, expected) in names {
            let identifier = namer.name(name.as_bytes(), *directory);
            let text = match joliet {
                true => String::from_utf16(
                    &identifier.chunks(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]])).collect::<Vec<_>>(),
                )
                .unwrap(),
                false => String::from_utf8(identifier).unwrap(),
            };
            assert_eq!(text, *expected, "{name}");
        }
    }

    #[test]
    fn plain_names_are_capitals_digits_and_underscores() {
        check(
            false,
            &[
                ("isolinux.bin", false, "ISOLINUX.BIN;1"),
                ("vmlinuz", false, "VMLINUZ.;1"),
                ("VMLINUZ", false, "VMLINUZ_00000.;1"),
                ("Vmlinuz", true, "VMLINUZ_00001"),
                (".profile", false, "_PROFILE.;1"),
                ("a.tar.gz", false, "A_TAR.GZ;1"),
                ("a_tar.gz", false, "A_TAR_00002.GZ;1"),
                ("x.d", true, "X_D"),
                ("ends.", false, "ENDS_.;1"),
                ("é", false, "__.;1"),
                (&"l".repeat(255), false, &format!("{}.;1", "L".repeat(30))),
                (&"l".repeat(254), false, &format!("{}_00003.;1", "L".repeat(24))),
            ],
        );
    }

    #[test]
    fn joliet_keeps_what_ucs_2_has() {
        check(
            true,
            &[
                ("Ünï.txt", false, "Ünï.txt;1"),
                ("dir.d", true, "dir.d"),
                ("a:b", false, "a_b;1"),
                ("a*b", false, "a_b_00000;1"),
                ("😀", false, "_;1"),
                (&format!("{}.txt", "é".repeat(100)), false, &format!("{}.txt;1", "é".repeat(60))),
            ],
        );
    }

    #[test]
    fn ten_thousand_names_that_look_the_same_are_told_apart_at_once() {
        for joliet in [false, true] {
            let mut namer = Namer::new(joliet);
            let prefix = "the same long beginning of a name ".repeat(4);
            let identifiers: HashSet<_> =
                (0..10_000).map(|number| namer.name(format!("{prefix}{number}").as_bytes(), false)).collect();
            assert_eq!(identifiers.len(), 10_000);
            assert_eq!(namer.numbers, 9_999, "one try for each");
        }
    }
}
