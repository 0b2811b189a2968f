//! Certificates and keys as text: PEM, RFC 7468. A value of guestinfo cannot hold lines everywhere, so it may be base64 of the whole text, too,
//! and what stands where a line ends may be any space.

use core::fmt;

use crate::guestinfo::base64;

/// One or more blocks of PEM, each with its lines in order. It may be a key, so `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem(String);

impl Pem {
    /// Reads blocks with one of those labels, or base64 of their text. What stands between blocks is skipped, as tools write explanations there; so are blocks
    /// of other labels. None: there is no such block, or one is broken.
    pub fn read(text: &str, labels: &[&str]) -> Option<Pem> {
        if !text.contains(BEGIN) {
            let text: String = text.split_ascii_whitespace().collect();
            let inner = String::from_utf8(base64::decode(&text)?).ok()?;
            return blocks(&inner, labels);
        }
        blocks(text, labels)
    }

    /// Its text, as a file holds it.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem(..)")
    }
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// RFC 7468, section 2: characters a line.
const LINE: usize = 64;

fn blocks(mut rest: &str, labels: &[&str]) -> Option<Pem> {
    let mut text = String::new();
    while let Some(begin) = rest.find(BEGIN) {
        let (label, behind) = rest[begin + BEGIN.len()..].split_once(DASHES)?;
        let end = format!("{END}{label}{DASHES}");
        let (inner, behind) = behind.split_once(&end)?;
        rest = behind;
        if !labels.contains(&label) {
            continue;
        }
        let digits: String = inner.split_ascii_whitespace().collect();
        base64::decode(&digits).filter(|bytes| !bytes.is_empty())?;
        text.push_str(&format!("{BEGIN}{label}{DASHES}\n"));
        for line in digits.as_bytes().chunks(LINE) {
            text.extend(line.iter().map(|&digit| char::from(digit)));
            text.push('\n');
        }
        text.push_str(&end);
        text.push('\n');
    }
    (!text.is_empty()).then_some(Pem(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [&str; 1] = ["CERTIFICATE"];

    fn file() -> String {
        let digits = base64::encode(&[7; 90]);
        let (one, two) = digits.split_at(64);
        format!("-----BEGIN CERTIFICATE-----\n{one}\n{two}\n-----END CERTIFICATE-----\n")
    }

    #[test]
    fn lines_survive_whatever_became_of_their_ends() {
        let file = file();
        let spaced = file.trim_end().replace('\n', " ");
        let explained = format!("subject=CN = vch\r\n{}", file.replace('\n', "\r\n"));
        let encoded = base64::encode(file.as_bytes());
        let broken_lines = format!("{}\n{}", &encoded[..76], &encoded[76..]);
        for text in [&file, &spaced, &explained, &encoded, &broken_lines] {
            assert_eq!(Pem::read(text, &LABELS).as_ref().map(Pem::text), Some(file.as_str()), "{text}");
        }
        let chain = format!("{file}{file}");
        assert_eq!(Pem::read(&chain, &LABELS).unwrap().text(), chain);
        let mixed = format!("-----BEGIN EC PARAMETERS-----\nBg==\n-----END EC PARAMETERS-----\n{file}");
        assert_eq!(Pem::read(&mixed, &LABELS).unwrap().text(), file);
    }

    #[test]
    fn what_is_no_pem_is_refused() {
        let file = file();
        let cut = &file[..file.len() - 5];
        let empty = "-----BEGIN CERTIFICATE----------END CERTIFICATE-----";
        let other = file.replace("CERTIFICATE", "CERTIFICATE REQUEST");
        // an encrypted key of the old form has headers, which nobody here could answer for
        let headers = file.replacen("-----\n", "-----\nProc-Type: 4,ENCRYPTED\n", 1);
        let crossed = file.replace("END CERTIFICATE", "END KEY");
        for text in ["", "secret", "c2VjcmV0", cut, empty, &other, &headers, &crossed, "-----BEGIN "] {
            assert_eq!(Pem::read(text, &LABELS), None, "{text}");
        }
        assert_eq!(format!("{:?}", Pem::read(&file, &LABELS)), "Some(Pem(..))");
    }
}
