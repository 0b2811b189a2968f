//! appliance-init: PID 1 of the appliance VM.
//!
//! It mounts, says that it is up, and powers off when a signal or the power button asks it to. Services come with the Virtual Container Host.

#![forbid(unsafe_code)]

mod data_disk;
mod secrets;
mod services;

use guest::events::{Interest, Poller, Signals};
use guest::power_button::PowerButton;
use guest::{mounts, power};
use nix::sys::signal::Signal;

fn main() {
    let signals = Signals::block_all();
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("appliance-init: bug: {panic}");
        power::off();
    }));
    if std::process::id() != 1 {
        eprintln!("appliance-init: this is the init of the appliance: it runs as PID 1 of a virtual machine");
        std::process::exit(125);
    }
    if let Err(error) = mounts::early() {
        eprintln!("appliance-init: {error}");
        power::off();
    }
    if let Err(error) = signals.and_then(serve) {
        eprintln!("appliance-init: cannot wait for events: {error}");
    }
    power::off();
}

/// Says that it is up, and waits for whatever asks PID 1 to stop; orphans are reaped meanwhile.
fn serve(signals: Signals) -> std::io::Result<()> {
    let poller = Poller::new()?;
    poller.add(&signals, 0, Interest::READ)?;
    let button = PowerButton::open();
    if let Some(button) = &button {
        poller.add(button, 1, Interest::READ)?;
    }
    eprintln!("appliance-init: up, version {}", env!("CARGO_PKG_VERSION"));
    loop {
        poller.wait(None)?;
        if button.as_ref().is_some_and(PowerButton::was_pressed) {
            return Ok(());
        }
        while let Some(signal) = signals.next() {
            match signal {
                Signal::SIGTERM | Signal::SIGINT | Signal::SIGPWR => return Ok(()),
                _ => drop(guest::reap::ended_children()),
            }
        }
    }
}
