//! What a request to create a container asks for, as options of `vch run`: docker's rules are written once, in [`crate::plan`].
//!
//! ```text
//! body ── normal ──> typed ── merge: the image's configuration, defaults ──> Made.asked ── read ──> options ──> plan
//!                      └── limits, refused: what cannot be, in docker's words or in one sentence; what has no effect, as warnings
//! ```
//!
//! It decides which of docker's wishes a virtual machine cannot meet, and says why. What a network or a volume is, others decide.

mod limits;
mod merge;
mod refused;

use std::collections::HashMap;
use std::time::Duration;

use bollard_stubs::models::{ContainerCreateBody, HealthConfig, HostConfig};
use clap::{Args as _, Command, FromArgMatches as _};
use iso_builder::oci::Healthcheck;
use serde_json::Value;
use wire::spec::TermSize;

use crate::cli::ContainerArgs;
use crate::cli::run::DiskForm;
use crate::cli::run::machine::{LogDriver, log_opt, sysctl};
use crate::cli::run::network::{Network, add_host, mac};
use crate::cli::run::process::{ProcessArgs, SecurityOpt, capability, security, ulimit};
use crate::plan::{self, ImageConfig};
use crate::seccomp;

pub(crate) use self::refused::RUNTIME;
use super::{MakeError, Maker};

/// A wish that cannot be met: one sentence.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(pub(crate) String);

impl Maker {
    /// A request, whole and made one with the configuration of its image, and what of it has no effect: a sentence for each.
    pub(crate) fn asked(&self, body: Value) -> Result<(ContainerCreateBody, Vec<String>), MakeError> {
        let asked = normal(body)?;
        refused::check(&asked)?;
        let image = self.images.find(asked.image.as_deref().unwrap_or_default())?;
        let warnings = refused::warnings(&asked);
        let asked = merge::merge(asked, &image.config)?;
        // what cannot be read is refused now, and not at the start
        read(&asked)?;
        Ok((asked, warnings))
    }
}

/// What was asked for, read.
pub(super) struct Wishes {
    pub(super) args: ContainerArgs,
    /// What the request says in the image's place: [`merge`] has made one of both.
    pub(super) image: ImageConfig,
    /// The filter of `--security-opt seccomp=`, as seccomp(2) takes it.
    pub(super) seccomp: Option<Vec<u8>>,
    /// Bytes, where that is less than a machine needs.
    pub(super) memory_limit: Option<u64>,
    /// Of the client's terminal.
    pub(super) size: Option<TermSize>,
}

/// The body in the one form that is written down: what Go's client library and others may write in more ways than one.
fn normal(mut body: Value) -> Result<ContainerCreateBody, Refusal> {
    for name in ["Cmd", "Entrypoint", "Shell"] {
        if let Some(word) = body.get(name).and_then(Value::as_str) {
            body[name] = Value::Array(vec![word.into()]);
        }
    }
    refused::unknown_words(&body)?;
    serde_json::from_value(body).map_err(|error| Refusal(format!("invalid JSON: {error}")))
}

