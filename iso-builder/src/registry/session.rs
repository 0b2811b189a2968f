//! Requests for one image: to its mirrors and its registry, with what they want to see first, through redirects, again after failures.
//!
//! It decides who is told what: a login goes to the place that asked for it, never along a redirect to another, and never in the clear after TLS.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::challenge::{self, Challenge};
use super::credentials::Credential;
use super::error::{Also, Error, Failed, Failure, Reason};
use super::http::{Answer, Ask, Http};
use super::name::{DOCKER, Name};
use super::retry::Retry;
use super::settings::Settings;
use super::url::{Url, encoded};

pub(super) struct Session<'a> {
    pub(super) settings: &'a Settings,
    pub(super) name: &'a Name,
    http: Http<'a>,
    /// Mirrors, then the registry itself.
    sources: Vec<Source>,
    stopped: Mutex<bool>,
    stop: Condvar,
}

/// One place that may have the image.
pub(super) struct Source {
    /// Its name for logins.
    login: String,
    url: Url,
    mirror: bool,
    /// Whether TLS is used, once that is known.
    scheme: OnceLock<Url>,
    /// What it wants to see with each request, once it has said so. Locked while a new one is fetched.
    header: Mutex<Option<String>>,
    /// A mirror that failed is not asked again.
    failed: AtomicBool,
}

/// A request below a registry's `/v2/REPOSITORY/`; without a path, one for `/v2/` itself, by which a client knocks.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) ask: Ask<'a>,
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// What comes is verified by a digest that is known already, so that it may come over any way.
    pub(super) verified: bool,
}

/// Why some work has no result.
#[derive(Debug)]
pub(super) enum GivenUp {
    Because(Error),
    /// Another part of the pull failed.
    Stopped,
}

