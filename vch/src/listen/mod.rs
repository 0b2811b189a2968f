//! Where clients of the Docker API and of the status page connect: sockets are opened at each `--host` and `--status`, connections accepted, and each served by the
//! router that it is given.
//!
//! It decides who may connect, how many at a time, and what becomes of them when the host ends; what they ask for is the router's business. A client's
//! connection is HTTP/1.1, behind TLS or not, until the router takes it over (101): then it is bytes both ways, each way with an end of its own.

mod connection;
mod host;
mod passed;
mod tls;

use std::fmt;
use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::cli::ListenArgs;
use crate::pipe::{SocketPath, prepare, unix_listener};

use self::passed::Passed;
use self::tls::{Certificates, Files};

pub use self::host::{Host, HostError, StatusHost};

/// A socket that clients connect to.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    /// As it was asked for, with the port that it has.
    shown: String,
    audience: Audience,
    certificates: Option<Arc<Certificates>>,
}

/// Who connects to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    Docker,
    Browsers,
}

#[derive(Debug)]
enum Socket {
    Unix { listener: UnixListener, _path: Option<SocketPath> },
    Tcp(TcpListener),
}

/// All that was asked for, open: a client that connects waits to be served.
#[derive(Debug)]
pub(crate) struct Listeners {
    all: Vec<Listener>,
    certificates: Option<Arc<Certificates>>,
}

/// Listeners that are served.
#[derive(Debug)]
pub(crate) struct Serving {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    certificates: Option<Arc<Certificates>>,
}

/// Connections at one host at a time, those included that were taken over: a client that attaches to many containers has one for each.
const PLACES: u32 = 1024;
/// After a failure such as too many open files.
const RECOVER: Duration = Duration::from_millis(200);
/// What clients get to go when the host ends.
const GRACE: Duration = Duration::from_secs(3);

impl Listeners {
    /// Opens what was asked for; certificates that no option names lie in the directory `state`. Must be called within tokio.
    pub(crate) fn open(args: &ListenArgs, state: &Path) -> Result<Listeners> {
        let certificates = match args.uses_tls() {
            true => {
                let [ca, certificate, key] = args.files(&state.join("certs"));
                let ca = args.tlsverify.then_some(ca);
                Some(Arc::new(Certificates::load(Files { certificate, key, ca })?))
            }
            false => None,
        };
        let mut all = Vec::new();
        for host in &args.host {
            match host {
                Host::Passed(only) => {
                    for passed in passed::sockets(*only)? {
                        all.push(Listener::passed(passed, certificates.as_ref())?);
                    }
                }
                Host::Unix(_) | Host::Tcp { .. } => {
                    all.push(Listener::bind(host, Audience::Docker, certificates.as_ref())?);
                }
            }
        }
        Ok(Listeners { all, certificates })
    }

    /// Opens those of the status page, which ask of who connects by TCP what these do.
    pub(crate) fn open_status(&self, hosts: &[StatusHost]) -> Result<Listeners> {
        let bind = |host: &StatusHost| Listener::bind(&host.0, Audience::Browsers, self.certificates.as_ref());
        Ok(Listeners { all: hosts.iter().map(bind).collect::<Result<_>>()?, certificates: self.certificates.clone() })
    }

    /// Where they are, as they were asked for, with the ports that they have.
    pub(crate) fn shown(&self) -> Vec<String> {
        self.all.iter().map(|listener| listener.shown.clone()).collect()
    }

    /// Where clients connect, and what the user should know of it: a line for each.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.all.iter().flat_map(|listener| [Some(listener.to_string()), listener.warning()]).flatten().collect()
    }

    /// Serves them, in tasks of their own, until that ends.
    pub(crate) fn serve(self, app: &Router) -> Serving {
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for listener in self.all {
            tasks.spawn(serve(listener, app.clone(), stop.subscribe()));
        }
        Serving { stop, tasks, certificates: self.certificates }
    }
}

impl Serving {
    /// Reads the certificates again; false where there are none.
    pub(crate) fn reload(&self) -> Result<bool> {
        match &self.certificates {
            Some(certificates) => certificates.reload().map(|()| true),
            None => Ok(false),
        }
    }

    /// Takes no more connections, closes those that are idle, and gives the others a moment.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Listener {
    fn bind(host: &Host, audience: Audience, certificates: Option<&Arc<Certificates>>) -> Result<Listener> {
        let way_out = |error: io::Error| {
            let way_out = way_out(host, &error);
            anyhow::anyhow!("clients cannot connect at {host}: {error}; {way_out}")
        };
        match host {
            Host::Unix(path) => {
                let (listener, path) = unix_listener(path).map_err(way_out)?;
                let socket = Socket::Unix { listener, _path: Some(path) };
                Ok(Listener { socket, shown: host.to_string(), audience, certificates: None })
            }
            Host::Tcp { name, port } => {
                let port = port.unwrap_or(Host::default_port(certificates.is_some()));
                let bound = StdTcpListener::bind((name.as_str(), port)).map_err(way_out)?;
                Listener::tcp(bound, audience, certificates).map_err(way_out)
            }
            Host::Passed(_) => unreachable!("nobody binds a socket that was passed"),
        }
    }

