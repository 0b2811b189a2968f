//! The machine under the container: devices that come while it runs, memory that goes back, the clock, and what is left to say when PID 1 itself fails.
//!
//! Mechanisms are in `guest`; here is what happens when. Everything is opened before the container's root is the root.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use guest::cgroup::Cgroup;
use guest::clock::HardwareClock;
use guest::events::{Interest, Poller};
use guest::hotplug::Processors;
use guest::protection;
use guest::reclaim::Reclaim;
use guest::uevents::{Change, Uevents};
use guest::{clock, filter, kernel_log, say, vmware};
use wire::message::{Event, Message, Reply};
use wire::spec::Spec;
use wire::status::{Failure, FailureKind};

use crate::boot::machine;
use crate::limits;

/// What PID 1 holds of its machine. A machine without one of them is a machine all the same.
#[derive(Default)]
pub(crate) struct Hardware {
    uevents: Option<Uevents>,
    processors: Option<Processors>,
    reclaim: Option<Reclaim>,
    clock: Option<HardwareClock>,
    /// It went on where a template waited, and no host has told it the time by its link yet.
    is_clone: bool,
}

impl Hardware {
    /// Sets PID 1 apart from the container, and takes into use what was plugged in before anybody listened.
    pub(crate) fn open() -> Result<Hardware, Failure> {
        // before its files belong to the container
        let reclaim = Reclaim::open();
        protection::set_apart().map_err(|error| machine("cannot keep PID 1 apart from its container", &error))?;
        let hardware = Hardware {
            uevents: warned("devices that come are not noticed", Uevents::open()),
            processors: warned("processors that come are not used", Processors::open()),
            reclaim,
            // asked after a suspension, of which only VMware tells: no other boot pays for it
            clock: vmware::is_here().then(|| HardwareClock::open().ok()).flatten(),
            is_clone: false,
        };
        hardware.use_processors();
        Ok(hardware)
    }

    /// Lets go of what the spec does not want.
    pub(crate) fn suit(&mut self, spec: &Spec, is_clone: bool) {
        self.is_clone = is_clone;
        self.reclaim.take_if(|_| !spec.machine.reclaim);
    }

    pub(crate) fn watch(&self, poller: &Poller, uevents: u64, pressure: u64) -> io::Result<()> {
        if let Some(socket) = &self.uevents {
            poller.add(socket, uevents, Interest::READ)?;
        }
        for trigger in self.reclaim.iter().flat_map(Reclaim::triggers) {
            poller.add(trigger, pressure, Interest { priority: true, ..Interest::default() })?;
        }
        Ok(())
    }

    /// Devices have come or gone.
    pub(crate) fn handle_changes(&self, spec: &Spec, cgroup: &Cgroup) {
        for change in self.uevents.iter().flat_map(Uevents::changes).collect::<Vec<_>>() {
            match change {
                Change::Processors => self.use_processors(),
                Change::Memory => {
                    if let Err(failure) = limits::change(&spec.machine, cgroup) {
                        say!(Warn, "the container cannot use what memory came: {failure}");
                    }
                }
                // what the spec asks of them is looked at when it is read
                Change::Disk(_) | Change::Interface(_) => {}
            }
        }
    }

    fn use_processors(&self) {
        let came = self.processors.as_ref().map_or(Ok(0), Processors::bring_online);
        if let Some(count @ 1..) = warned("a processor stays offline", came) {
            say!(Info, "{count} more processors");
        }
    }

    /// Sets the time of day by the machine's own clock, after the machine has not run for a while. None without one.
    pub(crate) fn set_clock(&self) -> Option<io::Result<bool>> {
        self.clock.as_ref().map(|clock| clock.read().and_then(clock::set_wall))
    }

    // -- memory that goes back

    /// The container does something.
    pub(crate) fn stir(&mut self) {
        if let Some(reclaim) = &mut self.reclaim {
            reclaim.stir(clock::now());
        }
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.reclaim.as_ref().and_then(Reclaim::deadline)
    }

    pub(crate) fn handle_time(&mut self, now: Duration) {
        if let Some(reclaim) = &mut self.reclaim {
            reclaim.handle_time(now);
        }
    }
}

/// The last step before the container's root is entered: nothing that PID 1 does from here on needs what this takes from it, and from its children, for good.
pub(crate) fn lock() -> Result<(), Failure> {
    protection::close_memory().map_err(|error| machine("cannot close PID 1's memory", &error))?;
    filter::load().map_err(|error| machine("cannot load the filter of system calls", &error))
}

// -- what the host asks

impl Hardware {
    /// A clone was told the time when it began: the first host that it speaks to knows it better.
    pub(crate) fn take_time(&mut self, unix_ns: i64) -> Result<Reply, String> {
        let set = match std::mem::take(&mut self.is_clone) {
            true => clock::set_wall_exactly(unix_ns),
            false => clock::set_wall(unix_ns).map(drop),
        };
        set.map(|()| Reply::Done).map_err(|error| format!("cannot set the clock: {error}"))
    }
}

pub(crate) fn kernel_log() -> Result<Reply, String> {
    kernel_log::read().map(Reply::Text).map_err(|error| format!("cannot read the kernel's log: {error}"))
}

// -- what is said at the end

/// To go before a failure that the kernel may know more about.
pub(crate) fn evidence(failure: &Failure) -> Option<Message> {
    let is_machines = matches!(failure.kind, FailureKind::Disk | FailureKind::Machine);
    let text = is_machines.then(kernel_log::read)?.ok()?;
    Some(Message::Event(Event::KernelLog(text)))
}

/// The link's serial port, for a PID 1 that can do nothing with its link any more.
static PORT: OnceLock<OwnedFd> = OnceLock::new();

/// Keeps the port for [`report_bug`].
pub(crate) fn keep_port(port: impl AsFd) {
    // without it there is still the console
    let _kept = port.as_fd().try_clone_to_owned().map(|port| PORT.set(port));
}

/// Says that PID 1 has a bug: on the console, and on the link's serial port, as text, which is noise to a program and tells a person who looks there. It cannot
/// go as a message, because the link may be what is broken.
pub(crate) fn report_bug(what: &dyn std::fmt::Display) {
    say!(Error, "bug: {what}");
    if let Some(port) = PORT.get() {
        let _unheard = nix::unistd::write(port, format!("\r\ntether: bug: {what}\r\n\0").as_bytes());
    }
}

/// What is not worth a failure is said on the console.
fn warned<T>(consequence: &str, result: io::Result<T>) -> Option<T> {
    result.inspect_err(|error| say!(Warn, "{consequence}: {error}")).ok()
}
