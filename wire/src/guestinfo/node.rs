//! Keys below a path, and how values of each kind are read.

use super::{BASE, Keys, NIL, SpecError};
use crate::spec::TermSize;
use crate::vmx::Dictionary;

/// So many elements of a map are read: a spec that has more is a mistake, and each costs a virtual machine's host many requests.
const MOST_NAMES: usize = 1024;
/// So many characters of a value are shown in an error.
const MOST_SHOWN: usize = 100;

/// The keys below a path.
pub(crate) struct Node<'a> {
    pub(crate) keys: &'a dyn Keys,
    pub(crate) path: String,
}

// A spec is read once: `inline(never)` keeps its many keys from costing PID 1 a kilobyte each.
impl Node<'_> {
    /// The keys one level further down.
    pub(crate) fn below(&self, path: &str) -> Node<'_> {
        Node { keys: self.keys, path: format!("{}{path}/", self.path) }
    }

    /// Absent, and empty, alike are `None`.
    #[inline(never)]
    pub(crate) fn filled(&self, key: &str) -> Option<String> {
        self.text(key).filter(|text| !text.is_empty())
    }

    /// What `parse` makes of a value that is there.
    pub(crate) fn parsed<T>(
        &self,
        key: &str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, SpecError> {
        let Some(text) = self.filled(key) else { return Ok(None) };
        parse(&text).map(Some).ok_or_else(|| self.invalid(key, &text, expected))
    }

    /// The names below which each element of a map lies: `key` holds them, joined by `|`.
    pub(crate) fn names(&self, key: &str) -> Result<Vec<String>, SpecError> {
        let Some(text) = self.filled(key) else { return Ok(Vec::new()) };
        let names: Vec<String> = text.split('|').map(str::to_owned).collect();
        if names.len() > MOST_NAMES { Err(self.invalid(key, &text, "a list of at most 1024 names")) } else { Ok(names) }
    }

    #[inline(never)]
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        let key = format!("{}{key}", self.path);
        #[cfg(test)]
        super::document::asked(&key);
        let value = self.keys.value(&key)?;
        Some(if value == NIL { String::new() } else { value })
    }

    #[inline(never)]
    pub(crate) fn required(&self, key: &str) -> Result<String, SpecError> {
        self.text(key).ok_or_else(|| self.missing(key))
    }

    #[inline(never)]
    pub(crate) fn missing(&self, key: &str) -> SpecError {
        SpecError::Missing(format!("{}{key}", self.path))
    }

    #[inline(never)]
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, SpecError> {
        match self.text(key).as_deref() {
            None => Ok(default),
            Some("" | "false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(self.invalid(key, other, "`true` or `false`")),
        }
    }

    #[inline(never)]
    pub(crate) fn list(&self, key: &str) -> Result<Vec<String>, SpecError> {
        if let Some(json) = self.text(&format!("{key}~json")) {
            return serde_json::from_str(&json)
                .map_err(|_| self.invalid(&format!("{key}~json"), &json, "a JSON array of strings"));
        }
        let Some(last) = self.text(key) else { return Ok(Vec::new()) };
        let count: usize = last.parse().map_err(|_| self.invalid(key, &last, "a number"))?;
        let elements = self.required(&format!("{key}~"))?;
        Ok(elements.split('|').take(count + 1).map(str::to_owned).collect())
    }

    /// The size of a terminal; 24x80 when the host did not say.
    pub(crate) fn size(&self, key: &str) -> Result<TermSize, SpecError> {
        let Some(text) = self.text(key) else { return Ok(TermSize { rows: 24, columns: 80 }) };
        text.split_once('x')
            .and_then(|(rows, columns)| Some(TermSize { rows: rows.parse().ok()?, columns: columns.parse().ok()? }))
            .ok_or_else(|| self.invalid(key, &text, "ROWSxCOLUMNS"))
    }

    #[inline(never)]
    pub(crate) fn invalid(&self, key: &str, value: &str, expected: &'static str) -> SpecError {
        // an environment holds secrets, a key is one, and this text is published
        let is_secret = key.starts_with("cmd/Env") || key == "link/key" || key.starts_with("docker/tls/");
        let value = if is_secret { "..." } else { value };
        // one line for a person
        let value = match value.char_indices().nth(MOST_SHOWN) {
            Some((end, _)) => format!("{}...", &value[..end]),
            None => value.into(),
        };
        SpecError::Invalid { key: format!("{}{key}", self.path), value, expected }
    }
}

/// Where keys are written, below a path.
pub(crate) struct Writer<'a> {
    keys: &'a mut Dictionary,
    path: String,
}

impl Writer<'_> {
    pub(crate) fn new(keys: &mut Dictionary) -> Writer<'_> {
        Writer { keys, path: format!("{BASE}/") }
    }

    pub(crate) fn below(&mut self, path: &str) -> Writer<'_> {
        Writer { path: format!("{}{path}/", self.path), keys: self.keys }
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.keys.set(&format!("{}{key}", self.path), if value.is_empty() { NIL } else { value });
    }

    pub(crate) fn flag(&mut self, key: &str, flag: bool) {
        self.set(key, if flag { "true" } else { "false" });
    }

    /// A list that only we read. An empty one has no key.
    pub(super) fn json(&mut self, key: &str, list: &[String]) {
        if !list.is_empty() {
            self.set(&format!("{key}~json"), &serde_json::to_string(list).expect("strings are JSON"));
        }
    }

    /// An empty list has no keys.
    pub(crate) fn list(&mut self, key: &str, list: &[String]) {
        let Some(last) = list.len().checked_sub(1) else { return };
        self.set(key, &last.to_string());
        self.set(&format!("{key}~"), &list.join("|"));
        self.json(key, list);
    }

    /// The index of a map; an empty one has none.
    pub(crate) fn names<'a>(&mut self, key: &str, names: impl Iterator<Item = &'a str>) {
        let names: Vec<&str> = names.collect();
        if !names.is_empty() {
            self.set(key, &names.join("|"));
        }
    }
}
