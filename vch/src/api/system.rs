//! The host itself: ping, version, info.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::inspect::Condition;
use super::{Api, MIN_VERSION, VERSION, events, json, networks, refused};
use crate::maker::RUNTIME;
use crate::state;
use crate::timestamp::{self, now_ns};
use crate::vm::Accel;

/// Its paths, and of what belongs to no container.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info))
        .merge(events::routes())
        .merge(networks::routes())
        .merge(refused::routes())
}

async fn ping() -> impl IntoResponse {
    let headers = [
        ("Swarm", "inactive"),
        ("Builder-Version", "1"),
        ("Cache-Control", "no-cache, no-store, must-revalidate"),
        ("Pragma", "no-cache"),
        ("Content-Type", "text/plain; charset=utf-8"),
    ];
    (headers, "OK")
}

async fn version() -> Response {
    json::json(&versions())
}

fn versions() -> Value {
    let kernel = system("/proc/sys/kernel/osrelease");
    json!({
        "Platform": { "Name": PRODUCT },
        "Components": [{
            "Name": "Engine",
            "Version": env!("CARGO_PKG_VERSION"),
            "Details": {
                "ApiVersion": VERSION,
                "Arch": "amd64",
                "BuildTime": "",
                "Experimental": "false",
                "GitCommit": "",
                "GoVersion": "",
                "KernelVersion": kernel,
                "MinAPIVersion": MIN_VERSION,
                "Os": "linux",
            },
        }],
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": VERSION,
        "MinAPIVersion": MIN_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": "amd64",
        "KernelVersion": kernel,
        "BuildTime": "",
    })
}

async fn info(State(api): State<Arc<Api>>) -> Response {
    json::json(&facts(&api))
}

fn facts(api: &Api) -> Value {
    let all = api.containers.list();
    let words: Vec<&str> = all.iter().map(|container| Condition::of(container).word).collect();
    let count = |fitting: &[&str]| words.iter().filter(|word| fitting.contains(word)).count();
    // one that waits to be started again is running to docker
    let (running, paused) = (count(&["running", "restarting"]), count(&["paused"]));
    let mut facts = host(api);
    let counted = json!({
        "Containers": all.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": all.len() - running - paused,
        // of a containerVM, its own kernel sees to them all
        "MemoryLimit": true,
        "SwapLimit": false,
        "KernelMemoryTCP": false,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": false,
        "CPUSet": false,
        "PidsLimit": true,
        "OomKillDisable": false,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2",
        "NEventsListener": api.containers.events.listeners(),
        "Runtimes": { RUNTIME: { "path": RUNTIME } },
        "DefaultRuntime": RUNTIME,
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": RUNTIME,
        "ContainerdCommit": { "ID": "", "Expected": "" },
        "RuncCommit": { "ID": "", "Expected": "" },
        "InitCommit": { "ID": "", "Expected": "" },
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "CDISpecDirs": [],
    });
    for more in [counted, machines(api)] {
        if let (Some(facts), Value::Object(more)) = (facts.as_object_mut(), more) {
            facts.extend(more);
        }
    }
    facts
}

/// Who makes the machines, and of what.
fn machines(api: &Api) -> Value {
    let Some(maker) = &api.maker else {
        let all = api.containers.list();
        let images: BTreeSet<String> =
            all.iter().map(|container| container.image()).filter(|image| !image.is_empty()).collect();
        return json!({
            "Images": images.len(),
            "Driver": RUNTIME,
            "DriverStatus": [["Machines", "made elsewhere"]],
            "Plugins": { "Volume": ["local"], "Network": ["bridge", "external"], "Authorization": null, "Log": ["local"] },
            "LoggingDriver": "local",
            "Warnings": ["containers are virtual machines, and are made elsewhere: docker create and docker run answer 501"],
        });
    };
    let (computing, warnings) = match maker.accel() {
        Accel::Kvm => ("KVM", Vec::new()),
        Accel::Tcg => ("TCG", vec![TRANSLATED]),
    };
    json!({
        "Images": maker.images.list().len(),
        // as docker inspect calls it: a disk for each layer, and a thin one over them
        "Driver": "overlay2",
        "DriverStatus": [["Machines", "made here, by QEMU"], ["Acceleration", computing], ["Backing Filesystem", "ext4 in disk images"]],
        "Plugins": {
            "Volume": ["local"], "Network": ["bridge", "null"], "Authorization": null, "Log": ["json-file", "local", "none", "syslog"],
        },
        "LoggingDriver": "json-file",
        "Warnings": warnings,
    })
}