    fn passed(passed: Passed, certificates: Option<&Arc<Certificates>>) -> Result<Listener> {
        match passed {
            Passed::Tcp(socket) => Listener::tcp(socket.into(), Audience::Docker, certificates),
            Passed::Unix(socket) => (|| {
                let listener = StdUnixListener::from(socket);
                listener.set_nonblocking(true)?;
                let path =
                    listener.local_addr()?.as_pathname().map_or("(no path)".into(), |path| path.display().to_string());
                let socket = Socket::Unix { listener: UnixListener::from_std(listener)?, _path: None };
                let shown = format!("unix://{path}, passed");
                Ok(Listener { socket, shown, audience: Audience::Docker, certificates: None })
            })(),
        }
        .context("cannot use a socket that was passed")
    }

    fn tcp(
        listener: StdTcpListener,
        audience: Audience,
        certificates: Option<&Arc<Certificates>>,
    ) -> io::Result<Listener> {
        let scheme = match (audience, certificates) {
            (Audience::Docker, _) => "tcp",
            (Audience::Browsers, None) => "http",
            (Audience::Browsers, Some(_)) => "https",
        };
        let shown = format!("{scheme}://{}", listener.local_addr()?);
        listener.set_nonblocking(true)?;
        let socket = Socket::Tcp(TcpListener::from_std(listener)?);
        Ok(Listener { socket, shown, audience, certificates: certificates.cloned() })
    }

    /// What a user who opened this door should know.
    fn warning(&self) -> Option<String> {
        let Socket::Tcp(listener) = &self.socket else { return None };
        let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let who = if loopback { "every user and program of this host" } else { "whoever reaches it" };
        let lack = match &self.certificates {
            None => "has no encryption and asks nobody who he is",
            Some(certificates) if !certificates.verifies_clients() => "asks nobody who he is",
            Some(_) => return None,
        };
        let gift = match self.audience {
            Audience::Docker => "is root in every container",
            Audience::Browsers => "reads what every container writes",
        };
        let shown = &self.shown;
        Some(format!("WARNING: {shown} {lack}: {who} {gift}. Use --tlsverify, with certificates of `vch certs`"))
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match &self.socket {
            Socket::Unix { listener, .. } => Ok(Accepted::Unix(listener.accept().await?.0)),
            Socket::Tcp(listener) => {
                let stream = listener.accept().await?.0;
                prepare(&stream)?;
                Ok(Accepted::Tcp(stream))
            }
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.audience {
            Audience::Docker => write!(f, "docker clients connect at {}", self.shown)?,
            Audience::Browsers => write!(f, "the status page is at {}", self.shown)?,
        }
        match &self.certificates {
            Some(certificates) if certificates.verifies_clients() => write!(f, ", by TLS, with a certificate"),
            Some(_) => write!(f, ", by TLS"),
            None => Ok(()),
        }
    }
}

enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Accepts and serves until `stop` is true; then it waits a moment for those that are busy.
pub(crate) async fn serve(listener: Listener, app: Router, stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(PLACES as usize));
    let mut stopped = stop.clone();
    let accepting = async {
        loop {
            // who connects without end waits for his own
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok(accepted) => {
                    tokio::spawn(admit(accepted, listener.certificates.clone(), app.clone(), place, stop.clone()));
                }
                Err(error) => {
                    crate::serve::say(&format!("cannot accept at {}: {error}", listener.shown));
                    sleep(RECOVER).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        // a host that forgot to say that it ends has ended
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    drop(listener);
    // all places are free when all are gone
    let _late = timeout(GRACE, places.acquire_many(PLACES)).await.is_err();
}

async fn admit(
    accepted: Accepted,
    certificates: Option<Arc<Certificates>>,
    app: Router,
    place: OwnedSemaphorePermit,
    stop: watch::Receiver<bool>,
) {
    match (accepted, certificates) {
        (Accepted::Unix(stream), _) => connection::converse(stream, app, place, stop).await,
        (Accepted::Tcp(stream), None) => connection::converse(stream, app, place, stop).await,
        (Accepted::Tcp(stream), Some(certificates)) => {
            // a client that is not let in has been told so, and gets no line of ours: strangers would fill the log
            if let Some(stream) = connection::shake_hands(stream, &certificates.acceptor()).await {
                connection::converse(stream, app, place, stop).await;
            }
        }
    }
}

/// What the user can do about it.
fn way_out(host: &Host, error: &io::Error) -> &'static str {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, NotFound, PermissionDenied};
    match (host, error.kind()) {
        (Host::Unix(_), AddrInUse) => "another program listens there: stop it, or give another path",
        (Host::Unix(_), NotFound) => "its directory does not exist: make it",
        (Host::Unix(_), PermissionDenied) => "give a path in a directory that you may write to, or run as root",
        (Host::Unix(_), _) => "give a path of at most 107 bytes on a file system that has sockets",
        (_, AddrInUse) => "another program listens there: stop it, or give another port",
        (_, PermissionDenied) => "give a port from 1024 up, or run as root",
        (_, AddrNotAvailable) => "give an address of this host, or 0.0.0.0 for all of them",
        (_, _) => "give an address of this host and a port, as in tcp://0.0.0.0:2376",
    }
}

#[cfg(test)]
mod tests;
