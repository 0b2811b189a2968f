//! Templates and clones as guestinfo keys: whether a machine is to wait for being cloned, and what a clone finds in their place. `docs/guestinfo.md` lists them.

use super::network::text::{hardware, hardware_text};
use super::node::{Node, Writer};
use super::{BASE, Keys, SpecError};
use crate::handshake::{read_hex, write_hex};
use crate::vmx::Dictionary;

/// Bytes of randomness that a clone is given: twice what the kernel's generator is seeded with.
pub const ENTROPY: usize = 64;
/// Bytes of a generation.
pub const GENERATION: usize = 16;

const WAIT: &str = "clone/wait";
const NUMBER: &str = "clone/generation";
const RANDOMNESS: &str = "clone/entropy";
const TIME: &str = "clone/time";
const CARDS: &str = "clone/cards";
const DISKS: &str = "clone/disks";

/// A hardware address.
type Hardware = [u8; 6];

/// Which of the machines this is that share the beginning of their memory.
#[derive(Clone, PartialEq, Eq)]
pub enum Generation {
    /// The template: it waits, and runs nothing.
    Template {
        /// What no two machines have in common.
        number: [u8; GENERATION],
    },
    /// One that goes on where a template waited.
    Clone {
        /// What no two machines have in common.
        number: [u8; GENERATION],
        /// For the kernel's generator.
        entropy: Box<[u8; ENTROPY]>,
        /// The host's clock when it wrote this, in nanoseconds since 1970: for a machine that cannot ask.
        unix_ns: Option<i64>,
    },
}

impl Generation {
    /// What no two machines have in common.
    pub fn number(&self) -> &[u8; GENERATION] {
        match self {
            Generation::Template { number } | Generation::Clone { number, .. } => number,
        }
    }
}

/// The randomness is a secret.
impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Generation::Template { .. } => "Template",
            Generation::Clone { .. } => "Clone",
        };
        write!(f, "{name}({:02x?})", self.number())
    }
}

/// The keys that [`generation`] asks for, in the order in which a host writes them: before all others.
pub fn generation_keys() -> impl Iterator<Item = String> {
    [NUMBER, WAIT, RANDOMNESS, TIME].into_iter().map(|key| format!("{BASE}/{key}"))
}

/// Reads which one this is; none for a machine that has nothing to do with clones.
pub fn generation(keys: &dyn Keys) -> Result<Option<Generation>, SpecError> {
    let root = Node { keys, path: format!("{BASE}/") };
    let waits = root.flag(WAIT, false)?;
    if !waits && root.filled(NUMBER).is_none() {
        return Ok(None);
    }
    let number = digits(&root, NUMBER, "32 hexadecimal digits")?;
    if waits {
        return Ok(Some(Generation::Template { number }));
    }
    let entropy = Box::new(digits(&root, RANDOMNESS, "128 hexadecimal digits")?);
    let unix_ns = root.parsed(TIME, "nanoseconds since 1970", |text| text.parse().ok())?;
    Ok(Some(Generation::Clone { number, entropy, unix_ns }))
}

fn digits<const LENGTH: usize>(root: &Node<'_>, key: &str, expected: &'static str) -> Result<[u8; LENGTH], SpecError> {
    let text = root.filled(key).ok_or_else(|| root.missing(key))?;
    read_hex(&text).ok_or_else(|| root.invalid(key, &text, expected))
}

/// Writes it.
pub fn write_generation(generation: &Generation) -> Dictionary {
    let mut keys = Dictionary::default();
    let mut root = Writer::new(&mut keys);
    root.set(NUMBER, &write_hex(generation.number()));
    match generation {
        Generation::Template { .. } => root.flag(WAIT, true),
        Generation::Clone { entropy, unix_ns, .. } => {
            root.set(RANDOMNESS, &write_hex(entropy.as_slice()));
            if let Some(time) = unix_ns {
                root.set(TIME, &time.to_string());
            }
        }
    }
    keys
}

