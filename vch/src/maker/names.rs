//! Names for containers that were given none: two words that a person can say and type.
//!
//! Whether a name is taken is decided by who keeps the containers.

use anyhow::Result;

use crate::state;

/// One of some thousands, at random, as `brave_harrison`.
pub(crate) fn name() -> Result<String> {
    let bytes = state::random()?;
    let pick = |at: usize, words: &[&'static str]| {
        words[usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]])) % words.len()]
    };
    Ok(format!("{}_{}", pick(0, &MANNERS), pick(2, &PEOPLE)))
}

#[rustfmt::skip]
const MANNERS: [&str; 64] = [
    "agile", "airy", "amber", "awake", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid", "careful",
    "cheery", "clear", "clever", "cordial", "crisp", "curious", "daring", "deft", "eager", "early", "earnest", "fair",
    "fleet", "fond", "frank", "gentle", "glad", "golden", "hardy", "honest", "jolly", "keen", "kind", "lively",
    "loyal", "lucid", "mellow", "merry", "mild", "modest", "nimble", "noble", "patient", "placid", "plucky", "polite",
    "prompt", "proud", "quick", "quiet", "ready", "rustic", "serene", "silent", "smooth", "snug", "spry", "steady",
    "sunny", "swift", "tidy", "witty",
];

/// Makers of instruments, clocks, engines, maps and machines.
#[rustfmt::skip]
const PEOPLE: [&str; 72] = [
    "abney", "airy", "amsler", "arnold", "atwood", "baird", "baker", "benz", "berthoud", "bird", "borda", "bramah",
    "breguet", "brunel", "cary", "clement", "coulomb", "cugnot", "darby", "dent", "diesel", "dollond", "drebbel",
    "earnshaw", "ericsson", "fahrenheit", "foucault", "fulton", "gascoigne", "graham", "gunter", "hadley", "harrison",
    "heath", "holtz", "jacquard", "kater", "kelvin", "kendall", "leclanche", "lenoir", "locke", "maudslay", "mercator",
    "moore", "mudge", "murdoch", "nasmyth", "napier", "newcomen", "niepce", "oughtred", "papin", "pascal", "pixii",
    "ramsden", "savery", "sisson", "smeaton", "stephenson", "swan", "telford", "tompion", "torricelli", "tower",
    "trevithick", "vernier", "watt", "wheatstone", "whitney", "whitworth", "zeiss",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_two_plain_words() {
        for word in MANNERS.iter().chain(&PEOPLE) {
            assert!(word.chars().all(|char| char.is_ascii_lowercase()), "{word}");
        }
        let (manner, person) = (name().unwrap(), name().unwrap());
        for name in [&manner, &person] {
            assert_eq!(name.split('_').count(), 2, "{name}");
        }
        // twelve in a row are not all the same one
        assert!((0..12).any(|_| name().unwrap() != manner));
    }
}