const TRANSLATED: &str = "WARNING: virtual machines are run by translation (TCG), ten times slower than by KVM, which this host does not have or which does not work";

/// What is true of this host, whatever its containers are.
fn host(api: &Api) -> Value {
    let name = system("/proc/sys/kernel/hostname");
    let root = api.containers.dir().display().to_string();
    let processors = std::thread::available_parallelism().map(usize::from).unwrap_or(1);
    let files = fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or_default();
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    json!({
        "ID": engine_id(&name, &root),
        "IPv4Forwarding": system("/proc/sys/net/ipv4/ip_forward") == "1",
        "Debug": false,
        "NFd": files,
        "NGoroutines": tasks,
        "SystemTime": timestamp::format(now_ns()),
        "KernelVersion": system("/proc/sys/kernel/osrelease"),
        "OperatingSystem": operating_system(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": std::env::consts::ARCH,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": { "IndexConfigs": {}, "InsecureRegistryCIDRs": [], "Mirrors": [] },
        "NCPU": processors,
        "MemTotal": memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        "GenericResources": null,
        "DockerRootDir": root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": name,
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "FirewallBackend": { "Driver": "nftables" },
        "Containerd": { "Address": "", "Namespaces": { "Containers": "", "Plugins": "" } },
    })
}

/// One line that the kernel tells.
fn system(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Bytes of memory: proc_meminfo(5).
fn memory(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// Its name for people: os-release(5). An appliance has no such file.
fn operating_system(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| PRODUCT.into(), |name| name.trim_matches('"').into())
}

/// The same at every start, and another for another host or state directory. Written as docker writes its own.
fn engine_id(name: &str, root: &str) -> String {
    let hex = state::id_from(format!("{name} {root}"));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]].join("-")
}

/// What it is.
const PRODUCT: &str = "tether Virtual Container Host";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::Containers;

    /// What a genuine daemon of version 28.5 tells.
    const FIELDS: &str = "Architecture CDISpecDirs CPUSet CPUShares CgroupDriver CgroupVersion Containerd ContainerdCommit Containers
        ContainersPaused ContainersRunning ContainersStopped CpuCfsPeriod CpuCfsQuota Debug DefaultRuntime DockerRootDir Driver
        DriverStatus ExperimentalBuild FirewallBackend GenericResources HttpProxy HttpsProxy ID IPv4Forwarding Images
        IndexServerAddress InitBinary InitCommit Isolation KernelMemoryTCP KernelVersion Labels LiveRestoreEnabled LoggingDriver
        MemTotal MemoryLimit NCPU NEventsListener NFd NGoroutines Name NoProxy OSType OSVersion OomKillDisable OperatingSystem
        PidsLimit Plugins RegistryConfig RuncCommit Runtimes SecurityOptions ServerVersion SwapLimit Swarm SystemTime Warnings";

    #[tokio::test]
    async fn every_field_of_dockers_info_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let containers = Containers::open(dir.path(), 1 << 20).unwrap();
        containers.add("web", None);
        let facts = facts(&Api { containers, execs: crate::execs::Execs::default(), maker: None });
        let missing: Vec<&str> = FIELDS.split_whitespace().filter(|name| facts.get(name).is_none()).collect();
        assert_eq!(missing, Vec::<&str>::new());
        assert_eq!((&facts["Containers"], &facts["ContainersStopped"]), (&json!(1), &json!(1)));
        assert_eq!(facts["Swarm"]["LocalNodeState"], "inactive");
        assert!(facts["MemTotal"].as_u64().unwrap() > 0 && facts["NCPU"].as_u64().unwrap() > 0);
    }

    #[test]
    fn what_files_say_is_read() {
        assert_eq!(memory("MemTotal:       24684092 kB\nMemFree: 1 kB\n"), 24_684_092 * 1024);
        assert_eq!((memory(""), operating_system("")), (0, PRODUCT.to_owned()));
        assert_eq!(operating_system("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 13\"\n"), "Debian GNU/Linux 13");
        let id = engine_id("vch", "/data");
        assert_eq!((id.len(), id == engine_id("vch", "/data"), id == engine_id("other", "/data")), (36, true, false));
    }
}