/// The options that ask for the same as a request with which the image's configuration is merged.
pub(super) fn read(asked: &ContainerCreateBody) -> Result<Wishes, Refusal> {
    let host = asked.host_config.clone().unwrap_or_default();
    let mut args = plain(asked.image.as_deref().unwrap_or_default())?;
    args.interactive = asked.open_stdin.unwrap_or_default();
    args.tty = asked.tty.unwrap_or_default();
    args.env = asked.env.clone().unwrap_or_default();
    args.process.stop_timeout = asked.stop_timeout.unwrap_or(args.process.stop_timeout);
    let profile = process(&mut args.process, &host)?;
    let seccomp = profile.map(|profile| filter(&profile, plan::capabilities(&args.process))).transpose()?;
    args.network.hostname = some(asked.hostname.as_ref());
    args.network.domainname = some(asked.domainname.as_ref());
    network(&mut args, &host)?;
    let card = some(asked.mac_address.as_ref());
    args.network.mac_address =
        card.map(|text| mac(&text).map_err(|why| Refusal(format!("--mac-address {text}: {why}")))).transpose()?;
    let isolated = host.network_mode.as_deref() == Some("none") || asked.network_disabled == Some(true);
    args.network.network = if isolated { Network::None } else { Network::User };
    args.disks.form = DiskForm::Layers;
    args.disks.read_only = host.readonly_rootfs.unwrap_or_default();
    let memory_limit = limits::read(&mut args.machine, &host)?;
    machine(&mut args, &host)?;
    let image = ImageConfig {
        env: Vec::new(),
        entrypoint: asked.entrypoint.clone().unwrap_or_default(),
        cmd: asked.cmd.clone().unwrap_or_default(),
        working_dir: asked.working_dir.clone().unwrap_or_default(),
        user: asked.user.clone().unwrap_or_default(),
        stop_signal: some(asked.stop_signal.as_ref()),
        volumes: sorted(asked.volumes.as_ref()),
        exposed_ports: sorted(asked.exposed_ports.as_ref()),
        labels: asked.labels.clone().unwrap_or_default().into_iter().collect(),
        healthcheck: asked.healthcheck.as_ref().map(|check| health(check, asked.shell.as_deref())),
    };
    let size = host.console_size.as_deref().and_then(|size| match *size {
        [rows, columns] if rows > 0 && columns > 0 => {
            Some(TermSize { rows: rows.try_into().ok()?, columns: columns.try_into().ok()? })
        }
        _ => None,
    });
    Ok(Wishes { args, image, seccomp, memory_limit, size })
}

/// The rights of the process; the result is docker's seccomp profile, if one comes with the request.
fn process(args: &mut ProcessArgs, host: &HostConfig) -> Result<Option<String>, Refusal> {
    let capabilities = |names: &Option<Vec<String>>, field: &str| {
        let read = |name: &String| {
            capability(name).map_err(|_| Refusal(format!("invalid {field}: unknown capability: {name:?}")))
        };
        names.iter().flatten().map(read).collect::<Result<Vec<u64>, Refusal>>()
    };
    args.cap_add = capabilities(&host.cap_add, "CapAdd")?;
    args.cap_drop = capabilities(&host.cap_drop, "CapDrop")?;
    args.privileged = host.privileged.unwrap_or_default();
    args.init = host.init.unwrap_or_default();
    args.group_add = host.group_add.clone().unwrap_or_default();
    let score = host.oom_score_adj.unwrap_or_default();
    let outside = || Refusal(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]"));
    args.oom_score_adj = i16::try_from(score).ok().filter(|score| score.abs() <= 1000).ok_or_else(outside)?;
    for limit in host.ulimits.iter().flatten() {
        let name = limit.name.as_deref().unwrap_or_default();
        let (soft, hard) = (limit.soft.unwrap_or_default(), limit.hard.unwrap_or_default());
        let read = ulimit(&format!("{name}={soft}:{hard}"));
        args.ulimit.push(read.map_err(|why| Refusal(format!("--ulimit {name}={soft}:{hard}: {why}")))?);
    }
    let mut profile = None;
    for option in host.security_opt.iter().flatten() {
        let named = option.split_once(['=', ':']);
        match named {
            // the client has read the file
            Some(("seccomp", text)) if text.trim_start().starts_with('{') => profile = Some(text.to_owned()),
            Some(("label", _)) => {}
            Some(("apparmor", name)) if name != "unconfined" => {
                return Err(Refusal(format!("--security-opt {option}: {NO_APPARMOR}")));
            }
            _ => match security(option).map_err(|why| Refusal(format!("invalid --security-opt {option:?}: {why}")))? {
                // as for docker, the last one counts
                SecurityOpt::Seccomp(None) => profile = None,
                SecurityOpt::Seccomp(Some(file)) => {
                    let why = "the client sends the profile itself, and this is none";
                    return Err(Refusal(format!("--security-opt seccomp={}: {why}", file.display())));
                }
                read => args.security_opt.push(read),
            },
        }
    }
    Ok(profile)
}

fn filter(profile: &str, capabilities: u64) -> Result<Vec<u8>, Refusal> {
    seccomp::compile(profile, capabilities).map_err(|error| Refusal(format!("--security-opt seccomp: {error:#}")))
}

