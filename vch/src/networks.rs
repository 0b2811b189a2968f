//! The networks of this host: which there are, who is on them, and with which addresses.
//!
//! ```text
//! docker network create ──> Record, STATE/networks/<id>.json ── addresses     docker create ──> wishes
//!                                    │                                              │
//!                                    └── carrier, while a machine is on it <─ plugged: leases, cards, ports ── docker start
//! ```
//!
//! It decides what a network is called and found by, and when it may go. Frames are carried by [`crate::switch`] or [`crate::bridge`].

mod addresses;
mod carrier;
mod leases;
mod names;
mod plugged;
mod ports;
mod record;
mod running;
mod wishes;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use bollard_stubs::models::ContainerCreateBody;
use tokio::sync::OnceCell;

pub(crate) use self::addresses::{Pool, Subnet, mac, mac_text};
use self::carrier::Carrier;
pub(crate) use self::carrier::Carriers;
pub(crate) use self::leases::{Bound, Joined, Lease};
use self::plugged::Plugged;
pub(crate) use self::plugged::Turn;
pub(crate) use self::record::{Kind, Record, is_predefined};
use crate::containers::{Container, Containers, Event, network_id};
use crate::lock::locked;
use crate::state::make_dir;
use crate::timestamp::now_ns;
use crate::whole::Lasts;

/// All networks of this host.
#[derive(Debug)]
pub(crate) struct Networks {
    dir: PathBuf,
    carriers: Carriers,
    pub(crate) containers: Arc<Containers>,
    /// By name.
    all: Mutex<BTreeMap<String, Arc<Network>>>,
    /// What is held for machines that are on, by the ids of their containers.
    plugged: Mutex<BTreeMap<String, Plugged>>,
    /// One write about a container at a time.
    saving: Mutex<()>,
    /// Held while a network is made, so that its name and its addresses stay free until it has them.
    making: Mutex<()>,
}

/// A network.
#[derive(Debug)]
pub(crate) struct Network {
    /// The same for the same name, of which there is one.
    pub(crate) id: String,
    pub(crate) record: Record,
    /// From the first machine on.
    carrier: OnceCell<Carrier>,
}

/// Why something cannot be had of a network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("network {0} not found")]
    Unknown(String),
    #[error("network {0} is ambiguous ({1} matches found on name)")]
    Ambiguous(String, usize),
    #[error("network with name {0} already exists")]
    Exists(String),
    #[error("{0}")]
    Invalid(String),
    /// Docker forbids it, too.
    #[error("{0}")]
    Forbidden(String),
    /// This host cannot: one sentence.
    #[error("{0}")]
    Refused(String),
    /// A container cannot be started: a network of its is none.
    #[error("failed to set up container networking: network {0} not found")]
    Missing(String),
    /// A container cannot be started.
    #[error("failed to set up container networking: {0}")]
    Setup(String),
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Network {
    fn new(record: Record) -> Network {
        Network { id: network_id(&record.name), record, carrier: OnceCell::new() }
    }
}

