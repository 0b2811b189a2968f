//! Requests as docker's clients write them: what becomes of each field, and what is said of those that nothing becomes of.

use serde_json::{Value, json};
use wire::spec::{ALL_CAPABILITIES, DOCKERS_CAPABILITIES};

use super::*;

fn image() -> ImageConfig {
    ImageConfig {
        env: vec!["PATH=/bin".into(), "LANG=C".into()],
        entrypoint: vec!["/init".into(), "-v".into()],
        cmd: vec!["serve".into()],
        working_dir: "/srv".into(),
        user: "www".into(),
        stop_signal: Some("SIGQUIT".into()),
        volumes: vec!["/data".into()],
        exposed_ports: vec!["80/tcp".into()],
        labels: [("a".into(), "image".into()), ("b".into(), "image".into())].into(),
        healthcheck: Some(Healthcheck {
            test: vec!["CMD".into(), "check".into()],
            interval: Duration::from_secs(7),
            retries: 5,
            ..Healthcheck::default()
        }),
    }
}

/// All that becomes of a request, or why nothing does.
fn asked(body: Value) -> Result<(ContainerCreateBody, Wishes), Refusal> {
    let asked = normal(body)?;
    refused::check(&asked)?;
    let asked = merge::merge(asked, &image())?;
    let wishes = read(&asked)?;
    // what is written down is read again at each start
    let kept = serde_json::from_value(serde_json::to_value(&asked).unwrap()).unwrap();
    assert_eq!(asked, kept);
    Ok((asked, wishes))
}

fn host(config: Value) -> Result<(HostConfig, Wishes), Refusal> {
    let (body, wishes) = asked(json!({ "Image": "img", "HostConfig": config }))?;
    Ok((body.host_config.unwrap(), wishes))
}

