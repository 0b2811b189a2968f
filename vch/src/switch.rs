//! One network of machines, without root: a switch and a gateway in this program, between the cards of QEMU's machines and the host's own sockets.
//!
//! It decides who gets which frame and what leads out of the network and into it. Who is on a network, which addresses and names they have: whoever starts it. Why it is made like this: docs/decisions/0015.
//!
//! ```text
//! guard     which frames a machine may send      port     its sockets      ports    who gets a frame
//! ```

mod guard;
mod port;
mod ports;

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use wire::spec::Protocol;

use self::guard::Guard;
pub(crate) use self::guard::Mac;
use self::port::Port;
use self::ports::Ports;
use crate::state;
use crate::vm::CardEnd;

/// One network. Dropped, its ports lead nowhere; their sockets stay for the next program.
#[derive(Debug)]
pub(crate) struct Switch {
    settings: Settings,
    ports: Arc<Ports>,
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

/// A port of the host that leads to a machine. Dropped, it leads nowhere.
#[derive(Debug)]
pub(crate) struct PublishedPort {
    at: SocketAddr,
}

impl Switch {
    pub(crate) async fn start(settings: Settings) -> Result<Arc<Switch>> {
        ensure!(settings.prefix <= 32, "a subnet of {} bits is none: 32 is the most", settings.prefix);
        state::make_dir(&settings.dir)?;
        Ok(Arc::new(Switch { settings, ports: Arc::default() }))
    }

    /// A port for a machine's card; only frames from this MAC address and these addresses are taken from it. The same id has the same sockets after a restart.
    pub(crate) fn plug(&self, id: &str, mac: Mac, addresses: &[IpAddr]) -> Result<CardEnd> {
        let name = state::id_from(format!("{}\n{id}", self.settings.name));
        let path = |end| self.settings.dir.join(format!("{}.{end}", &name[..16]));
        let (switch, machine) = (path("sw"), path("vm"));
        let port = Port::open(Guard { mac, addresses: addresses.to_vec() }, switch.clone(), machine.clone())?;
        self.ports.plug(id, port, None);
        Ok(CardEnd::Switch { switch, machine })
    }

    /// Nobody has this port any more.
    pub(crate) fn unplug(&self, id: &str) {
        self.ports.unplug(id);
    }

    /// A port of the host that leads to a machine. Port 0 picks one.
    pub(crate) async fn publish(
        &self,
        _protocol: Protocol,
        at: SocketAddr,
        _to: (IpAddr, u16),
    ) -> Result<PublishedPort> {
        bail!("cannot publish {at}: nothing leads into the network {} yet", self.settings.name)
    }
}

impl PublishedPort {
    /// Where it is, with the port that was picked.
    pub(crate) fn at(&self) -> SocketAddr {
        self.at
    }
}

#[cfg(test)]
mod tests;
