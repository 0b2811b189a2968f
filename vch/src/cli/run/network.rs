//! `-p`, `--network`, `--dns` and their kin: the container's network and names, as docker writes them.

use std::net::{IpAddr, Ipv4Addr};

use clap::Args;
use wire::spec::Protocol;

/// A containerVM's network.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// The network: `user`, which reaches what the host reaches, or `none`
    #[arg(long, visible_alias = "net", value_name = "NETWORK", default_value = "user", value_parser = network)]
    pub network: Network,

    /// Let a port of the host lead to one of the container, or a range to a range; /udp after it for UDP
    #[arg(short, long, value_name = "[[IP:]HOST:]PORT", value_parser = publish)]
    pub publish: Vec<PublishArg>,

    /// A port that the container listens on: a note, as nobody but this host reaches it
    #[arg(long, value_name = "PORT", value_parser = expose)]
    pub expose: Vec<PublishArg>,

    /// The network card's address [default: follows from the container's id]
    #[arg(long, value_name = "MAC", value_parser = mac)]
    pub mac_address: Option<[u8; 6]>,

    /// The host name inside [default: the first 12 characters of the container's id]
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,

    /// The domain behind it
    #[arg(long, value_name = "NAME")]
    pub domainname: Option<String>,

    /// Ask this name server, in place of the host's
    #[arg(long, value_name = "IP")]
    pub dns: Vec<IpAddr>,

    /// Look for short names in this domain
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,

    /// An option of resolv.conf
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,

    /// Another line of /etc/hosts; the address `host-gateway` is this host
    #[arg(long, value_name = "NAME:IP", value_parser = add_host)]
    pub add_host: Vec<(String, HostAddress)>,
}

/// A network to be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// QEMU's own: what the host reaches is reached, and published ports come in.
    User,
    /// Only the machine itself.
    None,
}

/// Ports of the host, and where they lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishArg {
    pub protocol: Protocol,
    /// Which address of the host; none is all of them.
    pub address: Option<Ipv4Addr>,
    /// First and last; none is any that is free.
    pub host: Option<(u16, u16)>,
    /// First and last. Of several host ports for one of the container, any that is free is taken.
    pub container: (u16, u16),
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAddress {
    Ip(IpAddr),
    /// This host, as the container reaches it.
    Gateway,
}

/// Parses `--network`.
pub fn network(text: &str) -> Result<Network, String> {
    match text {
        // what docker calls the network of those that name none
        "user" | "bridge" | "default" => Ok(Network::User),
        "none" => Ok(Network::None),
        "host" => Err("a virtual machine has a network of its own: let ports of the host lead to it with -p".into()),
        text if text.starts_with("container:") => {
            Err("a virtual machine shares its network with no other: let ports of the host lead to it with -p".into())
        }
        _ => Err("there are `user` and `none`".into()),
    }
}

/// Parses `-p`.
pub fn publish(text: &str) -> Result<PublishArg, String> {
    let (ports, protocol) = split_protocol(text)?;
    if ports.starts_with('[') {
        return Err(
            "ports of the host's IPv6 addresses cannot lead to a virtual machine here: leave the address out".into()
        );
    }
    let parts: Vec<&str> = ports.split(':').collect();
    let (address, host, container) = match parts[..] {
        [container] => ("", "", container),
        [host, container] => ("", host, container),
        [address, host, container] => (address, host, container),
        _ => return Err(HOW_TO_PUBLISH.into()),
    };
    let address = match address {
        "" => None,
        text => Some(text.parse().map_err(|_| format!("{text:?} is no IPv4 address of this host"))?),
    };
    let host = match host {
        "" => None,
        text => Some(range(text)?),
    };
    let container = range(container)?;
    let count = |(first, last): (u16, u16)| last - first;
    if let Some(host) = host
        && count(host) != count(container)
        && count(container) != 0
    {
        return Err("the ranges of ports are of different lengths".into());
    }
    Ok(PublishArg { protocol, address, host, container })
}

/// Parses `--expose`.
pub fn expose(text: &str) -> Result<PublishArg, String> {
    let (ports, protocol) = split_protocol(text)?;
    Ok(PublishArg { protocol, address: None, host: None, container: range(ports)? })
}

