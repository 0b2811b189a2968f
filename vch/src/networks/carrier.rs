//! Who carries the frames of a network: a switch in this program, or the host's kernel.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use wire::spec::Protocol;

use crate::bridge::{Bridge, Kernel, Published};
use crate::switch::{Mac, PublishedPort, Settings, Switch};
use crate::vm::CardEnd;

/// What all networks of this host are made of.
#[derive(Debug)]
pub(crate) enum Carriers {
    /// Their cards meet in this directory.
    Switches(PathBuf),
    Kernel(Arc<Kernel>),
}

/// One network's.
#[derive(Debug)]
pub(super) enum Carrier {
    Switch(Arc<Switch>),
    Bridge(Bridge),
}

/// A port of the host.
#[derive(Debug)]
pub(super) enum HostPort {
    Switch(PublishedPort),
    Bridge(Published),
}

impl Carriers {
    /// Where the sockets of switches are.
    pub(super) fn sockets(&self) -> PathBuf {
        match self {
            Carriers::Switches(sockets) => sockets.clone(),
            Carriers::Kernel(_) => PathBuf::new(),
        }
    }

    pub(super) async fn start(&self, settings: Settings) -> Result<Carrier> {
        match self {
            Carriers::Switches(_) => Switch::start(settings).await.map(Carrier::Switch),
            Carriers::Kernel(kernel) => Bridge::start(kernel, settings).await.map(Carrier::Bridge),
        }
    }

    /// All machines that are on have what is theirs. What is left of others is of nobody.
    pub(super) async fn settle(&self) -> Result<()> {
        match self {
            Carriers::Switches(_) => Ok(()),
            Carriers::Kernel(kernel) => kernel.settle().await,
        }
    }

    /// What a machine that has gone had outside of this program is gone, too.
    pub(super) async fn finish(&self) -> Result<()> {
        match self {
            Carriers::Switches(_) => Ok(()),
            Carriers::Kernel(kernel) => kernel.finish().await,
        }
    }
}

impl Carrier {
    pub(super) async fn plug(&self, id: &str, mac: Mac, addresses: &[IpAddr]) -> Result<CardEnd> {
        match self {
            Carrier::Switch(switch) => switch.plug(id, mac, addresses),
            Carrier::Bridge(bridge) => bridge.plug(id, mac, addresses).await,
        }
    }

    pub(super) fn unplug(&self, id: &str) {
        match self {
            Carrier::Switch(switch) => switch.unplug(id),
            Carrier::Bridge(bridge) => bridge.unplug(id),
        }
    }

    pub(super) async fn publish(&self, protocol: Protocol, at: SocketAddr, to: (IpAddr, u16)) -> Result<HostPort> {
        match self {
            Carrier::Switch(switch) => switch.publish(protocol, at, to).await.map(HostPort::Switch),
            Carrier::Bridge(bridge) => bridge.publish(protocol, at, to).await.map(HostPort::Bridge),
        }
    }
}

impl HostPort {
    pub(super) fn at(&self) -> SocketAddr {
        match self {
            HostPort::Switch(port) => port.at(),
            HostPort::Bridge(port) => port.at(),
        }
    }

    /// It leads nowhere any more. What the kernel leads goes on until then, without this program too.
    pub(super) fn close(self) {
        match self {
            HostPort::Switch(port) => drop(port),
            HostPort::Bridge(port) => port.close(),
        }
    }
}
