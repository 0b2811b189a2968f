//! The text of a pipe's address, parsed once at the door. Whether anything is there is found out by listening.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use wire::spec::{SPEED, SPEEDS};

use super::vspc;

/// Where to listen for pipes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system.
    Unix(PathBuf),
    /// `ADDRESS:PORT`; IPv6 in brackets.
    Tcp(String),
    /// `ADDRESS:PORT`, where telnet with VMware's extension is spoken.
    Vspc(String),
    /// A serial line or pseudo-terminal, with its speed in baud.
    Serial { device: PathBuf, speed: u32 },
    /// A port for this host's guests; without a CID at all that the host has.
    Vsock { cid: Option<u32>, port: u32 },
}

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address {text:?} is not valid: {reason}")]
pub struct AddressError {
    text: String,
    reason: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        parse(text).map_err(|reason| AddressError { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<Address, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    match scheme {
        "unix" => match rest {
            "" => Err("it lacks a path, as in unix:///run/vch.sock".into()),
            path => Ok(Address::Unix(path.into())),
        },
        "tcp" => match rest.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Address::Tcp(rest.to_owned())),
            _ => Err("it lacks an address and a port up to 65535, as in tcp://0.0.0.0:8080".into()),
        },
        "vspc" => {
            let (host, port) = match rest.rsplit_once(':') {
                Some((host, port)) if !rest.ends_with(']') => (host, port.parse().ok()),
                _ => (rest, Some(vspc::PORT)),
            };
            let is_host = !host.is_empty() && (host.starts_with('[') || !host.contains(':'));
            match port.filter(|_: &u16| is_host) {
                Some(port) => Ok(Address::Vspc(format!("{host}:{port}"))),
                None => Err("it lacks an address, or has no port up to 65535, as in vspc://0.0.0.0:2377".into()),
            }
        }
        "serial" => serial(rest),
        "vsock" => {
            let number = |text: &str| text.parse::<u32>().ok();
            let (cid, port) = match rest.split_once(':') {
                Some((cid, port)) => (number(cid).map(Some), number(port)),
                None => (Some(None), number(rest)),
            };
            match (cid, port) {
                (Some(cid), Some(port)) => Ok(Address::Vsock { cid, port }),
                _ => Err("CID and port are numbers, as in vsock://29797 or vsock://2:29797".into()),
            }
        }
        _ => Err("it begins with unix://, tcp://, vspc://, serial:// or vsock://".into()),
    }
}

fn serial(rest: &str) -> Result<Address, String> {
    let (device, option) = rest.split_once('?').unwrap_or((rest, ""));
    let speed = match option.split_once('=') {
        None if option.is_empty() => SPEED,
        Some(("speed", speed)) => match speed.parse() {
            Ok(speed) if SPEEDS.contains(&speed) => speed,
            _ => return Err(format!("a serial line goes at one of {SPEEDS:?} baud")),
        },
        _ => return Err("the one option of a serial line is speed, as in serial:///dev/ttyS0?speed=115200".into()),
    };
    match device.starts_with('/') {
        true => Ok(Address::Serial { device: device.into(), speed }),
        false => Err("it lacks the path of a device, as in serial:///dev/ttyS0".into()),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp(at) => write!(f, "tcp://{at}"),
            Address::Vspc(at) => write!(f, "vspc://{at}"),
            Address::Serial { device, speed } => write!(f, "serial://{}?speed={speed}", device.display()),
            Address::Vsock { cid: Some(cid), port } => write!(f, "vsock://{cid}:{port}"),
            Address::Vsock { cid: None, port } => write!(f, "vsock://{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, expected) in [
            ("unix:///run/a.sock", Address::Unix("/run/a.sock".into())),
            ("unix://a.sock", Address::Unix("a.sock".into())),
            ("tcp://0.0.0.0:8080", Address::Tcp("0.0.0.0:8080".into())),
            ("vspc://0.0.0.0:2377", Address::Vspc("0.0.0.0:2377".into())),
            ("vspc://[::1]:0", Address::Vspc("[::1]:0".into())),
            ("tcp://[::1]:0", Address::Tcp("[::1]:0".into())),
            ("serial:///dev/ttyS1?speed=9600", Address::Serial { device: "/dev/ttyS1".into(), speed: 9600 }),
            ("vsock://29797", Address::Vsock { cid: None, port: 29797 }),
            ("vsock://2:29797", Address::Vsock { cid: Some(2), port: 29797 }),
        ] {
            assert_eq!(text.parse(), Ok(expected.clone()));
            assert_eq!(expected.to_string(), text);
        }
        let slow = Address::Serial { device: "/dev/pts/3".into(), speed: 115_200 };
        assert_eq!("serial:///dev/pts/3".parse(), Ok(slow));
        for (text, at) in [("vspc://0.0.0.0", "0.0.0.0:2377"), ("vspc://[::]", "[::]:2377")] {
            assert_eq!(text.parse(), Ok(Address::Vspc(at.into())));
        }
    }

    #[test]
    fn what_is_no_address_gets_a_way_out() {
        for (text, part) in [
            ("/run/a.sock", "unix://, tcp://, vspc://, serial:// or vsock://"),
            ("http://a:80", "unix://, tcp://, vspc://, serial:// or vsock://"),
            ("unix://", "lacks a path"),
            ("tcp://8080", "tcp://0.0.0.0:8080"),
            ("tcp://:8080", "tcp://0.0.0.0:8080"),
            ("tcp://a:99999", "up to 65535"),
            ("vspc://", "vspc://0.0.0.0:2377"),
            ("vspc://:2377", "vspc://0.0.0.0:2377"),
            ("vspc://a:b", "up to 65535"),
            ("vspc://::1", "vspc://0.0.0.0:2377"),
            ("serial://ttyS0", "path of a device"),
            ("serial:///dev/ttyS0?speed=300", "115200"),
            ("serial:///dev/ttyS0?parity=odd", "the one option"),
            ("vsock://host:1", "are numbers"),
            ("vsock://", "are numbers"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("the address {text:?} is not valid: ")), "{error}");
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
    }
}
