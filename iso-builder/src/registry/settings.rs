//! What a user and a machine have set for registries: logins, mirrors, authorities, and where TLS is not wanted.
//!
//! It decides which files and variables are asked, and is the only place of the library that reads the environment, through a function that the caller gives.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::credentials::Credentials;
use super::name::DOCKER;
use super::url::{Url, is_loopback};

/// How registries are spoken to.
#[derive(Clone, Debug)]
pub struct Settings {
    pub credentials: Credentials,
    pub mirrors: Vec<Mirror>,
    /// Hosts, `HOST[:PORT]`, that have no TLS; `*` is all.
    pub plain_http: BTreeSet<String>,
    /// Files of authorities that are trusted beside the system's.
    pub authorities: Vec<PathBuf>,
    /// How long a registry may say nothing.
    pub timeout: Duration,
    /// How often one thing is tried in a row.
    pub attempts: u32,
    /// Directories with `HOST[:PORT]/*.crt`.
    pub(super) certificates: Vec<PathBuf>,
    /// The system's authorities: the first that is there counts.
    pub(super) bundles: Vec<PathBuf>,
}

/// Where to ask before the registry itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub(super) of: String,
    pub(super) url: Url,
}

impl Mirror {
    /// Reads `[HOST=]URL`; without a host, a mirror of Docker Hub.
    pub fn parse(text: &str) -> Result<Mirror, String> {
        let (of, url) = match text.split_once('=') {
            Some((of, url)) if !of.contains('/') => (of, url),
            _ => (DOCKER, text),
        };
        let of = if of == "index.docker.io" { DOCKER } else { of };
        match Url::parse(url) {
            Some(url) => Ok(Mirror { of: of.to_owned(), url }),
            None => Err(format!(
                "{text:?} is no [HOST=]URL of a mirror, as in https://mirror.example or ghcr.io=https://mirror.example"
            )),
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect();
        Settings {
            credentials: Credentials::default(),
            mirrors: Vec::new(),
            plain_http: BTreeSet::new(),
            authorities: Vec::new(),
            timeout: TIMEOUT,
            attempts: ATTEMPTS,
            certificates: paths(&CERTIFICATES),
            bundles: paths(&BUNDLES),
        }
    }
}

impl Settings {
    /// As the user has it; `variable` reads the environment.
    pub fn of_user(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let path = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let list = |name: &str| -> Vec<String> {
            let value = text(name).unwrap_or_default();
            value.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let home = path("HOME");
        let below = |dir: Option<PathBuf>, name: &str| dir.map(|dir| dir.join(name));
        let config = path("XDG_CONFIG_HOME").or_else(|| below(home.clone(), ".config"));
        // docker's first: whoever sets DOCKER_CONFIG means it
        let docker = path("DOCKER_CONFIG").or_else(|| below(home, ".docker"));
        let files = [
            path("REGISTRY_AUTH_FILE"),
            below(docker, "config.json"),
            below(path("XDG_RUNTIME_DIR"), "containers/auth.json"),
            below(config.clone(), "containers/auth.json"),
        ];
        settings.credentials.files = files.into_iter().flatten().collect();
        settings.credentials.inline = text("DOCKER_AUTH_CONFIG").filter(|text| !text.trim().is_empty());
        settings.certificates.splice(0..0, below(config, "containers/certs.d"));
        settings.bundles.splice(0..0, path("SSL_CERT_FILE"));
        settings.authorities = list("TETHER_REGISTRY_CA").into_iter().map(PathBuf::from).collect();
        settings.plain_http = list("TETHER_PLAIN_HTTP").into_iter().collect();
        let mirrors = match variable("TETHER_MIRRORS") {
            Some(_) => list("TETHER_MIRRORS"),
            None => daemon_mirrors(Path::new(DAEMON)),
        };
        settings.mirrors = mirrors.iter().map(|text| Mirror::parse(text)).collect::<Result<_, _>>()?;
        Ok(settings)
    }

    /// Authorities for one host alone, beside those for all.
    pub(super) fn authorities_of(&self, authority: &str) -> Vec<PathBuf> {
        let mut all = self.authorities.clone();
        for dir in &self.certificates {
            let Ok(entries) = fs::read_dir(dir.join(authority)) else { continue };
            let files = entries.flatten().map(|entry| entry.path());
            let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|it| it == "crt")).collect();
            files.sort();
            all.extend(files);
        }
        all
    }

