//! What makes machines: the seam behind which QEMU stands, and another hypervisor may.
//!
//! It decides which orders a machine takes and how its end is told. What a machine is made of: [`crate::vm`]; which machine a container has: [`crate::maker`].

mod qemu;

use std::fmt;
use std::path::Path;

use anyhow::{Result, anyhow};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use self::qemu::Qemu;
pub(crate) use crate::vm::orders::Off;
use crate::vm::{Accel, Card, Disk, Machine};

/// A hypervisor. A machine goes by the directory that holds its files, and outlives this program.
pub(crate) trait Hypervisor: fmt::Debug + Send + Sync {
    /// Makes a machine of its parts, and powers it on.
    fn power_on<'a>(&'a self, dir: &'a Path, machine: &'a Machine) -> BoxFuture<'a, Result<Powered>>;

    /// The machine that an earlier program powered on, if it is on still.
    fn find<'a>(&'a self, dir: &'a Path) -> BoxFuture<'a, Result<Option<Powered>>>;

    /// Ends the machines that an earlier program powered on, and that nobody has found: each by its name here.
    fn end_others(&self) -> Vec<String>;

    /// Lets machines connect to a socket of this program's.
    fn admit(&self, socket: &Path) -> Result<()>;

    /// How its machines compute; none while that is being tried.
    fn accel(&self) -> Option<Accel>;

    /// Removes what the hypervisor itself keeps of a machine that is off.
    fn forget(&self, dir: &Path) -> Result<()>;
}

/// What a machine is told to do while it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    PressPowerButton,
    PowerOff,
    #[allow(
        dead_code,
        reason = "the seam is whole: docker's restart powers a machine off and on, so that it is as it is asked for by then"
    )]
    Reset,
    /// Its processors stand still until it resumes.
    Pause,
    Resume,
    /// A disk is plugged in: its guest finds it by its serial number.
    #[allow(dead_code, reason = "the seam is whole: docker has no order that adds a volume to a container that runs")]
    PlugDisk(Disk),
    /// A network card is plugged in: its guest finds it by its MAC address.
    PlugCard(Card),
    /// The card with this MAC address is pulled out.
    PullCard([u8; 6]),
    /// It has so much memory from now on: mebibytes.
    Memory(u64),
    /// It has so many processors from now on.
    Processors(u8),
}

/// A machine that is on, or was.
#[derive(Clone, Debug)]
pub(crate) struct Powered {
    orders: mpsc::Sender<(Order, oneshot::Sender<Result<()>>)>,
    off: watch::Receiver<Option<Off>>,
    stands: watch::Receiver<Option<bool>>,
    trouble: watch::Receiver<Option<String>>,
}

/// The hypervisor's end of [`Powered`]: who drops it says that the machine is off.
#[derive(Debug)]
pub(crate) struct Reins {
    orders: mpsc::Receiver<(Order, oneshot::Sender<Result<()>>)>,
    off: watch::Sender<Option<Off>>,
    /// Its processors stand still, or not: asked of a machine that is found.
    stands: watch::Sender<Option<bool>>,
    /// What its guest cannot know the reason of: the host could not do what it asked of a disk.
    trouble: watch::Sender<Option<String>>,
}

impl Powered {
    pub(crate) fn new() -> (Powered, Reins) {
        let (orders, taken) = mpsc::channel(8);
        let (told, off) = watch::channel(None);
        let (asked, stands) = watch::channel(None);
        let (failed, trouble) = watch::channel(None);
        let powered = Powered { orders, off, stands, trouble };
        (powered, Reins { orders: taken, off: told, stands: asked, trouble: failed })
    }

    /// Has an order obeyed; an error says why it was not.
    pub(crate) async fn order(&self, order: Order) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.orders.send((order, answer)).await.map_err(|_| anyhow!(OFF))?;
        answered.await.map_err(|_| anyhow!(OFF))?
    }

    /// Waits until it is off, and tells why.
    pub(crate) async fn off(&self) -> Off {
        let mut off = self.off.clone();
        match off.wait_for(Option::is_some).await.map(|off| off.clone()) {
            Ok(Some(off)) => off,
            Ok(None) | Err(_) => Off::Other(None),
        }
    }

    /// Of a machine that was found: its processors stood still then, by its own word. None: it is off before it says so.
    pub(crate) async fn stood_still(&self) -> Option<bool> {
        let mut stands = self.stands.clone();
        stands.wait_for(Option::is_some).await.ok().and_then(|stands| *stands)
    }

    /// What this host could not do for it; none as long as all went well, or nobody looked.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// Waits for the first of that; none: it is off without any.
    pub(crate) async fn troubled(&self) -> Option<String> {
        let mut trouble = self.trouble.clone();
        trouble.wait_for(Option::is_some).await.ok().and_then(|trouble| trouble.clone())
    }

    pub(crate) fn is_off(&self) -> bool {
        self.off.borrow().is_some() || self.off.has_changed().is_err()
    }
}

const OFF: &str = "the machine is off";
