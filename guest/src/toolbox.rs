//! What vCenter asks of a guest, and what a guest tells it: the part of VMware Tools that a containerVM serves.
//!
//! A message goes in, answers and wishes come out; nothing here does anything. [`tools`] looks at the channels, which are [`crate::vmware`]'s, and what is
//! done is decided by PID 1.
//!
//! ```text
//! reset                   OK ATR toolbox: the channel is alive, and everything is told anew
//! ping                    OK: the heartbeat
//! Capabilities_Register   tools.set.version and what else makes vCenter offer a shutdown
//! Set_Option KEY VALUE    broadcastIP: guestinfo.ip is set; any other is heard, and changes nothing
//! OS_Halt, OS_Reboot …    the state that the guest goes to is told, then it goes there
//! Vix_1_Relayed_Command   a guest operation: see [`vix`]
//! ```
//!
//! Sources: open-vm-tools, lib/rpcIn/rpcin.c, services/plugins/powerOps and services/vmtoolsd/toolsRpc.c; OpenBSD, sys/dev/pv/vmt.c.

pub mod hgfs;
mod news;
mod nics;
pub mod tools;
pub mod vix;
mod words;

use std::net::IpAddr;
use std::time::Duration;

use wire::handshake::LinkKey;
use wire::status::EndpointStatus;

use self::news::Told;
pub use self::vix::{Operation, Outcome, Process, Reply, VixError, file, list};

/// What comes of a message, to be done in its order.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask VMX over RPCI. Whatever it says to that changes nothing.
    Ask(Vec<u8>),
    /// The answer to the message, over TCLO.
    Answer(Vec<u8>),
    /// Its answer is there already, and should be sent before this is done.
    Power(Power),
    /// Do it, and answer with what [`Reply`] makes of the outcome.
    Operate(Operation, Reply),
}

/// What vCenter wants the machine to do, or says that is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    Halt,
    Reboot,
    /// It has been powered on.
    On,
    /// It goes on after it was suspended.
    Resume,
    /// It is about to be suspended.
    Suspend,
}

/// How the machine is, as far as vCenter shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub host_name: String,
    /// The kernel's release, as `6.12.48`.
    pub release: String,
    pub uptime: Duration,
    pub networks: Vec<EndpointStatus>,
    /// The root's file system, bytes.
    pub disk: Option<Disk>,
}

/// Room in a file system, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Disk {
    pub free: u64,
    pub total: u64,
}

/// The guest's side of TCLO.
#[derive(Debug)]
pub struct Toolbox {
    /// Who may operate: the VM's id, and its link's key.
    id: String,
    key: LinkKey,
    /// The name and version of the agent.
    agent: &'static str,
    facts: Facts,
    told: Told,
    /// Somebody listens to what is told: the host has asked something.
    is_heard: bool,
}

/// Tools that the host does not try to upgrade: open-vm-tools, lib/include/vm_tools_version.h.
const VERSION_UNMANAGED: &str = "tools.set.version 2147483647";

impl Toolbox {
    pub fn new(id: &str, key: &LinkKey, agent: &'static str) -> Toolbox {
        let (id, key) = (id.to_owned(), key.clone());
        Toolbox { id, key, agent, facts: Facts::default(), told: Told::default(), is_heard: false }
    }

    /// What comes of a message of the host's, whatever it holds.
    pub fn handle(&mut self, message: &[u8]) -> Vec<Output> {
        let end = message.iter().position(|byte| b" \0".contains(byte)).unwrap_or(message.len());
        let (name, rest) = message.split_at(end);
        match name {
            b"reset" => {
                self.told = Told::default();
                self.is_heard = true;
                vec![answer("OK ATR toolbox")]
            }
            b"ping" => vec![ok()],
            b"Capabilities_Register" => {
                self.is_heard = true;
                let capabilities = [
                    VERSION_UNMANAGED,
                    "tools.capability.statechange ",
                    "tools.capability.softpowerop_retry ",
                    "tools.capability.hgfs_server toolbox 1",
                ];
                capabilities.into_iter().map(ask).chain([ok()]).collect()
            }
            b"Set_Option" => self.set_option(rest),
            b"OS_Halt" => change_state(1, Power::Halt),
            b"OS_Reboot" => change_state(2, Power::Reboot),
            b"OS_PowerOn" => change_state(3, Power::On),
            b"OS_Resume" => {
                // who it was told to may be another host
                self.told = Told::default();
                change_state(4, Power::Resume)
            }
            b"OS_Suspend" => change_state(5, Power::Suspend),
            b"Vix_1_Relayed_Command" => vec![self.operate(rest)],
            _ => vec![answer("ERROR Unknown Command")],
        }
    }

    fn set_option(&self, rest: &[u8]) -> Vec<Output> {
        let wanted = rest.strip_suffix(&[0]).unwrap_or(rest) == b" broadcastIP 1";
        let address = nics::primary(&self.facts.networks).filter(|_| wanted);
        let set = address.map(|address: IpAddr| Output::Ask(format!("info-set guestinfo.ip {address}").into()));
        set.into_iter().chain([ok()]).collect()
    }

    fn operate(&self, rest: &[u8]) -> Output {
        let (reply, request) = vix::read(rest, &self.id, &self.key);
        match request {
            Ok(vix::Request::State) => {
                let state = vix::state(&self.facts.host_name, &self.os_name(), &self.os_short_name(), self.agent);
                Output::Answer(reply.answer(&Ok(state)))
            }
            Ok(vix::Request::Operation(operation)) => Output::Operate(operation, reply),
            Err(error) => Output::Answer(reply.answer(&Err(error))),
        }
    }

    // -- what is told

    /// The machine is like this now.
    pub fn learn(&mut self, facts: Facts) {
        self.facts = facts;
        self.told.try_again();
    }

    /// The next request that tells VMX what it does not know yet. What came of it is to be said to [`Toolbox::heard`] before the next one.
    pub fn poll_news(&mut self) -> Option<Vec<u8>> {
        let texts = (self.os_name(), self.os_short_name());
        self.is_heard.then(|| self.told.next(&self.facts, &texts.0, &texts.1)).flatten()
    }

    /// Whether VMX has taken the last news.
    pub fn heard(&mut self, accepted: bool) {
        self.told.heard(accepted);
    }

    /// For a person.
    fn os_name(&self) -> String {
        format!("Linux {} ({})", self.facts.release, self.agent)
    }

    /// One of vSphere's: open-vm-tools, lib/include/guest_os.h. VMX passes over what it does not know.
    fn os_short_name(&self) -> String {
        let major = self.facts.release.split('.').next().unwrap_or_default();
        format!("other{major}xlinux-64")
    }
}

/// The state's number: open-vm-tools, lib/include/guestApp.h, `GuestOsState`. It is told before the machine goes there: it may not be able to afterwards.
fn change_state(number: u8, power: Power) -> Vec<Output> {
    vec![Output::Ask(format!("tools.os.statechange.status 1 {number}").into()), ok(), Output::Power(power)]
}

fn ok() -> Output {
    answer("OK ")
}

fn answer(text: &str) -> Output {
    Output::Answer(text.into())
}

fn ask(text: &str) -> Output {
    Output::Ask(text.into())
}

#[cfg(test)]
mod tests;
