//! All ports of one switch, and who gets a frame: the one whose MAC address it names, all others when it is for all, and the gateway as one of them.
//!
//! Nothing is learned and nothing flooded: which machine has which addresses was told when its card was plugged in. A frame for a stranger goes nowhere.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::task::AbortHandle;

use super::guard::{Mac, To};
use super::port::Port;
use crate::lock::locked;

/// The largest frame that a card may send; QEMU cuts at 68 KiB, and no network here has such an MTU.
const LARGEST: usize = 65536 + 14;

#[derive(Debug, Default)]
pub(super) struct Ports {
    plugged: Mutex<HashMap<String, Plugged>>,
}

#[derive(Debug)]
struct Plugged {
    port: Arc<Port>,
    tasks: [AbortHandle; 2],
}

/// What takes the frames that are for the gateway.
pub(super) trait Gateway: Send + Sync + 'static {
    fn mac(&self) -> Mac;
    /// A frame that a machine was free to send, for this MAC address or for all.
    fn take(&self, from: &Arc<Port>, frame: &[u8]);
}

impl Ports {
    /// Plugs a port in, in place of what had this id before.
    pub(super) fn plug(self: &Arc<Self>, id: &str, port: Port, gateway: Option<Arc<dyn Gateway>>) {
        let port = Arc::new(port);
        let carry = {
            let port = port.clone();
            tokio::spawn(async move { port.carry().await })
        };
        let take = {
            // not of the switch, which would never end
            let (ports, port) = (Arc::downgrade(self), port.clone());
            tokio::spawn(async move {
                let mut buffer = vec![0; LARGEST];
                // a bound socket of datagrams has no errors of its own
                while let Ok(length) = port.receive(&mut buffer).await {
                    let Some(ports) = ports.upgrade() else { return };
                    ports.pass(&port, &buffer[..length], gateway.as_ref());
                }
            })
        };
        let tasks = [carry.abort_handle(), take.abort_handle()];
        if let Some(before) = locked(&self.plugged).insert(id.to_owned(), Plugged { port, tasks }) {
            before.stop();
        }
    }

    /// Pulls a port out, and tells which addresses it had.
    pub(super) fn unplug(&self, id: &str) -> Vec<IpAddr> {
        let Some(plugged) = locked(&self.plugged).remove(id) else { return Vec::new() };
        plugged.stop();
        plugged.port.remove();
        plugged.port.guard.addresses.clone()
    }

    /// The port that has this address.
    pub(super) fn at(&self, address: IpAddr) -> Option<Arc<Port>> {
        let plugged = locked(&self.plugged);
        plugged.values().find(|plugged| plugged.port.guard.addresses.contains(&address)).map(|found| found.port.clone())
    }

    fn pass(&self, from: &Arc<Port>, frame: &[u8], gateway: Option<&Arc<dyn Gateway>>) {
        let Some(to) = from.guard.admit(frame) else { return };
        for plugged in locked(&self.plugged).values() {
            if to == To::One(plugged.port.guard.mac) || (to == To::All && !Arc::ptr_eq(&plugged.port, from)) {
                plugged.port.send(frame);
            }
        }
        if let Some(gateway) = gateway
            && (to == To::All || to == To::One(gateway.mac()))
        {
            gateway.take(from, frame);
        }
    }
}

impl Plugged {
    fn stop(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        self.stop();
    }
}