/// Names and name servers.
fn network(args: &mut ContainerArgs, host: &HostConfig) -> Result<(), Refusal> {
    let server = |text: &String| text.parse().map_err(|_| Refusal(format!("--dns: {text:?} is not an IP address")));
    args.network.dns = host.dns.iter().flatten().map(server).collect::<Result<_, _>>()?;
    args.network.dns_search = host.dns_search.clone().unwrap_or_default();
    args.network.dns_option = host.dns_options.clone().unwrap_or_default();
    let line = |text: &String| add_host(text).map_err(|why| Refusal(format!("--add-host {text}: {why}")));
    args.network.add_host = host.extra_hosts.iter().flatten().map(line).collect::<Result<_, _>>()?;
    Ok(())
}

/// The machine's kernel, and where the output goes.
fn machine(args: &mut ContainerArgs, host: &HostConfig) -> Result<(), Refusal> {
    let machine = &mut args.machine;
    if let Some(size) = host.shm_size.filter(|&size| size != 0) {
        let size = u64::try_from(size).map_err(|_| Refusal("SHM size can not be less than 0".into()))?;
        machine.shm_size = Some(size);
    }
    machine.pids_limit = host.pids_limit.unwrap_or(machine.pids_limit);
    let mut sysctls: Vec<_> = host.sysctls.iter().flatten().collect();
    sysctls.sort();
    for (name, value) in sysctls {
        let read = sysctl(&format!("{name}={value}")).map_err(|why| Refusal(format!("--sysctl {name}: {why}")));
        machine.sysctl.push(read?);
    }
    let log = host.log_config.clone().unwrap_or_default();
    machine.log_driver = match log.typ.as_deref().unwrap_or_default() {
        "" | "json-file" | "local" => LogDriver::JsonFile,
        "none" => LogDriver::None,
        "syslog" => LogDriver::Syslog,
        other => return Err(refused::log_driver(other)),
    };
    let mut options: Vec<_> = log.config.into_iter().flatten().collect();
    options.sort();
    for (name, value) in options {
        match machine.log_driver {
            LogDriver::Syslog => {
                let read = log_opt(&format!("{name}={value}")).map_err(|why| Refusal(format!("--log-opt: {why}")));
                machine.log_opt.push(read?);
            }
            LogDriver::JsonFile | LogDriver::None if refused::LOG_OPTIONS.contains(&name.as_str()) => {}
            LogDriver::JsonFile | LogDriver::None => {
                let driver = log.typ.as_deref().unwrap_or("json-file");
                return Err(Refusal(format!("unknown log opt '{name}' for {driver} log driver")));
            }
        }
    }
    Ok(())
}

/// A check whose line is for another shell than docker's usual one is a command.
fn health(check: &HealthConfig, shell: Option<&[String]>) -> Healthcheck {
    let mut test = check.test.clone().unwrap_or_default();
    if let (Some(shell @ [_, ..]), ["CMD-SHELL", line]) = (shell, &*test.iter().map(String::as_str).collect::<Vec<_>>())
    {
        test = [&["CMD".to_owned()], shell, &[(*line).to_owned()]].concat();
    }
    let time = |ns: Option<i64>| Duration::from_nanos(ns.and_then(|ns| ns.try_into().ok()).unwrap_or_default());
    Healthcheck {
        test,
        interval: time(check.interval),
        timeout: time(check.timeout),
        start_period: time(check.start_period),
        start_interval: time(check.start_interval),
        retries: check.retries.and_then(|times| times.try_into().ok()).unwrap_or_default(),
    }
}

/// The options as they are where none is given.
fn plain(image: &str) -> Result<ContainerArgs, Refusal> {
    let command = ContainerArgs::augment_args(Command::new("create").no_binary_name(true).disable_help_flag(true));
    let refused = |error: clap::Error| Refusal(error.to_string());
    let matches = command.try_get_matches_from(["--", image]).map_err(refused)?;
    ContainerArgs::from_arg_matches(&matches).map_err(refused)
}

/// An empty text is none, as for docker.
fn some(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}

/// What JSON has as the names of an object: in an order of its own at each reading.
fn sorted<T>(names: Option<&HashMap<String, T>>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().flat_map(HashMap::keys).cloned().collect();
    names.sort();
    names
}

const NO_APPARMOR: &str = "the kernel of the virtual machine has no AppArmor, and the container is alone in it: leave the option out, or write apparmor=unconfined";

#[cfg(test)]
mod tests;
