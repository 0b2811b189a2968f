//! Docker inspect: all that is known of one container, in docker's words.
//!
//! It decides how a VM's spec and its guest's word are said in docker's terms. What docker has and a VM has not is empty, and never missing.

mod made;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use serde_json::{Map, Value, json};
use wire::guestinfo::{capability_name, limit_name};
use wire::spec::{
    ALL_CAPABILITIES, DOCKERS_CAPABILITIES, DiskId, HealthCheck, Limit, Mount, Restart, SHM_SIZE, Source, Spec, Top,
};
use wire::status::{Health, ProcessState, Status};

use super::Api;
use super::endpoints::{bindings, network_settings, ports};
use super::error::ApiError;
use super::json;
use super::query::Params;
use super::volumes;
use crate::containers::{Check, Container, State as ContainerState, Told, human, verdict};
use crate::ids::short;
use crate::maker::{RUNTIME, Sizes};
use crate::timestamp;

/// Its path.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/containers/{id}/json", get(inspect))
}

async fn inspect(State(api): State<Arc<Api>>, Path(id): Path<String>, params: Params) -> Result<Response, ApiError> {
    let container = api.containers.find(&id)?;
    let mut whole = details(&container, api.execs.of(&container));
    if params.flag("size") {
        add_sizes(&api, &container, &mut whole).await;
    }
    Ok(json::json(&whole))
}

/// What it takes on its disks: its own, and with those of its image's layers. Where the machine was made elsewhere only its guest could count it, file by
/// file.
pub(super) async fn add_sizes(api: &Api, container: &Arc<Container>, shown: &mut Value) {
    let sizes = match &api.maker {
        Some(maker) => maker.sizes(container).await,
        None => Sizes::default(),
    };
    shown["SizeRw"] = sizes.own.into();
    shown["SizeRootFs"] = sizes.whole.into();
}

/// A container's state in docker's words, of which there are more than a VM's host needs.
pub(crate) struct Condition {
    /// `created`, `running`, `restarting` or `exited`.
    pub(crate) word: &'static str,
    /// `starting`, `healthy` or `unhealthy`, where it has a health check.
    pub(crate) health: Option<&'static str>,
    /// How its process ended last, while it waits to be started again.
    code: Option<u8>,
}

impl Condition {
    pub(crate) fn of(container: &Container) -> Condition {
        let state = container.state();
        let machine = container.machine();
        let main = machine.as_ref().and_then(Status::main);
        match main.filter(|_| state.is_running()) {
            Some(main) if main.state == ProcessState::Restarting => {
                let code = main.exit.as_ref().map(|exit| exit.ending.code());
                Condition { word: "restarting", health: None, code: Some(code.unwrap_or_default()) }
            }
            Some(main) => Condition {
                word: state.word(),
                health: main.health.as_ref().map(|health| verdict(health.verdict)),
                code: None,
            },
            // docker's word for one whose start has failed, and that never ran
            None if is_unstarted(container, &state) => {
                Condition { word: ContainerState::Created.word(), health: None, code: None }
            }
            None => Condition { word: state.word(), health: None, code: None },
        }
    }

    /// The column STATUS of `docker ps`.
    pub(crate) fn status(&self, state: &ContainerState, now_ns: u64) -> String {
        let unstarted = ContainerState::Created;
        let status = if self.word == unstarted.word() { unstarted.status(now_ns) } else { state.status(now_ns) };
        match (self.code, self.health) {
            (Some(code), _) => format!("Restarting ({code}) {} ago", human(0)),
            (None, Some("starting")) => format!("{status} (health: starting)"),
            (None, Some(health)) => format!("{status} ({health})"),
            (None, None) => status,
        }
    }
}

fn is_unstarted(container: &Container, state: &ContainerState) -> bool {
    let failed = matches!(state, ContainerState::Exited(exited) if exited.started_ns == 0);
    failed && container.made().is_some() && !container.power().has_run
}