/// As docker's client of version 28.2 sends it for a line of thirty options.
#[test]
fn each_option_of_a_long_line_is_met() {
    let body = r#"{
        "Hostname": "hh", "User": "1000", "ExposedPorts": { "53/udp": {} }, "Env": ["A=b", "LANG=de", "GONE"], "Cmd": ["100"],
        "Healthcheck": { "Test": ["CMD-SHELL", "true"] }, "Image": "busybox", "WorkingDir": "/tmp", "Entrypoint": ["sleep"],
        "Labels": { "k": "v", "a": "mine" }, "StopSignal": "INT", "StopTimeout": 3, "Tty": true, "OpenStdin": true,
        "Volumes": { "/more": {} },
        "HostConfig": {
            "Binds": ["vol1:/logs:ro", "some.img:/i"], "LogConfig": {}, "NetworkMode": "default",
            "PortBindings": { "53/udp": [{ "HostIp": "127.0.0.1", "HostPort": "0" }], "8080/tcp": null },
            "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 3 }, "ConsoleSize": [30, 100],
            "CapAdd": ["CAP_NET_ADMIN"], "CapDrop": ["chown"], "Tmpfs": { "/t": "size=1m" }, "Memory": 536870912,
            "NanoCpus": 2500000000, "MemorySwappiness": -1, "PidsLimit": 99, "ShmSize": 4096, "ReadonlyRootfs": true,
            "Mounts": [{ "Type": "volume", "Source": "v3", "Target": "/m" }, { "Type": "tmpfs", "Target": "/n", "TmpfsOptions": { "Mode": 448 } }],
            "Init": true, "Ulimits": [{ "Name": "nofile", "Soft": 5, "Hard": -1 }], "Sysctls": { "net.core.somaxconn": "7" },
            "Dns": ["9.9.9.9"], "DnsSearch": ["a.org"], "DnsOptions": ["ndots:2"], "ExtraHosts": ["db:10.0.0.5"], "GroupAdd": ["9"],
            "OomScoreAdj": -5, "SecurityOpt": ["no-new-privileges", "label=disable", "seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"]
        },
        "NetworkingConfig": { "EndpointsConfig": { "default": { "Aliases": ["q"] } } }
    }"#;
    let (body, wishes) = asked(serde_json::from_str(body).unwrap()).unwrap();
    let Wishes { args, image, seccomp, memory_limit, size } = wishes;
    assert_eq!((image.entrypoint.join(" "), image.cmd.join(" ")), ("sleep".into(), "100".into()));
    assert_eq!((image.user.as_str(), image.working_dir.as_str()), ("1000", "/tmp"));
    assert_eq!((image.stop_signal.as_deref(), args.process.stop_timeout), (Some("INT"), 3));
    assert_eq!(image.exposed_ports, ["53/udp", "80/tcp", "8080/tcp"]);
    assert_eq!(image.volumes, ["/data", "/more"]);
    let check = image.healthcheck.unwrap();
    assert_eq!((check.test.join(" "), check.interval.as_secs(), check.retries), ("CMD-SHELL true".into(), 7, 5));
    assert_eq!(args.env, ["A=b", "LANG=de", "GONE", "PATH=/bin"]);
    assert_eq!(
        body.labels.unwrap(),
        [("k", "v"), ("a", "mine"), ("b", "image")].map(|(k, v)| (k.into(), v.into())).into()
    );
    assert!(args.interactive && args.tty && args.process.init && args.disks.read_only && seccomp.is_some());
    assert_eq!(plan::capabilities(&args.process), DOCKERS_CAPABILITIES & !1 | 1 << 12);
    assert_eq!((args.process.oom_score_adj, args.process.group_add.join(" ")), (-5, "9".into()));
    assert_eq!(args.process.security_opt, [SecurityOpt::NoNewPrivileges(true)]);
    assert_eq!((args.process.ulimit[0].resource, args.process.ulimit[0].hard), (7, u64::MAX));
    assert_eq!((args.machine.memory.mebibytes(), args.machine.cpus.processors(), memory_limit), (512, 3, None));
    assert_eq!((args.machine.pids_limit, args.machine.shm_size, args.machine.sysctl.len()), (99, Some(4096), 1));
    assert_eq!(size, Some(TermSize { rows: 30, columns: 100 }));
    assert_eq!((args.network.hostname.as_deref(), args.network.network), (Some("hh"), Network::User));
    assert_eq!((args.network.dns.len(), args.network.add_host.len()), (1, 1));
    let host = body.host_config.unwrap();
    assert_eq!(host.network_mode.as_deref(), Some("bridge"));
    assert_eq!(host.log_config.unwrap().typ.as_deref(), Some("json-file"));
    let endpoints = body.networking_config.unwrap().endpoints_config.unwrap();
    assert_eq!(endpoints["bridge"].aliases, Some(vec!["q".into()]));
}

/// Docker's table of entrypoints and commands.
#[test]
fn entrypoint_and_command_are_made_one_as_docker_makes_them() {
    let check = |entrypoint: Value, cmd: Value, expected: (&str, &str)| {
        let (_, wishes) = asked(json!({ "Image": "img", "Entrypoint": entrypoint, "Cmd": cmd })).unwrap();
        let words = (wishes.image.entrypoint.join(" "), wishes.image.cmd.join(" "));
        assert_eq!(words, (expected.0.into(), expected.1.into()), "{entrypoint} {cmd}");
    };
    check(Value::Null, Value::Null, ("/init -v", "serve"));
    check(Value::Null, json!(["a", "b"]), ("/init -v", "a b"));
    check(json!(["sh", "-c"]), Value::Null, ("sh -c", ""));
    check(json!(["sh"]), json!(["x"]), ("sh", "x"));
    check(json!([""]), json!(["x"]), ("", "x"));
    check(json!([]), json!([]), ("/init -v", "serve"));
    // as old clients write them
    check(json!("sh"), json!("x y"), ("sh", "x y"));
    let none = asked(json!({ "Image": "img", "Entrypoint": [""] })).err();
    assert_eq!(none, Some(Refusal("no command specified".into())));
}

