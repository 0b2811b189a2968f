//! The boot, as a list of steps that can be read aloud.
//!
//! Without the early file systems there is no machine, and it powers off. Whatever else fails ends the list, with a reason that the console and the host are told,
//! and leaves a machine that answers to its power button and to vCenter, and that nobody reaches: what it would have opened is closed.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use guest::clock::{self, HardwareClock, Utc};
use guest::events::Signals;
use guest::guestinfo::{self, Store, StoreError};
use guest::mounts::{self, MountError};
use guest::net::networks::Networks;
use guest::power_button::PowerButton;
use guest::{journal, say};
use wire::appliance::{self, ApplianceSpec};
use wire::status::{Failure, FailureKind};

use crate::services::Services;
use crate::services::plan::{self, Places};
use crate::{data_disk, network, parameters, secrets};

/// A machine that is ready to serve, or knows why it cannot.
pub(crate) struct Machine {
    pub(crate) signals: Signals,
    /// Not every machine has one.
    pub(crate) button: Option<PowerButton>,
    pub(crate) clock: Option<HardwareClock>,
    /// Where the configuration came from, and where the status goes.
    pub(crate) store: Option<Box<dyn Store>>,
    pub(crate) networks: Networks,
    pub(crate) outcome: Result<Prepared, Failure>,
}

/// What a boot comes to.
pub(crate) struct Prepared {
    /// Not started yet.
    pub(crate) services: Services,
    /// Where state is kept.
    pub(crate) state: PathBuf,
}

/// Why there is no machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("cannot wait for events")]
    Events(#[from] io::Error),
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// What lasts as long as the machine runs.
const RUN: &str = "/run";
/// Certificates and keys.
const SECRETS: &str = "/run/secrets";
/// Where the services' logs are.
const LOGS: &str = "/run/log";

/// Boots, up to the point where services can start.
pub(crate) fn boot(signals: io::Result<Signals>) -> Result<Machine, BootError> {
    let signals = signals?;
    mounts::early()?;
    journal::open(env!("CARGO_PKG_NAME"));
    let clock = set_clock();
    say!(Info, "version {} boots", env!("CARGO_PKG_VERSION"); time = Utc(clock::wall_nanos()));
    let button = PowerButton::open();
    if let Err(errno) = nix::sys::reboot::set_cad_enabled(false) {
        say!(Warn, "Ctrl-Alt-Del resets the machine at once: {errno}");
    }
    let (store, asked) = configuration();
    journal::begin(asked.as_ref().map(|spec| spec.diagnostics.level).unwrap_or_default());
    let mut networks = network::none(asked.as_ref().ok())?;
    let outcome = asked.and_then(|spec| prepare(&spec, &mut networks));
    Ok(Machine { signals, button, clock, store, networks, outcome })
}

/// The steps of a boot, in their order.
fn prepare(spec: &ApplianceSpec, networks: &mut Networks) -> Result<Prepared, Failure> {
    fs::create_dir_all(RUN).map_err(|error| machine(&format!("cannot make {RUN}"), &error))?;
    let data = data_disk::mount_data(spec.require_data).map_err(|error| failure(FailureKind::Disk, &error))?;
    secrets::write(spec, Path::new(SECRETS)).map_err(|error| failure(FailureKind::Machine, &error))?;
    parameters::set(spec)?;
    network::set_up(networks, spec)?;
    let places = places(spec, data.state);
    let list = plan::services(spec, &places).map_err(|reason| machine("cannot start the services", &reason))?;
    let services = Services::new(list, spec.logs, Path::new(LOGS), &places.notify)
        .map_err(|error| failure(FailureKind::Machine, &error))?;
    Ok(Prepared { services, state: places.state })
}

fn places(spec: &ApplianceSpec, state: PathBuf) -> Places {
    let has_shell = spec.console && Path::new(plan::BUSYBOX).exists();
    Places {
        notify: "/run/notify".into(),
        secrets: SECRETS.into(),
        state,
        shell: has_shell.then(|| PathBuf::from("/dev/console")),
    }
}

/// Sets the time of day by the machine's own clock: the kernel may have had no driver for it when it looked.
fn set_clock() -> Option<HardwareClock> {
    let clock = HardwareClock::open().ok()?;
    if let Err(error) = clock.read().and_then(clock::set_wall) {
        say!(Warn, "the time of day may be wrong: {error}");
    }
    Some(clock)
}

/// What the appliance is asked to be. One that is asked nothing is what it usually is; one that is asked what cannot be read is nothing at all.
fn configuration() -> (Option<Box<dyn Store>>, Result<ApplianceSpec, Failure>) {
    let store = match guestinfo::open_for(|keys| drop(appliance::read(keys))) {
        Ok(store) => store,
        Err(error) => return (None, unasked(error).map_err(wrong)),
    };
    let spec = match store.read() {
        Ok(keys) => appliance::read(&keys).map_err(wrong),
        Err(error) => unasked(error).map_err(wrong),
    };
    if let Ok(ApplianceSpec { docker: None, .. }) = &spec {
        say!(Warn, "no Docker API is served to others: {API} says who may use it (docs/appliance.md)");
    }
    (Some(store), spec)
}

const API: &str = "guestinfo.vice./init/docker/tls/cert";

fn wrong(error: impl Error + 'static) -> Failure {
    failure(FailureKind::Spec, &error)
}

/// Nobody has said anything.
fn unasked(error: StoreError) -> Result<ApplianceSpec, StoreError> {
    match error {
        StoreError::Absent(_) | StoreError::Empty => {
            say!(
                Warn,
                "there is no configuration: the first card asks for an address by DHCP, links are taken, and no Docker API is served to others, for want of a \
                 certificate ({API}; docs/appliance.md)"
            );
            Ok(ApplianceSpec::default())
        }
        other => Err(other),
    }
}

/// An error and its causes in one line, outermost first.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.map(ToString::to_string).collect::<Vec<String>>().join(": ")
}

pub(crate) fn failure(kind: FailureKind, error: &(dyn Error + 'static)) -> Failure {
    Failure { kind, reason: reason(error) }
}

pub(crate) fn machine(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Machine, reason: format!("{what}: {error}") }
}
