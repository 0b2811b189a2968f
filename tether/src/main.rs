//! tether: PID 1 of a containerVM.
//!
//! Two phases. While booting ([`boot`]), a step that fails is published and the VM powers off. Once the process runs
//! ([`agent`]), tether never gives up before it: it loses the link, not the container.

#![forbid(unsafe_code)]

mod account;
mod agent;
mod boot;
mod chores;
mod copies;
mod health;
mod launch;
mod life;
mod limits;
mod line;
mod machine;
mod members;
mod network;
mod outside;
mod pipes;
mod reload;
mod requests;
mod restart;
mod root;
mod session;
mod sessions;
mod status;
mod stream;
mod syslog;
mod template;
mod toolbox;
mod volumes;

use guest::events::Signals;
use guest::pipe::Pipe;
use guest::power::{self, Ending};
use guest::say;
use wire::spec::{LinkDevice, SPEED};

fn main() {
    // before anything else: no signal may be lost, and none may end PID 1
    let signals = Signals::block_all();
    std::panic::set_hook(Box::new(|panic| {
        machine::report_bug(panic);
        power::off();
    }));
    if std::process::id() != 1 {
        eprintln!("tether: this is the init of a containerVM: it runs as PID 1 of a virtual machine (see vch run)");
        std::process::exit(125);
    }
    // the kernel named it after its file, /init
    let _only_a_name = nix::sys::prctl::set_name(c"tether");
    let outcome = boot::boot(signals).and_then(|machine| agent::Agent::new(machine)?.run());
    let ending = outcome.unwrap_or_else(|error| {
        let chain: Vec<String> = boot::chain(&error).collect();
        let reason = chain.join(": ");
        say!(Error, "{reason}");
        // Without a spec nobody knows which device is the link. On the usual one, text is noise to a program, and
        // tells a person who looks at that port what is wrong.
        if let Ok(port) = Pipe::open(LinkDevice::Serial, SPEED) {
            port.write(format!("\r\ntether: {reason}\r\n\0").as_bytes());
        }
        Ending::PowerOff
    });
    power::end(ending);
}
