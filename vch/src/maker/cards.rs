//! A machine's network cards: what its guest is told of its networks, and cards that come and go while it runs.
//!
//! It decides how docker's words about names and addresses reach the guest. Which addresses there are: [`crate::networks`].

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use bollard_stubs::models::EndpointSettings;
use wire::message::{Reply, Request, SpecText};
use wire::spec::{About, Spec};
use wire::vmx::Dictionary;

use super::{MakeError, Maker};
use crate::cli::run::network::{HostAddress, NetworkArgs};
use crate::containers::Container;
use crate::hub::Hub;
use crate::hypervisor::Order;
use crate::networks::{Bound, Joined, Lease, Network};
use crate::plan::Plan;
use crate::vm::{Card, CardEnd};

/// Has a plan say which networks its machine is on.
pub(super) fn place(plan: &mut Plan, about: &mut About, args: &NetworkArgs, joined: &[Joined]) {
    plan.card = None;
    // a user's name servers know nothing of containers: where docker asks them first, they are asked alone
    plan.spec.networks = joined.iter().filter_map(|one| one.endpoint(&args.dns)).collect();
    let leases = || joined.iter().filter_map(|one| one.lease.as_ref());
    let gateway = leases().next().map(|lease| IpAddr::V4(lease.gateway));
    let address = |address: HostAddress| match address {
        HostAddress::Ip(address) => Some(address),
        HostAddress::Gateway => gateway,
    };
    let hosts = args.add_host.iter().filter_map(|(name, host)| Some((address(*host)?, name.clone())));
    plan.spec.names.hosts = hosts.collect();
    if let (Some(syslog), Some(gateway)) = (&mut plan.spec.diagnostics.syslog, gateway)
        && syslog.server.ip() == IpAddr::V4(crate::plan::HOST)
    {
        syslog.server.set_ip(gateway);
    }
    about.published = leases().flat_map(|lease| &lease.ports).map(published).collect();
}

/// `0.0.0.0:8080:80/tcp`
fn published(bound: &Bound) -> String {
    let Bound { udp, address, host, port } = bound;
    format!("{address}:{host}:{port}/{}", if *udp { "udp" } else { "tcp" })
}

