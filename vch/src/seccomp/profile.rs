//! Docker's seccomp profiles: what one means for each system call of a 64-bit and of a 32-bit program.
//!
//! Rules for other capabilities, architectures and kernels than the guest's are passed over. Of several rules that fit a call, the first counts.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::program::{Action, Comparison, Condition, Policy, Rule, Table};
use crate::cli::run::process::capability;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<Calls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Calls {
    #[serde(default)]
    names: Vec<String>,
    /// As old profiles have it.
    name: Option<String>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default, deserialize_with = "nullable")]
    args: Vec<Argument>,
    #[serde(default, deserialize_with = "nullable")]
    includes: Filter,
    #[serde(default, deserialize_with = "nullable")]
    excludes: Filter,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// What a rule is for, or not for.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    #[serde(deserialize_with = "nullable")]
    caps: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    arches: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    min_kernel: String,
}

fn nullable<'de, T: Default + Deserialize<'de>, D: serde::Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What a profile means in the guest.
pub(super) fn read(text: &str, capabilities: u64) -> Result<Policy> {
    let profile: Profile = serde_json::from_str(text).context("it is no profile as docker has them")?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let (mut wide, mut narrow): (BTreeMap<u32, Vec<Rule>>, BTreeMap<u32, Vec<Rule>>) = Default::default();
    for calls in &profile.syscalls {
        if !calls.includes.fits(capabilities, true)? || !calls.excludes.fits(capabilities, false)? {
            continue;
        }
        let action = action(&calls.action, calls.errno_ret)?;
        let rules = rules(&calls.args, action)?;
        // a name that this architecture, or Linux of this version, does not have is no mistake: profiles are for many
        for name in calls.names.iter().chain(&calls.name) {
            if let Ok(call) = name.parse::<syscalls::x86_64::Sysno>() {
                wide.entry(number(call.id())?).or_default().extend(rules.iter().cloned());
            }
            if let Ok(call) = name.parse::<syscalls::x86::Sysno>() {
                narrow.entry(number(call.id())?).or_default().extend(rules.iter().cloned());
            }
        }
    }
    Ok(Policy { default, wide: Table(wide), narrow: Table(narrow) })
}

fn number(id: i32) -> Result<u32> {
    u32::try_from(id).context("a system call has a number below zero")
}

/// As runc has it: conditions on different arguments must all hold; on one argument, one of them.
fn rules(args: &[Argument], action: Action) -> Result<Vec<Rule>> {
    let conditions = args.iter().map(condition).collect::<Result<Vec<_>>>()?;
    let mut indices: Vec<u8> = args.iter().map(|argument| argument.index).collect();
    indices.sort_unstable();
    if indices.windows(2).any(|pair| pair[0] == pair[1]) {
        return Ok(conditions.into_iter().map(|condition| Rule { conditions: vec![condition], action }).collect());
    }
    Ok(vec![Rule { conditions, action }])
}

fn condition(argument: &Argument) -> Result<Condition> {
    let Argument { index, value, value_two, op } = argument;
    let (comparison, mask) = match op.as_str() {
        "SCMP_CMP_EQ" => (Comparison::Equal, u64::MAX),
        "SCMP_CMP_NE" => (Comparison::NotEqual, u64::MAX),
        "SCMP_CMP_LT" => (Comparison::Less, u64::MAX),
        "SCMP_CMP_LE" => (Comparison::LessOrEqual, u64::MAX),
        "SCMP_CMP_GT" => (Comparison::Greater, u64::MAX),
        "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, u64::MAX),
        // here the first value is the mask
        "SCMP_CMP_MASKED_EQ" => (Comparison::Equal, *value),
        other => bail!("{other:?} is no comparison"),
    };
    if *index > 5 {
        bail!("a system call has the arguments 0 to 5, not {index}");
    }
    let value = if op == "SCMP_CMP_MASKED_EQ" { *value_two } else { *value };
    Ok(Condition { argument: *index, comparison, mask, value })
}

fn action(name: &str, errno: Option<u16>) -> Result<Action> {
    const EPERM: u16 = 1;
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ERRNO" => Action::Errno(errno.unwrap_or(EPERM)),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRACE" | "SCMP_ACT_NOTIFY" => {
            bail!("{name} asks a program beside the container, and there is none in its virtual machine")
        }
        other => bail!("{other:?} is no action"),
    })
}

impl Filter {
    /// Whether a rule is for the guest: `includes` must all fit, of `excludes` none.
    fn fits(&self, capabilities: u64, includes: bool) -> Result<bool> {
        for name in &self.caps {
            // one that this version does not know, nobody has
            let has = capability(name).is_ok_and(|bit| capabilities & bit != 0);
            if has != includes {
                return Ok(false);
            }
        }
        if !self.arches.is_empty() {
            let ours =
                self.arches.iter().any(|arch| matches!(arch.as_str(), "amd64" | "x86_64" | "x32" | "x86" | "386"));
            if ours != includes {
                return Ok(false);
            }
        }
        if !self.min_kernel.is_empty() {
            let mut parts = self.min_kernel.split('.').map(|part| part.parse::<u32>().ok());
            let (Some(Some(major)), Some(Some(minor))) = (parts.next(), parts.next()) else {
                bail!("{:?} is no version of Linux", self.min_kernel);
            };
            if ((major, minor) <= KERNEL) != includes {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The guest's Linux: `kernel-config/SOURCE`.
const KERNEL: (u32, u32) = (6, 12);
