//! What stands behind the question mark: docker's clients write booleans and numbers in more than one way.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::error::ApiError;

/// A request's parameters. Of several with one name the first counts, as for docker.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Params, Infallible> {
        // any text is some pairs of names and values
        Ok(Query::try_from_uri(&parts.uri).map(|Query(pairs)| Params(pairs)).unwrap_or_default())
    }
}

impl Params {
    /// A value; none where it is missing or empty, which is the same to docker.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    /// All values of that name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A value that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.text(name).ok_or_else(|| ApiError::bad_parameter(format!("the parameter {name} is missing")))
    }

    /// Docker's idea of truth: all but a few words is true.
    pub(super) fn flag(&self, name: &str) -> bool {
        let value = self.text(name).unwrap_or_default().trim().to_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A whole number.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || ApiError::bad_parameter(format!("{name}: {text:?} is not a whole number"));
        text.parse().map(Some).map_err(|_| wrong())
    }
}

#[cfg(test)]
impl Params {
    pub(super) fn of(query: &str) -> Params {
        let uri = format!("http://x/?{query}").parse().unwrap();
        Params(Query::try_from_uri(&uri).unwrap().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_docker_reads_them() {
        let params = Params::of("all=1&size=true&force=False&v=0&no=none&limit=-1&limit=7&signal=&name=a%20b+c");
        let flags = ["all", "size", "force", "v", "no", "signal", "absent"].map(|name| params.flag(name));
        assert_eq!(flags, [true, true, false, false, false, false, false]);
        assert_eq!((params.number("limit"), params.number("absent")), (Ok(Some(-1)), Ok(None)));
        assert_eq!((params.text("name"), params.text("signal")), (Some("a b c"), None));
        assert_eq!(params.number("all").unwrap(), Some(1));
        assert!(params.number("name").is_err() && params.required("signal").is_err());
    }
}