#[test]
fn a_check_takes_from_the_image_what_it_leaves_out() {
    let test = |check: Value, shell: Value| {
        let (_, wishes) = asked(json!({ "Image": "img", "Healthcheck": check, "Shell": shell })).unwrap();
        wishes.image.healthcheck.map(|check| (check.test.join(" "), check.interval.as_secs(), check.retries)).unwrap()
    };
    assert_eq!(test(Value::Null, Value::Null), ("CMD check".into(), 7, 5));
    assert_eq!(test(json!({ "Interval": 3_000_000_000_u64 }), Value::Null), ("CMD check".into(), 3, 5));
    assert_eq!(test(json!({ "Test": ["NONE"] }), Value::Null).0, "NONE");
    assert_eq!(
        test(json!({ "Test": ["CMD-SHELL", "a b"], "Retries": 2 }), json!(["ash", "-c"])),
        ("CMD ash -c a b".into(), 7, 2)
    );
}

#[test]
fn a_machine_has_always_so_much_of_memory_and_processors() {
    let sizes = |config: Value| {
        let (host, Wishes { args, memory_limit, .. }) = host(config).unwrap();
        let cpus = (args.machine.cpus.processors(), args.machine.cpus.limit());
        (args.machine.memory.mebibytes(), memory_limit, cpus, host.memory, host.nano_cpus)
    };
    let (one, whole) = (Some(1_000_000_000), (1, None));
    assert_eq!(sizes(json!({})), (512, None, whole, Some(512 << 20), one));
    assert_eq!(sizes(json!({ "Memory": 8 << 20 })), (64, Some(8 << 20), whole, Some(8 << 20), one));
    assert_eq!(sizes(json!({ "Memory": 1 << 30 })), (1024, None, whole, Some(1 << 30), one));
    let quota = sizes(json!({ "CpuQuota": 150_000 }));
    assert_eq!((quota.2, quota.4), ((2, Some(1500)), None));
    assert_eq!(sizes(json!({ "CpuQuota": 25_000, "CpuPeriod": 50_000 })).2, (1, Some(500)));
    assert_eq!(sizes(json!({ "NanoCpus": 10_000_000 })).2, (1, Some(10)));
}

#[test]
fn privileges_are_reckoned_as_docker_reckons_them() {
    let rights = |config: Value| plan::capabilities(&host(config).unwrap().1.args.process);
    assert_eq!(rights(json!({ "Privileged": true })), ALL_CAPABILITIES);
    assert_eq!(rights(json!({ "CapDrop": ["ALL"], "CapAdd": ["NET_RAW"] })), 1 << 13);
    assert_eq!(rights(json!({ "CapAdd": null })), DOCKERS_CAPABILITIES);
}

