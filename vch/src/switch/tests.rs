//! What machines on a network see of each other, of the gateway and of the host. A machine is a socket here, and its frames are made by hand or by another TCP stack.

mod layer2;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::UnixDatagram;

use super::{Mac, Names, Settings, Switch};
use crate::vm::CardEnd;

/// A machine's end of its card.
pub(super) struct Machine {
    pub(super) socket: UnixDatagram,
    pub(super) mac: Mac,
    pub(super) address: Ipv4Addr,
    switch: PathBuf,
}

impl Machine {
    /// The machine with this last byte of its addresses.
    pub(super) fn plug(switch: &Switch, number: u8) -> Machine {
        let mac = [2, 0x42, 10, 9, 0, number];
        let address = Ipv4Addr::new(10, 9, 0, number);
        let end = switch.plug(&format!("machine {number}"), mac, &[address.into()]).unwrap();
        let CardEnd::Switch { switch, machine } = end else { panic!("{end:?}") };
        std::fs::remove_file(&machine).ok();
        Machine { socket: UnixDatagram::bind(machine).unwrap(), mac, address, switch }
    }

    pub(super) async fn send(&self, frame: &[u8]) {
        self.socket.send_to(frame, &self.switch).await.unwrap();
    }

    pub(super) async fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65536];
        let length = self.socket.recv(&mut buffer).await.unwrap();
        buffer.truncate(length);
        buffer
    }
}

/// `db` is 10.9.0.3, and that is all.
#[derive(Debug)]
pub(super) struct Db;

impl Names for Db {
    fn addresses(&self, _asking: IpAddr, name: &str) -> Option<Vec<IpAddr>> {
        (name == "db").then(|| vec![Ipv4Addr::new(10, 9, 0, 3).into()])
    }

    fn name(&self, _asking: IpAddr, address: IpAddr) -> Option<String> {
        (address == Ipv4Addr::new(10, 9, 0, 3)).then(|| "db.net".to_owned())
    }
}

pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

pub(super) fn settings(dir: &tempfile::TempDir) -> Settings {
    Settings {
        dir: dir.path().to_owned(),
        name: "net".to_owned(),
        gateway: Some(GATEWAY),
        prefix: 24,
        internal: false,
        mtu: 1500,
        names: Arc::new(Db),
    }
}

/// A switch, and the directory of its sockets.
pub(super) async fn switch() -> (Arc<Switch>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Switch::start(settings(&dir)).await.unwrap(), dir)
}
