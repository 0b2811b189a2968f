//! `docs/guestinfo.md` against the code: every key that the reader asks for is in its tables, and every key of its tables is asked for.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::{BASE, Generation, about, cards, generation, has_more_disks, read, write_generation};
use crate::vmx::Dictionary;

thread_local! {
    static ASKED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Every key that is looked up comes by here.
pub(crate) fn asked(key: &str) {
    ASKED.with_borrow_mut(|asked| asked.insert(key.to_owned()));
}

/// What was looked up by this thread so far.
pub(crate) fn taken() -> BTreeSet<String> {
    ASKED.take()
}

pub(crate) const GUESTINFO: &str = include_str!("../../../docs/guestinfo.md");

/// A key as the document writes it: without the prefix and a list's other forms, with a placeholder for each name.
pub(crate) fn as_documented(key: &str) -> String {
    let whole = key.ends_with("/labels~json");
    let key = if whole { key } else { key.trim_end_matches("~json").trim_end_matches('~') };
    let dotted = key.starts_with("guestinfo.vice..");
    let key = key.strip_prefix(&format!("{BASE}/")).unwrap_or(key);
    let placeholders = [("sessions|", "ID"), ("networks|", "N"), ("mounts|", "NAME")];
    let mut key = key.to_owned();
    for (map, placeholder) in placeholders {
        if let Some(at) = key.find(map).map(|at| at + map.len()) {
            let end = key[at..].find(['/', '.']).map_or(key.len(), |end| at + end);
            key.replace_range(at..end, placeholder);
        }
    }
    // elements of VIC's own lists are numbered
    for list in ["dns|", "pools|", "destinations|"] {
        if let Some(at) = key.find(list).map(|at| at + list.len()) {
            let end = key[at..].find('/').map_or(key.len(), |end| at + end);
            key.replace_range(at..end, "I");
        }
    }
    assert!(!dotted || key.starts_with("guestinfo."), "{key}");
    key
}

/// The keys in the first column of the document's tables.
pub(crate) fn documented(text: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let row = row.replace("\\|", "\u{1}");
        let column = row.split('|').nth(1).unwrap_or_default();
        for key in column.split('`').skip(1).step_by(2) {
            keys.insert(key.replace('\u{1}', "|"));
        }
    }
    keys
}

#[test]
fn the_document_lists_every_key_and_no_other() {
    let seeds = [
        include_str!("../../fuzz/seeds/spec/vic"),
        include_str!("../../fuzz/seeds/spec/rights"),
        include_str!("../../fuzz/seeds/spec/places"),
    ];
    for seed in seeds {
        read(&Dictionary::parse(seed).unwrap()).unwrap();
    }
    let mut whole = Dictionary::default();
    whole.set("guestinfo.vice./spec", seeds[0]);
    read(&whole).unwrap();
    about(&Dictionary::default());
    let clone = Generation::Clone { number: [1; 16], entropy: Box::new([2; 64]), unix_ns: Some(3) };
    generation(&write_generation(&clone)).unwrap();
    cards(&Dictionary::default()).unwrap();
    has_more_disks(&Dictionary::default());
    let asked: BTreeSet<String> = taken().iter().map(|key| as_documented(key)).collect();
    let mut documented = documented(GUESTINFO);
    // the guest's own
    assert!(documented.remove("guestinfo.vice..status"));
    let missing: Vec<&String> = asked.difference(&documented).collect();
    let idle: Vec<&String> = documented.difference(&asked).collect();
    assert!(missing.is_empty() && idle.is_empty(), "not in the document: {missing:?}; nobody asks for: {idle:?}");
}
