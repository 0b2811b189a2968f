//! Who the user is to a registry: what `docker login` and `podman login` left behind.
//!
//! It decides which entry of which file counts. Nothing of it is ever shown, not by `Debug` either.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use super::name::DOCKER;

/// What proves who the user is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    Password {
        user: String,
        password: String,
    },
    /// Got by an OAuth login, and good for nothing but getting tokens.
    Identity(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

/// The files that may hold logins, in the order in which they are asked; and one that came in the environment.
#[derive(Clone, Default)]
pub struct Credentials {
    /// One for one registry, and no other is asked for.
    pub(super) given: Option<(String, Credential)>,
    pub(super) inline: Option<String>,
    pub(super) files: Vec<PathBuf>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Why a login cannot be had. It says nothing of what the file holds.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("the logins in {} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the logins in {place} are not as docker writes them, at line {line}, column {column}")]
    Malformed { place: String, line: usize, column: usize },
    #[error("the login for {server} in {place} is no base64 of USER:PASSWORD")]
    Login { server: String, place: String },
    #[error("docker-credential-{helper}, which {place} names for {server}, {what}")]
    Helper { helper: String, server: String, place: String, what: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Login>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    auth: Option<String>,
    identitytoken: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Credentials {
    /// A name and a password for that registry, and nothing else.
    pub fn password(host: &str, user: &str, password: &str) -> Credentials {
        let (user, password) = (user.to_owned(), password.to_owned());
        Credentials {
            given: Some((host.to_owned(), Credential::Password { user, password })),
            ..Credentials::default()
        }
    }

    /// An identity token for that registry, and nothing else.
    pub fn identity(host: &str, token: &str) -> Credentials {
        let credential = Credential::Identity(token.to_owned());
        Credentials { given: Some((host.to_owned(), credential)), ..Credentials::default() }
    }

    /// The login for a repository of a registry; `None` is a guest. The first file that knows one counts.
    pub(super) fn of(&self, host: &str, repository: &str) -> Result<Option<Credential>, CredentialError> {
        if let Some((of, credential)) = &self.given {
            return Ok((of == host).then(|| credential.clone()));
        }
        if let Some(text) = &self.inline
            && let Some(found) = look("DOCKER_AUTH_CONFIG", text.as_bytes(), host, repository)?
        {
            return Ok(Some(found));
        }
        for path in &self.files {
            let bytes = match fs::read(path) {
                Ok(bytes) => bytes,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    continue;
                }
                Err(source) => return Err(CredentialError::Read { path: path.clone(), source }),
            };
            if let Some(found) = look(&path.display().to_string(), &bytes, host, repository)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn look(place: &str, bytes: &[u8], host: &str, repository: &str) -> Result<Option<Credential>, CredentialError> {
    let config: Config = serde_json::from_slice(bytes).map_err(|error| {
        // serde's words may repeat what stands in the file
        CredentialError::Malformed { place: place.to_owned(), line: error.line(), column: error.column() }
    })?;
    let servers = servers(host, repository);
    let helper = servers.iter().find_map(|server| Some((server, config.cred_helpers.get(server)?)));
    if let Some((server, helper)) = helper {
        return ask(helper, server, place);
    }
    if let Some(helper) = config.creds_store.as_ref().filter(|helper| !helper.is_empty()) {
        let server = &servers[servers.len() - 1];
        if let Some(found) = ask(helper, server, place)? {
            return Ok(Some(found));
        }
    }
    for wanted in &servers {
        let entry = config.auths.iter().find(|(server, _)| server == &wanted || plain(server) == wanted);
        if let Some((server, login)) = entry
            && let Some(found) = login.credential().map_err(|()| {
                let (server, place) = (server.clone(), place.to_owned());
                CredentialError::Login { server, place }
            })?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

impl Login {
    /// `None` for an entry that only says that a helper has it.
    fn credential(&self) -> Result<Option<Credential>, ()> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credential::Identity(token)));
        }
        if let (Some(user), Some(password)) = (given(&self.username), given(&self.password)) {
            return Ok(Some(Credential::Password { user, password }));
        }
        let Some(auth) = given(&self.auth) else { return Ok(None) };
        let decoded = STANDARD.decode(&auth).or_else(|_| STANDARD_NO_PAD.decode(&auth)).map_err(drop)?;
        let text = String::from_utf8(decoded).map_err(drop)?;
        let (user, password) = text.split_once(':').ok_or(())?;
        // docker pads with zeros
        let password = password.trim_end_matches('\0').to_owned();
        Ok(Some(Credential::Password { user: user.to_owned(), password }))
    }
}

/// The keys under which a login may stand, the most particular first, the one that docker itself uses last.
fn servers(host: &str, repository: &str) -> Vec<String> {
    let full = format!("{host}/{repository}");
    let mut all: Vec<String> = full.match_indices('/').map(|(slash, _)| full[..slash].to_owned()).rev().collect();
    all.insert(0, full);
    if host == DOCKER {
        all.extend(["index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"].map(str::to_owned));
    }
    all
}

/// A key as old tools write it, a URL, without what is no address.
fn plain(server: &str) -> &str {
    let server = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    let server = server.strip_suffix('/').unwrap_or(server);
    server.strip_suffix("/v1").or_else(|| server.strip_suffix("/v2")).unwrap_or(server)
}

/// Runs a helper as docker does: the server on its input, a JSON object on its output, and a known sentence when it has none.
fn ask(helper: &str, server: &str, place: &str) -> Result<Option<Credential>, CredentialError> {
    let failed = |what: String| CredentialError::Helper {
        helper: helper.to_owned(),
        server: server.to_owned(),
        place: place.to_owned(),
        what,
    };
    if helper.contains('/') || Path::new(helper).components().count() != 1 {
        return Err(failed("is no name of a program".to_owned()));
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // one that does not read says why in its own way
        stdin.write_all(server.as_bytes()).ok();
    }
    let output = child.wait_with_output().map_err(|error| failed(format!("cannot be read: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(format!("failed: {}", said.trim().lines().next().unwrap_or("it says nothing"))));
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let answer: Answer =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("answers something else than a login".to_owned()))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credential::Identity(answer.secret),
        _ => Credential::Password { user: answer.username, password: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::super::name::Name;
    use super::*;

    fn looked(config: &str, name: &str) -> Result<Option<Credential>, CredentialError> {
        let name: Name = name.parse().unwrap();
        look("f", config.as_bytes(), name.host(), name.repository())
    }

    fn found(config: &str, name: &str) -> Option<(String, String)> {
        match looked(config, name).unwrap()? {
            Credential::Password { user, password } => Some((user, password)),
            Credential::Identity(token) => Some(("<token>".to_owned(), token)),
        }
    }

    fn login(user: &str) -> String {
        format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(format!("{user}:s:e")))
    }

    #[test]
    fn logins_are_found_under_every_key_that_tools_write() {
        let keys = [
            ("https://index.docker.io/v1/", "alpine"),
            ("docker.io", "me/app"),
            ("ghcr.io", "ghcr.io/a/b"),
            ("ghcr.io/a", "ghcr.io/a/b"),
            ("https://ghcr.io", "ghcr.io/a/b"),
            ("https://ghcr.io/v2/", "ghcr.io/a/b"),
            ("http://localhost:5000/v1/", "localhost:5000/x"),
        ];
        for (key, name) in keys {
            let config = format!(r#"{{"auths":{{"{key}":{}}},"HttpHeaders":{{}}}}"#, login("joe"));
            assert_eq!(found(&config, name), Some(("joe".to_owned(), "s:e".to_owned())), "{key}");
            assert_eq!(found(&config, "other.io/a"), None, "{key}");
        }
        assert_eq!(found("{}", "alpine"), None);
        let empty = r#"{"auths":{"ghcr.io":{}}}"#;
        assert_eq!(found(empty, "ghcr.io/a"), None, "a helper has it, says docker with this");
    }

    #[test]
    fn the_most_particular_login_counts() {
        let config = format!(r#"{{"auths":{{"x.io":{},"x.io/team":{}}}}}"#, login("all"), login("team"));
        assert_eq!(found(&config, "x.io/team/app").unwrap().0, "team");
        assert_eq!(found(&config, "x.io/teams/app").unwrap().0, "all");
        let token = r#"{"auths":{"x.io":{"auth":"","identitytoken":"t"}}}"#;
        assert_eq!(found(token, "x.io/a"), Some(("<token>".to_owned(), "t".to_owned())));
    }

    #[test]
    fn no_error_repeats_a_secret() {
        for config in [
            r#"{"auths":{"x.io":{"auth":"c2VjcmV0"}}}"#,
            r#"{"auths":{"x.io":{"auth":"secret!"}}}"#,
            r#"{"auths":"secret"}"#,
        ] {
            let error = looked(config, "x.io/a").unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(!said.contains("secret") && !said.contains("c2Vj"), "{said}");
        }
        let shown = format!("{:?}", Credential::Identity("secret".to_owned()));
        assert!(!shown.contains("secret"));
        let inline = Credentials { inline: Some("secret".to_owned()), ..Credentials::default() };
        assert!(!format!("{inline:?}").contains("secret"));
    }

    #[test]
    fn a_helper_that_is_no_program_is_not_run() {
        let config = r#"{"credsStore":"../../bin/sh"}"#;
        let error = looked(config, "x.io/a").unwrap_err().to_string();
        assert!(error.contains("is no name of a program"), "{error}");
        let error = looked(r#"{"credHelpers":{"x.io":"there-is-none"}}"#, "x.io/a").unwrap_err();
        assert!(
            error.to_string().starts_with("docker-credential-there-is-none, which f names for x.io, cannot be started")
        );
    }
}
