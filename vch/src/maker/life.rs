//! Create, start, and what follows when a machine goes off.

use std::sync::Arc;

use anyhow::anyhow;
use bollard_stubs::models::ContainerCreateBody;

use super::{Made, MakeError, Maker};
use crate::containers::{Container, Life, State};
use crate::hypervisor::{Off, Order, Powered};
use crate::networks::Turn;
use crate::serve::say;
use crate::state;
use crate::timestamp::now_ns;
use crate::vm::Card;

impl Maker {
    /// Writes a container down. Its machine is made when it is started.
    pub(crate) async fn create(
        self: &Arc<Self>,
        name: Option<&str>,
        asked: ContainerCreateBody,
    ) -> Result<Arc<Container>, MakeError> {
        let image = self.images.find(asked.image.as_deref().unwrap_or_default())?;
        let joined = self.networks.joins(&asked, &image.config.exposed_ports)?;
        let (id, created_ns) = (state::new_id()?, now_ns());
        let made = Made { asked, image_id: image.id.clone() };
        let name = name.map_or_else(|| id[..12].to_owned(), |name| name.trim_start_matches('/').to_owned());
        let (maker, planned_id, planned_name, planned_made) = (self.clone(), id.clone(), name.clone(), made.clone());
        let planned_joined = joined.clone();
        let planned = tokio::task::spawn_blocking(move || {
            maker.plan(&planned_id, &planned_name, &planned_made, &planned_joined, created_ns)
        });
        let planned = planned.await.map_err(anyhow::Error::from)??;
        let keys = planned.keys();
        let told = wire::guestinfo::without_key(&keys, &self.key.link_key(&id)).map_err(anyhow::Error::from)?;
        let container = self.containers.create(&id, &name, made, &told.0)?;
        container.set_joined(joined);
        self.containers.events.container(&container, "create", &[]);
        Ok(container)
    }

    /// Powers its machine on, and waits until its process runs or cannot.
    pub(crate) async fn start(self: &Arc<Self>, container: &Arc<Container>) -> Result<(), MakeError> {
        let Some(made) = container.made() else { return Err(anyhow!("its machine is not made here").into()) };
        if let Some(before) = container.powered().filter(|before| !before.is_off()) {
            before.off().await;
        }
        let mut life = container.watch();
        let exits = life.borrow_and_update().exits;
        container.journal.resume();
        let exposed = self.images.find(&made.image_id)?.config.exposed_ports.clone();
        let (cards, turn) = self.networks.join(container, &exposed).await?;
        let powered = match self.power_on(container, made, cards).await {
            Ok(powered) => powered,
            Err(error) => {
                self.networks.leave(container, turn);
                return Err(error);
            }
        };
        self.attend(container, powered, turn);
        let seen = life.wait_for(|life| life.state.is_running() || life.exits > exits || life.removed).await;
        match seen.map(|life| life.state.clone()) {
            Ok(State::Exited(exited)) if !exited.error.is_empty() => {
                let error = MakeError::Unstartable(exited.error);
                // who waits for its removal hears of it
                self.remove_if_asked(container).await;
                Err(error)
            }
            _ => Ok(()),
        }
    }

    async fn power_on(
        self: &Arc<Self>,
        container: &Arc<Container>,
        made: Made,
        cards: Vec<Card>,
    ) -> Result<Powered, MakeError> {
        let (maker, of) = (self.clone(), container.clone());
        let machine = tokio::task::spawn_blocking(move || maker.assemble(&of, &made, cards));
        let machine = machine.await.map_err(anyhow::Error::from)??;
        Ok(self.hypervisor.power_on(container.dir(), &machine).await?)
    }

    /// Sees a machine through until it is off.
    pub(super) fn attend(self: &Arc<Self>, container: &Arc<Container>, powered: Powered, turn: Turn) {
        container.set_powered(Some(powered.clone()));
        let (maker, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            let ended = async {
                let mut life = container.watch();
                let exits = life.borrow_and_update().exits;
                drop(life.wait_for(|life| life.exits > exits || life.removed).await);
                // others may have its addresses and ports: nobody answers at them
                maker.networks.leave(&container, turn);
                // a guest powers off when its process has ended
                tokio::time::sleep(POWER_OFF_TIME).await;
            };
            let off = tokio::select! {
                off = powered.off() => off,
                () = ended => {
                    // an error says that it is off by now
                    drop(powered.order(Order::PowerOff).await);
                    powered.off().await
                }
            };
            let why = match off {
                Off::Guest => "its machine powered itself off".to_owned(),
                Off::Other(reason) => format!("its machine went off: {}", reason.as_deref().unwrap_or("QEMU ended")),
            };
            maker.networks.leave(&container, turn);
            container.machine_ended(&why);
            container.set_powered(None);
            if let Err(error) = maker.hypervisor.forget(container.dir()) {
                say(&format!("{}: {error:#}", container.name()));
            }
            let mut life = container.watch();
            drop(life.wait_for(Life::is_over).await);
            maker.remove_if_asked(&container).await;
        });
    }

    /// `docker run --rm`
    async fn remove_if_asked(&self, container: &Arc<Container>) {
        let host = container.made().and_then(|made| made.asked.host_config.clone());
        let is_transient = host.and_then(|host| host.auto_remove).unwrap_or_default();
        if is_transient
            && !container.watch().borrow().removed
            && let Err(error) = self.containers.remove(container).await
        {
            say(&format!("{}: {error:#}", container.name()));
        }
    }
}

/// From the end of a process to the end of its machine.
const POWER_OFF_TIME: std::time::Duration = std::time::Duration::from_secs(10);
