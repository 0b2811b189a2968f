//! The store on a real file system: what is kept, what is taken up, and what goes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::document::{Descriptor, Platform};
use super::*;

struct World {
    cache: tempfile::TempDir,
    store: Store,
}

fn world() -> World {
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    World { cache, store }
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: "x".to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

fn mine(store: &Store, bytes: &[u8]) -> Box<Partial> {
    match store.claim(&Digest::of(bytes), bytes.len() as u64).unwrap() {
        Claim::Mine(partial) => partial,
        Claim::There => panic!("it is there"),
    }
}

/// An image of one layer, complete, under `name`.
fn image(store: &Store, name: &str, layer: &[u8], used: u64) -> Descriptor {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let parts = [&config[..], layer].map(|bytes| {
        store.put(&Digest::of(bytes), bytes).unwrap();
        serde_json::to_string(&descriptor(bytes)).unwrap()
    });
    let manifest = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, parts[0], parts[1]);
    store.put(&Digest::of(manifest.as_bytes()), manifest.as_bytes()).unwrap();
    let descriptor = descriptor(manifest.as_bytes());
    store.name(name, &descriptor, used).unwrap();
    descriptor
}

fn partials(store: &Store) -> usize {
    std::fs::read_dir(store.partials()).unwrap().count()
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let World { store, cache: _cache } = world();
    let blob = b"one two three";
    let mut partial = mine(&store, blob);
    partial.append(b"one ").unwrap();
    drop(partial);
    let mut partial = mine(&store, blob);
    assert_eq!(partial.len(), 4);
    partial.append(b"two three").unwrap();
    assert!(!store.has(&Digest::of(blob), 13), "before it is verified");
    assert_eq!(partial.finish().unwrap(), Finished::Kept);
    drop(partial);
    assert!(store.has(&Digest::of(blob), 13) && partials(&store) == 0);
    assert!(matches!(store.claim(&Digest::of(blob), 13).unwrap(), Claim::There));
}

#[test]
fn a_wrong_blob_is_thrown_away() {
    let World { store, cache: _cache } = world();
    let mut partial = mine(&store, b"right");
    partial.append(b"wrong").unwrap();
    let found = Finished::Wrong(Digest::of(b"wrong").to_string());
    assert_eq!(partial.finish().unwrap(), found);
    assert!(partial.is_empty() && !store.has(&Digest::of(b"right"), 5));
    partial.append(b"right").unwrap();
    assert_eq!(partial.finish().unwrap(), Finished::Kept);
    drop(partial);
    let mut short = mine(&store, b"longer");
    short.append(b"long").unwrap();
    assert!(matches!(short.finish().unwrap(), Finished::Wrong(_)));
    drop(short);
    assert_eq!(partials(&store), 0);
}

#[test]
fn what_is_longer_than_the_blob_is_not_taken_up() {
    let World { store, cache: _cache } = world();
    let digest = Digest::of(b"abc");
    std::fs::write(store.partials().join(digest.hex()), b"abcdef").unwrap();
    assert_eq!(mine(&store, b"abc").len(), 0);
}

#[test]
fn two_who_want_one_blob_fetch_it_once() {
    let World { store, cache: _cache } = world();
    let mut first = mine(&store, b"blob");
    let second = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.claim(&Digest::of(b"blob"), 4).unwrap());
        first.append(b"blob").unwrap();
        assert_eq!(first.finish().unwrap(), Finished::Kept);
        drop(first);
        waiting.join().unwrap()
    });
    assert!(matches!(second, Claim::There));
    // and when the first gives up, the second has it to itself
    let first = mine(&store, b"other");
    let second = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.claim(&Digest::of(b"other"), 5).unwrap());
        drop(first);
        waiting.join().unwrap()
    });
    assert!(matches!(second, Claim::Mine(_)));
}

#[test]
fn a_name_is_found_only_with_all_of_its_blobs() {
    let World { store, cache: _cache } = world();
    image(&store, "a:1", b"layer", 7);
    let host = Platform::this_host();
    let found = store.find("a:1", &host).unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.used), ("a:1", 7));
    assert_eq!(store.find("a:2", &host).unwrap(), None);
    store.touch(&found, 60).unwrap();
    assert_eq!(store.names().unwrap()[0].used, 7, "within a minute");
    store.touch(&found, 67).unwrap();
    assert_eq!(store.names().unwrap()[0].used, 67);
    std::fs::remove_file(store.blob(&Digest::of(b"layer"))).unwrap();
    assert_eq!(store.find("a:1", &host).unwrap(), None);
}

