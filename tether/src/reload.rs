//! Another spec for a machine that runs: what of it can be had, checked field by field before anything is touched; then done.
//!
//! What can be added or changed is listed in [`Change`]; everything else is refused, by the name of its key, and then nothing is done. This file is the one
//! place that calls what changes a running machine.

use std::collections::VecDeque;
use std::fmt;

use guest::{journal, say};
use wire::message::{Reply, SessionId};
use wire::spec::{
    Capabilities, Diagnostics, Endpoint, Level, LinkSpec, Machine, Mount, Names, Process, Rights, Root, Spec,
};
use wire::status::Failure;
use wire::vmx::Dictionary;

use crate::agent::{Agent, Goal};
use crate::boot::reason;
use crate::chores;
use crate::members::{Leave, Member, checker};
use crate::{limits, network};

/// Something that a running machine can take over from another spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Mount(Mount),
    Network(Endpoint),
    /// A network that there is to be no more, or another of that name.
    Leave(String),
    Limits(Machine),
    /// How much tether says.
    Level(Level),
    /// A session that there was not.
    Add(String, Process),
    /// A session that there is to be no more.
    Remove(String),
    /// When a session is stopped, started again, and well.
    Rules(String, Process),
}

/// What has to be done for `new` to be true where `old` is; or the key that cannot be changed.
pub(crate) fn compare(old: &Spec, new: &Spec) -> Result<Vec<Change>, String> {
    // a field that is added is decided here, or this is no longer Rust
    let Spec {
        id,
        hostname,
        domain,
        link: LinkSpec { device, key, sealed, speed },
        log,
        hold,
        root: Root { layers, top, read_only },
        mounts,
        networks,
        names: Names { hosts, search, options },
        machine,
        diagnostics: Diagnostics { level, syslog },
        main,
        others,
    } = new;
    let session = |key: &str| format!("sessions|{}/{key}", old.id);
    check("common/id", *id == old.id)?;
    check("hostname", *hostname == old.hostname)?;
    check("domainname", *domain == old.domain)?;
    check("link/device", *device == old.link.device)?;
    check("link/key", *key == old.link.key)?;
    check("link/sealed", *sealed == old.link.sealed)?;
    check("link/speed", *speed == old.link.speed)?;
    check("log/device", *log == old.log)?;
    check(&session("runblock"), *hold == old.hold)?;
    check("root/layers", *layers == old.root.layers)?;
    check("root/top", *top == old.root.top)?;
    check("root/readonly", *read_only == old.root.read_only)?;
    check("names/hosts", *hosts == old.names.hosts)?;
    check("names/search", *search == old.names.search)?;
    check("names/options", *options == old.names.options)?;
    check("diagnostics/syslog", *syslog == old.diagnostics.syslog)?;
    let mut changes = added("mounts", &old.mounts, mounts, |mount| &mount.name, Change::Mount)?;
    // who asks DHCP is known by its place among them
    let asks = old.networks.iter().any(|network| network.dhcp);
    for network in old.networks.iter().filter(|network| !networks.contains(network)) {
        check(&format!("networks|{}", network.name), !asks)?;
        changes.push(Change::Leave(network.name.clone()));
    }
    changes.extend(networks.iter().filter(|network| !old.networks.contains(network)).cloned().map(Change::Network));
    changes.extend(compare_machine(&old.machine, machine)?);
    changes.extend((*level != old.diagnostics.level).then_some(Change::Level(*level)));
    let gone = old.others.keys().filter(|name| !others.contains_key(*name));
    changes.extend(gone.map(|name| Change::Remove(name.clone())));
    changes.extend(compare_process(&old.id, &old.main, main)?);
    for (name, process) in others {
        match old.others.get(name) {
            Some(known) => changes.extend(compare_process(name, known, process)?),
            None => changes.push(Change::Add(name.clone(), process.clone())),
        }
    }
    Ok(changes)
}

fn check(key: &str, is_same: bool) -> Result<(), String> {
    match is_same {
        true => Ok(()),
        false => Err(format!("{key} cannot be changed while the machine runs: power it off first")),
    }
}

/// Elements, each with a name, of which there may only be more.
fn added<T: Clone + PartialEq>(
    key: &str,
    old: &[T],
    new: &[T],
    name: impl Fn(&T) -> &String,
    change: impl Fn(T) -> Change,
) -> Result<Vec<Change>, String> {
    let find = |all: &[T], wanted: &String| all.iter().find(|one| name(one) == wanted).cloned();
    for known in old {
        check(&format!("{key}|{}", name(known)), find(new, name(known)).as_ref() == Some(known))?;
    }
    Ok(new.iter().filter(|one| find(old, name(one)).is_none()).cloned().map(change).collect())
}

