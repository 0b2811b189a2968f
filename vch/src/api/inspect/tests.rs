//! Docker's fields, as a genuine daemon of version 28.5 answers them for a container that has ended.

use std::collections::BTreeSet;

use bollard_stubs::models::ContainerCreateBody;
use wire::handshake::LinkKey;
use wire::spec::{About, Endpoint, Environment, LinkDevice, LinkSpec, Nic, Process, SPEED};

use super::*;
use crate::containers::{Containers, Exited};
use crate::maker::Made;

/// Names of fields, by the object that they are in.
const FIELDS: [(&str, &str); 7] = [
    (
        "",
        "AppArmorProfile Args Config Created Driver ExecIDs GraphDriver HostConfig HostnamePath HostsPath Id Image LogPath MountLabel Mounts
         Name NetworkSettings Path Platform ProcessLabel ResolvConfPath RestartCount State",
    ),
    (
        "/State",
        "Dead Error ExitCode FinishedAt OOMKilled Paused Pid Restarting Running StartedAt Status",
    ),
    (
        "/HostConfig",
        "AutoRemove Binds BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps BlkioDeviceWriteIOps BlkioWeight BlkioWeightDevice
         CapAdd CapDrop Cgroup CgroupParent CgroupnsMode ConsoleSize ContainerIDFile CpuCount CpuPercent CpuPeriod CpuQuota
         CpuRealtimePeriod CpuRealtimeRuntime CpuShares CpusetCpus CpusetMems DeviceCgroupRules DeviceRequests Devices Dns DnsOptions
         DnsSearch ExtraHosts GroupAdd IOMaximumBandwidth IOMaximumIOps IpcMode Isolation Links LogConfig MaskedPaths Memory
         MemoryReservation MemorySwap MemorySwappiness NanoCpus NetworkMode OomKillDisable OomScoreAdj PidMode PidsLimit PortBindings
         Privileged PublishAllPorts ReadonlyPaths ReadonlyRootfs RestartPolicy Runtime SecurityOpt ShmSize UTSMode Ulimits UsernsMode
         VolumeDriver VolumesFrom",
    ),
    (
        "/Config",
        "AttachStderr AttachStdin AttachStdout Cmd Domainname Entrypoint Env Hostname Image Labels OnBuild OpenStdin StdinOnce Tty User
         Volumes WorkingDir",
    ),
    (
        "/NetworkSettings",
        "Bridge EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen HairpinMode IPAddress IPPrefixLen IPv6Gateway
         LinkLocalIPv6Address LinkLocalIPv6PrefixLen MacAddress Networks Ports SandboxID SandboxKey SecondaryIPAddresses
         SecondaryIPv6Addresses",
    ),
    ("/GraphDriver/Data", "ID LowerDir MergedDir UpperDir WorkDir"),
    (
        "/NetworkSettings/Networks/bridge",
        "Aliases DNSNames DriverOpts EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen GwPriority IPAMConfig IPAddress
         IPPrefixLen IPv6Gateway Links MacAddress NetworkID",
    ),
];

fn told() -> Told {
    let link = LinkSpec { device: LinkDevice::Virtio, key: LinkKey::new([1; 32]), sealed: false, speed: SPEED };
    let env = Environment(vec!["A=b".into()]);
    let argv = ["/init", "serve", "a b"].map(String::from).to_vec();
    let mut spec =
        Spec::new("web", link, Process { env, user: "www".into(), dir: "/srv".into(), ..Process::new(argv) });
    spec.networks.push(Endpoint::new("bridge", Nic::Slot(1)));
    spec.main.rights.capabilities.bounding = DOCKERS_CAPABILITIES & !1 | 1 << 12;
    spec.main.restart = Restart::OnFailure(3);
    spec.main.rights.limits.push(Limit { resource: 7, soft: 5, hard: u64::MAX });
    spec.machine.memory = Some(64 << 20);
    spec.machine.cpus = Some(1500);
    let memory = Source::Memory { size: 4096, mode: 0o1777, exec: false };
    for (name, source) in [("data", Source::Disk(DiskId::Label("data".into()))), ("tmp", memory)] {
        let destination = format!("/{name}");
        spec.mounts.push(Mount { name: name.into(), source, destination, read_only: name == "data", seed: false });
    }
    let about = About {
        image: Some("nginx:1.27".into()),
        entrypoint: vec!["/init".into()],
        cmd: vec!["serve".into(), "a b".into()],
        exposed: vec!["443/tcp".into()],
        published: vec!["0.0.0.0:8080:80/tcp".into()],
        ..About::default()
    };
    Told { spec, about }
}