fn split_protocol(text: &str) -> Result<(&str, Protocol), String> {
    match text.split_once('/') {
        None | Some((_, "tcp")) => Ok((text.trim_end_matches("/tcp"), Protocol::Tcp)),
        Some((ports, "udp")) => Ok((ports, Protocol::Udp)),
        Some((_, other)) => Err(format!("{other:?} is neither tcp nor udp")),
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(HOW_TO_PUBLISH.into()),
    }
}

/// Parses `--mac-address`.
pub fn mac(text: &str) -> Result<[u8; 6], String> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2);
        *byte = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or("write it as 02:42:ac:11:00:02")?;
    }
    match (parts.next(), mac[0] & 1) {
        (Some(_), _) => Err("write it as 02:42:ac:11:00:02".into()),
        (None, 1) => Err("this is the address of a group, not of a card: its first byte is odd".into()),
        (None, _) if mac == [0; 6] => Err("this is no card's address".into()),
        (None, _) => Ok(mac),
    }
}

/// Parses `--add-host`.
pub fn add_host(text: &str) -> Result<(String, HostAddress), String> {
    let wrong = || "write it as NAME:IP".to_owned();
    let (name, address) = text.split_once(['=', ':']).ok_or_else(wrong)?;
    let named = !name.is_empty() && name.chars().all(|char| char.is_ascii_alphanumeric() || "-._".contains(char));
    let address = match address.trim_start_matches('[').trim_end_matches(']') {
        "host-gateway" => HostAddress::Gateway,
        address => HostAddress::Ip(address.parse().map_err(|_| wrong())?),
    };
    if named { Ok((name.to_owned(), address)) } else { Err(wrong()) }
}

const HOW_TO_PUBLISH: &str = "write it as 8080:80, 127.0.0.1:8080:80, 8000-8009:80-89 or 53:53/udp";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_dockers_syntax() {
        let check =
            |text: &str, address: Option<[u8; 4]>, host: Option<(u16, u16)>, container: (u16, u16), udp: bool| {
                let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
                let expected = PublishArg { protocol, address: address.map(Ipv4Addr::from), host, container };
                assert_eq!(publish(text), Ok(expected), "{text}");
            };
        check("80", None, None, (80, 80), false);
        check("8080:80", None, Some((8080, 8080)), (80, 80), false);
        check("8080:80/tcp", None, Some((8080, 8080)), (80, 80), false);
        check("53:53/udp", None, Some((53, 53)), (53, 53), true);
        check("127.0.0.1:8080:80", Some([127, 0, 0, 1]), Some((8080, 8080)), (80, 80), false);
        check("127.0.0.1::80", Some([127, 0, 0, 1]), None, (80, 80), false);
        check("8000-8009:80-89", None, Some((8000, 8009)), (80, 89), false);
        check("8000-8009:80", None, Some((8000, 8009)), (80, 80), false);
        check("7000-7001", None, None, (7000, 7001), false);
        for text in [
            "",
            "x",
            "0:80",
            "80:0",
            "70000:80",
            "8080:80/sctp",
            "[::1]:80:80",
            "1.2.3:80:80",
            "9-8:80",
            "1-3:1-2",
            "a:b:c:d",
        ] {
            assert!(publish(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_of_cards_and_hosts() {
        assert_eq!(mac("02:42:ac:11:00:02"), Ok([2, 0x42, 0xac, 0x11, 0, 2]));
        for text in
            ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "01:42:ac:11:00:02", "00:00:00:00:00:00", "2:42:ac:11:00:02"]
        {
            assert!(mac(text).is_err(), "{text}");
        }
        let ip = |text: &str| HostAddress::Ip(text.parse().unwrap());
        assert_eq!(add_host("db:10.0.0.5"), Ok(("db".into(), ip("10.0.0.5"))));
        assert_eq!(add_host("db=::1"), Ok(("db".into(), ip("::1"))));
        assert_eq!(add_host("db:[fd00::1]"), Ok(("db".into(), ip("fd00::1"))));
        assert_eq!(add_host("host:host-gateway"), Ok(("host".into(), HostAddress::Gateway)));
        for text in ["db", "db:", ":10.0.0.1", "db:web", "a b:10.0.0.1"] {
            assert!(add_host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_that_a_machine_cannot_share() {
        assert_eq!((network("bridge"), network("none")), (Ok(Network::User), Ok(Network::None)));
        for text in ["host", "container:web", "mynet"] {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
