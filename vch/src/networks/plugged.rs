//! What a machine that is on holds of its networks: its cards, and the host's ports that lead to it.
//!
//! ```text
//! join: leases ── carriers ── ports of the host ──> cards          leave: all of it is given back
//! rejoin: the same again for a machine that an earlier program has left on
//! ```
//!
//! It decides when addresses and ports are taken, and what docker says when they cannot be.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;

use super::carrier::{Carrier, HostPort};
use super::leases::{self, Bound, Lease};
use super::names::Members;
use super::ports::{self, Wanted};
use super::record::Kind;
use super::{Network, NetworkError, Networks};
use crate::containers::Container;
use crate::lock::locked;
use crate::serve::say;
use crate::state::id_from;
use crate::switch::Settings;
use crate::vm::Card;

/// What is held for one machine. Dropped, the host's ports lead nowhere.
#[derive(Debug)]
pub(super) struct Plugged {
    /// Which start it belongs to.
    turn: u64,
    pub(super) ports: Vec<HostPort>,
}

/// A machine's time on its networks, to be ended by [`Networks::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn(u64);

impl Networks {
    /// Takes what a machine needs that is about to be on: its cards.
    pub(crate) async fn join(
        self: &Arc<Self>,
        container: &Arc<Container>,
        exposed: &[String],
    ) -> Result<(Vec<Card>, Turn), NetworkError> {
        let turn = self.begin(container);
        let cards = match self.take(container, exposed).await {
            Ok(cards) => cards,
            Err(error) => {
                self.leave(container, turn);
                return Err(error);
            }
        };
        self.save(container);
        Ok((cards, turn))
    }

    fn begin(&self, container: &Container) -> Turn {
        let mut plugged = locked(&self.plugged);
        let turn = plugged.get(&container.id).map_or(0, |before| before.turn) + 1;
        plugged.insert(container.id.clone(), Plugged { turn, ports: Vec::new() });
        Turn(turn)
    }

    async fn take(self: &Arc<Self>, container: &Arc<Container>, exposed: &[String]) -> Result<Vec<Card>, NetworkError> {
        let wanted = container.made().map(|made| ports::wanted(&made.asked, exposed)).transpose()?.unwrap_or_default();
        self.lease_all(container)?;
        let mut cards = Vec::new();
        for joined in container.joined().iter().flat_map(|all| all.iter()) {
            if let Some(lease) = &joined.lease {
                cards.push(self.plug(container, &joined.network, lease).await?);
            }
        }
        self.publish(container, &wanted).await?;
        Ok(cards)
    }

    /// An address on each network.
    fn lease_all(&self, container: &Arc<Container>) -> Result<(), NetworkError> {
        let mut all = container.joined().map(|all| all.to_vec()).unwrap_or_default();
        leases::in_order(&mut all, |name| self.is_internal(name));
        let mut has_main = false;
        for joined in &mut all {
            let network = self.find(&joined.network).map_err(|_| NetworkError::Missing(joined.network.clone()))?;
            let is_main = !has_main && matches!(network.record.kind, Kind::Bridge(_)) && !network.record.internal;
            has_main |= is_main;
            joined.lease = leases::lease(&network.record, &joined.wish, &self.used(&joined.network), is_main)?;
        }
        container.set_joined(all);
        Ok(())
    }

    /// The addresses that machines have on a network.
    pub(super) fn used(&self, name: &str) -> BTreeSet<std::net::Ipv4Addr> {
        self.members(name).into_iter().map(|(_, lease)| lease.address).collect()
    }

    /// The end of a card on a network.
    pub(super) async fn plug(
        self: &Arc<Self>,
        container: &Container,
        name: &str,
        lease: &Lease,
    ) -> Result<Card, NetworkError> {
        let network = self.find(name)?;
        let end = self.carrier(&network).await?.plug(&container.id, lease.mac, &[IpAddr::V4(lease.address)]).await?;
        Ok(Card { mac: lease.mac, end })
    }

