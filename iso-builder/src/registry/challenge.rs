//! What a registry wants to see before it answers: the `WWW-Authenticate` header, read (RFC 9110, section 11.6.1; the distribution project's token
//! specification).
//!
//! It decides which of several ways is taken, and nothing about who the user is.

/// How to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token, to be had at `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The best way that the headers' values offer: a token rather than a password in each request.
pub(super) fn read<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers {
        for (scheme, parameters) in challenges(header) {
            let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
            match (scheme.as_str(), get("realm")) {
                ("bearer", Some(realm)) => {
                    return Some(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
                }
                ("basic", _) => basic = Some(Challenge::Basic),
                _ => {}
            }
        }
    }
    basic
}

type Parameters = Vec<(String, String)>;

/// Splits one header into schemes, in lower case, with their parameters. What cannot be read ends it.
fn challenges(header: &str) -> Vec<(String, Parameters)> {
    let mut all: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            return all;
        }
        let trimmed = after.trim_start();
        // a word is a parameter's name if `=` follows, else it is a scheme
        if let Some(value) = trimmed.strip_prefix('=') {
            let Some((value, after)) = parameter(value.trim_start()) else { return all };
            rest = after;
            if let Some((_, parameters)) = all.last_mut() {
                parameters.push((word.to_ascii_lowercase(), value));
            }
        } else {
            all.push((word.to_ascii_lowercase(), Vec::new()));
            rest = after;
        }
    }
}

fn token(text: &str) -> (&str, &str) {
    let end = text.find(|char: char| !char.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~".contains(char));
    text.split_at(end.unwrap_or(text.len()))
}

/// A token, or a quoted string with its escapes undone.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, after) = token(text);
        return (!word.is_empty()).then(|| (word.to_owned(), after));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((index, char)) = chars.next() {
        match char {
            '"' => return Some((value, &quoted[index + 1..])),
            '\\' => value.push(chars.next()?.1),
            _ => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let (service, scope) = (service.map(str::to_owned), scope.map(str::to_owned));
        Some(Challenge::Bearer { realm: realm.to_owned(), service, scope })
    }

    #[test]
    fn real_headers_are_read() {
        let one = |header: &str| read([header].into_iter());
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#;
        let scope = Some("repository:library/alpine:pull");
        assert_eq!(one(hub), bearer("https://auth.docker.io/token", Some("registry.docker.io"), scope));
        assert_eq!(one(r#"Basic realm="Registry Realm""#), Some(Challenge::Basic));
        assert_eq!(one("basic"), Some(Challenge::Basic));
        assert_eq!(one(r#"BEARER Realm = "a" , scope="x:pull,push""#), bearer("a", None, Some("x:pull,push")));
        assert_eq!(one(r#"Basic realm="x", Bearer realm="t\"q",service=s"#), bearer("t\"q", Some("s"), None));
        assert_eq!(read([r#"Basic realm="x""#, r#"Bearer realm="y""#].into_iter()), bearer("y", None, None));
    }

    #[test]
    fn what_cannot_be_read_is_no_challenge() {
        for header in
            ["", ",,,", "Negotiate abc==", "Bearer", "Bearer realm", "Bearer realm=", r#"Bearer realm="x"#, "=", "é"]
        {
            assert_eq!(read([header].into_iter()), None, "{header}");
        }
        assert_eq!(read(std::iter::empty()), None);
    }
}
