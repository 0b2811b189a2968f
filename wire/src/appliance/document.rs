//! `docs/appliance.md` against the code: every key that the reader asks for is in it, or is a container's as well, and every key of its tables is asked for.

use std::collections::BTreeSet;

use super::read;
use super::tests::whole;
use crate::guestinfo::document::{GUESTINFO, as_documented, documented, taken};
use crate::vmx::Dictionary;

#[test]
fn the_document_lists_every_key_and_no_other() {
    let keys = whole();
    read(&keys).unwrap();
    // a list that is written as VIC wrote lists, and a spec in one value
    let mut packed = Dictionary::default();
    packed.set("guestinfo.vice./init/spec", keys.to_string());
    read(&packed).unwrap();
    let asked: BTreeSet<String> = taken()
        .iter()
        .map(|key| as_documented(&key.replace("guestinfo.vice./init/", "guestinfo.vice./").replace("..init.", "..")))
        .collect();
    let ours = documented(include_str!("../../../docs/appliance.md"));
    let shared = documented(GUESTINFO);
    let missing: Vec<&String> = asked.iter().filter(|key| !ours.contains(*key) && !shared.contains(*key)).collect();
    let idle: Vec<&String> = ours.difference(&asked).collect();
    assert!(missing.is_empty() && idle.is_empty(), "not in the document: {missing:?}; nobody asks for: {idle:?}");
    // a container's keys that mean something here too stand in its table, by what they begin with
    let of_containers = ["networks|N/", "sessions|ID/", "names/", "diagnostics/", "guestinfo.vice..networks|"];
    let others: Vec<&String> = asked
        .iter()
        .filter(|key| !ours.contains(*key) && !of_containers.iter().any(|known| key.starts_with(known)))
        .collect();
    assert!(others.is_empty(), "a key of the appliance that only the containers' document explains: {others:?}");
}