/// All of it.
pub(crate) fn details(container: &Container, execs: Vec<String>) -> Value {
    let told = container.told();
    let told = told.as_deref();
    let machine = container.machine();
    let made = container.made();
    let argv = told.map(|told| told.spec.main.argv.as_slice()).unwrap_or_default();
    json!({
        "Id": container.id,
        "Created": timestamp::format(container.created_ns()),
        "Path": argv.first().cloned().unwrap_or_default(),
        "Args": argv.get(1..).unwrap_or_default(),
        "State": state(container),
        "Image": match &made {
            Some(made) => made.image_id.clone(),
            None => told.and_then(|told| told.about.image_id.clone()).unwrap_or_default(),
        },
        // these lie in the machine
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": container.log_path().display().to_string(),
        "Name": format!("/{}", container.name()),
        "RestartCount": container.restarts().max(machine.as_ref().and_then(Status::main).map(|main| main.restarts).unwrap_or_default()),
        "Driver": driver(told),
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        // what has ended is known by its id alone
        "ExecIDs": if execs.is_empty() { Value::Null } else { execs.into() },
        "HostConfig": made.as_deref().map_or_else(|| host_config(told), made::host_config),
        "GraphDriver": { "Data": graph(container, told), "Name": driver(told) },
        "Mounts": mounts(container, told),
        "Config": match &made {
            Some(made) => made::config(&container.id, made),
            None => config(container, told),
        },
        "NetworkSettings": network_settings(container, told, machine.as_ref()),
    })
}

/// `State`. A time that has not come is Go's first one.
fn state(container: &Container) -> Value {
    let state = container.state();
    let last = container.watch().borrow().last.clone();
    let condition = Condition::of(container);
    let time = |ns: u64| if ns == 0 { NEVER.to_owned() } else { timestamp::format(ns) };
    let trouble = container.powered().and_then(|powered| powered.trouble()).unwrap_or_default();
    let (pid, code, oom, error, started) = match &state {
        ContainerState::Created => (0, 0, false, "", 0),
        ContainerState::Running(running) => (running.pid, 0, false, trouble.as_str(), running.started_ns),
        ContainerState::Exited(exited) | ContainerState::Restarting(exited) => {
            (0, exited.code, exited.oom, exited.error.as_str(), exited.started_ns)
        }
    };
    // of a failed start docker tells no end
    let failed = condition.word == ContainerState::Created.word();
    let mut shown = json!({
        "Status": condition.word,
        "Running": state.is_active(),
        "Paused": state.is_paused(),
        "Restarting": condition.word == "restarting",
        "OOMKilled": oom,
        "Dead": false,
        "Pid": pid,
        "ExitCode": condition.code.unwrap_or(code),
        "Error": error,
        "StartedAt": time(started),
        "FinishedAt": time(last.filter(|last| !failed || last.started_ns != 0).map_or(0, |last| last.finished_ns)),
    });
    let machine = container.machine();
    let health = machine.as_ref().and_then(Status::main).and_then(|main| main.health.clone());
    let has_check = told_check(container);
    let checks = container.checks();
    if let Some(health) = health.or_else(|| checks.last.clone().filter(|_| has_check)) {
        shown["Health"] = checked(&health, checks.log.iter());
    }
    shown
}

/// Its process is to be checked.
fn told_check(container: &Container) -> bool {
    container.told().is_some_and(|told| told.spec.main.health.is_some())
}

/// A guest tells how a check went that went otherwise than the one before, and not when it began: that is when it was heard.
fn checked<'a>(health: &Health, log: impl Iterator<Item = &'a Check>) -> Value {
    let log = log.map(|check| {
        let heard = timestamp::format(check.heard_ns);
        json!({ "Start": heard, "End": heard, "ExitCode": check.code, "Output": check.output })
    });
    let (status, failing, log) = (verdict(health.verdict), health.failing, log.collect::<Vec<_>>());
    json!({ "Status": status, "FailingStreak": failing, "Log": log })
}

