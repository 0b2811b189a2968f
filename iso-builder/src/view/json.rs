//! What is seen of images as JSON; docs/iso-builder.md is its schema, and what is said there stays.
//!
//! Names are bytes, and JSON has none: a name that is not UTF-8 is given with U+FFFD for what is not, and once more in hex beside it.

use serde_json::{Map, Value, json};

use super::{Aspect, Change, Counts, Difference, Format, text};
use crate::digest::hex;
use crate::oci;
use crate::tree::{Kind, Node, Time};

/// From the outermost to the innermost.
pub fn formats(formats: &[Format]) -> Value {
    let one = |format: &Format| match format {
        Format::Partition { number } => json!({"format": format.word(), "number": number}),
        _ => json!({"format": format.word()}),
    };
    formats.iter().map(one).collect()
}

pub fn counts(counts: &Counts) -> Value {
    json!({
        "directories": counts.directories,
        "files": counts.files,
        "symlinks": counts.symlinks,
        "others": counts.others,
        "bytes": counts.bytes,
        "stored": counts.stored,
    })
}

/// One file with its path.
pub fn entry(path: &[u8], node: &Node, links: u32) -> Value {
    let mut entry = Map::new();
    put(&mut entry, "path", path);
    let meta = &node.meta;
    entry.insert("type".to_owned(), text::kind(&node.kind).into());
    entry.insert("mode".to_owned(), mode(meta.mode));
    entry.insert("uid".to_owned(), meta.uid.into());
    entry.insert("gid".to_owned(), meta.gid.into());
    entry.insert("links".to_owned(), links.into());
    entry.insert("mtime".to_owned(), time(meta.mtime));
    match &node.kind {
        Kind::File(content) => {
            entry.insert("size".to_owned(), content.size.into());
        }
        Kind::Symlink(target) => put(&mut entry, "target", target),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            entry.insert("device".to_owned(), json!([major, minor]));
        }
        _ => {}
    }
    if !meta.xattrs.is_empty() {
        let xattrs = meta.xattrs.iter().map(|(name, value)| (lossy(name), hex(value).into()));
        entry.insert("xattrs".to_owned(), Value::Object(xattrs.collect()));
    }
    Value::Object(entry)
}

pub fn difference(difference: &Difference) -> Value {
    let mut said = Map::new();
    put(&mut said, "path", &difference.path);
    match &difference.change {
        Change::Added { what, below } | Change::Removed { what, below } => {
            let change = if matches!(difference.change, Change::Added { .. }) { "added" } else { "removed" };
            said.insert("change".to_owned(), change.into());
            said.insert("type".to_owned(), (*what).into());
            said.insert("below".to_owned(), (*below).into());
        }
        Change::Changed(aspects) => {
            said.insert("change".to_owned(), "changed".into());
            said.insert("aspects".to_owned(), aspects.iter().map(aspect).collect());
        }
    }
    Value::Object(said)
}

fn aspect(aspect: &Aspect) -> Value {
    let (what, first, second) = match aspect {
        Aspect::Type(a, b) => ("type", json!(a), json!(b)),
        Aspect::Mode(a, b) => ("mode", mode(*a), mode(*b)),
        Aspect::Owner(a, b) => ("owner", json!([a.0, a.1]), json!([b.0, b.1])),
        Aspect::Time(a, b) => ("mtime", time(*a), time(*b)),
        Aspect::Xattr(name, a, b) => {
            let value = |value: &Option<Vec<u8>>| value.as_deref().map(hex);
            return json!({"aspect": "xattr", "name": lossy(name), "first": value(a), "second": value(b)});
        }
        Aspect::Target(a, b) => ("target", json!(lossy(a)), json!(lossy(b))),
        Aspect::Device(a, b) => ("device", json!([a.0, a.1]), json!([b.0, b.1])),
        Aspect::Size(a, b) => ("size", json!(a), json!(b)),
        Aspect::Content(at) => return json!({"aspect": "content", "offset": at}),
        Aspect::Link(a, b) => ("link", json!(a.as_deref().map(lossy)), json!(b.as_deref().map(lossy))),
    };
    json!({"aspect": what, "first": first, "second": second})
}

