//! A spec without the key of its link: what a guest tells of it, and how a host that has the key reads that.

use super::node::Node;
use super::{BASE, Keys, LINK_KEY, Spec, SpecError, packed, read};
use crate::handshake::LinkKey;
use crate::message::SpecText;
use crate::vmx::{self, Dictionary};

/// The text of a spec's keys, unpacked if they are in one value, without the link's key: neither where it belongs nor where somebody else has put it.
pub fn without_key(keys: &Dictionary, key: &LinkKey) -> Result<SpecText, SpecError> {
    let packed = packed::read(&Node { keys, path: format!("{BASE}/") })?;
    let digits = key.to_hex();
    let mut text = String::new();
    for (key, value) in packed.as_ref().unwrap_or(keys).iter() {
        // nobody reads a packed value that is not where it belongs, and nobody here looks into it
        let packed = key.ends_with("/spec") || key.ends_with("/spec.encoding");
        if !packed && !key.ends_with(LINK_KEY) && !value.to_ascii_lowercase().contains(&digits) {
            text.push_str(&vmx::line(key, value));
            text.push('\n');
        }
    }
    Ok(SpecText(text))
}

/// Reads a spec that was told without its link's key, which is `key`.
pub fn read_with_key(keys: &dyn Keys, key: &LinkKey) -> Result<Spec, SpecError> {
    read(&WithKey { keys, digits: key.to_hex() })
}

struct WithKey<'a> {
    keys: &'a dyn Keys,
    digits: String,
}

impl Keys for WithKey<'_> {
    fn value(&self, key: &str) -> Option<String> {
        match key.ends_with(LINK_KEY) {
            true => Some(self.digits.clone()),
            false => self.keys.value(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guestinfo::{about, base64, write};
    use crate::spec::{LinkDevice, LinkSpec, Process, SPEED};

    fn key() -> LinkKey {
        LinkKey::new([0xab; 32])
    }

    fn spec() -> Spec {
        let link = LinkSpec { device: LinkDevice::Serial, key: key(), sealed: true, speed: SPEED };
        Spec::new("3f0c", link, Process::new(vec!["true".into()]))
    }

    /// No text of the key in any spelling is left, and everything else is.
    fn check(keys: &Dictionary) -> Dictionary {
        let SpecText(text) = without_key(keys, &key()).unwrap();
        assert!(!text.to_lowercase().contains(&key().to_hex()), "{text}");
        let told = Dictionary::parse(&text).unwrap();
        assert_eq!(read_with_key(&told, &key()), Ok(spec()));
        told
    }

    #[test]
    fn the_key_is_not_told_however_it_was_written() {
        let plain = write(&spec());
        check(&plain);
        for upper in [false, true] {
            let text = plain.to_string();
            let text = if upper { text.replace(&key().to_hex(), &key().to_hex().to_uppercase()) } else { text };
            check(&Dictionary::parse(&text).unwrap());
            check(&Dictionary::parse(&text.replace("vice.", "")).unwrap());
            let mut packed = Dictionary::default();
            packed.set("guestinfo.vice./spec", text.as_str());
            check(&packed);
            packed.set("guestinfo.vice./spec", base64::encode(text.as_bytes()));
            packed.set("guestinfo.vice./spec.encoding", "base64");
            check(&packed);
        }
        let mut elsewhere = plain.clone();
        elsewhere.set("guestinfo.vice./notes", format!("its key: {}", key().to_hex()));
        elsewhere.set("guestinfo./spec", base64::encode(plain.to_string().as_bytes()));
        elsewhere.set("guestinfo.vice./common/name", "web");
        let told = check(&elsewhere);
        assert_eq!(about(&told).name.as_deref(), Some("web"));
        assert_eq!((told.get("guestinfo.vice./notes"), told.get("guestinfo./spec")), (None, None));
    }

    #[test]
    fn without_a_key_it_cannot_be_read_alone() {
        let told = without_key(&write(&spec()), &key()).unwrap();
        let told = Dictionary::parse(&told.0).unwrap();
        assert_eq!(read(&told), Err(SpecError::Missing("guestinfo.vice./link/key".into())));
    }
}