    /// Whether the host is one without TLS; `None` when it must be tried, as docker does on this computer.
    pub(super) fn is_plain(&self, authority: &str) -> Option<bool> {
        if self.plain_http.contains(authority) || self.plain_http.contains("*") {
            return Some(true);
        }
        match is_loopback(authority) && self.authorities_of(authority).is_empty() {
            true => None,
            false => Some(false),
        }
    }
}

/// Docker's own mirrors of Docker Hub. A file that is not as it should be is docker's to complain about.
fn daemon_mirrors(path: &Path) -> Vec<String> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "kebab-case", default)]
    struct Daemon {
        registry_mirrors: Vec<String>,
    }
    let daemon = fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Daemon>(&bytes).ok());
    let mirrors = daemon.unwrap_or_default().registry_mirrors;
    mirrors.into_iter().filter(|text| Url::parse(text).is_some()).collect()
}

const DAEMON: &str = "/etc/docker/daemon.json";
const CERTIFICATES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
/// Debian's and Alpine's; Fedora's; openSUSE's; older Red Hats'.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
];
/// Longer than a registry takes to find a blob in slow storage, shorter than a person's patience.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Docker's number.
const ATTEMPTS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_followed() {
        let variable = |name: &str| {
            Some(OsString::from(match name {
                "HOME" => "/home/me",
                "DOCKER_CONFIG" => "relative, and so ignored",
                "XDG_RUNTIME_DIR" => "/run/user/1",
                "TETHER_MIRRORS" => "https://m.io/hub ghcr.io=http://g.m.io",
                "TETHER_REGISTRY_CA" => "ca.pem",
                "TETHER_PLAIN_HTTP" => "a.lan:5000,b.lan",
                "SSL_CERT_FILE" => "/certs.pem",
                _ => return None,
            }))
        };
        let settings = Settings::of_user(&variable).unwrap();
        let expected = [
            "/home/me/.docker/config.json",
            "/run/user/1/containers/auth.json",
            "/home/me/.config/containers/auth.json",
        ];
        assert_eq!(settings.credentials.files, expected.map(PathBuf::from));
        let mirrors: Vec<_> = settings.mirrors.iter().map(|it| (it.of.as_str(), it.url.to_string())).collect();
        assert_eq!(mirrors, [("docker.io", "https://m.io/hub".to_owned()), ("ghcr.io", "http://g.m.io".to_owned())]);
        assert_eq!(settings.bundles[0], Path::new("/certs.pem"));
        assert_eq!(settings.is_plain("a.lan:5000"), Some(true));
        assert_eq!(settings.is_plain("c.lan"), Some(false));
        assert_eq!(settings.is_plain("localhost:5000"), Some(false), "an authority is named for it");
        assert_eq!(Settings::default().is_plain("127.0.0.1:5000"), None);
    }

    #[test]
    fn a_mirror_is_an_address() {
        assert_eq!(Mirror::parse("https://m.io?a=b").unwrap().of, "docker.io");
        assert_eq!(Mirror::parse("index.docker.io=https://m.io").unwrap().of, "docker.io");
        for bad in ["", "m.io", "x=", "x=m.io", "https://u@m.io"] {
            assert!(Mirror::parse(bad).unwrap_err().contains("is no [HOST=]URL of a mirror"), "{bad}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.json");
        assert!(daemon_mirrors(&path).is_empty());
        fs::write(&path, r#"{"registry-mirrors":["https://m.io/","nonsense"],"debug":true}"#).unwrap();
        assert_eq!(daemon_mirrors(&path), ["https://m.io/"]);
    }

    #[test]
    fn a_host_has_authorities_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a.lan:5000")).unwrap();
        for name in ["ca.crt", "client.cert", "client.key"] {
            fs::write(dir.path().join("a.lan:5000").join(name), "").unwrap();
        }
        let settings = Settings { certificates: vec![dir.path().to_owned()], ..Settings::default() };
        assert_eq!(settings.authorities_of("a.lan:5000"), [dir.path().join("a.lan:5000/ca.crt")]);
        assert!(settings.authorities_of("a.lan").is_empty());
    }
}
