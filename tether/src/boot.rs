//! The boot, as a list of steps that can be read aloud. Each is required: one that fails ends it.
//!
//! Until the link's device is open, a failure goes to the console; from then on it goes to the host as well.

use std::error::Error;
use std::io;

use guest::cgroup::Cgroup;
use guest::clock::{self, Utc};
use guest::devices::Fence;
use guest::events::Signals;
use guest::guestinfo::{self, Store, StoreError};
use guest::log::Log;
use guest::mounts::{self, MountError};
use guest::net::networks::Networks;
use guest::pipe::{Pipe, PipeError};
use guest::power_button::PowerButton;
use guest::{journal, say};
use wire::guestinfo::SpecError;
use wire::message::Ready;
use wire::spec::{ALL_CAPABILITIES, LinkDevice, Spec};
use wire::status::{Failure, FailureKind, MachineState, Status};

use crate::line::Line;
use crate::machine::{self, Hardware};
use crate::status::publish_in;
use crate::template::{self, TemplateError};
use crate::{limits, network, root};

/// A machine that is ready to run its process, or knows why it cannot.
pub(crate) struct Machine {
    pub(crate) signals: Signals,
    pub(crate) spec: Spec,
    /// Where the spec came from.
    pub(crate) store: Box<dyn Store>,
    pub(crate) line: Line,
    /// None where none is asked for.
    pub(crate) log: Option<Log>,
    /// Not every machine has one.
    pub(crate) button: Option<PowerButton>,
    /// Of the container's processes.
    pub(crate) cgroup: Cgroup,
    pub(crate) network: Networks,
    pub(crate) hardware: Hardware,
    pub(crate) root: Result<Ready, Failure>,
}

/// Why there is nobody to tell but the console.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("cannot wait for events")]
    Events(#[from] io::Error),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Guestinfo(#[from] StoreError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Pipe(#[from] PipeError),
}

/// Boots, up to the point where the process can run.
pub(crate) fn boot(signals: io::Result<Signals>) -> Result<Machine, BootError> {
    let init_us = clock::micros(clock::now());
    let signals = signals?;
    mounts::early()?;
    journal::open("tether");
    say!(Info, "{} {} boots", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"); time = Utc(clock::wall_nanos()));
    let mut store = guestinfo::open()?;
    // what no spec decides: a clone finds it done
    let early = Early::make();
    let mut keys = store.read()?;
    let woken = template::pass(store.as_mut(), &keys)?;
    if woken.is_some() {
        keys = store.read()?;
    }
    let spec = wire::guestinfo::read(&keys).inspect_err(|error| {
        let failure = Some(failure(FailureKind::Spec, error));
        let status = Status { generation: 1, state: MachineState::Failed, failure, ..Status::default() };
        publish_in(store.as_mut(), &status.to_json());
    })?;
    // the console is slow: a clone has no time for it yet
    if woken.is_none() {
        journal::begin(spec.diagnostics.level);
    }
    say!(Debug, "the spec is read"; id = spec.id, sessions = 1 + spec.others.len());
    let mut line = Line::new(&spec, Pipe::open(spec.link.device, spec.link.speed)?, boot_id()?, seed()?);
    if spec.link.device == LinkDevice::Serial {
        machine::keep_port(line.pipe());
    }
    let link_us = clock::micros(clock::now());
    say!(Debug, "the link's device is open");
    // the hello travels while the disk is mounted
    line.transmit();
    // while its device can be seen: a container has a /dev of its own
    let (log, opened) = match spec.log.map(Log::open).transpose() {
        Ok(log) => (log, Ok(())),
        Err(error) => (None, Err(failure(FailureKind::Machine, &error))),
    };
    let mut network = network::none()?;
    let (button, early) = early;
    let (cgroup, mut hardware, fence) = match early {
        Ok(Early { cgroup, hardware, fence }) => (cgroup, hardware, Ok(fence)),
        Err(failure) => (Cgroup::default(), Hardware::default(), Err(failure)),
    };
    let root = opened.and(fence).and_then(|fence| {
        if woken.is_some() {
            template::adopt(&keys)?;
        }
        hardware.suit(&spec, woken.is_some());
        prepare(&spec, &cgroup, fence.as_ref(), &mut network)
    });
    let root = root.map(|()| Ready {
        version: env!("CARGO_PKG_VERSION").into(),
        boot: boot_id().unwrap_or_default(),
        // a clone began when it went on
        init_us: woken.map_or(init_us, |woken| clock::micros(woken.at)),
        link_us,
        ready_us: clock::micros(clock::now()),
    });
    if root.is_ok() {
        say!(Debug, "the machine is ready");
    }
    if woken.is_some() {
        journal::begin(spec.diagnostics.level);
    }
    Ok(Machine { signals, spec, store, line, log, button, cgroup, network, hardware, root })
}

/// What every container needs of its machine, whoever it is.
struct Early {
    cgroup: Cgroup,
    hardware: Hardware,
    fence: Option<Fence>,
}

impl Early {
    fn make() -> (Option<PowerButton>, Result<Early, Failure>) {
        let make = || {
            let cgroup =
                Cgroup::create().map_err(|error| machine("cannot make the container's control group", &error))?;
            let hardware = Hardware::open()?;
            Ok(Early { cgroup, hardware, fence: Fence::load().map_err(|error| unfenced(&error))? })
        };
        (PowerButton::open(), make())
    }
}

/// The steps of a boot, in their order.
fn prepare(spec: &Spec, cgroup: &Cgroup, fence: Option<&Fence>, network: &mut Networks) -> Result<(), Failure> {
    // who may do everything may open everything
    if spec.main.rights.capabilities.bounding != ALL_CAPABILITIES {
        fence.map_or(Ok(()), Fence::close).map_err(|error| unfenced(&error))?;
    }
    root::assemble(spec)?;
    network::set_up(network, spec)?;
    // some of them lie on file servers
    root::mount(spec)?;
    limits::set(spec, cgroup)?;
    machine::lock()?;
    root::enter()
}

fn unfenced(error: &io::Error) -> Failure {
    machine("cannot keep the container from the machine's devices", error)
}

/// 16 bytes that the kernel drew for this boot: random(4).
fn boot_id() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: Vec<u32> = text.chars().filter_map(|char| char.to_digit(16)).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(pair[0] * 16 + pair[1]).unwrap_or_default();
    }
    Ok(id)
}

/// Randomness for the link's keys. It waits until the kernel's generator is seeded: random(4).
fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    io::Read::read_exact(&mut std::fs::File::open("/dev/random")?, &mut seed)?;
    Ok(seed)
}

/// An error and its causes, outermost first.
pub(crate) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = String> + 'a {
    std::iter::successors(Some(error), |&error| error.source()).map(ToString::to_string)
}

/// The same in one line.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> String {
    chain(error).collect::<Vec<String>>().join(": ")
}

pub(crate) fn failure(kind: FailureKind, error: &(dyn Error + 'static)) -> Failure {
    Failure { kind, reason: reason(error) }
}

pub(crate) fn machine(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure { kind: FailureKind::Machine, reason: format!("{what}: {error}") }
}
