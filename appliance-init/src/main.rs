//! appliance-init: PID 1 of the appliance VM.
//!
//! Two phases. [`boot`] makes a machine of it: its configuration, networks behind a firewall, a clock. [`life`] runs its services until somebody asks it to stop, and
//! powers off. What cannot be done as it was asked stops the boot, not the machine: whoever looks after it can read why (docs/decisions/0012).

#![forbid(unsafe_code)]

mod boot;
mod data_disk;
mod firewall;
mod life;
mod network;
mod parameters;
mod secrets;
mod services;
mod toolbox;

use guest::events::Signals;
use guest::power::{self, Ending};
use guest::say;

fn main() {
    // before anything else: no signal may be lost, and none may end PID 1
    let signals = Signals::block_all();
    std::panic::set_hook(Box::new(|panic| {
        say!(Error, "bug: {panic}");
        power::off();
    }));
    if std::process::id() != 1 {
        eprintln!("appliance-init: this is the init of the appliance: it runs as PID 1 of a virtual machine");
        std::process::exit(125);
    }
    // the kernel named it after its file, /init
    let _only_a_name = nix::sys::prctl::set_name(c"appliance-init");
    let outcome = boot::boot(signals).and_then(|machine| life::Appliance::new(machine)?.run());
    let ending = outcome.unwrap_or_else(|error| {
        say!(Error, "{}", boot::reason(&error));
        Ending::PowerOff
    });
    power::end(ending);
}