/// Docker's words where it has any: scripts look for them.
#[test]
fn what_cannot_be_is_refused() {
    let check = |config: Value, expected: &str| match host(config.clone()) {
        Err(Refusal(why)) => assert!(why.starts_with(expected) && why.lines().count() == 1, "{config}: {why}"),
        Ok(_) => panic!("{config} is met"),
    };
    check(json!({ "Memory": 1 << 20 }), "Minimum memory limit allowed is 6MB");
    check(json!({ "Memory": 1_u64 << 45 }), "--memory: ");
    check(json!({ "MemorySwap": 5 }), "You should always set the Memory limit");
    check(json!({ "Memory": 1 << 28, "MemorySwap": 1 << 27 }), "Minimum memoryswap limit");
    check(
        json!({ "Memory": 1 << 27, "MemoryReservation": 1 << 28 }),
        "Minimum memory limit can not be less than memory reservation",
    );
    check(json!({ "MemoryReservation": 5 }), "Minimum memory reservation allowed is 6MB");
    check(json!({ "MemorySwappiness": 101 }), "Invalid value: 101, valid memory swappiness range is 0-100");
    check(json!({ "NanoCpus": 65_000_000_000_u64 }), "range of CPUs is from 0.01 to 64.00");
    check(json!({ "NanoCpus": -1_000_000_000 }), "range of CPUs is from 0.01 to 64.00");
    check(json!({ "NanoCpus": 1_000_000_000, "CpuQuota": 5000 }), "Conflicting options: Nano CPUs and CPU Quota");
    check(json!({ "NanoCpus": 1_000_000_000, "CpuPeriod": 5000 }), "Conflicting options: Nano CPUs and CPU Period");
    check(json!({ "CpuPeriod": 5 }), "CPU cfs period can not be less than 1ms");
    check(json!({ "CpuQuota": 5 }), "CPU cfs quota can not be less than 1ms");
    check(json!({ "CpusetCpus": "a" }), "Invalid value a for cpuset cpus");
    check(json!({ "BlkioWeight": 5 }), "Range of blkio weight is from 10 to 1000");
    check(
        json!({ "RestartPolicy": { "Name": "never" } }),
        "invalid restart policy: unknown policy 'never'; use one of 'no', 'always'",
    );
    check(
        json!({ "RestartPolicy": { "Name": "always", "MaximumRetryCount": 2 } }),
        "invalid restart policy: maximum retry count can only",
    );
    check(
        json!({ "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": -2 } }),
        "invalid restart policy: maximum retry count cannot",
    );
    check(
        json!({ "RestartPolicy": { "Name": "always" }, "AutoRemove": true }),
        "can't create 'AutoRemove' container with restart policy",
    );
    check(json!({ "CapAdd": ["NO_SUCH"] }), "invalid CapAdd: unknown capability: \"NO_SUCH\"");
    check(json!({ "CapDrop": ["x"] }), "invalid CapDrop: unknown capability: \"x\"");
    check(json!({ "OomScoreAdj": 1001 }), "Invalid value 1001, range for oom score adj is [-1000, 1000]");
    check(
        json!({ "Ulimits": [{ "Name": "nofile", "Soft": 5, "Hard": 1 }] }),
        "--ulimit nofile=5:1: the soft limit is above",
    );
    check(
        json!({ "SecurityOpt": ["apparmor=mine"] }),
        "--security-opt apparmor=mine: the kernel of the virtual machine has no AppArmor",
    );
    check(json!({ "SecurityOpt": ["seccomp=/etc/shadow"] }), "--security-opt seccomp=/etc/shadow: the client sends");
    check(json!({ "SecurityOpt": ["seccomp={}"] }), "--security-opt seccomp: ");
    check(json!({ "SecurityOpt": ["fast"] }), "invalid --security-opt \"fast\"");
    check(json!({ "ShmSize": -1 }), "SHM size can not be less than 0");
    check(json!({ "Sysctls": { "x": "1" } }), "--sysctl x: ");
    check(json!({ "Dns": ["a.org"] }), "--dns: \"a.org\" is not an IP address");
    check(json!({ "ExtraHosts": ["db"] }), "--add-host db: write it as NAME:IP");
    check(json!({ "LogConfig": { "Type": "gelf" } }), "logger: no log driver named 'gelf' is registered");
    check(
        json!({ "LogConfig": { "Type": "json-file", "Config": { "fast": "1" } } }),
        "unknown log opt 'fast' for json-file log driver",
    );
    check(json!({ "Devices": [{ "PathOnHost": "/dev/sda" }] }), "--device /dev/sda: a device of the host cannot");
    check(
        json!({ "DeviceRequests": [{ "Count": -1, "Capabilities": [["gpu"]] }] }),
        "--gpus: could not select device driver",
    );
    check(json!({ "PidMode": "host" }), "--pid host: a virtual machine shares nothing");
    check(json!({ "IpcMode": "container:x" }), "--ipc container:x: a virtual machine shares nothing");
    check(json!({ "UTSMode": "host" }), "--uts host: a virtual machine shares nothing");
    check(json!({ "CgroupnsMode": "host" }), "--cgroupns host: a virtual machine shares nothing");
    check(json!({ "CgroupnsMode": "x" }), "invalid cgroup namespace mode: x");
    check(json!({ "NetworkMode": "host" }), "--network host: a virtual machine has a network of its own");
    check(json!({ "NetworkMode": "container:x" }), "--network container:x: a virtual machine has a network");
    check(json!({ "Runtime": "runc" }), "unknown or invalid runtime name: runc");
    check(json!({ "Isolation": "hyperv" }), "invalid isolation \"hyperv\"");
    check(json!({ "VolumeDriver": "x" }), "error looking up volume plugin x: plugin \"x\" not found");
    check(json!({ "StorageOpt": { "size": "1g" } }), "--storage-opt size: a container's disk grows");
    let body = |field: &str, value: Value| asked(json!({ "Image": "img", field: value })).err().unwrap().0;
    assert_eq!(body("StopSignal", "NONE".into()), "invalid signal: NONE");
    assert_eq!(body("WorkingDir", "a".into()), "the working directory 'a' is invalid, it needs to be an absolute path");
    assert_eq!(body("Env", json!(["=x"])), "invalid environment variable: =x");
    assert_eq!(body("Healthcheck", json!({ "Test": ["EXEC"] })), "Unknown healthcheck type 'EXEC' (expected 'CMD')");
    assert_eq!(body("Healthcheck", json!({ "Timeout": 5 })), "Timeout in Healthcheck cannot be less than 1ms");
    assert_eq!(body("Healthcheck", json!({ "Retries": -1 })), "Retries in Healthcheck cannot be negative");
}

