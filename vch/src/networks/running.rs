//! Networks that a container comes to, and goes from, after it was made.
//!
//! It decides what docker refuses, and what lasts. How a machine that is on gets a card: [`crate::maker`].

use std::sync::Arc;

use bollard_stubs::models::EndpointSettings;

use super::carrier::HostPort;
use super::leases::{self, Joined};
use super::record::Kind;
use super::wishes::{self, ALONE};
use super::{Network, NetworkError, Networks};
use crate::containers::Container;
use crate::lock::locked;
use crate::vm::Card;

impl Networks {
    /// Puts a container on one more network. For a machine that is on, `is_on`, there is a card to be plugged in.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        container: &Arc<Container>,
        network: &Arc<Network>,
        asked: &EndpointSettings,
        is_on: bool,
    ) -> Result<Option<Card>, NetworkError> {
        let record = &network.record;
        let mut all = container.joined().map(|all| all.to_vec()).unwrap_or_default();
        match record.kind {
            Kind::Host => return Err(NetworkError::Invalid(WITH_HOST.into())),
            Kind::Null if !all.is_empty() => return Err(NetworkError::Invalid(ALONE.into())),
            _ if all.iter().any(|one| one.driver() == "null") => return Err(NetworkError::Invalid(ALONE.into())),
            Kind::Null | Kind::Bridge(_) => {}
        }
        if all.iter().any(|one| one.network == record.name) {
            return Err(NetworkError::Forbidden(format!(
                "endpoint with name {} already exists in network {}",
                container.name(),
                record.name
            )));
        }
        let mut joined = Joined::new(&record.name, wishes::wish(&record.name, asked)?);
        if is_on {
            let has_main = all.iter().filter_map(|one| one.lease.as_ref()).any(|lease| lease.is_main);
            let is_main = !has_main && !record.internal;
            joined.lease = leases::lease(record, &joined.wish, &self.used(&record.name), is_main)?;
        }
        all.push(joined.clone());
        leases::in_order(&mut all, |name| self.is_internal(name));
        // first, so that nobody else is given its address
        container.set_joined(all);
        let card = match &joined.lease {
            None => Ok(None),
            Some(lease) => self.plug(container, &record.name, lease).await.map(Some),
        };
        if card.is_err() {
            self.forget(container, &record.name);
        }
        card
    }

    /// Takes a container off a network: what it had there. Ports of the host that led through it lead through the next one.
    pub(crate) async fn disconnect(
        self: &Arc<Self>,
        container: &Arc<Container>,
        network: &Network,
    ) -> Result<Joined, NetworkError> {
        let name = &network.record.name;
        if matches!(network.record.kind, Kind::Host) {
            return Err(NetworkError::Invalid(WITH_HOST.into()));
        }
        let gone = self.forget(container, name).ok_or_else(|| {
            NetworkError::Forbidden(format!("container {} is not connected to network {name}", container.id))
        })?;
        let ports = gone.lease.as_ref().map(|lease| lease.ports.clone()).unwrap_or_default();
        self.lead(container, &ports).await?;
        Ok(gone)
    }

    /// As if it had never been there; what leads from the host through this network leads nowhere.
    pub(crate) fn forget(self: &Arc<Self>, container: &Arc<Container>, name: &str) -> Option<Joined> {
        let mut all = container.joined()?.to_vec();
        let at = all.iter().position(|one| one.network == name)?;
        let gone = all.remove(at);
        if gone.lease.as_ref().is_some_and(|lease| lease.is_main)
            && let Some(next) = all.iter_mut().filter_map(|one| one.lease.as_mut()).find(|lease| !lease.internal)
        {
            next.is_main = true;
        }
        container.set_joined(all);
        if let Some(lease) = &gone.lease {
            if let Some(carrier) = self.find(name).ok().as_ref().and_then(|network| network.carrier.get()) {
                carrier.unplug(&container.id);
            }
            if lease.is_main
                && let Some(plugged) = locked(&self.plugged).get_mut(&container.id)
            {
                plugged.ports.drain(..).for_each(HostPort::close);
            }
        }
        Some(gone)
    }

    /// Has what a container asks of its networks last.
    pub(crate) async fn keep(self: &Arc<Self>, container: &Arc<Container>) -> Result<(), NetworkError> {
        self.save(container);
        let (networks, of) = (self.clone(), container.clone());
        let written = tokio::task::spawn_blocking(move || {
            let _turn = locked(&networks.saving);
            leases::write_wishes(of.dir(), &of.joined().unwrap_or_default())
        });
        Ok(written.await.map_err(anyhow::Error::from)??)
    }
}

/// Docker's words.
const WITH_HOST: &str = "container cannot be disconnected from host network or connected to host network";
