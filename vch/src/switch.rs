//! One network of machines, without root: a switch and a gateway in this program, between the cards of QEMU's machines and the host's own sockets.
//!
//! It decides who gets which frame and what leads out of the network and into it. Who is on a network, which addresses and names they have: whoever starts it. Why it is made like this: docs/decisions/0015.
//!
//! ```text
//! guard     which frames a machine may send      port      its sockets                  ports    who gets a frame
//! gateway   what leaves the network              packet    the headers of what it says
//! tcp, udp, ping                                 dns       names                        publish  what comes in
//! ```

mod dns;
mod gateway;
mod guard;
mod packet;
mod ping;
mod port;
mod ports;
mod publish;
mod tcp;
mod udp;

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use smoltcp::wire::Ipv4Cidr;
use wire::spec::Protocol;

pub(crate) use self::dns::Listening;
use self::gateway::Gateway;
use self::guard::Guard;
pub(crate) use self::guard::Mac;
use self::port::Port;
use self::ports::Ports;
pub(crate) use self::publish::{PublishedPort, in_the_way};
use crate::state;
use crate::vm::CardEnd;

/// One network. Dropped, its ports lead nowhere; their sockets stay for the next program.
#[derive(Debug)]
pub(crate) struct Switch {
    settings: Settings,
    ports: Arc<Ports>,
    gateway: Option<Arc<Gateway>>,
}

/// What a network is.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where the sockets of its ports are; a short path, which other networks may share.
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
    /// The host's address on this network. Without one, machines reach each other and nobody else, and nobody answers about names.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Bits of the subnet.
    pub(crate) prefix: u8,
    /// Nothing leads out of it.
    pub(crate) internal: bool,
    pub(crate) mtu: u16,
    pub(crate) names: Arc<dyn Names>,
}

/// Who is who on a network. `asking` is the address of the machine that wants to know.
pub(crate) trait Names: Send + Sync + Debug {
    /// The addresses of a name, without a dot at its end; `None` if it is not a name of this network.
    fn addresses(&self, asking: IpAddr, name: &str) -> Option<Vec<IpAddr>>;
    /// The name of an address.
    fn name(&self, asking: IpAddr, address: IpAddr) -> Option<String>;
}

impl Settings {
    /// Its subnet has this address.
    pub(crate) fn contains(&self, address: Ipv4Addr) -> bool {
        self.gateway.is_some_and(|gateway| Ipv4Cidr::new(gateway, self.prefix).contains_addr(&address))
    }
}

impl Switch {
    pub(crate) async fn start(settings: Settings) -> Result<Arc<Switch>> {
        Switch::start_as(settings, |gateway| gateway)
    }

    fn start_as(settings: Settings, change: fn(Gateway) -> Gateway) -> Result<Arc<Switch>> {
        ensure!(settings.prefix <= 32, "a subnet of {} bits is none: 32 is the most", settings.prefix);
        state::make_dir(&settings.dir)?;
        ensure!(settings.mtu >= SMALLEST_MTU, "an MTU of {} is too small: {SMALLEST_MTU} is the least", settings.mtu);
        let ports: Arc<Ports> = Arc::default();
        let gateway = |address| Arc::new(change(Gateway::new(settings.clone(), address, ports.clone())));
        let gateway = settings.gateway.map(gateway);
        Ok(Arc::new(Switch { settings, ports, gateway }))
    }

    /// A port for a machine's card; only frames from this MAC address and these addresses are taken from it. The same id has the same sockets after a restart.
    pub(crate) fn plug(&self, id: &str, mac: Mac, addresses: &[IpAddr]) -> Result<CardEnd> {
        let name = state::id_from(format!("{}\n{id}", self.settings.name));
        let path = |end| self.settings.dir.join(format!("{}.{end}", &name[..16]));
        let (switch, machine) = (path("sw"), path("vm"));
        let port = Port::open(Guard { mac, addresses: addresses.to_vec() }, switch.clone(), machine.clone())?;
        let gateway = self.gateway.clone().map(|gateway| Arc::new(gateway) as Arc<dyn ports::Gateway>);
        self.ports.plug(id, port, gateway);
        Ok(CardEnd::Switch { switch, machine })
    }

    /// Nobody has this port any more.
    pub(crate) fn unplug(&self, id: &str) {
        let addresses = self.ports.unplug(id);
        if let Some(gateway) = &self.gateway {
            gateway.forget(Some(&addresses));
        }
    }

    /// A port of the host that leads to a machine. Port 0 picks one.
    pub(crate) async fn publish(&self, protocol: Protocol, at: SocketAddr, to: (IpAddr, u16)) -> Result<PublishedPort> {
        let no_gateway = || format!("cannot publish {at}: the network {} has no gateway", self.settings.name);
        let gateway = self.gateway.as_ref().with_context(no_gateway)?;
        PublishedPort::open(gateway, protocol, at, to).await
    }
}

/// What every IPv4 network takes (RFC 791).
const SMALLEST_MTU: u16 = 68;

impl Drop for Switch {
    fn drop(&mut self) {
        self.ports.close();
        if let Some(gateway) = &self.gateway {
            gateway.forget(None);
        }
    }
}

#[cfg(test)]
mod tests;