/// `Config`: what is said of the process.
fn config(container: &Container, told: Option<&Told>) -> Value {
    let Some(Told { spec, about }) = told else {
        let bare = json!({
            "Hostname": short(&container.id), "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": true,
            "AttachStderr": true, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": [], "Cmd": null,
            "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": {},
        });
        return bare;
    };
    let main = &spec.main;
    let some = |words: &[String]| if words.is_empty() { Value::Null } else { json!(words) };
    // who made it may not have said which words are the image's
    let unsaid = about.entrypoint.is_empty() && about.cmd.is_empty();
    let terminal = main.terminal.is_some();
    let mut config = json!({
        "Hostname": spec.hostname.clone().unwrap_or_else(|| short(&spec.id).to_owned()),
        "Domainname": spec.domain.clone().unwrap_or_default(),
        "User": main.user,
        "AttachStdin": main.stdin,
        "AttachStdout": main.attach,
        "AttachStderr": main.attach,
        "Tty": terminal,
        "OpenStdin": main.stdin,
        "StdinOnce": main.stdin && !terminal,
        "Env": main.env.0,
        "Cmd": some(if unsaid { &main.argv } else { &about.cmd }),
        "Image": about.image.clone().unwrap_or_default(),
        "Volumes": set(&about.volumes).unwrap_or(Value::Null),
        "WorkingDir": main.dir,
        "Entrypoint": some(&about.entrypoint),
        "OnBuild": null,
        "Labels": about.labels,
        "StopSignal": signal_name(main.stop_signal),
        "StopTimeout": main.stop_timeout.map_or(-1, |timeout| i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX)),
    });
    if let Some(exposed) = set(&about.exposed) {
        config["ExposedPorts"] = exposed;
    }
    if let Some(check) = &main.health {
        config["Healthcheck"] = health_check(check);
    }
    config
}

/// Go's way to write a set; none where it is empty.
fn set(names: &[String]) -> Option<Value> {
    let entries: Map<String, Value> = names.iter().map(|name| (name.clone(), json!({}))).collect();
    (!entries.is_empty()).then_some(Value::Object(entries))
}

fn health_check(check: &HealthCheck) -> Value {
    let ns = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let words = std::iter::once("CMD").chain(check.argv.iter().map(String::as_str));
    json!({
        "Test": words.collect::<Vec<&str>>(),
        "Interval": ns(check.interval),
        "Timeout": ns(check.timeout),
        "StartPeriod": ns(check.start_period),
        "StartInterval": ns(check.start_interval),
        "Retries": check.retries,
    })
}