fn compare_machine(old: &Machine, new: &Machine) -> Result<Option<Change>, String> {
    let Machine { memory: _, cpus: _, pids: _, shm_size: _, sysctls, reclaim } = new;
    // nobody knows what a parameter was before it was set
    let kept = old.sysctls.iter().all(|(name, _)| sysctls.iter().any(|(known, _)| known == name));
    check("machine/sysctls", kept)?;
    check("machine/reclaim", *reclaim == old.reclaim)?;
    Ok((new != old).then(|| Change::Limits(new.clone())))
}

fn compare_process(name: &str, old: &Process, new: &Process) -> Result<Option<Change>, String> {
    #[rustfmt::skip]
    let Process {
        argv, env, dir, user, groups, terminal, stdin, attach,
        rights: Rights {
            capabilities: Capabilities { bounding, ambient }, no_new_privileges, seccomp, limits, oom_score,
        },
        stop_signal: _, stop_timeout: _, restart: _, health: _,
    } = new;
    let check = |key: &str, is_same| check(&format!("sessions|{name}/{key}"), is_same);
    check("cmd/Path", argv.first() == old.argv.first())?;
    check("cmd/Args", *argv == old.argv)?;
    check("cmd/Env", *env == old.env)?;
    check("cmd/Dir", *dir == old.dir)?;
    check("User", *user == old.user)?;
    check("groups", *groups == old.groups)?;
    check("tty", terminal.is_some() == old.terminal.is_some())?;
    check("ttysize", *terminal == old.terminal)?;
    check("openstdin", *stdin == old.stdin)?;
    check("attach", *attach == old.attach)?;
    check("capabilities/bounding", *bounding == old.rights.capabilities.bounding)?;
    check("capabilities/ambient", *ambient == old.rights.capabilities.ambient)?;
    check("nonewprivileges", *no_new_privileges == old.rights.no_new_privileges)?;
    check("seccomp", *seccomp == old.rights.seccomp)?;
    check("limits", *limits == old.rights.limits)?;
    check("oomscore", *oom_score == old.rights.oom_score)?;
    Ok((new != old).then(|| Change::Rules(name.into(), new.clone())))
}

/// A spec that is being taken over.
pub(crate) struct Reloading {
    /// What is to be answered, unless nobody has asked.
    request: Option<u64>,
    /// What is still to be done; the first of it may be under way.
    left: VecDeque<Change>,
    done: Vec<String>,
    /// Its text, unless the store holds it.
    keys: Option<String>,
}

impl Reloading {
    /// Of its chore.
    fn number(&self) -> u64 {
        self.request.unwrap_or(u64::MAX)
    }

    fn broken(&self, at: impl fmt::Display, reason: &str) -> String {
        let done = if self.done.is_empty() { "nothing".into() } else { self.done.join(", ") };
        format!("{at}: {reason}; done before that: {done}")
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Mount(mount) => write!(f, "mounts|{}", mount.name),
            Change::Network(Endpoint { name, .. }) | Change::Leave(name) => write!(f, "networks|{name}"),
            Change::Limits(_) => f.write_str("machine"),
            Change::Level(_) => f.write_str("diagnostics/debug"),
            Change::Add(name, _) | Change::Remove(name) | Change::Rules(name, _) => write!(f, "sessions|{name}"),
        }
    }
}

impl Agent {
    /// Takes over what `keys`, a whole spec, or the store if they are empty, ask for; all of it, or nothing. Where something fails on the way, it says what was done
    /// before. `None` when that takes a while: the request is answered then.
    pub(crate) fn reload(&mut self, request: Option<u64>, keys: &str) -> Option<Result<(), String>> {
        match self.changes(keys) {
            Ok(left) => {
                let keys = (!keys.is_empty()).then(|| keys.to_owned());
                self.go_on(Reloading { request, left, done: Vec::new(), keys })
            }
            Err(reason) => Some(Err(reason)),
        }
    }

    /// All that has to be done, if all of it can be.
    fn changes(&self, keys: &str) -> Result<VecDeque<Change>, String> {
        if !matches!(self.goal, Goal::Serve) {
            return Err(format!("container {} is stopping", self.spec.id));
        }
        if self.reloading.is_some() {
            return Err("another spec is being taken over: ask again when that is done".into());
        }
        let keys = match keys.is_empty() {
            true => self.store.read().map_err(|error| reason(&error))?,
            false => Dictionary::parse(keys).map_err(|error| error.to_string())?,
        };
        let spec = wire::guestinfo::read(&keys).map_err(|error| error.to_string())?;
        let changes = compare(&self.spec, &spec)?;
        for change in &changes {
            if let Change::Add(name, _) = change
                && self.members.iter().any(|member| member.name == *name)
            {
                return Err(format!("{change}: the last session of that name has not yet ended"));
            }
        }
        Ok(changes.into())
    }