#[tokio::test]
async fn every_field_of_dockers_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path(), 1 << 20).unwrap();
    for told in [None, Some(told())] {
        let container = containers.add("web", told.as_ref());
        let whole = details(&container, Vec::new());
        for (path, expected) in FIELDS {
            // a network that nobody told of has no settings
            let Some(object) = whole.pointer(path) else {
                assert!(told.is_none() && path.ends_with("bridge"), "{path} is not there");
                continue;
            };
            let has: BTreeSet<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
            let missing: Vec<&str> = expected.split_whitespace().filter(|name| !has.contains(name)).collect();
            assert_eq!(missing, Vec::<&str>::new(), "{path}");
        }
        trap_22_maps_and_lists_are_empty_and_never_null(&whole);
    }
}

/// One that this host makes: what it was asked for is shown as it was asked for, and docker's nulls and empty lists beside it.
#[tokio::test]
async fn every_field_of_dockers_is_there_of_a_container_made_here() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path(), 1 << 20).unwrap();
    let asked = json!({
        "Hostname": "", "User": "www", "Cmd": ["serve"], "Image": "busybox", "StopSignal": "INT", "Env": ["A=b"],
        "Labels": { "k": "v" }, "ExposedPorts": { "80/tcp": {} }, "Volumes": {},
        "HostConfig": {
            "NetworkMode": "bridge", "Memory": 1 << 28, "NanoCpus": 1_000_000_000, "CapAdd": ["CAP_NET_ADMIN"], "Init": true,
            "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 3 }, "Runtime": "tether",
        },
    });
    let made = Made { asked: serde_json::from_value(asked).unwrap(), image_id: "sha256:ab".into(), mounts: Vec::new() };
    let spec = wire::guestinfo::write(&told().spec).to_string();
    let container = containers.create(&"ab".repeat(32), "web", made, &spec).unwrap();
    let whole = details(&container, Vec::new());
    for (path, expected) in FIELDS {
        let object = whole.pointer(path).unwrap_or_else(|| panic!("{path} is not there")).as_object().unwrap();
        let missing: Vec<&str> = expected.split_whitespace().filter(|name| !object.contains_key(*name)).collect();
        assert_eq!(missing, Vec::<&str>::new(), "{path}");
    }
    trap_22_maps_and_lists_are_empty_and_never_null(&whole);
    let check = |path: &str, expected: Value| assert_eq!(*whole.pointer(path).unwrap(), expected, "{path}");
    check("/Image", json!("sha256:ab"));
    check("/Config/Hostname", json!("abababababab"));
    check("/Config/Env", json!(["A=b"]));
    check("/Config/ExposedPorts", json!({ "80/tcp": {} }));
    check("/Config/Volumes", Value::Null);
    check("/Config/StopSignal", json!("INT"));
    check("/HostConfig/RestartPolicy", json!({ "Name": "on-failure", "MaximumRetryCount": 3 }));
    check("/HostConfig/Memory", json!(1 << 28));
    check("/HostConfig/CapAdd", json!(["CAP_NET_ADMIN"]));
    for null in ["CapDrop", "Binds", "PidsLimit", "MemorySwappiness", "SecurityOpt", "GroupAdd"] {
        check(&format!("/HostConfig/{null}"), Value::Null);
    }
    // what nobody asked for, and docker leaves out then
    assert_eq!((whole["Config"].get("StopTimeout"), whole["Config"].get("Healthcheck")), (None, None));
}

