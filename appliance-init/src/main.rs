//! appliance-init: PID 1 of the appliance VM.
//!
//! It mounts, says that it is up, and powers off when it is asked to. Services come with the Virtual Container Host.

#![forbid(unsafe_code)]

use guest::events::{Interest, Poller, Signals};
use guest::{mounts, power};
use nix::sys::signal::Signal;

fn main() {
    let signals = Signals::block_all();
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("appliance-init: bug: {panic}");
        power::now();
    }));
    if std::process::id() != 1 {
        eprintln!("appliance-init: this is the init of the appliance: it runs as PID 1 of a virtual machine");
        std::process::exit(125);
    }
    if let Err(error) = mounts::early() {
        eprintln!("appliance-init: {error}");
        power::off();
    }
    eprintln!("appliance-init: up, version {}", env!("CARGO_PKG_VERSION"));
    if let Err(error) = signals.and_then(wait_for_stop) {
        eprintln!("appliance-init: cannot wait for signals: {error}");
    }
    power::off();
}

/// Waits for a signal that asks PID 1 to stop; orphans are reaped meanwhile.
fn wait_for_stop(signals: Signals) -> std::io::Result<()> {
    let poller = Poller::new()?;
    poller.add(&signals, 0, Interest::READ)?;
    loop {
        poller.wait(None)?;
        while let Some(signal) = signals.next() {
            match signal {
                Signal::SIGTERM | Signal::SIGINT | Signal::SIGPWR => return Ok(()),
                _ => drop(guest::reap::ended_children()),
            }
        }
    }
}
