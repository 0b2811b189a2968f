//! HTTP, with TLS and deadlines, and what its failures mean for a pull.
//!
//! It follows no redirect and knows no user: `session` decides what is told to whom. Every wait is bounded: a registry that says nothing, or next to nothing, is as
//! good as gone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body, BodyReader};

use super::error::{Failure, Reason, shown, unusable};
use super::retry::retry_after;
use super::settings::Settings;
use super::url::Url;

/// Connections to every host that a pull leads to; each host has authorities of its own.
pub(super) struct Http<'a> {
    settings: &'a Settings,
    agents: Mutex<BTreeMap<String, Agent>>,
}

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask<'a> {
    Get,
    Head,
    /// A form.
    Post(&'a str),
}

/// An answer whose body is not read.
pub(super) struct Answer {
    response: Response<Body>,
    timeout: Duration,
}

impl<'a> Http<'a> {
    pub(super) fn new(settings: &'a Settings) -> Http<'a> {
        Http { settings, agents: Mutex::default() }
    }

    pub(super) fn send(&self, ask: Ask<'_>, url: &Url, headers: &[(&str, &str)]) -> Result<Answer, Failure> {
        let agent = self.agent(url)?;
        let to = url.to_string();
        let timeout = self.settings.timeout;
        let answer = match ask {
            Ask::Get => headers.iter().fold(agent.get(to), |request, (key, value)| request.header(*key, *value)).call(),
            Ask::Head => {
                headers.iter().fold(agent.head(to), |request, (key, value)| request.header(*key, *value)).call()
            }
            Ask::Post(form) => headers
                .iter()
                .fold(agent.post(to), |request, (key, value)| request.header(*key, *value))
                .content_type("application/x-www-form-urlencoded")
                .send(form),
        };
        let response = answer.map_err(|error| failure(error, timeout))?;
        Ok(Answer { response, timeout })
    }

    fn agent(&self, url: &Url) -> Result<Agent, Failure> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&url.authority) {
            return Ok(agent.clone());
        }
        let timeout = Some(self.settings.timeout);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("iso-builder/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_send_request(timeout)
            .timeout_send_body(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .tls_config(TlsConfig::builder().root_certs(self.roots(&url.authority)?).build());
        if url.is_loopback() {
            config = config.proxy(None); // a proxy's loopback is another one
        }
        let agent: Agent = config.build().into();
        agents.insert(url.authority.clone(), agent.clone());
        Ok(agent)
    }

    /// The system's authorities and the user's. Mozilla's are built in for systems that have none.
    fn roots(&self, authority: &str) -> Result<RootCerts, Failure> {
        let mut all = Vec::new();
        if let Some(bundle) = self.settings.bundles.iter().find(|path| path.is_file()) {
            // what cannot be read of the system's is not the user's fault
            all.extend(certificates(&fs::read(bundle).unwrap_or_default()));
        }
        for path in self.settings.authorities_of(authority) {
            let bytes = fs::read(&path).map_err(|error| unusable(&path, &error))?;
            let own = certificates(&bytes);
            if own.is_empty() {
                return Err(unusable(&path, &"it holds no certificate in PEM"));
            }
            all.extend(own);
        }
        Ok(if all.is_empty() { RootCerts::WebPki } else { RootCerts::Specific(Arc::new(all)) })
    }
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let items = ureq::tls::parse_pem(pem).flatten();
    items
        .filter_map(|item| if let PemItem::Certificate(certificate) = item { Some(certificate) } else { None })
        .collect()
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub(super) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.response.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// Bytes of the body, if the answer says.
    pub(super) fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    pub(super) fn into_reader(self) -> Steady {
        let reader = self.response.into_body().into_reader();
        Steady { reader, timeout: self.timeout, since: Instant::now(), came: 0 }
    }

    /// The whole body, or `None` if it is longer than `limit`.
    pub(super) fn read_up_to(self, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        let timeout = self.timeout;
        let mut bytes = Vec::new();
        self.into_reader().take(limit + 1).read_to_end(&mut bytes).map_err(|error| broken(error, timeout))?;
        Ok((bytes.len() as u64 <= limit).then_some(bytes))
    }

    /// The failure that a status tells of, in the registry's own words.
    pub(super) fn into_failure(self) -> Failure {
        let code = self.status().as_u16();
        let after = self.header("retry-after").and_then(retry_after);
        let said = self.said();
        match code {
            404 => Failure::Final(Reason::Missing(said)),
            429 => Failure::Temporary { reason: Reason::TooMany { said, after }, after },
            408 | 500..=599 => Failure::Temporary { reason: Reason::Status { code, said }, after },
            _ => Failure::Final(Reason::Status { code, said }),
        }
    }

    /// The words of an error's body: of registries, of token servers; of others, nothing.
    pub(super) fn said(self) -> String {
        let Ok(Some(body)) = self.read_up_to(64 << 10) else { return String::new() };
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&body) else { return String::new() };
        let first = &value["errors"][0];
        let candidates =
            [&first["message"], &first["code"], &value["details"], &value["error_description"], &value["message"]];
        let words = candidates.into_iter().filter_map(|it| it.as_str()).find(|words| !words.is_empty());
        shown(words.unwrap_or_default())
    }
}

/// A body that must go on coming: less than a KiB in the time that a registry may be silent is silence.
pub(super) struct Steady {
    reader: BodyReader<'static>,
    timeout: Duration,
    since: Instant,
    came: u64,
}

impl Read for Steady {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.reader.read(buf)?;
        self.came += len as u64;
        if len > 0 && self.since.elapsed() > self.timeout {
            if self.came < LEAST {
                return Err(io::ErrorKind::TimedOut.into());
            }
            (self.since, self.came) = (Instant::now(), 0);
        }
        Ok(len)
    }
}

fn failure(error: ureq::Error, timeout: Duration) -> Failure {
    use io::ErrorKind;
    match error {
        ureq::Error::HostNotFound => Failure::Final(Reason::UnknownHost),
        ureq::Error::Timeout(_) => Failure::Temporary { reason: Reason::Silent(timeout), after: None },
        ureq::Error::Tls(what) => Failure::Final(Reason::Tls(what.to_owned())),
        ureq::Error::Rustls(error) => Failure::Final(Reason::Tls(error.to_string())),
        ureq::Error::ConnectionFailed => Failure::Final(Reason::Connect("no way leads there".to_owned())),
        ureq::Error::ConnectProxyFailed(what) => {
            Failure::Final(Reason::Connect(format!("the proxy refuses: {}", shown(&what))))
        }
        ureq::Error::Io(error) => match error.kind() {
            // rustls tells of certificates so
            ErrorKind::InvalidData => Failure::Final(Reason::Tls(shown(&error.to_string()))),
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::AddrNotAvailable => Failure::Final(Reason::Connect(error.to_string())),
            // resolvers have no kind of their own
            _ if error.to_string().contains("failed to lookup address") => Failure::Final(Reason::UnknownHost),
            _ => broken(error, timeout),
        },
        ureq::Error::Protocol(error) => {
            Failure::Temporary { reason: Reason::Cut(shown(&error.to_string())), after: None }
        }
        error => Failure::malformed(shown(&error.to_string())),
    }
}

/// A body, or a connection, that ended before its time.
pub(super) fn broken(error: io::Error, timeout: Duration) -> Failure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    let silent = error.kind() == io::ErrorKind::TimedOut || matches!(inner, Some(ureq::Error::Timeout(_)));
    let reason = if silent { Reason::Silent(timeout) } else { Reason::Cut(shown(&error.to_string())) };
    Failure::Temporary { reason, after: None }
}

const LEAST: u64 = 1024;