#[test]
fn what_no_name_leads_to_is_collected_and_nothing_else() {
    let World { store, cache: _cache } = world();
    image(&store, "kept:1", b"shared", 100);
    image(&store, "kept:2", b"own", 100);
    image(&store, "gone:1", b"lonely", 100);
    assert!(store.forget("gone:1").unwrap() && !store.forget("gone:1").unwrap());
    let mut partial = mine(&store, b"half");
    partial.append(b"ha").unwrap();
    drop(partial);
    let collected = store.collect(Keep::default(), 200).unwrap();
    assert_eq!((collected.blobs, collected.images.len()), (2, 0), "a layer and a manifest");
    assert!(!store.has(&Digest::of(b"lonely"), 6) && store.has(&Digest::of(b"shared"), 6));
    assert_eq!(partials(&store), 1, "it may be taken up");
    assert_eq!(store.find("kept:2", &Platform::this_host()).unwrap().unwrap().name, "kept:2");
    let much_later = u64::from(u32::MAX);
    store.collect(Keep::default(), much_later).unwrap();
    assert_eq!(partials(&store), 0);
}

#[test]
fn images_go_by_age_and_by_size_the_oldest_first() {
    let World { store, cache: _cache } = world();
    for (name, used) in [("a:1", 100), ("b:1", 200), ("c:1", 300)] {
        image(&store, name, &[name.as_bytes()[0]; 1000], used);
    }
    let old = Keep { used_within: Some(Duration::from_secs(150)), bytes: None };
    assert_eq!(store.collect(old, 300).unwrap().images, ["a:1"]);
    let small = Keep { used_within: None, bytes: Some(2000) };
    let collected = store.collect(small, 300).unwrap();
    assert_eq!(collected.images, ["b:1"]);
    assert!(collected.kept > 1000 && collected.kept < 2000, "{collected:?}");
    assert_eq!(store.collect(Keep { used_within: None, bytes: Some(0) }, 300).unwrap().kept, 0);
}

#[test]
fn what_is_just_within_the_bounds_stays() {
    let World { store, cache: _cache } = world();
    let layer = [7; 1000];
    image(&store, "a:1", &layer, 100);
    let one = store.collect(Keep::default(), 100).unwrap().kept;
    let old = Keep { used_within: Some(Duration::from_secs(200)), bytes: None };
    assert!(store.collect(old, 300).unwrap().images.is_empty());
    assert_eq!(store.collect(Keep { used_within: None, bytes: Some(one) }, 300).unwrap().kept, one);
    // the same image under another name takes no more
    image(&store, "b:1", &layer, 200);
    assert_eq!(store.collect(Keep { used_within: None, bytes: Some(one) }, 300).unwrap().kept, one);
    assert_eq!(store.names().unwrap().len(), 2);
    assert_eq!(store.collect(old, 301).unwrap().images, ["a:1"]);
    assert_eq!(store.collect(Keep { used_within: None, bytes: Some(one - 1) }, 301).unwrap().images, ["b:1"]);
}

#[test]
fn the_store_is_a_layout_that_oci_opens() {
    let World { store, cache } = world();
    image(&store, "docker.io/library/a:1", b"layer", 0);
    let reference =
        crate::oci::Reference::Oci { path: store.dir().to_owned(), tag: Some("docker.io/library/a:1".to_owned()) };
    // the documents fit; that the config names no layer of the one that there is, is seen and told
    let error = crate::oci::open(&reference, cache.path()).unwrap_err().to_string();
    assert!(error.contains("its manifest names 1 layers, its config 0"), "{error}");
}

#[test]
fn a_damaged_document_is_as_good_as_none() {
    let World { store, cache: _cache } = world();
    let manifest = image(&store, "a:1", b"layer", 0);
    std::fs::write(store.blob(&manifest.digest), b"{}").unwrap();
    assert_eq!(store.document(&manifest.digest).unwrap(), None);
    assert_eq!(store.find("a:1", &Platform::this_host()).unwrap(), None);
}
