//! The keys of what is told of a container. The guest reads none of them, but hands them on with the others: [`super::without_key`].
//!
//! A value that is not what it should be counts as absent: nothing depends on it but what a person is shown.

use std::collections::BTreeMap;

use super::node::{Node, Writer};
use super::{BASE, Keys, NIL, packed};
use crate::spec::About;
use crate::vmx::Dictionary;

/// The keys that [`about`] asks for, for a store that does not list what it has.
pub const ABOUT: [&str; 10] = [
    "guestinfo.vice./common/name",
    "guestinfo.vice./repo",
    "guestinfo.vice./imageid",
    "guestinfo.vice./createtime",
    "guestinfo.vice./labels~json",
    "guestinfo.vice./image/entrypoint~json",
    "guestinfo.vice./image/cmd~json",
    "guestinfo.vice./image/ports~json",
    "guestinfo.vice./image/published~json",
    "guestinfo.vice./image/volumes~json",
];

/// Reads what is told of a container: as the spec, from the one value that holds all keys, if there is one.
pub fn about(keys: &dyn Keys) -> About {
    match packed::read(&Node { keys, path: format!("{BASE}/") }) {
        Ok(Some(packed)) => read(&packed),
        Ok(None) | Err(_) => read(keys),
    }
}

fn read(keys: &dyn Keys) -> About {
    let root = Node { keys, path: format!("{BASE}/") };
    let list = |key: &str| -> Vec<String> { json(&root, key).unwrap_or_default() };
    // VIC wrote it among the keys that a guest may change
    let created = root.filled("createtime").or_else(|| Node { keys, path: format!("{BASE}.") }.filled("createtime"));
    About {
        name: root.filled("common/name"),
        image: root.filled("repo"),
        image_id: root.filled("imageid").map(|id| if id.contains(':') { id } else { format!("sha256:{id}") }),
        created_ns: created.and_then(|text| text.parse().ok()),
        labels: json::<BTreeMap<String, String>>(&root, "labels").unwrap_or_default(),
        entrypoint: list("image/entrypoint"),
        cmd: list("image/cmd"),
        exposed: list("image/ports"),
        published: list("image/published"),
        volumes: list("image/volumes"),
    }
}

fn json<T: serde::de::DeserializeOwned>(root: &Node<'_>, key: &str) -> Option<T> {
    serde_json::from_str(&root.filled(&format!("{key}~json"))?).ok()
}

/// Writes what is told of a container, beside the keys of its spec.
pub fn write_about(about: &About, keys: &mut Dictionary) {
    let About { name, image, image_id, created_ns, labels, entrypoint, cmd, exposed, published, volumes } = about;
    let mut root = Writer::new(keys);
    let created = created_ns.map(|nanos| nanos.to_string());
    for (key, value) in [("common/name", name), ("repo", image), ("imageid", image_id), ("createtime", &created)] {
        // an empty text would be read as none
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty() && *value != NIL) {
            root.set(key, value);
        }
    }
    if !labels.is_empty() {
        root.set("labels~json", &serde_json::to_string(labels).expect("texts are JSON"));
    }
    root.json("image/entrypoint", entrypoint);
    root.json("image/cmd", cmd);
    root.json("image/ports", exposed);
    root.json("image/published", published);
    root.json("image/volumes", volumes);
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn whole() -> About {
        let list = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        About {
            name: Some("web".into()),
            image: Some("nginx:1.27".into()),
            image_id: Some(format!("sha256:{}", "5a".repeat(32))),
            created_ns: Some(1_496_257_200_123_456_789),
            labels: [("a|b".to_owned(), "\"c\"\n".to_owned()), ("empty".to_owned(), String::new())].into(),
            entrypoint: list("/init -v"),
            cmd: vec!["a|b".into(), String::new()],
            exposed: list("80/tcp 53/udp"),
            published: list("0.0.0.0:8080:80/tcp"),
            volumes: list("/data"),
        }
    }

    #[test]
    fn it_survives_the_keys_and_their_text_and_one_value() {
        let mut keys = Dictionary::default();
        write_about(&whole(), &mut keys);
        let text = keys.to_string();
        assert_eq!(about(&Dictionary::parse(&text).unwrap()), whole());
        let mut packed = Dictionary::default();
        packed.set("guestinfo.vice./spec", text);
        assert_eq!(about(&packed), whole());
        let mut none = Dictionary::default();
        write_about(&About::default(), &mut none);
        assert_eq!((about(&none), none), (About::default(), Dictionary::default()));
    }

    #[test]
    fn a_store_that_lists_nothing_is_asked_for_enough() {
        let mut keys = Dictionary::default();
        write_about(&whole(), &mut keys);
        let mut some = Dictionary::default();
        for key in ABOUT {
            some.set(key, keys.get(key).unwrap());
        }
        assert_eq!(about(&some), whole());
    }

    #[test]
    fn what_vic_wrote_is_read_and_what_is_odd_is_absent() {
        let from = |key: &str, value: &str| {
            let mut keys = Dictionary::default();
            keys.set(key, value);
            about(&keys)
        };
        assert_eq!(from("guestinfo.vice..createtime", "1496257200123456789").created_ns, whole().created_ns);
        assert_eq!(from("guestinfo.vice./imageid", &"5a".repeat(32)).image_id, whole().image_id);
        for (key, odd) in [("createtime", "soon"), ("labels~json", "[]"), ("image/cmd~json", "{"), ("repo", NIL)] {
            assert_eq!(from(&format!("guestinfo.vice./{key}"), odd), About::default(), "{key}");
        }
    }
}