/// Docker takes it for one that is yet to be started.
#[tokio::test]
async fn a_start_that_failed_leaves_it_created_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path(), 1 << 20).unwrap();
    let made = Made { asked: ContainerCreateBody::default(), image_id: "sha256:ab".into(), mounts: Vec::new() };
    let spec = wire::guestinfo::write(&told().spec).to_string();
    let container = containers.create(&"ab".repeat(32), "web", made, &spec).unwrap();
    let exited = |started_ns| Exited { started_ns, finished_ns: 9, code: 127, oom: false, error: "no file".into() };
    container.set_state(ContainerState::Exited(exited(0)));
    let shown = details(&container, Vec::new());
    let seen = ["Status", "ExitCode", "Error", "FinishedAt"].map(|key| shown["State"][key].clone());
    assert_eq!(json!(seen), json!(["created", 127, "no file", NEVER]));
    assert_eq!(Condition::of(&container).status(&container.state(), 10), "Created");
    container.set_state(ContainerState::Exited(exited(5)));
    assert_eq!(Condition::of(&container).word, "exited");
}

/// Clients count what is in them without a look.
fn trap_22_maps_and_lists_are_empty_and_never_null(whole: &Value) {
    for path in ["/NetworkSettings/Networks", "/NetworkSettings/Ports", "/Config/Labels", "/HostConfig/PortBindings"] {
        assert!(whole.pointer(path).unwrap().is_object(), "{path}");
    }
    for path in ["/Mounts", "/Args", "/Config/Env", "/HostConfig/Dns", "/HostConfig/Ulimits", "/HostConfig/Devices"] {
        assert!(whole.pointer(path).unwrap().is_array(), "{path}");
    }
    // the fields of the times when there was one network only
    for name in ["IPAddress", "Gateway", "MacAddress"] {
        assert!(whole["NetworkSettings"][name].is_string(), "{name}");
    }
}

#[tokio::test]
async fn a_spec_is_said_in_dockers_words() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path(), 1 << 20).unwrap();
    let whole = details(&containers.add("web", Some(&told())), vec!["e1".into()]);
    let check = |path: &str, expected: Value| assert_eq!(*whole.pointer(path).unwrap(), expected, "{path}");
    check("/Path", json!("/init"));
    check("/Args", json!(["serve", "a b"]));
    check("/Config/Entrypoint", json!(["/init"]));
    check("/Config/Cmd", json!(["serve", "a b"]));
    check("/Config/Hostname", json!("web"));
    check("/Config/User", json!("www"));
    check("/Config/WorkingDir", json!("/srv"));
    check("/Config/Env", json!(["A=b"]));
    check("/Config/Image", json!("nginx:1.27"));
    check("/Config/ExposedPorts", json!({ "443/tcp": {} }));
    check("/Config/StopSignal", json!("SIGTERM"));
    check("/Config/StopTimeout", json!(10));
    check("/HostConfig/Memory", json!(64 << 20));
    check("/HostConfig/NanoCpus", json!(1_500_000_000));
    check("/HostConfig/CapAdd", json!(["CAP_NET_ADMIN"]));
    check("/HostConfig/CapDrop", json!(["CAP_CHOWN"]));
    check("/HostConfig/RestartPolicy", json!({ "Name": "on-failure", "MaximumRetryCount": 3 }));
    check("/HostConfig/Ulimits", json!([{ "Name": "nofile", "Soft": 5, "Hard": -1 }]));
    check("/HostConfig/PortBindings", json!({ "80/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "8080" }] }));
    check("/HostConfig/Tmpfs", json!({ "/tmp": "mode=1777,size=4096" }));
    check("/HostConfig/NetworkMode", json!("bridge"));
    check("/Mounts/0/Name", json!("data"));
    check("/Mounts/0/RW", json!(false));
    check("/Mounts/1/Type", json!("tmpfs"));
    check("/State/Status", json!("created"));
    check("/State/StartedAt", json!(NEVER));
    // it does not run: nothing leads to it
    check("/NetworkSettings/Ports", json!({}));
}
