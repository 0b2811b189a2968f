//! How a person names an image, or a file in one: `FILE`, `FILE:/PATH`, and on through images within images.
//!
//! A path in an image begins with `/`, so `:/` is what parts it from what is before; a name with another colon needs nothing. Where the name of a directory
//! ends in a colon, and so `:/` is a part of a path, `\:/` is written. Nothing is opened here.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use super::text::Shown;

/// An image on this host, and the way through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A file or directory, or a reference such as `docker-archive:FILE:NAME`.
    pub file: OsString,
    /// Each leads through the image that the one before it names. Without any, the image is meant as a whole.
    pub paths: Vec<Vec<u8>>,
}

impl Place {
    /// Reads `FILE[:/PATH[:/PATH...]]`.
    pub fn parse(text: &OsStr) -> Result<Place, &'static str> {
        let bytes = text.as_bytes();
        // What names a reader has its own colon, and an absolute path may follow it.
        let scheme =
            SCHEMES.iter().find(|scheme| bytes.starts_with(scheme.as_bytes())).map_or(0, |scheme| scheme.len());
        let mut parts = vec![bytes[..scheme].to_vec()];
        let mut at = scheme;
        while at < bytes.len() {
            let part = parts.last_mut().expect("the first one");
            let slashes = bytes[at..].iter().take_while(|byte| **byte == b'\\').count();
            match &bytes[at + slashes..] {
                // Before a colon, two backslashes are one, and a single one takes the colon's meaning away.
                [b':', after @ ..] => {
                    part.resize(part.len() + slashes / 2, b'\\');
                    match after {
                        [b'/', ..] if slashes % 2 == 0 => parts.push(Vec::new()),
                        _ => part.push(b':'),
                    }
                    at += slashes + 1;
                }
                [byte, ..] => {
                    part.extend_from_slice(&bytes[at..at + slashes]);
                    part.push(*byte);
                    at += slashes + 1;
                }
                [] => {
                    part.extend_from_slice(&bytes[at..]);
                    at = bytes.len();
                }
            }
        }
        let mut parts = parts.into_iter();
        let file = parts.next().filter(|file| file.len() > scheme).ok_or("no file is named before the colon")?;
        Ok(Place { file: OsString::from_vec(file), paths: parts.collect() })
    }
}

/// For messages: without escapes, but such that it cannot speak to a terminal.
impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", Shown(self.file.as_bytes()))?;
        self.paths.iter().try_for_each(|path| write!(out, ":{}", Shown(path)))
    }
}

/// The beginnings of `oci::Reference` that name a file.
const SCHEMES: [&str; 2] = ["docker-archive:", "oci:"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colons_part_only_before_a_slash() {
        let cases: [(&str, &[&str]); 14] = [
            ("a.iso", &["a.iso"]),
            ("a.iso:/", &["a.iso", "/"]),
            ("a.iso:/boot/initramfs.cpio:/", &["a.iso", "/boot/initramfs.cpio", "/"]),
            ("disk:/12:30:00", &["disk", "/12:30:00"]),
            ("dir/name:tag", &["dir/name:tag"]),
            ("oci:/tmp/layout", &["oci:/tmp/layout"]),
            ("oci:layout:tag:/etc", &["oci:layout:tag", "/etc"]),
            ("docker-archive:/tmp/a.tar:/etc", &["docker-archive:/tmp/a.tar", "/etc"]),
            (r"c\:/x", &["c:/x"]),
            ("odd::/x", &["odd:", "/x"]),
            (r"c\\:/x", &[r"c\", "/x"]),
            (r"c\\\:/x:/y", &[r"c\:/x", "/y"]),
            (r"a\b\", &[r"a\b\"]),
            ("disk:/odd:", &["disk", "/odd:"]),
        ];
        for (text, parts) in cases {
            let place = Place::parse(OsStr::new(text)).unwrap();
            let found: Vec<&[u8]> =
                std::iter::once(place.file.as_bytes()).chain(place.paths.iter().map(Vec::as_slice)).collect();
            assert_eq!(found, parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>(), "{text}");
        }
        for text in ["", ":/etc", "oci:"] {
            assert!(Place::parse(OsStr::new(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_place_cannot_speak_to_a_terminal() {
        let place = Place::parse(OsStr::new("a\x1b[2J:/\u{202e}x")).unwrap();
        assert_eq!(place.to_string(), r"a\x1b[2J:/\u{202e}x");
    }
}
