//! Why an image does not come, in words: what was wanted, where, and what would help.

use std::path::Path;
use std::time::Duration;

use super::credentials::CredentialError;
use super::name::{Name, NameError};
use crate::content;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{asked}: there is no such file or directory, and it is no name of an image either")]
    Name { asked: String, source: NameError },
    #[error("{name} is not here, and may not be pulled (--pull never)")]
    NotHere { name: Name },
    #[error(transparent)]
    Pull(Box<Failed>),
    #[error("cannot pull {name}")]
    Login { name: Name, source: Box<CredentialError> },
    #[error("{what}")]
    Settings { what: String },
    #[error("nobody waits for {name} any more")]
    Stopped { name: Name },
    #[error(transparent)]
    Store(#[from] content::Error),
}

/// A pull that failed: of what, where, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot pull {name}: {registry}: {reason}{also}")]
pub struct Failed {
    pub name: Name,
    pub registry: String,
    pub reason: Reason,
    pub also: Also,
}

/// What became of one request, or of what it was to bring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("there is no host of that name; is it spelt right, and is the network up?")]
    UnknownHost,
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error(
        "no secure connection: {0}; an authority of one's own goes to /etc/docker/certs.d/HOST/ca.crt, or is named with --ca FILE or TETHER_REGISTRY_CA"
    )]
    Tls(String),
    #[error("it says nothing for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the connection broke: {0}")]
    Cut(String),
    #[error("guests may not have it, or it does not exist{}; `docker login {login}` tells it who you are", words(.said))]
    Guest { login: String, said: String },
    #[error("the login that `docker login {login}` left may not have it, or it does not exist{}", words(.said))]
    Denied { login: String, said: String },
    #[error("there is no such image{}", words(.0))]
    Missing(String),
    #[error("too many requests{}{}", words(.said), later(.after))]
    TooMany { said: String, after: Option<Duration> },
    #[error("it answers {code}{}", words(.said))]
    Status { code: u16, said: String },
    #[error("{what} has the digest {found}, not {expected}: it is damaged, or not what it is called")]
    Digest { what: &'static str, found: String, expected: String },
    #[error("{0}")]
    Malformed(String),
    #[error("the image is for {found}, and {asked} is wanted{}", hint(.asked))]
    Platform { found: String, asked: String },
}

/// What mirrors said before, as an addition.
#[derive(Clone, Debug, Default)]
pub struct Also(pub(super) Vec<(String, Reason)>);

impl std::fmt::Display for Also {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(mirror, reason)| write!(f, " (and its mirror {mirror}: {reason})"))
    }
}

fn words(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" (it says: {words})") }
}

fn later(after: &Option<Duration>) -> String {
    after.map_or(String::new(), |after| format!("; try again in {} s", after.as_secs()))
}

fn hint(asked: &str) -> &'static str {
    if asked == "linux/amd64" { ": that is what this host runs" } else { "" }
}

/// What a user reads of a registry's own words: one line of printable characters, and not too long.
pub(super) fn shown(words: &str) -> String {
    let line = words.trim().chars().take(200).map(|char| if char.is_control() { ' ' } else { char });
    line.collect::<String>().trim().to_owned()
}

/// What is done about a request that failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may work in a while; the registry may have said when.
    Temporary { reason: Reason, after: Option<Duration> },
    /// Not here; a mirror's origin may do better.
    Final(Reason),
    /// Nowhere: it is nothing that the registry did.
    Ours(Error),
    /// Another part of the pull failed; this one is not wanted any more.
    Stopped,
}

impl From<content::Error> for Failure {
    fn from(error: content::Error) -> Failure {
        Failure::Ours(error.into())
    }
}

impl Failure {
    pub(super) fn malformed(what: impl Into<String>) -> Failure {
        Failure::Final(Reason::Malformed(what.into()))
    }
}

/// A file of the user's settings that cannot be used.
pub(super) fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::Ours(Error::Settings { what: format!("{}: {why}", path.display()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_that_names_image_registry_reason_and_way_out() {
        let guest = Reason::Guest { login: "docker.io".to_owned(), said: shown("denied:\nno\x1b[31m way ") };
        let mirror = ("m.io".to_owned(), Reason::UnknownHost);
        let error = Failed {
            name: "me/app".parse().unwrap(),
            registry: "registry-1.docker.io".to_owned(),
            reason: guest,
            also: Also(vec![mirror]),
        };
        let expected = "cannot pull docker.io/me/app:latest: registry-1.docker.io: guests may not have it, or it does not exist (it says: denied: no [31m way); \
                        `docker login docker.io` tells it who you are (and its mirror m.io: there is no host of that name; is it spelt right, and is the network up?)";
        assert_eq!(error.to_string(), expected);
        let late = Reason::TooMany { said: String::new(), after: Some(Duration::from_secs(90)) };
        assert_eq!(late.to_string(), "too many requests; try again in 90 s");
        assert_eq!(shown(&"x".repeat(1000)).len(), 200);
    }
}
