//! What happens to containers, told to whoever listens: `docker events`.
//!
//! It keeps the latest events for those who ask for the past, and decides nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use tokio::sync::broadcast;

use super::{Container, network_driver, network_id};
use crate::lock::locked;
use crate::timestamp::now_ns;
use crate::volumes::DRIVER;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// `container`, `image`, `network`, `volume` or `daemon`.
    pub(crate) kind: &'static str,
    /// What happened, such as `start` or `exec_create: sh -c true`.
    pub(crate) action: String,
    /// Of what it happened to.
    pub(crate) id: String,
    pub(crate) attributes: BTreeMap<String, String>,
    /// Nanoseconds since 1970; no two events have the same.
    pub(crate) time_ns: u64,
}

#[derive(Debug)]
pub(crate) struct Events {
    past: Mutex<VecDeque<Event>>,
    listeners: broadcast::Sender<Event>,
}

impl Events {
    pub(super) fn new() -> Events {
        Events { past: Mutex::default(), listeners: broadcast::channel(MOST).0 }
    }

    /// Tells of a container.
    pub(crate) fn container(&self, container: &Container, action: impl Into<String>, more: &[(&str, String)]) {
        let mut attributes = container.labels();
        attributes.insert("image".into(), container.image());
        attributes.insert("name".into(), container.name());
        attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self.tell(Event {
            kind: "container",
            action: action.into(),
            id: container.id.clone(),
            attributes,
            time_ns: now_ns(),
        });
    }

    /// Tells of each network that a container is on: `connect` or `disconnect`.
    pub(super) fn networks(&self, container: &Container, action: &str) {
        if let Some(joined) = container.joined() {
            return joined.iter().for_each(|one| self.network(container, &one.network, one.driver(), action));
        }
        let Some(told) = container.told() else { return };
        for endpoint in &told.spec.networks {
            self.network(container, &endpoint.name, network_driver(&endpoint.name), action);
        }
    }

    /// Tells of a volume.
    pub(crate) fn volume(&self, name: &str, action: &str, more: &[(&str, String)]) {
        let mut attributes: BTreeMap<String, String> =
            more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        attributes.insert("driver".into(), DRIVER.into());
        self.tell(Event { kind: "volume", action: action.into(), id: name.into(), attributes, time_ns: now_ns() });
    }

    /// Tells of each volume of a container whose machine is made here: `mount` or `unmount`.
    pub(super) fn volumes(&self, container: &Container, action: &str) {
        for mount in container.made().iter().flat_map(|made| &made.mounts) {
            let Some(name) = mount.volume() else { continue };
            let mut more = vec![("container", container.id.clone())];
            if action == "mount" {
                more.push(("destination", mount.destination.clone()));
                more.push(("propagation", String::new()));
                more.push(("read/write", (!mount.read_only).to_string()));
            }
            self.volume(name, action, &more);
        }
    }

    /// Tells of one network that a container is on.
    pub(crate) fn network(&self, container: &Container, name: &str, driver: &str, action: &str) {
        let attributes = [("container", container.id.as_str()), ("name", name), ("type", driver)];
        self.tell(Event {
            kind: "network",
            action: action.into(),
            id: network_id(name),
            attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            time_ns: now_ns(),
        });
    }

    pub(crate) fn tell(&self, mut event: Event) {
        let mut past = locked(&self.past);
        if let Some(last) = past.back() {
            event.time_ns = event.time_ns.max(last.time_ns + 1);
        }
        if past.len() == MOST {
            past.pop_front();
        }
        past.push_back(event.clone());
        // nobody may be there; and told under the lock, so that who asks for the past and what follows misses none
        let _nobody = self.listeners.send(event);
    }

    /// What has happened, as far as it is still known, and what happens from then on.
    pub(crate) fn listen(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let past = locked(&self.past);
        (past.iter().cloned().collect(), self.listeners.subscribe())
    }

    /// How many listen.
    pub(crate) fn listeners(&self) -> usize {
        self.listeners.receiver_count()
    }
}

/// Events that are kept for those who ask for the past, and for a listener that is slow: docker keeps 256.
const MOST: usize = 256;
