//! What is done for vCenter: an orderly stop, and a clock that is right again. Guest operations are for containers: nobody has the key to ask for one here, and
//! none is done.

use std::io::Read as _;

use guest::clock;
use guest::power::Ending;
use guest::say;
use guest::toolbox::tools::{self, Served, Tools};
use guest::toolbox::{Disk, Facts, Operation, Outcome, Power, Toolbox, VixError};
use nix::sys::statvfs::statvfs;
use wire::handshake::LinkKey;

use crate::life::Appliance;

/// None on a machine that is not VMware's.
pub(crate) fn tools() -> Option<Tools> {
    let agent = concat!("appliance-init ", env!("CARGO_PKG_VERSION"));
    Tools::new(Toolbox::new("appliance", &nobodys_key()?, agent), Box::new(tools::channels))
}

/// Drawn and forgotten.
fn nobodys_key() -> Option<LinkKey> {
    let mut key = [0; 32];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut key)).ok()?;
    Some(LinkKey::new(key))
}

impl Served for Appliance {
    fn facts(&self) -> Facts {
        let system = nix::sys::utsname::uname();
        let release = system.map(|system| system.release().to_string_lossy().into_owned());
        Facts {
            host_name: self.networks.host_name(),
            release: release.unwrap_or_default(),
            uptime: clock::now(),
            networks: self.networks.status().into_values().collect(),
            disk: self.state.as_ref().and_then(|state| statvfs(state).ok()).map(|room| {
                let bytes = |blocks: u64| blocks.saturating_mul(room.fragment_size());
                Disk { free: bytes(room.blocks_available()), total: bytes(room.blocks()) }
            }),
        }
    }

    fn changes(&self) -> u64 {
        self.networks.changes()
    }

    fn power(&mut self, power: Power) {
        say!(Info, "vCenter says: {power:?}");
        match power {
            Power::Halt => self.stop(Ending::PowerOff),
            Power::Reboot => self.stop(Ending::Reboot),
            Power::On | Power::Suspend => {}
            Power::Resume => {
                self.set_clock();
                // switches have forgotten them, or know them at another port
                self.networks.announce();
            }
        }
    }

    fn operate(&mut self, _operation: Operation) -> Outcome {
        Err(VixError::UnknownOperation)
    }
}
