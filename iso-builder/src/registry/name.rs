//! Names of images in registries, read as docker reads them: `alpine` is `docker.io/library/alpine:latest`.
//!
//! A holder of a [`Name`] never checks again: it holds nothing that could leave its place in a URL or in a header. The grammar is that of the distribution
//! project's `reference` package.

use std::fmt;
use std::str::FromStr;

use crate::oci::Digest;

/// `HOST/REPOSITORY:TAG` or `HOST/REPOSITORY@DIGEST`. Of a tag and a digest, the digest counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    host: String,
    repository: String,
    version: Version,
}

/// Which image of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    Tag(String),
    Digest(Digest),
}

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{0:?} names no repository: it is written [HOST[:PORT]/]NAME[:TAG|@sha256:DIGITS]")]
    Empty(String),
    #[error(
        "{0:?} is no name of a repository: lower-case letters and digits, with `.`, `_` or `-` between them, parted by `/`"
    )]
    Repository(String),
    #[error("{0:?} is no tag: up to 128 letters, digits, `_`, `.` and `-`, and none of the last two first")]
    Tag(String),
    #[error("{0:?} is no digest: `sha256:` and 64 lower-case hex digits")]
    Digest(String),
    #[error("{0:?} is no host of a registry")]
    Host(String),
}

impl Name {
    /// The registry's name for users: `docker.io`, or `HOST[:PORT]`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// With `library/` where docker puts it.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The digest, if the name has one.
    pub fn digest(&self) -> Option<Digest> {
        match self.version {
            Version::Digest(digest) => Some(digest),
            Version::Tag(_) => None,
        }
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = Digest::parse(digest).ok_or_else(|| NameError::Digest(digest.to_owned()))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // a colon before the last slash is that of a port
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match rest[last..].find(':') {
            Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
            None => (rest, None),
        };
        let (host, repository) = match path.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest),
            _ => (DOCKER, path),
        };
        let host = if host == "index.docker.io" { DOCKER } else { host };
        if repository.is_empty() {
            return Err(NameError::Empty(text.to_owned()));
        }
        let whole = match host == DOCKER && !repository.contains('/') {
            true => format!("library/{repository}"),
            false => repository.to_owned(),
        };
        if host != DOCKER && !is_address(host) {
            return Err(NameError::Host(host.to_owned()));
        }
        // 64 hex digits alone are an image's id to docker, and never a repository
        let is_id = path.len() == 64 && path.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id || whole.len() > 255 || !whole.split('/').all(is_component) {
            return Err(NameError::Repository(repository.to_owned()));
        }
        if let Some(bad) = tag.filter(|tag| !is_tag(tag)) {
            return Err(NameError::Tag(bad.to_owned()));
        }
        let version = digest.map_or_else(|| Version::Tag(tag.unwrap_or("latest").to_owned()), Version::Digest);
        Ok(Name { host: host.to_owned(), repository: whole, version })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        match &self.version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

/// As the last part of a URL: a tag, or a digest.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Tag(tag) => f.write_str(tag),
            Version::Digest(digest) => digest.fmt(f),
        }
    }
}

/// What docker takes for a host, and not for the first part of a repository on Docker Hub.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// `NAME[:PORT]`, `IPV4[:PORT]` or `[IPV6][:PORT]`.
fn is_address(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let name = match name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(|label| {
            let letters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            letters && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
        }),
    };
    port && name
}

/// Runs of lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_component(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let between = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    let separators = part.split(|char: char| u8::try_from(char).is_ok_and(plain));
    let ends = part.bytes().next().is_some_and(plain) && part.bytes().last().is_some_and(plain);
    ends && separators.into_iter().all(between)
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let rest = |byte: u8| word(byte) || byte == b'.' || byte == b'-';
    tag.len() <= 128 && tag.bytes().next().is_some_and(word) && tag.bytes().all(rest)
}

/// The registry of names that name none.
pub(crate) const DOCKER: &str = "docker.io";

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_mean_what_docker_means_by_them() {
        let digest = |name: &str| format!("{name}@{DIGEST}");
        let cases = [
            ("alpine".to_owned(), "docker.io/library/alpine:latest".to_owned()),
            ("alpine:3.20".into(), "docker.io/library/alpine:3.20".into()),
            ("library/alpine".into(), "docker.io/library/alpine:latest".into()),
            ("me/app:V1.0-x_y".into(), "docker.io/me/app:V1.0-x_y".into()),
            ("docker.io/alpine".into(), "docker.io/library/alpine:latest".into()),
            ("index.docker.io/me/app".into(), "docker.io/me/app:latest".into()),
            ("ghcr.io/a/b".into(), "ghcr.io/a/b:latest".into()),
            ("localhost/x".into(), "localhost/x:latest".into()),
            ("localhost:5000/x:1".into(), "localhost:5000/x:1".into()),
            ("127.0.0.1:5000/a/b/c:1".into(), "127.0.0.1:5000/a/b/c:1".into()),
            ("[::1]:5000/x".into(), "[::1]:5000/x:latest".into()),
            ("MyHost/x".into(), "MyHost/x:latest".into()),
            ("a--b/c__d/e.f".into(), "docker.io/a--b/c__d/e.f:latest".into()),
            (digest("ghcr.io/a/b"), digest("ghcr.io/a/b")),
            (digest("ghcr.io/a/b:tag"), digest("ghcr.io/a/b")),
            (digest("alpine"), digest("docker.io/library/alpine")),
        ];
        for (text, full) in cases {
            let name = text.parse::<Name>().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(name.to_string(), full, "{text}");
            assert_eq!(full.parse(), Ok(name), "{full}");
        }
    }

    #[test]
    fn what_could_leave_its_place_is_no_name() {
        let long = "a/".repeat(140) + "b";
        let many = [
            "",
            ":",
            "@",
            "Alpine",
            "a//b",
            "/a",
            "a/",
            "../a",
            "a/..",
            "./a",
            "a b",
            "a\n",
            "a?b",
            "a#b",
            "a%2e",
            "é",
            "a_",
            "-a",
            "a...b",
            "a___b",
            "a.-b",
            "host.io/",
            "host.io",
            &long,
            &DIGEST[7..],
        ];
        for text in many.into_iter().filter(|text| *text != "host.io") {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
        for text in ["a:", "a:-x", "a:.x", "a:x/y:", "a:x y", "a:é", &format!("a:{}", "x".repeat(129))] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
        for text in ["a@", "a@sha256:", "a@sha512:00", &format!("a@{}", DIGEST.to_uppercase())] {
            assert!(matches!(text.parse::<Name>(), Err(NameError::Digest(_))), "{text:?}");
        }
        for text in ["host.io:port/a", "host.io:99999/a", "-x.io/a", "x..io/a", "[::g]:1/a", "u:p@host.io/a"] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let said = |text: &str| text.parse::<Name>().unwrap_err().to_string();
        assert!(said("").starts_with("\"\" names no repository"));
        assert!(said("Alpine").starts_with("\"Alpine\" is no name of a repository"));
        assert!(said("a:~").starts_with("\"~\" is no tag"));
        assert!(said("a@b").starts_with("\"b\" is no digest"));
        assert!(said("x_y.io/a").starts_with("\"x_y.io\" is no host"));
    }
}
