//! Addresses, as far as a registry's client needs them: where requests go, where a redirect leads, and whether both are one place.

use std::fmt;

/// An `http` or `https` address without a user in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    /// `HOST[:PORT]`, without a port that goes without saying.
    pub(super) authority: String,
    /// Path and query; empty, or from a slash on.
    pub(super) rest: String,
}

impl Url {
    /// Reads an absolute address.
    pub(super) fn parse(text: &str) -> Option<Url> {
        let (scheme, rest) = text.split_once("://")?;
        let (tls, port) = match scheme.to_ascii_lowercase().as_str() {
            "https" => (true, ":443"),
            "http" => (false, ":80"),
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = rest[..end].strip_suffix(port).unwrap_or(&rest[..end]).to_ascii_lowercase();
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if authority.is_empty() || authority.contains('@') || !printable {
            return None;
        }
        let path = rest[end..].split('#').next().unwrap_or_default();
        let rest = if path.starts_with('?') { format!("/{path}") } else { path.to_owned() };
        Some(Url { tls, authority, rest })
    }

    /// Where `location` leads from here.
    pub(super) fn join(&self, location: &str) -> Option<Url> {
        let here = if self.tls { "https" } else { "http" };
        if location.contains("://") && !location.starts_with('/') {
            Url::parse(location)
        } else if location.starts_with("//") {
            Url::parse(&format!("{here}:{location}"))
        } else if location.starts_with('/') {
            Url::parse(&format!("{here}://{}{location}", self.authority))
        } else {
            let path = self.rest.split('?').next().unwrap_or_default();
            let dir = path.rfind('/').map_or("/", |slash| &path[..=slash]);
            Url::parse(&format!("{here}://{}{dir}{location}", self.authority))
        }
    }

    /// Whether what is meant for one may be told to the other.
    pub(super) fn is_same_place(&self, other: &Url) -> bool {
        (self.tls, &self.authority) == (other.tls, &other.authority)
    }

    /// Below this address.
    pub(super) fn below(&self, path: &str) -> Url {
        let base = self.rest.split('?').next().unwrap_or_default().trim_end_matches('/');
        Url { rest: format!("{base}{path}"), ..self.clone() }
    }

    /// With further parameters.
    pub(super) fn with(&self, parameters: &[(&str, &str)]) -> Url {
        let pairs: Vec<String> =
            parameters.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect();
        let mark = if self.rest.contains('?') { '&' } else { '?' };
        Url { rest: format!("{}{mark}{}", self.rest, pairs.join("&")), ..self.clone() }
    }

    /// Whether this computer is meant, where nobody listens in.
    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.authority)
    }
}

/// `localhost`, 127.0.0.0/8 and `::1`, with a port or without.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// As a form or a query has it.
pub(super) fn encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "https" } else { "http" }, self.authority, self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn addresses_are_read_and_written() {
        for (text, same) in [
            ("https://a.io", "https://a.io"),
            ("HTTPS://A.io:443/x?y#z", "https://a.io/x?y"),
            ("http://a.io:80/", "http://a.io/"),
            ("http://a.io:443?q", "http://a.io:443/?q"),
            ("http://[::1]:5000/v2", "http://[::1]:5000/v2"),
        ] {
            assert_eq!(url(text).to_string(), same);
        }
        for bad in ["", "a.io", "ftp://a.io", "https://", "https://u:p@a.io", "https://a.io/\r\nX: y", "https:///x"] {
            assert_eq!(Url::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn redirects_lead_where_browsers_go() {
        let from = url("https://a.io/v2/x/blobs/y?q=1");
        for (location, to) in [
            ("https://cdn.io/z", "https://cdn.io/z"),
            ("//cdn.io/z", "https://cdn.io/z"),
            ("/z?t=http://other", "https://a.io/z?t=http://other"),
            ("z", "https://a.io/v2/x/blobs/z"),
        ] {
            assert_eq!(from.join(location).unwrap().to_string(), to);
        }
        assert_eq!(from.join("file:///etc/passwd"), None);
        assert!(from.is_same_place(&url("https://A.io:443/other")));
        for other in ["http://a.io/", "https://a.io:444/", "https://b.a.io/", "https://a.io.evil.io/"] {
            assert!(!from.is_same_place(&url(other)), "{other}");
        }
    }

    #[test]
    fn paths_and_parameters_are_added() {
        assert_eq!(url("http://m.io/hub/").below("/v2/x").to_string(), "http://m.io/hub/v2/x");
        let with = url("https://a.io/token?a=b").with(&[("scope", "repository:x/y:pull")]);
        assert_eq!(with.to_string(), "https://a.io/token?a=b&scope=repository%3Ax%2Fy%3Apull");
    }

    #[test]
    fn this_computer_is_known() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1", "127.1.2.3:1", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["localhost.io", "128.0.0.1", "127.0.0.1.io:1", "10.0.0.1", "a.io"] {
            assert!(!is_loopback(no), "{no}");
        }
    }
}
