//! Filters: what `--filter` says, as docker's clients send it.
//!
//! It decides how filters are written. What each of them means for containers, events or networks is decided where those are listed.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::ApiError;
use super::query::Params;

/// Values by name. Of one name any value may fit; of several names all must.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filters(BTreeMap<String, Vec<String>>);

/// A map of maps, or a map of lists, as clients before API 1.22 wrote it, and docker-py does.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Set(BTreeMap<String, bool>),
    List(Vec<String>),
}

impl Filters {
    /// The parameter `filters`, whose names are among these.
    pub(super) fn read(params: &Params, known: &[&str]) -> Result<Filters, ApiError> {
        let Some(text) = params.text("filters") else { return Ok(Filters::default()) };
        let read: BTreeMap<String, Values> =
            serde_json::from_str(text).map_err(|error| ApiError::bad_parameter(format!("invalid filter: {error}")))?;
        let values = |values| match values {
            Values::Set(set) => set.into_iter().filter(|(_, is_set)| *is_set).map(|(value, _)| value).collect(),
            Values::List(list) => list,
        };
        let filters: BTreeMap<String, Vec<String>> = read.into_iter().map(|(name, all)| (name, values(all))).collect();
        match filters.keys().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => Err(ApiError::bad_parameter(format!("invalid filter '{unknown}'"))),
            None => Ok(Filters(filters)),
        }
    }

    pub(super) fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    /// Nothing of that name is asked for, or one of its values fits.
    pub(super) fn any(&self, name: &str, fits: impl Fn(&str) -> bool) -> bool {
        !self.has(name) || self.values(name).iter().any(|value| fits(value))
    }

    /// Each value fits.
    pub(super) fn all(&self, name: &str, fits: impl Fn(&str) -> bool) -> bool {
        self.values(name).iter().all(|value| fits(value))
    }

    /// Nothing of that name is asked for, or one of its values is exactly this.
    pub(super) fn exact(&self, name: &str, value: &str) -> bool {
        self.any(name, |wanted| wanted == value)
    }

    /// Labels are `name` or `name=value`, and each must be there.
    pub(super) fn labels(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.all(name, |wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|has| has == value),
            None => labels.contains_key(wanted),
        })
    }

    /// A filter that is a truth; none where nobody asks.
    pub(super) fn truth(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let wrong = || ApiError::bad_parameter(format!("invalid filter '{name}={:?}'", self.values(name)));
        match self.values(name) {
            [] => Ok(None),
            [one] if ["1", "true", "True"].contains(&one.as_str()) => Ok(Some(true)),
            [one] if ["0", "false", "False"].contains(&one.as_str()) => Ok(Some(false)),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, known: &[&str]) -> Result<Filters, ApiError> {
        let escaped: String = json.bytes().map(|byte| format!("%{byte:02x}")).collect();
        Filters::read(&Params::of(&format!("filters={escaped}")), known)
    }

    #[test]
    fn both_forms_are_read_and_what_is_unknown_is_refused() {
        let old = read(r#"{"status":["exited","running"]}"#, &["status"]).unwrap();
        let new = read(r#"{"status":{"exited":true,"running":true,"paused":false}}"#, &["status"]).unwrap();
        assert_eq!(old, new);
        assert_eq!(read("", &[]).unwrap(), Filters::default());
        assert_eq!(read("{}", &[]).unwrap(), Filters::default());
        let message = |json: &str| read(json, &["name"]).unwrap_err().message;
        assert_eq!(message(r#"{"colour":["red"]}"#), "invalid filter 'colour'");
        for odd in ["x", "[]", r#"{"name":1}"#, r#"{"name":{"x":"y"}}"#] {
            assert!(message(odd).starts_with("invalid filter"), "{odd}");
        }
    }

    #[test]
    fn labels_truths_and_values_fit() {
        let filters =
            read(r#"{"label":["a","b=2"],"is-task":["0"],"name":["web","db"]}"#, &["label", "is-task", "name"]);
        let filters = filters.unwrap();
        let labels = |text: &str| {
            let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            text.split(' ').filter_map(pair).collect()
        };
        assert!(filters.labels("label", &labels("a=1 b=2")));
        assert!(!filters.labels("label", &labels("a=1 b=3")));
        assert!(!filters.labels("label", &labels("b=2")));
        assert_eq!((filters.truth("is-task"), filters.truth("no")), (Ok(Some(false)), Ok(None)));
        assert!(filters.truth("name").is_err());
        assert!(filters.exact("name", "db") && !filters.exact("name", "d") && filters.exact("other", "x"));
    }
}
