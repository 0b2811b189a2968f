//! Ports of the host that lead to machines: taking them, and saying in docker's words who is in the way.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::AbortHandle;
use wire::spec::Protocol;

use super::gateway::Gateway;
use super::{tcp, udp};

/// A port of the host that leads to a machine. Dropped, it leads nowhere; connections that are made stay.
#[derive(Debug)]
pub(crate) struct PublishedPort {
    at: SocketAddr,
    task: AbortHandle,
}

impl PublishedPort {
    pub(super) async fn open(
        gateway: &Arc<Gateway>,
        protocol: Protocol,
        at: SocketAddr,
        to: (IpAddr, u16),
    ) -> Result<Self> {
        let (IpAddr::V4(address), port) = to else {
            bail!("cannot publish {at}: the network leads to IPv4 addresses only, and {} is none", to.0)
        };
        let (gateway, to) = (gateway.clone(), SocketAddrV4::new(address, port));
        let in_the_way = |error: Error| in_the_way(at, protocol, &error);
        let (at, task) = match protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(at).await.map_err(in_the_way)?;
                (listener.local_addr()?, tokio::spawn(tcp::publish(gateway, listener, to)))
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(at).await.map_err(in_the_way)?;
                (socket.local_addr()?, tokio::spawn(udp::publish(gateway, socket, to)))
            }
        };
        Ok(PublishedPort { at, task: task.abort_handle() })
    }

    /// Where it is, with the port that was picked.
    pub(crate) fn at(&self) -> SocketAddr {
        self.at
    }
}

impl Drop for PublishedPort {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a port of the host cannot be had.
pub(crate) fn in_the_way(at: SocketAddr, protocol: Protocol, error: &Error) -> anyhow::Error {
    let name = crate::vm::ports::name(protocol);
    match error.kind() {
        ErrorKind::AddrInUse => anyhow!("Bind for {at} failed: port is already allocated"),
        ErrorKind::PermissionDenied => anyhow!(
            "failed to bind host port {at}/{name}: permission denied: ports below net.ipv4.ip_unprivileged_port_start need root or \
             CAP_NET_BIND_SERVICE: publish one of 1024 or more"
        ),
        ErrorKind::AddrNotAvailable => {
            anyhow!(
                "failed to bind host port {at}/{name}: cannot assign requested address: no card of this host has it"
            )
        }
        _ => anyhow!("failed to bind host port {at}/{name}: {error}"),
    }
}