    /// What carries it, which is started for the first machine.
    async fn carrier<'a>(self: &Arc<Self>, network: &'a Arc<Network>) -> Result<&'a Carrier, NetworkError> {
        let started = network.carrier.get_or_try_init(async || {
            let Kind::Bridge(pool) = &network.record.kind else {
                return Err(NetworkError::Failed(anyhow::anyhow!(
                    "the network {} carries nothing",
                    network.record.name
                )));
            };
            let settings = Settings {
                dir: self.carriers.sockets(),
                name: network.record.name.clone(),
                gateway: Some(pool.gateway),
                prefix: pool.subnet.prefix,
                internal: network.record.internal,
                mtu: leases::mtu(&network.record).and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(MTU),
                names: Arc::new(Members::new(self, &network.record.name)),
            };
            Ok(self.carriers.start(settings).await?)
        });
        started.await
    }

    /// Has the host's ports lead to the container's way to everywhere; without one they lead nowhere, as with docker.
    async fn publish(self: &Arc<Self>, container: &Arc<Container>, wanted: &[Wanted]) -> Result<(), NetworkError> {
        let mut all = container.joined().map(|all| all.to_vec()).unwrap_or_default();
        let Some(main) = all.iter_mut().find(|one| one.lease.as_ref().is_some_and(|lease| lease.is_main)) else {
            return Ok(());
        };
        let Some(lease) = &mut main.lease else { return Ok(()) };
        let network = self.find(&main.network)?;
        let carrier = self.carrier(&network).await?;
        for one in wanted {
            let port = bind(carrier, lease, *one).await.map_err(|error| {
                let endpoint = &id_from(format!("endpoint {} {}", main.network, container.id))[..64];
                let name = container.name();
                let why = self.explain(&error, *one, lease);
                NetworkError::Setup(format!(
                    "driver failed programming external connectivity on endpoint {name} ({endpoint}): {why}"
                ))
            })?;
            let at = port.at();
            lease.ports.push(Bound { udp: one.udp, address: at.ip(), host: at.port(), port: one.port });
            // a card that goes leaves those that lead elsewhere
            match locked(&self.plugged).get_mut(&container.id) {
                Some(plugged) => plugged.ports.push(port),
                None => port.close(),
            }
        }
        container.set_joined(all);
        Ok(())
    }

    /// Why a port cannot be had, in docker's words: it tells its own containers' from others'.
    fn explain(&self, error: &anyhow::Error, wanted: Wanted, lease: &Lease) -> String {
        let why = format!("{error:#}");
        let is_ours = self.containers.list().iter().filter_map(|other| other.joined()).any(|all| {
            let mut ports = all.iter().filter_map(|one| one.lease.as_ref()).flat_map(|lease| &lease.ports);
            ports.any(|bound| (bound.udp, bound.host) == (wanted.udp, wanted.host.0))
        });
        match why.contains(ALLOCATED) && !is_ours {
            false => why,
            true => {
                let at = SocketAddr::new(wanted.address, wanted.host.0);
                let to = SocketAddr::new(IpAddr::V4(lease.address), wanted.port);
                let protocol = if wanted.udp { "udp" } else { "tcp" };
                format!("failed to bind host port for {at}:{to}/{protocol}: address already in use")
            }
        }
    }

    /// Takes up what a machine has that an earlier program has left on. What cannot be had again is told, and lost.
    pub(crate) async fn rejoin(self: &Arc<Self>, container: &Arc<Container>) -> (Vec<Card>, Turn) {
        let (mut cards, turn) = (Vec::new(), self.begin(container));
        let all = container.joined().map(|all| all.to_vec()).unwrap_or_default();
        for joined in &all {
            let Some(lease) = &joined.lease else { continue };
            let again = async {
                cards.push(self.plug(container, &joined.network, lease).await?);
                let network = self.find(&joined.network)?;
                let carrier = self.carrier(&network).await?;
                for bound in &lease.ports {
                    let to = (IpAddr::V4(lease.address), bound.port);
                    let at = SocketAddr::new(bound.address, bound.host);
                    let port = carrier.publish(bound.protocol(), at, to).await?;
                    if let Some(plugged) = locked(&self.plugged).get_mut(&container.id) {
                        plugged.ports.push(port);
                    }
                }
                Ok::<(), NetworkError>(())
            };
            if let Err(error) = again.await {
                say(&format!("{}: on the network {} no more as it was: {error}", container.name(), joined.network));
            }
        }
        (cards, turn)
    }

    /// Has these ports of the host lead to what is the container's way to everywhere now; without one they lead nowhere.
    pub(super) async fn lead(
        self: &Arc<Self>,
        container: &Arc<Container>,
        bound: &[Bound],
    ) -> Result<(), NetworkError> {
        let wanted = bound.iter().map(|bound| {
            let Bound { udp, address, host, port } = *bound;
            Wanted { port, udp, address, host: (host, host) }
        });
        self.publish(container, &wanted.collect::<Vec<_>>()).await
    }

    /// Gives back what a machine had that is off, or whose process has ended. A later start has its own.
    pub(crate) fn leave(self: &Arc<Self>, container: &Arc<Container>, turn: Turn) {
        {
            let mut plugged = locked(&self.plugged);
            match plugged.get_mut(&container.id) {
                Some(now) if now.turn == turn.0 => now.ports.drain(..).for_each(HostPort::close),
                _ => return,
            }
        }
        self.give_back(container);
    }

    /// The same for a machine that went while no program looked.
    pub(crate) fn give_back(self: &Arc<Self>, container: &Arc<Container>) {
        let mut all = container.joined().map(|all| all.to_vec()).unwrap_or_default();
        for joined in &mut all {
            let network = joined.lease.take().and_then(|_| self.find(&joined.network).ok());
            if let Some(carrier) = network.as_ref().and_then(|network| network.carrier.get()) {
                carrier.unplug(&container.id);
            }
        }
        container.set_joined(all);
        self.save(container);
    }

    /// Has its leases written down, on another thread: disks are slow.
    pub(super) fn save(self: &Arc<Self>, container: &Arc<Container>) {
        let (networks, container) = (self.clone(), container.clone());
        tokio::task::spawn_blocking(move || {
            // one after the other: the last has what is newest
            let _turn = locked(&networks.saving);
            let all = container.joined().unwrap_or_default();
            if container.dir().is_dir()
                && let Err(error) = leases::write_leases(container.dir(), &all)
            {
                say(&format!("{}: {error:#}", container.name()));
            }
        });
    }
}

/// The port, or the first of its range that is free.
async fn bind(carrier: &Carrier, lease: &Lease, wanted: Wanted) -> Result<HostPort> {
    let to = (IpAddr::V4(lease.address), wanted.port);
    let (first, last) = wanted.host;
    let mut host = first;
    loop {
        match carrier.publish(wanted.protocol(), SocketAddr::new(wanted.address, host), to).await {
            Err(_) if host < last => host += 1,
            done => return done,
        }
    }
}

/// Docker's words for a port that somebody has, as a carrier says them.
const ALLOCATED: &str = "port is already allocated";
/// Of a network whose maker wants no other.
const MTU: u16 = 1500;