    /// Does what is left, up to what takes a while.
    fn go_on(&mut self, mut reloading: Reloading) -> Option<Result<(), String>> {
        while let Some(change) = reloading.left.pop_front() {
            if let Change::Mount(mount) = &change {
                let wanted = mount.clone();
                let work = move || match chores::add(&wanted) {
                    Ok(()) => Reply::Done,
                    Err(failure) => Reply::Refused { reason: failure.to_string() },
                };
                if let Err(reason) = self.chores.begin(reloading.number(), work) {
                    return Some(Err(reloading.broken(&change, &reason)));
                }
                reloading.left.push_front(change);
                self.reloading = Some(reloading);
                return None;
            }
            let what = change.to_string();
            if let Err(failure) = self.apply(change) {
                return Some(Err(reloading.broken(&what, &failure.reason)));
            }
            reloading.done.push(what);
        }
        self.reloaded = reloading.keys;
        Some(Ok(()))
    }

    /// A chore is done: the answer to its request, and whose that is, unless there is more to do.
    pub(crate) fn chore_ended(&mut self, number: u64, reply: Reply) -> Option<(u64, Reply)> {
        let Some(mut reloading) = self.reloading.take_if(|reloading| reloading.number() == number) else {
            return Some((number, reply));
        };
        let request = reloading.request;
        let outcome = match (reloading.left.pop_front(), reply) {
            (Some(change), Reply::Refused { reason }) => Some(Err(reloading.broken(&change, &reason))),
            (Some(Change::Mount(mount)), _) => {
                reloading.done.push(format!("mounts|{}", mount.name));
                self.spec.mounts.push(mount);
                self.go_on(reloading)
            }
            _ => self.go_on(reloading),
        };
        let reply = match outcome? {
            Ok(()) => Reply::Done,
            Err(reason) => Reply::Refused { reason },
        };
        match (request, reply) {
            (Some(request), reply) => Some((request, reply)),
            (None, Reply::Refused { reason }) => {
                say!(Warn, "the spec is not taken over: {reason}");
                None
            }
            (None, _) => None,
        }
    }

    fn apply(&mut self, change: Change) -> Result<(), Failure> {
        self.teller.changed = true;
        match change {
            // a chore does it
            Change::Mount(_) => {}
            Change::Limits(machine) => {
                limits::change(&machine, &self.cgroup)?;
                self.spec.machine = machine;
            }
            Change::Level(level) => {
                journal::begin(level);
                self.spec.diagnostics.level = level;
            }
            Change::Network(endpoint) => {
                self.network.add(&endpoint).map_err(network::failed)?;
                self.spec.networks.push(endpoint);
            }
            Change::Leave(name) => {
                self.network.remove(&name).map_err(network::failed)?;
                self.spec.networks.retain(|network| network.name != name);
            }
            Change::Add(name, process) => {
                self.add_member(&name, &process)?;
                self.spec.others.insert(name, process);
            }
            Change::Remove(name) => {
                self.spec.others.remove(&name);
                self.members.iter_mut().filter(|member| member.name == name).for_each(|member| member.removed = true);
                self.stop_members(Leave::default(), |member| member.removed);
            }
            Change::Rules(name, process) => {
                self.set_rules(&name, &process);
                match name == self.spec.id {
                    true => self.spec.main = process,
                    false => drop(self.spec.others.insert(name, process)),
                }
            }
        }
        Ok(())
    }

    /// It starts at once, unless the main session is still to be started.
    fn add_member(&mut self, name: &str, process: &Process) -> Result<(), Failure> {
        let id = self.next_other;
        self.next_other = SessionId(id.0 + 1);
        let member = Member::new(name, id, process, &self.cgroup);
        self.sessions.add_member(&member, &mut self.outside.line.link);
        self.members.push(member);
        if self.sessions.main().is_waiting() {
            return Ok(());
        }
        self.launch(self.members.len() - 1).inspect_err(|_| {
            self.members.pop();
            self.sessions.remove(id, &mut self.outside.line.link);
        })
    }

    fn set_rules(&mut self, name: &str, process: &Process) {
        let Some(member) = self.members.iter_mut().find(|member| member.name == name) else { return };
        member.process = process.clone();
        let Ok(session) = self.sessions.find(member.id) else { return };
        session.set_restartable(member.may_restart());
        let now = guest::clock::now();
        match (&mut member.health, &process.health) {
            (Some(checker), None) => {
                checker.leave(&self.outside.poller);
                member.health = None;
            }
            (None, Some(check)) => {
                let mut new = checker(member.id, &self.cgroup);
                if session.is_running() {
                    new.watch(check, now);
                }
                member.health = Some(new);
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests;
