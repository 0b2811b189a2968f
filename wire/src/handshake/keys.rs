//! The keys of links: one for each VM, and the master key that a host derives them from, so that it needs no list of them.
//!
//! A link's key is HKDF-SHA256 (RFC 5869) of the master key, with the salt `tether link 1` and the VM's id as info.

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;

const SALT: &[u8] = b"tether link 1";

/// The pre-shared key of one VM's link.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey([u8; 32]);

impl LinkKey {
    /// A key of 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> LinkKey {
        LinkKey(bytes)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<LinkKey> {
        read_hex(text).map(LinkKey)
    }

    /// 64 hexadecimal digits, for the trusted way in: guestinfo.
    pub fn to_hex(&self) -> String {
        write_hex(&self.0)
    }

    /// Whether a text is this key in hexadecimal digits. How long it takes tells nothing about the key: every byte is looked at, wherever they differ.
    pub fn is_hex(&self, text: &str) -> bool {
        let Some(other) = read_hex::<32>(text) else { return false };
        let differing = self.0.iter().zip(other).fold(0, |bits, (own, theirs)| bits | own ^ theirs);
        std::hint::black_box(differing) == 0
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The secret of a host, from which it derives the key of each of its VMs.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// A key of 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> MasterKey {
        MasterKey(bytes)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<MasterKey> {
        read_hex(text).map(MasterKey)
    }

    /// 64 hexadecimal digits, for a file that only its owner can read.
    pub fn to_hex(&self) -> String {
        write_hex(&self.0)
    }

    /// The key of the link of the VM of this id: always the same, and nothing about any other.
    pub fn link_key(&self, vm: &str) -> LinkKey {
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(Some(SALT), &self.0)
            .expand(vm.as_bytes(), &mut key)
            .expect("32 bytes are one block of SHA-256");
        LinkKey(key)
    }
}

/// A key is never shown.
impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey(..)")
    }
}

/// A key is never shown.
impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// Two digits a byte, and no other character.
pub(crate) fn read_hex<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    read_digits(text)?.try_into().ok()
}

// one for all lengths: it is PID 1's, too
#[inline(never)]
fn read_digits(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|char| char.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

pub(crate) fn write_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_in_hex_and_never_shown() {
        let (link, master) = (LinkKey::new([0xab; 32]), MasterKey::new([0xcd; 32]));
        assert_eq!(LinkKey::from_hex(&link.to_hex()), Some(link.clone()));
        assert_eq!(MasterKey::from_hex(&master.to_hex()), Some(master.clone()));
        for bad in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"é".repeat(32)] {
            assert_eq!((LinkKey::from_hex(bad), MasterKey::from_hex(bad)), (None, None));
        }
        assert_eq!(format!("{link:?} {master:?}"), "LinkKey(..) MasterKey(..)");
    }

    #[test]
    fn a_key_is_known_by_all_of_its_digits() {
        let key = LinkKey::new(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        let text = key.to_hex();
        assert!(key.is_hex(&text) && key.is_hex(&text.to_uppercase()));
        for at in 0..text.len() {
            let mut other = text.clone();
            other.replace_range(at..=at, if &text[at..=at] == "f" { "e" } else { "f" });
            assert!(!key.is_hex(&other), "digit {at}");
        }
        for other in ["", &text[..63], &format!("{text}0"), "x"] {
            assert!(!key.is_hex(other), "{other:?}");
        }
    }

    /// The key that `docs/protocol.md` shows; `openssl kdf` computes the same.
    #[test]
    fn golden_link_key() {
        let master = MasterKey::new(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        let golden = "bdc27759233f2de938bef9c080a60287355feeeb30d97c28470854aa0ef9e082";
        assert_eq!(master.link_key("c1").to_hex(), golden);
        assert!(include_str!("../../../docs/protocol.md").contains(golden));
        assert_ne!(master.link_key("c2"), master.link_key("c1"));
        assert_ne!(MasterKey::new([0; 32]).link_key("c1"), master.link_key("c1"));
    }
}