#[test]
fn what_has_no_effect_is_told() {
    let warned = |config: Value| {
        let body = normal(json!({ "Image": "img", "HostConfig": config })).unwrap();
        refused::check(&body).unwrap();
        refused::warnings(&body).join("; ")
    };
    assert_eq!(
        warned(json!({ "MemorySwappiness": -1, "CpusetCpus": "", "MemorySwap": 0, "OomKillDisable": false })),
        ""
    );
    let check = |config: Value, flag: &str| {
        let told = warned(config.clone());
        assert!(told.starts_with(&format!("{flag} has no effect: ")) && !told.contains("; "), "{config}: {told}");
    };
    check(json!({ "Memory": 1 << 28, "MemorySwap": -1 }), "--memory-swap");
    check(json!({ "MemorySwappiness": 0 }), "--memory-swappiness");
    check(json!({ "Privileged": true }), "--privileged or systempaths=unconfined for /proc and /sys");
    check(json!({ "MaskedPaths": [] }), "--privileged or systempaths=unconfined for /proc and /sys");
    check(json!({ "MemoryReservation": 1 << 26 }), "--memory-reservation");
    check(json!({ "CpuShares": 5 }), "--cpu-shares");
    check(json!({ "CpusetCpus": "0-3,7" }), "--cpuset-cpus");
    check(json!({ "CpusetMems": "0" }), "--cpuset-mems");
    check(json!({ "BlkioWeight": 10 }), "--blkio-weight and --device-read-bps");
    check(json!({ "BlkioDeviceReadBps": [{ "Path": "/dev/sda", "Rate": 5 }] }), "--blkio-weight and --device-read-bps");
    check(json!({ "OomKillDisable": true }), "--oom-kill-disable");
    check(json!({ "CgroupParent": "/a" }), "--cgroup-parent");
    check(json!({ "DeviceCgroupRules": ["c 1:3 r"] }), "--device-cgroup-rule");
    check(json!({ "SecurityOpt": ["label=type:x"] }), "--security-opt label");
    check(json!({ "LogConfig": { "Type": "", "Config": { "max-size": "1m" } } }), "--log-opt");
}
