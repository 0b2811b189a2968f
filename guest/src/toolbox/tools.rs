//! VMware Tools' place in a VM of ours: the channels to VMX, when they are looked at, and what goes over them. What is answered is decided in [`super::Toolbox`],
//! what is done for vCenter by who implements [`Served`].
//!
//! VMX has no event for its guest: a guest that is there says so every 100 ms, and asks whether there is a question. After a question it comes again at once, since
//! another may follow, and then after 10, 20, 40, 80 and 100 ms, as VMware's own tools do (open-vm-tools, lib/rpcIn/rpcin.c).

use std::time::Duration;

use super::{Facts, Operation, Outcome, Output, Power, Toolbox};
use crate::say;
use crate::vmware::{self, RpcError, Rpci, Tclo};

/// The shortest pause between two looks, after the one that found a question.
const SOON: Duration = Duration::from_millis(10);
/// The longest: for VMX a guest that is longer silent is one without tools.
const LATE: Duration = Duration::from_millis(100);
/// How often VMX is told what is another than before, at most.
const REFRESH: Duration = Duration::from_secs(30);
/// The pause before channels that broke are opened again; it doubles.
const REOPEN: Duration = Duration::from_secs(1);
const LONGEST_REOPEN: Duration = Duration::from_secs(60);
/// The most questions that are answered before others have their turn.
const AT_ONCE: usize = 4;

/// Both ways to VMX.
#[derive(Debug)]
pub struct Channels {
    pub tclo: Box<dyn Tclo>,
    pub rpci: Box<dyn Rpci>,
}

/// Those of this machine, if it is VMware's.
pub fn channels() -> Result<Channels, RpcError> {
    Ok(Channels { tclo: vmware::tclo()?, rpci: vmware::rpci()? })
}

/// Opens them: [`channels`].
pub type Opens = Box<dyn FnMut() -> Result<Channels, RpcError>>;

/// The machine, as far as vCenter has a say.
pub trait Served {
    fn facts(&self) -> Facts;
    /// How often its networks have changed.
    fn changes(&self) -> u64;
    fn power(&mut self, power: Power);
    fn operate(&mut self, operation: Operation) -> Outcome;
}

/// The tools.
pub struct Tools {
    open: Opens,
    /// None while they are broken.
    channels: Option<Channels>,
    machine: Toolbox,
    /// When there is something to do.
    due: Duration,
    /// Before the next look, or the next try to open.
    pause: Duration,
    refresh_at: Duration,
    /// As [`Served::changes`] was when VMX was told.
    changes: u64,
}

impl Tools {
    /// Of this machine; none where nobody listens.
    pub fn new(machine: Toolbox, mut open: Opens) -> Option<Tools> {
        let channels = match open() {
            Ok(channels) => Some(channels),
            Err(RpcError::NotVmware) => return None,
            Err(error) => {
                say!(Warn, "no VMware tools yet: {error}");
                None
            }
        };
        // where it did not open: at once again, as its first deadline says, and then after this doubled
        let (zero, pause) = (Duration::ZERO, if channels.is_some() { Duration::ZERO } else { REOPEN / 2 });
        Some(Tools { open, channels, machine, due: zero, pause, refresh_at: zero, changes: 0 })
    }

    /// When to call [`Tools::handle_time`] at the latest.
    pub fn deadline(&self) -> Duration {
        self.due
    }

    /// Has a look at the channels, if it is time.
    pub fn handle_time(&mut self, now: Duration, served: &mut dyn Served) {
        if now < self.due {
            return;
        }
        match self.channels.take() {
            None => self.reopen(now),
            Some(mut channels) => match self.look(&mut channels, now, served) {
                Ok(found) => {
                    self.pause = if found { Duration::ZERO } else { (2 * self.pause).clamp(SOON, LATE) };
                    self.channels = Some(channels);
                }
                Err(error) => {
                    say!(Debug, "VMware's channel is broken: {error}");
                    self.pause = REOPEN;
                }
            },
        }
        self.due = now + self.pause;
    }

    fn reopen(&mut self, now: Duration) {
        match (self.open)() {
            Ok(channels) => {
                say!(Debug, "VMware's channel is open again");
                // whoever is at its other end may know nothing of us
                (self.channels, self.pause, self.refresh_at) = (Some(channels), Duration::ZERO, now);
            }
            Err(_) => self.pause = (2 * self.pause).min(LONGEST_REOPEN),
        }
    }

    /// True if there may be more questions.
    fn look(&mut self, channels: &mut Channels, now: Duration, served: &mut dyn Served) -> Result<bool, RpcError> {
        if now >= self.refresh_at || served.changes() != self.changes {
            (self.refresh_at, self.changes) = (now + REFRESH, served.changes());
            self.machine.learn(served.facts());
            self.tell(&mut *channels.rpci);
        }
        // that a guest is there
        channels.tclo.send(&[])?;
        for _ in 0..AT_ONCE {
            let Some(message) = channels.tclo.receive()?.filter(|message| !message.is_empty()) else {
                return Ok(false);
            };
            for output in self.machine.handle(&message) {
                match output {
                    Output::Ask(request) => {
                        ask(&mut *channels.rpci, &request);
                    }
                    Output::Answer(answer) => channels.tclo.send(&answer)?,
                    Output::Power(power) => served.power(power),
                    Output::Operate(operation, reply) => {
                        channels.tclo.send(&reply.answer(&served.operate(operation)))?;
                    }
                }
            }
            self.tell(&mut *channels.rpci);
        }
        Ok(true)
    }

    /// Tells what VMX does not know yet.
    fn tell(&mut self, rpci: &mut dyn Rpci) {
        while let Some(request) = self.machine.poll_news() {
            self.machine.heard(ask(rpci, &request));
        }
    }
}

/// True if VMX does what it is asked.
fn ask(rpci: &mut dyn Rpci, request: &[u8]) -> bool {
    let asked = rpci.call(request);
    if let Err(error) = &asked {
        let name = request.split(|&byte| byte == b' ').next().unwrap_or_default();
        say!(Debug, "VMX does not take {}: {error}", String::from_utf8_lossy(name));
    }
    asked.is_ok()
}

#[cfg(test)]
mod tests;
