//! The text of `--host`, in dockerd's syntax, parsed once. Whether it can be listened at is found out by listening.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A socket in the file system.
    Unix(PathBuf),
    /// An address or name of this host; without a port docker's own is meant.
    Tcp { name: String, port: Option<u16> },
    /// Sockets that who started us has opened: all, or the one with that number (sd_listen_fds(3)).
    Passed(Option<i32>),
}

/// Where browsers connect to the status page: a path, or an address with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusHost(pub(super) Host);

/// A text that is no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host {text:?} is not valid: {reason}")]
pub struct HostError {
    text: String,
    reason: &'static str,
}

/// Docker's ports, as IANA lists them.
const PORT: u16 = 2375;
const PORT_WITH_TLS: u16 = 2376;
/// Where vSphere Integrated Containers had its administration page.
const STATUS_PORT: u16 = 2378;
/// What `unix://` alone means to docker and to dockerd.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// What `tcp://` alone means to dockerd: this host's own clients.
const LOOPBACK: &str = "127.0.0.1";

impl Host {
    /// The port of docker's that a TCP address without one has.
    pub(super) fn default_port(tls: bool) -> u16 {
        if tls { PORT_WITH_TLS } else { PORT }
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Host, HostError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let host = match scheme {
            "unix" if rest.is_empty() => Ok(Host::Unix(DOCKER_SOCKET.into())),
            "unix" => Ok(Host::Unix(rest.into())),
            "tcp" if rest.is_empty() && text.is_empty() => Err("it is empty: write it as unix:///run/docker.sock"),
            "tcp" => tcp(rest),
            "fd" if rest.is_empty() || rest == "*" => Ok(Host::Passed(None)),
            "fd" => match rest.parse() {
                Ok(number @ FIRST_PASSED..) => Ok(Host::Passed(Some(number))),
                _ => {
                    Err("write fd:// for all sockets that were passed, or fd://3 for one: they are numbered from 3 up")
                }
            },
            _ => Err("it begins with unix://, tcp:// or fd://"),
        };
        host.map_err(|reason| HostError { text: text.to_owned(), reason })
    }
}

impl FromStr for StatusHost {
    type Err = HostError;

    fn from_str(text: &str) -> Result<StatusHost, HostError> {
        let wrong = |reason| HostError { text: text.to_owned(), reason };
        match text.parse()? {
            Host::Unix(_) if text == "unix://" => Err(wrong("name the path, as in unix:///run/status.sock")),
            Host::Unix(path) => Ok(StatusHost(Host::Unix(path))),
            Host::Tcp { name, port } => Ok(StatusHost(Host::Tcp { name, port: port.or(Some(STATUS_PORT)) })),
            Host::Passed(_) => Err(wrong("the status page takes no passed sockets: write tcp://127.0.0.1:2378")),
        }
    }
}

/// `SD_LISTEN_FDS_START`.
pub(super) const FIRST_PASSED: i32 = 3;

fn tcp(rest: &str) -> Result<Host, &'static str> {
    const REASON: &str =
        "write an address of this host and a port up to 65535, as in tcp://0.0.0.0:2376 or tcp://[::]:2376";
    let (name, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').ok_or(REASON)?;
            name.parse::<Ipv6Addr>().map_err(|_| REASON)?;
            (name, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(REASON)?) })
        }
        None => match rest.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (rest, None),
        },
    };
    let port = port.map(str::parse).transpose().map_err(|_| REASON)?;
    let plain = |char: char| char.is_ascii_alphanumeric() || ".-_".contains(char);
    if !rest.starts_with('[') && !name.chars().all(plain) {
        return Err(REASON);
    }
    Ok(Host::Tcp { name: if name.is_empty() { LOOPBACK } else { name }.to_owned(), port })
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Unix(path) => write!(f, "unix://{}", path.display()),
            Host::Tcp { name, port } => {
                match name.contains(':') {
                    true => write!(f, "tcp://[{name}]")?,
                    false => write!(f, "tcp://{name}")?,
                }
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
            Host::Passed(None) => write!(f, "fd://"),
            Host::Passed(Some(number)) => write!(f, "fd://{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_page_has_a_port_and_a_path_of_its_own() {
        let check = |text: &str, shown: &str| {
            assert_eq!(text.parse::<StatusHost>().map(|host| host.0.to_string()).as_deref(), Ok(shown), "{text}");
        };
        check("tcp://0.0.0.0", "tcp://0.0.0.0:2378");
        check("tcp://[::1]:80", "tcp://[::1]:80");
        check("unix:///run/page.sock", "unix:///run/page.sock");
        for text in ["unix://", "fd://", "fd://3", "http://x", "tcp://x:99999"] {
            assert!(text.parse::<StatusHost>().is_err(), "{text}");
        }
    }

    fn at(name: &str, port: Option<u16>) -> Host {
        Host::Tcp { name: name.into(), port }
    }

    #[test]
    fn hosts_are_read_as_dockerd_reads_them() {
        for (text, expected) in [
            ("unix:///run/d.sock", Host::Unix("/run/d.sock".into())),
            ("unix://", Host::Unix("/var/run/docker.sock".into())),
            ("tcp://", at("127.0.0.1", None)),
            ("tcp://:2376", at("127.0.0.1", Some(2376))),
            ("tcp://0.0.0.0", at("0.0.0.0", None)),
            ("tcp://0.0.0.0:0", at("0.0.0.0", Some(0))),
            ("0.0.0.0:2375", at("0.0.0.0", Some(2375))),
            ("tcp://vch.example", at("vch.example", None)),
            ("tcp://[::1]:2375", at("::1", Some(2375))),
            ("tcp://[::]", at("::", None)),
            ("fd://", Host::Passed(None)),
            ("fd://4", Host::Passed(Some(4))),
        ] {
            let host: Host = text.parse().unwrap();
            assert_eq!(host, expected);
            // what is shown is read as the same
            assert_eq!(host.to_string().parse(), Ok(host));
        }
    }

    #[test]
    fn what_is_no_host_gets_a_way_out() {
        for (text, part) in [
            ("", "unix:///run/docker.sock"),
            ("http://a:80", "begins with unix://, tcp:// or fd://"),
            ("npipe:////./pipe/x", "begins with unix://, tcp:// or fd://"),
            ("tcp://a:99999", "up to 65535"),
            ("tcp://a:b", "up to 65535"),
            ("tcp://::1", "tcp://[::]:2376"),
            ("tcp://[::1", "tcp://[::]:2376"),
            ("tcp://[::1]2375", "tcp://[::]:2376"),
            ("tcp://0.0.0.0:2375/path", "up to 65535"),
            ("fd://1", "from 3 up"),
            ("fd://x", "from 3 up"),
        ] {
            let error = text.parse::<Host>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("the host {text:?} is not valid: ")), "{error}");
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
    }
}