impl Networks {
    /// Those that are remembered in `dir`, and those that are always there. Whoever is on them is found among the containers.
    pub(crate) fn open(dir: &Path, carriers: Carriers, containers: Arc<Containers>) -> Result<Arc<Networks>> {
        make_dir(dir)?;
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Some(record) = record::read::<Record>(&path)?
            {
                all.insert(record.name.clone(), Arc::new(Network::new(record)));
            }
        }
        let (all, plugged, dir) = (Mutex::new(all), Mutex::default(), dir.to_owned());
        let (saving, making) = Default::default();
        let networks = Arc::new(Networks { dir, carriers, containers, all, plugged, saving, making });
        for (name, kind) in [(NONE, Some(Kind::Null)), (HOST, Some(Kind::Host)), (BRIDGE, None)] {
            if !locked(&networks.all).contains_key(name) {
                let kind = kind.map_or_else(|| networks.free_pool().map(Kind::Bridge), Ok)?;
                networks.write(predefined(name, kind))?;
            }
        }
        for container in networks.containers.list() {
            if let Some(made) = container.made() {
                networks.remember(&container, &made.asked)?;
            }
        }
        Ok(networks)
    }

    /// Has a container be on the networks that it was on for an earlier program.
    fn remember(&self, container: &Arc<Container>, asked: &ContainerCreateBody) -> Result<()> {
        let wishes = match leases::read_wishes(container.dir())? {
            Some(wishes) => wishes,
            None => wishes::wishes(asked, |called| self.name(called)).unwrap_or_default(),
        };
        let mut leases = leases::read_leases(container.dir());
        let with_lease = |(name, wish): (String, _)| Joined { lease: leases.remove(&name), ..Joined::new(&name, wish) };
        let mut joined: Vec<Joined> = wishes.into_iter().map(with_lease).collect();
        leases::in_order(&mut joined, |name| self.is_internal(name));
        container.set_joined(joined);
        Ok(())
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn write(&self, record: Record) -> Result<Arc<Network>> {
        let network = Arc::new(Network::new(record));
        record::write(&self.path(&network.id), &network.record, Lasts::Always)?;
        locked(&self.all).insert(network.record.name.clone(), network.clone());
        Ok(network)
    }

    /// All machines that were left on are on their networks again, as far as they can be: what is of nobody goes.
    pub(crate) async fn settle(&self) -> Result<()> {
        self.carriers.settle().await
    }

    /// Before this program ends: what is to be taken away is away.
    pub(crate) async fn finish(&self) -> Result<()> {
        self.carriers.finish().await
    }

    /// All of them, by name.
    pub(crate) fn list(&self) -> Vec<Arc<Network>> {
        locked(&self.all).values().cloned().collect()
    }

    /// The network of this id or name, or the only one whose id begins so.
    pub(crate) fn find(&self, called: &str) -> Result<Arc<Network>, NetworkError> {
        let all = locked(&self.all);
        let called = if called == "default" { BRIDGE } else { called };
        if let Some(exact) = all.get(called).or_else(|| all.values().find(|network| network.id == called)) {
            return Ok(exact.clone());
        }
        let fitting: Vec<_> = all.values().filter(|one| !called.is_empty() && one.id.starts_with(called)).collect();
        match fitting[..] {
            [only] => Ok(only.clone()),
            [] => Err(NetworkError::Unknown(called.into())),
            _ => Err(NetworkError::Ambiguous(called.into(), fitting.len())),
        }
    }

    /// The name of a network that a container asks for. One that there is not is looked for when the container starts, as docker does.
    fn name(&self, called: &str) -> Result<String, NetworkError> {
        match self.find(called) {
            Ok(found) => Ok(found.record.name.clone()),
            Err(NetworkError::Unknown(_)) => Ok(called.to_owned()),
            Err(other) => Err(other),
        }
    }

    fn is_internal(&self, name: &str) -> bool {
        locked(&self.all).get(name).is_some_and(|network| network.record.internal)
    }

    /// What a container that is to be made asks of its networks; `exposed` are the ports that its image names.
    pub(crate) fn joins(&self, asked: &ContainerCreateBody, exposed: &[String]) -> Result<Vec<Joined>, NetworkError> {
        ports::wanted(asked, exposed)?;
        let wishes = wishes::wishes(asked, |called| self.name(called))?;
        let mut joined: Vec<Joined> = wishes.into_iter().map(|(name, wish)| Joined::new(&name, wish)).collect();
        leases::in_order(&mut joined, |name| self.is_internal(name));
        Ok(joined)
    }

    /// A block of addresses that overlaps with no network and nowhere that this host has a way to.
    pub(crate) fn free_pool(&self) -> Result<Pool, NetworkError> {
        let mut taken = addresses::routes(&fs::read_to_string("/proc/net/route").unwrap_or_default());
        taken.extend(self.subnets());
        let none = || NetworkError::Invalid("all predefined address pools have been fully subnetted".into());
        let subnet = addresses::choose(&taken).ok_or_else(none)?;
        Ok(Pool { subnet, range: None, gateway: subnet.first(), aux: BTreeMap::new(), is_chosen: false })
    }

    /// The blocks that networks have.
    fn subnets(&self) -> Vec<Subnet> {
        locked(&self.all).values().filter_map(|network| network.record.pool().map(|pool| pool.subnet)).collect()
    }

    /// Makes a network; `None` of a pool is any. It blocks.
    pub(crate) fn create(&self, mut record: Record, pool: Option<Pool>) -> Result<Arc<Network>, NetworkError> {
        if is_predefined(&record.name) {
            return Err(NetworkError::Forbidden(format!(
                "operation is not permitted on predefined {} network",
                record.name
            )));
        }
        let _making = locked(&self.making);
        if locked(&self.all).contains_key(&record.name) {
            return Err(NetworkError::Exists(record.name));
        }
        let pool = match pool {
            None => self.free_pool()?,
            Some(pool) if self.subnets().iter().any(|other| other.overlaps(pool.subnet)) => {
                let why = "invalid pool request: Pool overlaps with other one on this address space";
                return Err(NetworkError::Forbidden(why.into()));
            }
            Some(pool) => pool,
        };
        record.kind = Kind::Bridge(pool);
        let network = self.write(record)?;
        self.tell("create", &network, &[]);
        Ok(network)
    }

    /// The containers whose machines are on a network now.
    pub(crate) fn members(&self, name: &str) -> Vec<(Arc<Container>, Lease)> {
        let lease = |container: Arc<Container>| {
            let joined = container.joined();
            let lease = joined?.iter().find(|one| one.network == name)?.lease.clone()?;
            Some((container, lease))
        };
        self.containers.list().into_iter().filter_map(lease).collect()
    }

    /// Removes a network that no machine is on.
    pub(crate) fn remove(&self, network: &Arc<Network>) -> Result<(), NetworkError> {
        let name = &network.record.name;
        if network.record.is_predefined() {
            return Err(NetworkError::Forbidden(format!("{name} is a pre-defined network and cannot be removed")));
        }
        let members = self.members(name);
        if !members.is_empty() {
            let who: Vec<String> = members
                .iter()
                .map(|(member, _)| format!("name:{:?} id:{:?}", member.name(), &member.id[..member.id.len().min(12)]))
                .collect();
            let why = format!("error while removing network: network {name} has active endpoints ({})", who.join(", "));
            return Err(NetworkError::Forbidden(why));
        }
        record::remove(&self.path(&network.id))?;
        locked(&self.all).remove(name);
        self.tell("destroy", network, &[]);
        Ok(())
    }

    /// Tells of a network.
    pub(crate) fn tell(&self, action: &str, network: &Network, more: &[(&str, &str)]) {
        let attributes = [("name", network.record.name.as_str()), ("type", network.record.driver())];
        let attributes = attributes.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.containers.events.tell(Event {
            kind: "network",
            action: action.into(),
            id: network.id.clone(),
            attributes: attributes.collect(),
            time_ns: now_ns(),
        });
    }
}

/// A network that is always there.
fn predefined(name: &str, kind: Kind) -> Record {
    let options = match kind {
        Kind::Bridge(_) => BRIDGE_OPTIONS.map(|(name, value)| (format!("{OPTION}{name}"), value.to_owned())).into(),
        Kind::Null | Kind::Host => BTreeMap::new(),
    };
    Record {
        name: name.into(),
        kind,
        created_ns: now_ns(),
        internal: false,
        attachable: false,
        options,
        ipam_options: BTreeMap::new(),
        labels: BTreeMap::new(),
    }
}

/// What containers are on that name no network.
pub(crate) const BRIDGE: &str = "bridge";
/// No network at all.
pub(crate) const NONE: &str = "none";
const HOST: &str = "host";
/// Docker's names of options begin so.
const OPTION: &str = "com.docker.network.";
/// Those that docker shows, and that are true here.
const BRIDGE_OPTIONS: [(&str, &str); 5] = [
    ("bridge.default_bridge", "true"),
    ("bridge.enable_icc", "true"),
    ("bridge.enable_ip_masquerade", "true"),
    ("bridge.host_binding_ipv4", "0.0.0.0"),
    ("driver.mtu", "1500"),
];

#[cfg(test)]
mod tests;