impl<'a> Session<'a> {
    pub(super) fn new(name: &'a Name, settings: &'a Settings) -> Session<'a> {
        let source = |login: &str, url: Url, mirror| Source {
            login: login.to_owned(),
            url,
            mirror,
            scheme: OnceLock::new(),
            header: Mutex::default(),
            failed: AtomicBool::new(false),
        };
        let mirrors = settings.mirrors.iter().filter(|mirror| mirror.of == name.host());
        let mut sources: Vec<Source> =
            mirrors.map(|mirror| source(&mirror.url.authority, mirror.url.clone(), true)).collect();
        let authority = if name.host() == DOCKER { DOCKER_REGISTRY } else { name.host() };
        let url = Url { tls: true, authority: authority.to_ascii_lowercase(), rest: String::new() };
        sources.push(source(name.host(), url, false));
        Session { settings, name, http: Http::new(settings), sources, stopped: Mutex::new(false), stop: Condvar::new() }
    }

    /// Does some work with the first place that can do it. A mirror that fails is given up at once; the registry itself is asked again while its failures are such
    /// as pass. `work` tells [`Retry`] when
    /// something came of a try.
    pub(super) fn anywhere<T>(
        &self,
        work: &mut dyn FnMut(&Source, &mut Retry) -> Result<T, Failure>,
    ) -> Result<T, GivenUp> {
        let mut before = Vec::new();
        for source in &self.sources {
            if source.failed.load(Ordering::Relaxed) {
                continue;
            }
            let mut retry = Retry::new(if source.mirror { 1 } else { self.settings.attempts });
            loop {
                self.check()?;
                let (reason, pause) = match work(source, &mut retry) {
                    Ok(done) => return Ok(done),
                    Err(Failure::Temporary { reason, after }) => (reason, retry.pause(after)),
                    Err(Failure::Final(reason)) => (reason, None),
                    Err(Failure::Ours(error)) => return Err(GivenUp::Because(error)),
                    Err(Failure::Stopped) => return Err(GivenUp::Stopped),
                };
                if let Some(pause) = pause {
                    self.wait(pause)?;
                    continue;
                }
                let place = source.url.authority.clone();
                if !source.mirror {
                    let failed = Failed { name: self.name.clone(), registry: place, reason, also: Also(before) };
                    return Err(GivenUp::Because(Error::Pull(Box::new(failed))));
                }
                // what a mirror has not got it need not be asked for by every part of the image
                source.failed.store(true, Ordering::Relaxed);
                before.push((place, reason));
                break;
            }
        }
        unreachable!("the last place is the registry itself, which is never given up")
    }

    /// One request to one place. Gives answers of success alone.
    pub(super) fn request(&self, source: &Source, request: Request<'_>) -> Result<Answer, Failure> {
        let path = match request.path {
            "" => "/v2/".to_owned(),
            path => format!("/v2/{}/{path}", self.name.repository()),
        };
        let url = self.url(source)?.below(&path);
        let mut rounds = 0;
        loop {
            let header = source.header.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (answer, at) = self.follow(&url, request, header.as_deref())?;
            match answer.status().as_u16() {
                200 | 206 => return Ok(answer),
                // another place may not ask who the user is
                401 | 403 if !at.is_same_place(&url) => return Err(answer.into_failure()),
                // once to be let in, once more because a token's time may be over
                401 if rounds < 2 => self.authorize(source, header, answer)?,
                401 | 403 => return Err(denied(source, header.is_some(), answer.said())),
                _ => return Err(answer.into_failure()),
            }
            rounds += 1;
        }
    }

    fn follow(&self, url: &Url, request: Request<'_>, authorization: Option<&str>) -> Result<(Answer, Url), Failure> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = request.headers.to_vec();
            if let Some(value) = authorization.filter(|_| at.is_same_place(url)) {
                headers.push(("authorization", value));
            }
            let answer = self.http.send(request.ask, &at, &headers)?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((answer, at));
            }
            let to = answer.header("location").and_then(|location| at.join(location));
            let to = to.ok_or_else(|| Failure::malformed("it redirects to no address"))?;
            if url.tls && !to.tls && !request.verified {
                return Err(Failure::malformed("it redirects to a place without TLS"));
            }
            at = to;
        }
        Err(Failure::malformed(format!("it redirects more than {MAX_REDIRECTS} times")))
    }

    /// Where the place is. On this computer registries have TLS or not, and are asked, as docker does.
    fn url<'s>(&self, source: &'s Source) -> Result<&'s Url, Failure> {
        if let Some(url) = source.scheme.get() {
            return Ok(url);
        }
        let tls = match self.settings.is_plain(&source.url.authority) {
            _ if source.mirror => source.url.tls,
            Some(plain) => !plain,
            None => {
                let plain = Url { tls: false, ..source.url.clone() };
                // one that has TLS answers 400 to a request in the clear, or something that is no HTTP
                !matches!(self.http.send(Ask::Get, &plain.below("/v2/"), &[]), Ok(answer) if answer.status() != 400)
            }
        };
        Ok(source.scheme.get_or_init(|| Url { tls, ..source.url.clone() }))
    }

    /// Gets what the place wants to see, unless another thread did meanwhile.
    fn authorize(&self, source: &Source, refused: Option<String>, answer: Answer) -> Result<(), Failure> {
        let mut header = source.header.lock().unwrap_or_else(PoisonError::into_inner);
        if *header != refused {
            return Ok(());
        }
        let Some(challenge) = challenge::read(answer.headers("www-authenticate")) else {
            return Err(denied(source, refused.is_some(), answer.said()));
        };
        let credential = self.settings.credentials.of(&source.login, self.name.repository());
        let credential = credential
            .map_err(|error| Failure::Ours(Error::Login { name: self.name.clone(), source: error.into() }))?;
        let value = match (challenge, credential) {
            (Challenge::Basic, Some(Credential::Password { user, password })) => basic(&user, &password),
            (Challenge::Basic, _) => return Err(denied(source, false, answer.said())),
            (Challenge::Bearer { realm, service, scope }, credential) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.name.repository()));
                self.token(source, &realm, service.as_deref(), &scope, credential.as_ref())?
            }
        };
        if refused.as_ref() == Some(&value) {
            return Err(denied(source, true, answer.said()));
        }
        *header = Some(value);
        Ok(())
    }

    /// Asks the token server (distribution-spec's token authentication; OAuth2 for identity tokens).
    fn token(
        &self,
        source: &Source,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credential: Option<&Credential>,
    ) -> Result<String, Failure> {
        let place = Url::parse(realm).ok_or_else(|| Failure::malformed("it names no address to get a token at"))?;
        if self.url(source)?.tls && !place.tls {
            return Err(Failure::malformed(format!("it wants a token fetched from {} without TLS", place.authority)));
        }
        let mut parameters: Vec<(&str, &str)> = service.map(|service| ("service", service)).into_iter().collect();
        parameters.push(("scope", scope));
        let answer = match credential {
            Some(Credential::Identity(token)) => {
                parameters.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "iso-builder"),
                    ("refresh_token", token),
                ]);
                let pairs = parameters.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value)));
                self.http.send(Ask::Post(&pairs.collect::<Vec<_>>().join("&")), &place, &[])?
            }
            Some(Credential::Password { user, password }) => {
                parameters.push(("account", user));
                let header = basic(user, password);
                self.http.send(Ask::Get, &place.with(&parameters), &[("authorization", &header)])?
            }
            None => self.http.send(Ask::Get, &place.with(&parameters), &[])?,
        };
        match answer.status().as_u16() {
            200 => {}
            401 | 403 => return Err(denied(source, credential.is_some(), answer.said())),
            _ => return Err(answer.into_failure()),
        }
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let odd = || Failure::malformed(format!("{} gives something else than a token", place.authority));
        let body = answer.read_up_to(TOKEN_LIMIT)?.ok_or_else(odd)?;
        let found: Token = serde_json::from_slice(&body).map_err(|_| odd())?;
        let token = found.token.or(found.access_token).filter(|token| !token.is_empty()).ok_or_else(odd)?;
        match token.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(format!("Bearer {token}")),
            false => Err(odd()),
        }
    }

    /// Ends what other threads do for this image, and their waits.
    pub(super) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.notify_all();
    }

    pub(super) fn check(&self) -> Result<(), GivenUp> {
        match *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) {
            true => Err(GivenUp::Stopped),
            false => Ok(()),
        }
    }

    fn wait(&self, pause: Duration) -> Result<(), GivenUp> {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let (stopped, _) =
            self.stop.wait_timeout_while(stopped, pause, |stopped| !*stopped).unwrap_or_else(PoisonError::into_inner);
        if *stopped { Err(GivenUp::Stopped) } else { Ok(()) }
    }
}

fn denied(source: &Source, known: bool, said: String) -> Failure {
    let login = source.login.clone();
    Failure::Final(if known { Reason::Denied { login, said } } else { Reason::Guest { login, said } })
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Docker Hub's registry has another name than its images.
const DOCKER_REGISTRY: &str = "registry-1.docker.io";
/// Registries redirect once, and their storage now and then once more.
const MAX_REDIRECTS: u32 = 5;
/// Bytes of a token server's answer; tokens with many claims have some tens of KiB.
const TOKEN_LIMIT: u64 = 1 << 20;