/// `HostConfig`: what the machine is to give. Of a container whose spec is not known, what docker would.
fn host_config(told: Option<&Told>) -> Value {
    let spec = told.map(|told| &told.spec);
    let machine = spec.map(|spec| &spec.machine);
    let rights = spec.map(|spec| &spec.main.rights);
    let bounding = rights.map_or(DOCKERS_CAPABILITIES, |rights| rights.capabilities.bounding);
    let (restart, retries) = match spec.map(|spec| spec.main.restart) {
        None | Some(Restart::No) => ("no", 0),
        Some(Restart::Always) => ("always", 0),
        Some(Restart::OnFailure(most)) => ("on-failure", most),
    };
    let dns: Vec<String> = spec
        .into_iter()
        .flat_map(|spec| &spec.networks)
        .flat_map(|network| &network.dns)
        .map(ToString::to_string)
        .collect();
    let hosts: Vec<String> = spec
        .into_iter()
        .flat_map(|spec| &spec.names.hosts)
        .map(|(address, name)| format!("{name}:{address}"))
        .collect();
    let groups = spec.map(|spec| spec.main.groups.clone()).unwrap_or_default();
    let security = rights.filter(|rights| rights.no_new_privileges).map(|_| ["no-new-privileges"]);
    let limits: Vec<Value> = rights.into_iter().flat_map(|rights| &rights.limits).map(limit).collect();
    let or_null = |list: Vec<String>| if list.is_empty() { Value::Null } else { json!(list) };
    let mut config = absent();
    let asked = json!({
        "LogConfig": { "Type": "local", "Config": {} },
        "NetworkMode": network_mode(told),
        "PortBindings": bindings(&told.map(|told| ports(told, None)).unwrap_or_default(), false),
        "RestartPolicy": { "Name": restart, "MaximumRetryCount": retries },
        "CapAdd": or_null(capabilities(bounding & !DOCKERS_CAPABILITIES, bounding == ALL_CAPABILITIES)),
        "CapDrop": or_null(capabilities(DOCKERS_CAPABILITIES & !bounding, bounding == 0)),
        "Dns": dns,
        "DnsOptions": spec.map(|spec| spec.names.options.clone()).unwrap_or_default(),
        "DnsSearch": spec.map(|spec| spec.names.search.clone()).unwrap_or_default(),
        "ExtraHosts": or_null(hosts),
        "GroupAdd": or_null(groups),
        "OomScoreAdj": rights.map(|rights| rights.oom_score).unwrap_or_default(),
        "ReadonlyRootfs": spec.is_some_and(|spec| spec.root.read_only),
        "SecurityOpt": security,
        "ShmSize": machine.map_or(SHM_SIZE, |machine| machine.shm_size),
        "Runtime": RUNTIME,
        "Memory": machine.and_then(|machine| machine.memory).unwrap_or_default(),
        "NanoCpus": machine.and_then(|machine| machine.cpus).map(|cpus| u64::from(cpus) * 1_000_000).unwrap_or_default(),
        "PidsLimit": machine.and_then(|machine| machine.pids),
        "Ulimits": limits,
    });
    if let (Some(all), Value::Object(asked)) = (config.as_object_mut(), asked) {
        all.extend(asked);
    }
    let sysctls: Map<String, Value> = machine
        .into_iter()
        .flat_map(|machine| &machine.sysctls)
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    if !sysctls.is_empty() {
        config["Sysctls"] = Value::Object(sysctls);
    }
    let memory: Map<String, Value> = spec.into_iter().flat_map(|spec| &spec.mounts).filter_map(memory_mount).collect();
    if !memory.is_empty() {
        config["Tmpfs"] = Value::Object(memory);
    }
    config
}

/// What docker sets up in a kernel that containers share. A container with a kernel of its own has nothing of it.
fn absent() -> Value {
    let groups = [
        (json!(null), ABSENT_NULL.as_slice()),
        (json!(""), ABSENT_TEXTS.as_slice()),
        (json!(0), ABSENT_NUMBERS.as_slice()),
        (json!([]), ABSENT_LISTS.as_slice()),
        (json!(false), ABSENT_FLAGS.as_slice()),
    ];
    let pairs =
        groups.into_iter().flat_map(|(value, names)| names.iter().map(move |name| ((*name).to_owned(), value.clone())));
    let mut all: Map<String, Value> = pairs.collect();
    all.insert("CgroupnsMode".into(), "private".into());
    all.insert("IpcMode".into(), "private".into());
    all.insert("ConsoleSize".into(), json!([0, 0]));
    Value::Object(all)
}

const ABSENT_NULL: [&str; 6] =
    ["Binds", "VolumesFrom", "Links", "DeviceCgroupRules", "DeviceRequests", "MemorySwappiness"];
const ABSENT_TEXTS: [&str; 10] = [
    "ContainerIDFile",
    "VolumeDriver",
    "Cgroup",
    "PidMode",
    "UTSMode",
    "UsernsMode",
    "Isolation",
    "CgroupParent",
    "CpusetCpus",
    "CpusetMems",
];
const ABSENT_NUMBERS: [&str; 12] = [
    "CpuShares",
    "BlkioWeight",
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "MemoryReservation",
    "MemorySwap",
    "CpuCount",
    "CpuPercent",
    "IOMaximumIOps",
    "IOMaximumBandwidth",
];
const ABSENT_LISTS: [&str; 8] = [
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
    "Devices",
    "MaskedPaths",
    "ReadonlyPaths",
];
const ABSENT_FLAGS: [&str; 4] = ["AutoRemove", "Privileged", "PublishAllPorts", "OomKillDisable"];

