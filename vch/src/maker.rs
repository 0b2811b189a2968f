//! Containers whose machines this host makes: what docker create writes down, and what docker start makes of it.
//!
//! ```text
//! docker create ──> Made, in the container's record ── docker start ──> plan ──> machine ──> hypervisor
//!                                                                                  └═ link ═> serve/door ──> containers::keeper, as any other VM's
//! ```
//!
//! It decides which files a container has and when its machine is on. How the container lives is [`crate::containers`]'s, as that of any other VM.

mod begins;
mod boots;
mod cards;
mod console;
mod endings;
mod files;
mod life;
mod machine;
mod made;
mod mounts;
mod names;
mod restarts;
mod sizes;
mod update;
mod wishes;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use wire::handshake::MasterKey;

use self::boots::Boots;
pub(crate) use self::endings::Grace;
pub(crate) use self::life::Started;
pub(crate) use self::made::Made;
pub(crate) use self::mounts::{MountPoint, On, no_driver};
pub(crate) use self::names::name;
pub(crate) use self::sizes::Sizes;
pub(crate) use self::wishes::{RUNTIME, Refusal};
use crate::bridge::{self, Kernel};
use crate::cli::{CloneWish, Network};
use crate::containers::{Container, Containers};
use crate::hypervisor::{Hypervisor, Qemu};
use crate::image_store::{ImageStore, User};
use crate::networks::{Carriers, NetworkError, Networks};
use crate::pipe::Address;
use crate::serve::say;
use crate::state;
use crate::vm::{Accel, Boot};
use crate::volumes::{self, Store, VolumeError, Volumes};

/// Makes containers.
#[derive(Debug)]
pub(crate) struct Maker {
    hypervisor: Box<dyn Hypervisor>,
    pub(crate) containers: Arc<Containers>,
    pub(crate) images: ImageStore,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) networks: Arc<Networks>,
    boots: Boots,
    key: MasterKey,
    boot: Boot,
    clone: CloneWish,
    /// Where its machines' links connect.
    links: PathBuf,
}

/// Why a container is not made, or not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    NoImage(#[from] crate::image_store::UnknownImage),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// What its machine needs, another one has.
    #[error("{0}")]
    InUse(String),
    #[error(transparent)]
    Name(#[from] crate::containers::NameError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Not in this state.
    #[error("{0}")]
    Conflict(String),
    /// Its process cannot be run: docker's client makes its exit code of these words.
    #[error("failed to create task for container: unable to start container process: {0}")]
    Unstartable(String),
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Maker {
    /// The one of this host: its state in `state`, what can be made again in `cache`.
    pub(crate) async fn open(
        containers: Arc<Containers>,
        key: MasterKey,
        state: &Path,
        boot: Boot,
        network: Network,
        clone: CloneWish,
    ) -> Result<Maker> {
        let cache = state::cache_dir()?;
        state::make_dir(&cache)?;
        let sockets = state::lasting_socket_dir(state)?;
        let qemu = Qemu::find(sockets.clone(), &boot, &cache)?;
        let images = ImageStore::open(&state.join(IMAGES), &cache)?;
        images.forget_unused(|| User::all(&containers))?;
        let volumes = Volumes::new(Store::open(&state.join(volumes::DIR))?);
        let links = sockets.join(LINKS);
        let carriers = match network {
            Network::User => {
                bridge::nothing_left(&sockets)?;
                Carriers::Switches(sockets)
            }
            Network::Kernel => Carriers::Kernel(Kernel::open(&sockets)?),
        };
        let networks = Networks::open(&state.join(NETWORKS), carriers, containers.clone())?;
        let (hypervisor, boots) = (Box::new(qemu), Boots::of_this_host());
        Ok(Maker { hypervisor, containers, images, volumes, networks, boots, key, boot, clone, links })
    }

    /// Where its machines' links connect.
    pub(crate) fn links(&self) -> Address {
        Address::Unix(self.links.clone())
    }

    /// Has the machines that an earlier serve left on, and knows of those that have gone.
    pub(crate) async fn adopt(self: &Arc<Self>) -> Result<()> {
        self.hypervisor.admit(&self.links)?;
        let mut off = Vec::new();
        for container in self.containers.list() {
            let Some(made) = container.made() else { continue };
            match self.hypervisor.find(container.dir()).await.context("cannot find machines")? {
                Some(powered) => {
                    let starting = container.power().starting && !container.state().is_running();
                    container.change_now(|now| now.starting = starting);
                    let held = self.hold_again(&container, &made.mounts).await;
                    let (cards, turn) = self.networks.rejoin(&container).await;
                    for card in &cards {
                        self.admit(card)?;
                    }
                    self.learn_pause(&container, &powered);
                    self.attend(&container, powered, held, turn);
                }
                None => {
                    self.networks.give_back(&container);
                    off.push(container);
                }
            }
        }
        self.networks.settle().await.context("cannot take up the networks of this host")?;
        // before any is powered on
        for machine in self.hypervisor.end_others() {
            say(&format!("{machine}: ended a machine that is no container's"));
        }
        for container in off {
            self.resume(&container).await;
        }
        Ok(())
    }

    /// How its machines compute, once that is known.
    pub(crate) fn accel(&self) -> Option<Accel> {
        self.hypervisor.accel()
    }

    /// The container's own disk.
    pub(crate) fn disk(container: &Container) -> PathBuf {
        container.dir().join(DISK)
    }
}

/// In the state directory.
const IMAGES: &str = "images";
/// In the state directory.
const NETWORKS: &str = "networks";
/// In the directory of sockets.
const LINKS: &str = "links";
/// In the container's directory: what it writes, over the disks of its image's layers.
const DISK: &str = "top.raw";