/// The hardware addresses that a clone's cards have from its template, and those that they are to have.
pub fn cards(keys: &dyn Keys) -> Result<Vec<(Hardware, Hardware)>, SpecError> {
    let root = Node { keys, path: format!("{BASE}/") };
    let pair = |text: &String| {
        let (from, to) = text.split_once('=')?;
        Some((hardware(from)?, hardware(to)?))
    };
    let names = root.names(CARDS)?;
    let pairs =
        names.iter().map(|name| pair(name).ok_or_else(|| root.invalid(CARDS, name, "two hardware addresses with `=`")));
    pairs.collect()
}

/// Writes them.
pub fn write_cards(cards: &[(Hardware, Hardware)], keys: &mut Dictionary) {
    let text = |(from, to): &(Hardware, Hardware)| format!("{}={}", hardware_text(*from), hardware_text(*to));
    let pairs: Vec<String> = cards.iter().map(text).collect();
    Writer::new(keys).names(CARDS, pairs.iter().map(String::as_str));
}

/// Whether a clone's controller has disks that the template's had not.
pub fn has_more_disks(keys: &dyn Keys) -> bool {
    let root = Node { keys, path: format!("{BASE}/") };
    root.flag(DISKS, true).unwrap_or(true)
}

/// Writes it.
pub fn write_more_disks(has: bool, keys: &mut Dictionary) {
    Writer::new(keys).flag(DISKS, has);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let entropy = Box::new([0xa5; ENTROPY]);
        for written in [
            Generation::Template { number: [7; GENERATION] },
            Generation::Clone { number: [8; GENERATION], entropy: entropy.clone(), unix_ns: Some(1_700_000_000_123) },
            Generation::Clone { number: [9; GENERATION], entropy, unix_ns: None },
        ] {
            let keys = write_generation(&written);
            assert_eq!(generation(&keys), Ok(Some(written.clone())));
            assert!(!format!("{written:?}").contains("a5, a5"), "{written:?}");
            let named: Vec<String> = generation_keys().collect();
            assert!(keys.iter().all(|(key, _)| named.iter().any(|name| name == key)));
        }
        assert_eq!(generation(&Dictionary::default()), Ok(None));
    }

    #[test]
    fn cards_are_told_from_what_they_were() {
        let pairs = [([2, 0, 0, 0, 0, 1], [0x52, 0x54, 0, 0, 0, 1]), ([2, 0, 0, 0, 0, 2], [0x52, 0x54, 0, 0, 0, 2])];
        let mut keys = Dictionary::default();
        assert_eq!(cards(&keys), Ok(Vec::new()));
        write_cards(&pairs, &mut keys);
        assert_eq!(cards(&keys), Ok(pairs.to_vec()));
        keys.set("guestinfo.vice./clone/cards", "02:00:00:00:00:01");
        assert!(cards(&keys).unwrap_err().to_string().ends_with("is not two hardware addresses with `=`"));
    }

    #[test]
    fn a_clone_without_randomness_is_none() {
        let whole = write_generation(&Generation::Clone { number: [8; 16], entropy: Box::new([1; 64]), unix_ns: None });
        let with = |key: &str, value: &str| {
            let mut keys = whole.clone();
            keys.set(&format!("{BASE}/{key}"), value);
            generation(&keys).unwrap_err().to_string()
        };
        assert_eq!(with(RANDOMNESS, ""), "guestinfo has no guestinfo.vice./clone/entropy");
        assert_eq!(
            with(RANDOMNESS, "a5"),
            "guestinfo guestinfo.vice./clone/entropy: \"a5\" is not 128 hexadecimal digits"
        );
        assert!(with(NUMBER, &"x".repeat(32)).ends_with("is not 32 hexadecimal digits"));
        assert!(with(TIME, "noon").ends_with("is not nanoseconds since 1970"));
        let mut keys = Dictionary::default();
        keys.set("guestinfo.vice./clone/wait", "true");
        assert_eq!(generation(&keys).unwrap_err().to_string(), "guestinfo has no guestinfo.vice./clone/generation");
    }
}