/// Names of capabilities, as docker has them; `all` of them have one name.
fn capabilities(set: u64, all: bool) -> Vec<String> {
    if all {
        return vec!["ALL".into()];
    }
    let numbers = (0..64u8).filter(|number| set & (1 << number) != 0);
    numbers.map(|number| format!("CAP_{}", capability_name(number).to_uppercase())).collect()
}

fn limit(limit: &Limit) -> Value {
    let bound = |bound: u64| i64::try_from(bound).unwrap_or(-1);
    json!({ "Name": limit_name(limit.resource), "Hard": bound(limit.hard), "Soft": bound(limit.soft) })
}

fn memory_mount(mount: &Mount) -> Option<(String, Value)> {
    let Source::Memory { size, mode, exec } = mount.source else { return None };
    let size = if size == 0 { String::new() } else { format!(",size={size}") };
    let exec = if exec { ",exec" } else { "" };
    Some((mount.destination.clone(), format!("mode={mode:o}{size}{exec}").into()))
}

/// `HostConfig.NetworkMode`: the first network.
pub(super) fn network_mode(told: Option<&Told>) -> String {
    let first = told.and_then(|told| told.spec.networks.first());
    first.map_or_else(|| "none".into(), |network| network.name.clone())
}

/// `Mounts`: what else than the image lies in the container.
pub(super) fn mounts(container: &Container, told: Option<&Told>) -> Vec<Value> {
    if let Some(made) = container.made() {
        return volumes::mounts(&made.mounts);
    }
    let mounts = told.map(|told| told.spec.mounts.as_slice()).unwrap_or_default();
    mounts.iter().map(mount).collect()
}

fn mount(mount: &Mount) -> Value {
    let (kind, name, source, driver) = match &mount.source {
        Source::Disk(disk) => ("volume", mount.name.as_str(), disk.to_string(), "local"),
        Source::Nfs { host, path, .. } => ("volume", mount.name.as_str(), format!("{host}:{path}"), "nfs"),
        Source::Memory { .. } => ("tmpfs", "", String::new(), ""),
    };
    let mut shown = json!({
        "Type": kind,
        "Source": source,
        "Destination": mount.destination,
        "Mode": "",
        "RW": !mount.read_only,
        "Propagation": "",
    });
    if kind == "volume" {
        (shown["Name"], shown["Driver"]) = (name.into(), driver.into());
    }
    shown
}

fn driver(told: Option<&Told>) -> &'static str {
    match told.map(|told| told.spec.root.layers.is_empty()) {
        Some(false) => "overlay2",
        Some(true) | None => "ext4",
    }
}

/// `GraphDriver.Data`: the disks that the root is made of.
fn graph(container: &Container, told: Option<&Told>) -> Value {
    let root = told.map(|told: &Told| -> &Spec { &told.spec }).map(|spec| &spec.root);
    let layers: Vec<String> =
        root.into_iter().flat_map(|root| root.layers.iter().rev()).map(DiskId::to_string).collect();
    let upper = match root.filter(|root| !root.layers.is_empty()).map(|root| &root.top) {
        Some(Top::Disk(disk)) => disk.to_string(),
        Some(Top::Memory(_)) => "memory".into(),
        None => String::new(),
    };
    json!({ "ID": container.id, "LowerDir": layers.join(":"), "MergedDir": "/", "UpperDir": upper, "WorkDir": "" })
}

/// A signal's name, as images write it.
fn signal_name(number: u8) -> String {
    let name = ["HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "WINCH", "PWR"]
        .into_iter()
        .find(|name| wire::guestinfo::signal_number(name) == Some(number));
    name.map_or_else(|| number.to_string(), |name| format!("SIG{name}"))
}

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

#[cfg(test)]
mod tests;
