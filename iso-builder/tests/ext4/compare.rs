//! Compares two trees, every name, attribute and byte.

use std::collections::HashMap;

use iso_builder::tree::{Content, Kind, Node, NodeId, ROOT, Tree};

/// Panics with the path of the first thing that `found` has otherwise than `expected`. Of its own, an image has an empty
/// lost+found.
pub(crate) fn assert_same(expected: &Tree, found: &Tree) {
    let mut partners: HashMap<NodeId, NodeId> = HashMap::new();
    let mut waiting = vec![(ROOT, ROOT, String::new())];
    while let Some((one, other, path)) = waiting.pop() {
        if let Some(known) = partners.insert(one, other) {
            assert_eq!(known, other, "{path} is a hard link in one tree only");
            continue;
        }
        assert_same_node(expected.node(one), found.node(other), &path);
        let Some(entries) = expected.entries(one) else { continue };
        let mut others = found.entries(other).expect("kinds were compared").clone();
        if one == ROOT && !entries.contains_key(&b"lost+found"[..]) {
            others.remove(&b"lost+found"[..]);
        }
        let names = |list: &mut dyn Iterator<Item = &Box<[u8]>>| -> Vec<String> {
            list.map(|name| name.escape_ascii().to_string()).collect()
        };
        assert_eq!(names(&mut entries.keys()), names(&mut others.keys()), "names in {path}/");
        let pairs = entries.iter().zip(others.values());
        waiting.extend(pairs.map(|((name, &one), &other)| (one, other, format!("{path}/{}", name.escape_ascii()))));
    }
}

fn assert_same_node(expected: &Node, found: &Node, path: &str) {
    assert_eq!(expected.meta, found.meta, "attributes of {path}");
    let plain = |kind: &Kind| match kind {
        Kind::Dir(_) => "a directory".to_owned(),
        Kind::File(content) => format!("a file of {} bytes", content.size),
        other => format!("{other:?}"),
    };
    assert_eq!(plain(&expected.kind), plain(&found.kind), "kind of {path}");
    if let (Kind::File(expected), Kind::File(found)) = (&expected.kind, &found.kind) {
        assert!(has_same_bytes(expected, found) && has_same_bytes(found, expected), "contents of {path}");
    }
}

/// Whether what is stored of one reads the same from both. Where neither has anything stored, both are zeros.
fn has_same_bytes(one: &Content, other: &Content) -> bool {
    const CHUNK: usize = 1 << 20;
    one.extents.iter().all(|extent| {
        (extent.at..extent.at + extent.len).step_by(CHUNK).all(|at| {
            let len = usize::try_from(extent.at + extent.len - at).map_or(CHUNK, |left| left.min(CHUNK));
            let (mut a, mut b) = (vec![0; len], vec![0; len]);
            one.read_exact_at(&mut a, at).unwrap();
            other.read_exact_at(&mut b, at).unwrap();
            a == b
        })
    })
}
