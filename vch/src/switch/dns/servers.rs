//! The host's own servers of names, as its resolv.conf has them at this moment, asked one after the other.
//!
//! Questions and answers go through as they are: which kinds of records there are is nothing that this program has to know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use simple_dns::PacketFlag;
use simple_dns::header_buffer::{has_flags, id};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const PATIENCE: Duration = Duration::from_secs(3);

/// How a question came, and is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Udp,
    Tcp,
}

/// The first answer that a server gives.
pub(super) async fn ask(query: &[u8], over: Over) -> Option<Vec<u8>> {
    // a host without one asks itself, as its C library does
    let conf = tokio::fs::read_to_string(RESOLV_CONF).await.unwrap_or_default();
    for server in servers(&conf) {
        let answer = async {
            match over {
                Over::Udp => ask_datagram(query, server).await,
                Over::Tcp => ask_stream(query, server).await,
            }
        };
        if let Ok(Ok(answer)) = timeout(PATIENCE, answer).await {
            return Some(answer);
        }
    }
    None
}

async fn ask_datagram(query: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; 65535];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = &buffer[..length];
        if id(answer).ok() == id(query).ok() && has_flags(answer, PacketFlag::RESPONSE) == Ok(true) {
            return Ok(answer.to_vec());
        }
    }
}

async fn ask_stream(query: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// The servers that a resolv.conf names; with none, the host itself.
fn servers(conf: &str) -> Vec<SocketAddr> {
    let named = conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        Some(SocketAddr::new(address.parse().ok()?, super::PORT))
    });
    let servers: Vec<_> = named.collect();
    match servers.is_empty() {
        true => vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), super::PORT)],
        false => servers,
    }
}

#[cfg(test)]
mod tests {
    use super::servers;

    #[test]
    fn servers_are_those_of_resolv_conf() {
        let conf = "# nameserver 1.1.1.1\nsearch a b\nnameserver 10.0.0.2\n nameserver\tfd00::1\nnameserver nonsense\n";
        assert_eq!(servers(conf), ["10.0.0.2:53".parse().unwrap(), "[fd00::1]:53".parse().unwrap()]);
        assert_eq!(servers(""), ["127.0.0.1:53".parse().unwrap()]);
    }
}
