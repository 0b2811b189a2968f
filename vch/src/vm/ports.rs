//! Ports of the host that lead to a machine: which they are, and whether they can be had.
//!
//! QEMU takes them when it starts. They are tried before, because QEMU does not say who is in the way; what is taken in the moment between, QEMU reports.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use anyhow::{Result, anyhow, bail};
use wire::spec::Protocol;

use crate::cli::run::network::PublishArg;

/// A port of the host, and the guest's port that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    pub protocol: Protocol,
    pub address: Ipv4Addr,
    pub host: u16,
    pub guest: u16,
}

/// The protocol, as QEMU and docker write it.
pub fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Finds the ports that were asked for; where any will do, one that is free.
pub fn choose(asked: &[PublishArg]) -> Result<Vec<Forward>> {
    let mut chosen = Vec::new();
    // until all are found, so that none is found twice
    let mut held = Vec::new();
    for publish in asked {
        let PublishArg { protocol, address, host, container: (first, last) } = *publish;
        let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        for guest in first..=last {
            let offset = guest - first;
            let candidates = match host {
                None => 0..=0,
                Some((from, to)) if first == last => from..=to,
                Some((from, _)) => from + offset..=from + offset,
            };
            let (host, holder) = first_free(protocol, address, candidates, &chosen)?;
            held.push(holder);
            chosen.push(Forward { protocol, address, host, guest });
        }
    }
    Ok(chosen)
}

/// Keeps a port for as long as it is there.
#[derive(Debug)]
#[allow(dead_code)] // what is inside is only held
enum Holder {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

fn first_free(
    protocol: Protocol,
    address: Ipv4Addr,
    candidates: std::ops::RangeInclusive<u16>,
    chosen: &[Forward],
) -> Result<(u16, Holder)> {
    let mut error = None;
    for port in candidates {
        match hold(protocol, address, port) {
            Ok(held) => return Ok(held),
            Err(why) => {
                let place = format!("port {port}/{} of {address}", name(protocol));
                let ours = chosen.iter().any(|other| other.host == port && other.protocol == protocol);
                error = Some(match why.kind() {
                    ErrorKind::AddrInUse if ours => anyhow!("--publish: {place} is asked for twice"),
                    ErrorKind::AddrInUse => anyhow!("--publish: {place} is in use: choose another one"),
                    ErrorKind::PermissionDenied => {
                        anyhow!("--publish: {place} is only for root: choose one above 1023")
                    }
                    ErrorKind::AddrNotAvailable => anyhow!("--publish: {address} is no address of this host"),
                    _ => anyhow!(why).context(format!("--publish: {place} cannot be used")),
                });
            }
        }
    }
    match error {
        Some(error) => Err(error),
        None => bail!("--publish: there is no port to choose from"),
    }
}

fn hold(protocol: Protocol, address: Ipv4Addr, port: u16) -> std::io::Result<(u16, Holder)> {
    match protocol {
        Protocol::Tcp => {
            let socket = TcpListener::bind((address, port))?;
            Ok((socket.local_addr()?.port(), Holder::Tcp(socket)))
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind((address, port))?;
            Ok((socket.local_addr()?.port(), Holder::Udp(socket)))
        }
    }
}

/// Tells where a port was found that nobody had named.
pub fn tell(asked: &[PublishArg], chosen: &[Forward]) -> String {
    let mut chosen = chosen.iter();
    let mut told = String::new();
    for PublishArg { host, container: (first, last), .. } in asked {
        let forwards = chosen.by_ref().take(usize::from(last - first) + 1);
        let any = host.is_none_or(|(from, to)| to - from > last - first);
        for Forward { protocol, address, host, guest } in forwards.filter(|_| any) {
            told.push_str(&format!("vch: port {guest}/{} is reached at {address}:{host}\n", name(*protocol)));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::run::network::publish;

    fn choose(texts: &[&str]) -> Result<Vec<Forward>, String> {
        let asked: Vec<_> = texts.iter().map(|text| publish(text).unwrap()).collect();
        super::choose(&asked).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = choose(&[&format!("127.0.0.1:{port}:80")]).unwrap_err();
        assert_eq!(error, format!("--publish: port {port}/tcp of 127.0.0.1 is in use: choose another one"));
        drop(taken);
        let twice = format!("127.0.0.1:{port}:80");
        let error = choose(&[&twice, &twice.replace(":80", ":81")]).unwrap_err();
        assert_eq!(error, format!("--publish: port {port}/tcp of 127.0.0.1 is asked for twice"));
        let error = choose(&["203.0.113.77:8080:80"]).unwrap_err();
        assert_eq!(error, "--publish: 203.0.113.77 is no address of this host");
    }

    #[test]
    fn any_free_port_will_do() {
        let chosen = choose(&["127.0.0.1::80-82", "127.0.0.1::53/udp"]).unwrap();
        let guests: Vec<_> = chosen.iter().map(|forward| forward.guest).collect();
        assert_eq!(guests, [80, 81, 82, 53]);
        assert!(chosen.iter().all(|forward| forward.host > 0));
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        if port < u16::MAX - 20 {
            let chosen = choose(&[&format!("127.0.0.1:{port}-{}:80", port + 20)]).unwrap();
            assert_ne!(chosen[0].host, port);
        }
        let asked = [publish("127.0.0.1::80").unwrap(), publish("127.0.0.1:1:81").unwrap()];
        let forward = |host, guest| Forward { protocol: Protocol::Tcp, address: [127, 0, 0, 1].into(), host, guest };
        let told = tell(&asked, &[forward(5000, 80), forward(1, 81)]);
        assert_eq!(told, "vch: port 80/tcp is reached at 127.0.0.1:5000\n");
    }
}