impl Maker {
    /// `docker network connect`. A client that goes away does not leave half of it.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        container: &Arc<Container>,
        network: &Arc<Network>,
        asked: EndpointSettings,
    ) -> Result<(), MakeError> {
        let (maker, container, network) = (self.clone(), container.clone(), network.clone());
        let connected = tokio::spawn(async move {
            let _turn = container.turn().await;
            maker.connect_in_turn(&container, &network, &asked).await
        });
        connected.await.map_err(anyhow::Error::from)?
    }

    async fn connect_in_turn(
        self: &Arc<Self>,
        container: &Arc<Container>,
        network: &Arc<Network>,
        asked: &EndpointSettings,
    ) -> Result<(), MakeError> {
        not_paused(container)?;
        let is_on = container.state().is_running() && container.powered().is_some();
        let card = self.networks.connect(container, network, asked, is_on).await?;
        if let (Some(card), Some(powered)) = (card, container.powered()) {
            let mac = card.mac;
            let plugged = async {
                self.admit(&card)?;
                powered.order(Order::PlugCard(card)).await.context("its machine gets no network card")?;
                let told = self.tell_networks(container).await;
                if told.is_err() {
                    // what cannot be used is not left there
                    drop(powered.order(Order::PullCard(mac)).await);
                }
                told
            };
            if let Err(error) = plugged.await {
                self.networks.forget(container, &network.record.name);
                return Err(error.into());
            }
        }
        self.networks.keep(container).await?;
        let (name, driver) = (&network.record.name, network.record.driver());
        self.containers.events.network(container, name, driver, "connect");
        Ok(())
    }

    /// `docker network disconnect`
    pub(crate) async fn disconnect(
        self: &Arc<Self>,
        container: &Arc<Container>,
        network: &Arc<Network>,
    ) -> Result<(), MakeError> {
        let (maker, container, network) = (self.clone(), container.clone(), network.clone());
        let gone = tokio::spawn(async move {
            let _turn = container.turn().await;
            maker.disconnect_in_turn(&container, &network).await
        });
        gone.await.map_err(anyhow::Error::from)?
    }

    async fn disconnect_in_turn(
        self: &Arc<Self>,
        container: &Arc<Container>,
        network: &Network,
    ) -> Result<(), MakeError> {
        not_paused(container)?;
        let lease = container.joined().into_iter().find_map(|all| {
            all.iter().find(|one| one.network == network.record.name).and_then(|one| one.lease.clone())
        });
        // first, as a card whose other end has gone keeps QEMU busy
        let pulled = match (lease, container.powered()) {
            (Some(Lease { mac, .. }), Some(powered)) => {
                powered.order(Order::PullCard(mac)).await.context("its machine keeps its network card")?;
                true
            }
            _ => false,
        };
        self.networks.disconnect(container, network).await?;
        if pulled {
            // another network may be its way to everywhere now
            self.tell_networks(container).await?;
        }
        self.networks.keep(container).await?;
        let (name, driver) = (&network.record.name, network.record.driver());
        self.containers.events.network(container, name, driver, "disconnect");
        Ok(())
    }

    /// Lets a machine send to the switch of its card.
    pub(super) fn admit(&self, card: &Card) -> Result<()> {
        match &card.end {
            CardEnd::Switch { switch, .. } => self.hypervisor.admit(switch),
            CardEnd::User(_) | CardEnd::Tap(_) | CardEnd::Nowhere => Ok(()),
        }
    }

    /// Has the guest of a machine that is on know its networks as they are now.
    async fn tell_networks(&self, container: &Arc<Container>) -> Result<()> {
        let hub = container.reach().await.map_err(|error| anyhow!(error))?;
        let key = self.key.link_key(&container.id);
        let (mut spec, about) = self.told_by(container, &hub).await?;
        let joined = container.joined().unwrap_or_default();
        let dns = asked_dns(container);
        spec.networks = joined.iter().filter_map(|one| one.endpoint(&dns)).collect();
        let mut keys = wire::guestinfo::write(&spec);
        wire::guestinfo::write_about(&about, &mut keys);
        match container.ask(&hub, Request::Reload { keys: SpecText(keys.to_string()) }).await? {
            Reply::Done => {}
            Reply::Refused { reason } => return Err(anyhow!("its guest takes no other networks: {reason}")),
            other => return Err(anyhow!("its guest gave an answer to another question: {other:?}")),
        }
        container.set_told(&wire::guestinfo::without_key(&keys, &key)?.0);
        container.save();
        Ok(())
    }

    /// What its guest was asked to be, in its own words: others may have changed it meanwhile.
    async fn told_by(&self, container: &Arc<Container>, hub: &Hub) -> Result<(Spec, About)> {
        let Reply::Spec(text) = container.ask(hub, Request::Spec).await? else {
            return Err(anyhow!("its guest does not tell what it was asked to be"));
        };
        let keys = Dictionary::parse(&text.0).context("its guest's spec cannot be read")?;
        let spec = wire::guestinfo::read_with_key(&keys, &self.key.link_key(&container.id))?;
        Ok((spec, wire::guestinfo::about(&keys)))
    }
}

/// A guest whose processors stand still takes no card, and gives none back.
fn not_paused(container: &Container) -> Result<(), MakeError> {
    match container.state().is_paused() {
        false => Ok(()),
        true => Err(MakeError::Conflict(format!(
            "container {} is paused, and its machine gets and loses no network card meanwhile: unpause it first",
            container.name()
        ))),
    }
}

fn asked_dns(container: &Container) -> Vec<IpAddr> {
    let made = container.made();
    let asked = made.as_ref().and_then(|made| made.host()?.dns.as_ref());
    asked.into_iter().flatten().filter_map(|text| text.parse().ok()).collect()
}
