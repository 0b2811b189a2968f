//! What QEMU is kept from, so that a guest that has taken it over has won little: docs/decisions/0013.
//!
//! It decides what of that this host and this QEMU can do. What every process of ours does without, [`super::process::Process::limit`] takes from it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::vm::{CardEnd, LinkEnd, Machine};

/// What is done here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Confinement {
    /// The option by which QEMU becomes another user, once it has opened its files: of root alone.
    becomes: Option<&'static str>,
    /// It has a filter of system calls.
    filter: bool,
}

impl Confinement {
    /// Asks QEMU what it knows, and lets other users into the directory of sockets if there are to be any.
    pub(super) fn find(program: &Path, sockets: &Path) -> Result<Confinement> {
        let told = std::process::Command::new(program).arg("-help").output();
        let told = told.with_context(|| format!("cannot start {}", program.display()))?;
        let help = String::from_utf8_lossy(&told.stdout);
        let confinement = Confinement::of(&help, may_be_another());
        if confinement.becomes.is_some() {
            chgrp(sockets)?;
            // its members make sockets there, and remove none but their own
            chmod(sockets, 0o1730)?;
        }
        Ok(confinement)
    }

    #[cfg(test)]
    pub(super) fn none() -> Confinement {
        Confinement { becomes: None, filter: false }
    }

    fn of(help: &str, may_be_another: bool) -> Confinement {
        let has = |option: &str| help.lines().any(|line| line.starts_with(option));
        let option = [RUN_WITH, RUN_AS].into_iter().find(|option| match *option {
            RUN_WITH => help.lines().any(|line| line.starts_with(RUN_WITH) && line.contains("user=")),
            other => has(other),
        });
        Confinement { becomes: option.filter(|_| may_be_another), filter: has("-sandbox") }
    }

    /// The arguments for the machine whose sockets are called `name`: hexadecimal digits.
    pub(super) fn arguments(&self, name: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut filter = FILTER.to_owned();
        match self.becomes {
            Some(option) => {
                let user = format!("{}:{GROUP}", user(name));
                words.extend([option.into(), if option == RUN_WITH { format!("user={user}") } else { user }]);
            }
            // who is to become another user is to be let; then it has nothing by which it could do so again
            None => filter.push_str(",elevateprivileges=deny"),
        }
        if self.filter {
            words.extend(["-sandbox".into(), filter]);
        }
        words
    }

    /// Lets machines connect to the sockets that this one needs.
    pub(super) fn prepare(&self, machine: &Machine) -> Result<()> {
        if let LinkEnd::Host(links) = &machine.link_end {
            self.admit(links)?;
        }
        for card in &machine.cards {
            if let CardEnd::Switch { switch, .. } = &card.end {
                self.admit(switch)?;
            }
        }
        Ok(())
    }

    /// Lets machines connect to a socket.
    pub(super) fn admit(&self, socket: &Path) -> Result<()> {
        // one that is not there yet is let be: who makes it admits machines to it
        if self.becomes.is_none() || !socket.exists() {
            return Ok(());
        }
        chgrp(socket)?;
        chmod(socket, 0o660)
    }
}

fn chgrp(path: &Path) -> Result<()> {
    std::os::unix::fs::chown(path, None, Some(GROUP))
        .with_context(|| format!("cannot give {} to the group of machines", path.display()))
}

fn chmod(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("cannot change who may use {}", path.display()))
}

/// Each machine is a user of its own, who has no files and no other processes.
fn user(name: &str) -> u32 {
    let number = u32::from_str_radix(name.get(..6).unwrap_or_default(), 16).unwrap_or_default();
    FIRST_USER + (number & 0x00ff_ffff)
}

/// Whether this program can make a process another user's, of those that machines are.
fn may_be_another() -> bool {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let maps = |text: &str, number: u64| {
        text.lines().any(|line| {
            let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
            matches!(numbers[..], [first, _, count] if (first..first.saturating_add(count)).contains(&number))
        })
    };
    let (uids, gids) = (read("/proc/self/uid_map"), read("/proc/self/gid_map"));
    let last = u64::from(FIRST_USER) + 0x00ff_ffff;
    let known = maps(&uids, FIRST_USER.into()) && maps(&uids, last) && maps(&gids, GROUP.into());
    known && rustix::process::geteuid().is_root() && has_capabilities(&read("/proc/self/status"))
}

fn has_capabilities(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or_default();
    effective & NEEDED == NEEDED
}

const RUN_AS: &str = "-runas";
/// QEMU 10 knows no other.
const RUN_WITH: &str = "-run-with";
/// No system calls of the past, no other programs, and none that change how processes are scheduled. It takes no time that could be measured.
const FILTER: &str = "on,obsolete=deny,spawn=deny,resourcecontrol=deny";
/// Numbers that no distribution gives to users: above those that systemd keeps for containers, below the half that programs take for negative.
const GROUP: u32 = 0x7000_0000;
const FIRST_USER: u32 = 0x7100_0000;
/// `CAP_CHOWN`, `CAP_SETGID` and `CAP_SETUID`: capabilities(7).
const NEEDED: u64 = 1 | 1 << 6 | 1 << 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_qemu_is_kept_from() {
        let of_7_2 = "-runas user     change to user id user\n-sandbox on[,obsolete=allow|deny]\n";
        let of_10 = "-run-with [async-teardown=on|off][,chroot=dir][user=username|uid:gid]\n-sandbox on\n";
        let check = |help: &str, root: bool, expected: &str| {
            assert_eq!(Confinement::of(help, root).arguments("0000ffabcdef").join(" "), expected, "{help}");
        };
        let filter = "-sandbox on,obsolete=deny,spawn=deny,resourcecontrol=deny";
        check(of_7_2, true, &format!("-runas 1895825663:1879048192 {filter}"));
        check(of_10, true, &format!("-run-with user=1895825663:1879048192 {filter}"));
        check(of_7_2, false, &format!("{filter},elevateprivileges=deny"));
        check("-run-with [async-teardown=on|off]\n-runas user\n", true, "-runas 1895825663:1879048192");
        check("", true, "");
    }

    #[test]
    fn capabilities_are_read() {
        assert!(has_capabilities("Name:\tvch\nCapEff:\t000001fffeffffff\n"));
        assert!(!has_capabilities("CapEff:\t0000000000000001\n"));
        assert!(!has_capabilities(""));
    }
}