/// What a container image says about running it.
pub fn container(image: &oci::Image) -> Value {
    let config = &image.config;
    json!({
        "digest": image.digest,
        "os": config.os,
        "architecture": config.architecture,
        "env": config.env,
        "entrypoint": config.entrypoint,
        "cmd": config.cmd,
        "working_dir": config.working_dir,
        "user": config.user,
        "exposed_ports": config.exposed_ports,
        "volumes": config.volumes,
        "labels": config.labels,
        "stop_signal": config.stop_signal,
        "layers": image.chain().len(),
    })
}

/// On one line, and silent on a terminal: what is no visible ASCII or letter is written as JSON's escapes.
pub fn line(value: &Value) -> String {
    let text = value.to_string();
    if !text.chars().any(text::commands) {
        return text;
    }
    let mut line = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match text::commands(char) {
            true => char.encode_utf16(&mut [0; 2]).iter().for_each(|unit| line += &format!("\\u{unit:04x}")),
            false => line.push(char),
        }
    }
    line
}

/// Adds `bytes` as text, and as hex where it is not quite that.
pub fn put(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    object.insert(name.to_owned(), lossy(bytes).into());
    if str::from_utf8(bytes).is_err() {
        object.insert(format!("{name}_hex"), hex(bytes).into());
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// As `chmod` takes it.
fn mode(bits: u16) -> Value {
    format!("{bits:04o}").into()
}

fn time(time: Time) -> Value {
    json!({"seconds": time.secs, "nanoseconds": time.nanos})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Meta};

    #[test]
    fn an_entry_says_everything() {
        let mut meta = Meta { mode: 0o4755, uid: 1, gid: 2, mtime: Time { secs: -3, nanos: 4 }, ..Meta::default() };
        meta.xattrs.insert(b"user.x".to_vec(), vec![0, 255]);
        let node = Node { meta, kind: Kind::File(Content::from_bytes(*b"abc")) };
        assert_eq!(
            entry(b"/a\xff\x1b", &node, 2),
            json!({
                "path": "/a\u{fffd}\u{1b}", "path_hex": "2f61ff1b", "type": "file", "mode": "4755", "uid": 1, "gid": 2,
                "links": 2, "mtime": {"seconds": -3, "nanoseconds": 4}, "size": 3, "xattrs": {"user.x": "00ff"},
            })
        );
    }

    #[test]
    fn a_line_does_nothing_to_a_terminal_and_reads_the_same() {
        let value = json!({"path": "\x1b[2J \u{9b}2J \u{202e} \u{e0041} \u{fc}\n\""});
        let line = line(&value);
        assert_eq!(line, r#"{"path":"\u001b[2J \u009b2J \u202e \udb40\udc41 ü\n\""}"#);
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }

    #[test]
    fn a_difference_says_both_sides() {
        let change = Change::Changed(vec![
            Aspect::Mode(0o644, 0o755),
            Aspect::Content(7),
            Aspect::Link(None, Some(b"/a".to_vec())),
        ]);
        assert_eq!(
            difference(&Difference { path: b"/x".to_vec(), change }),
            json!({"path": "/x", "change": "changed", "aspects": [
                {"aspect": "mode", "first": "0644", "second": "0755"},
                {"aspect": "content", "offset": 7},
                {"aspect": "link", "first": null, "second": "/a"},
            ]})
        );
        assert_eq!(
            difference(&Difference { path: b"/d".to_vec(), change: Change::Added { what: "directory", below: 2 } }),
            json!({"path": "/d", "change": "added", "type": "directory", "below": 2})
        );
    }
}
