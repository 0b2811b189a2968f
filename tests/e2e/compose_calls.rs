//! What docker compose 2 asks of the API in up, ps, logs, exec, stop and down, call by call, and what of the answers it goes by; where there is no compose 2, too.

use rig::engine::{Demultiplexed, until};
use rig::serve::Serve;
use serde_json::{Value, json};

const PROJECT: &str = "com.docker.compose.project=shop";

/// A container's `HostConfig`, as compose sends what it leaves empty.
const HOST: &str = r#"{
    "Binds": null, "ContainerIDFile": "", "LogConfig": { "Type": "", "Config": null }, "NetworkMode": "shop_default",
    "PortBindings": {}, "RestartPolicy": { "Name": "", "MaximumRetryCount": 0 }, "AutoRemove": false,
    "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [0, 0], "CapAdd": null, "CapDrop": null,
    "CgroupnsMode": "", "Dns": null, "DnsOptions": null, "DnsSearch": null, "ExtraHosts": [], "GroupAdd": null,
    "IpcMode": "", "Cgroup": "", "Links": null, "OomScoreAdj": 0, "PidMode": "", "Privileged": false,
    "PublishAllPorts": false, "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "",
    "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "",
    "BlkioWeight": 0, "BlkioWeightDevice": null, "CpuPeriod": 0, "Devices": null, "DeviceCgroupRules": null,
    "DeviceRequests": null, "MemorySwap": 0, "MemorySwappiness": null, "OomKillDisable": null, "PidsLimit": null,
    "Ulimits": null, "MaskedPaths": null, "ReadonlyPaths": null
}"#;

/// `?filters=` with labels, as compose sends them.
fn labelled(labels: &[&str]) -> String {
    let all: serde_json::Map<String, Value> = labels.iter().map(|label| ((*label).to_owned(), true.into())).collect();
    let text = json!({ "label": all }).to_string();
    let escaped = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    format!("filters={}", escaped.collect::<String>())
}

fn labels(more: &[(&str, &str)]) -> Value {
    let of_all = [("com.docker.compose.project", "shop"), ("com.docker.compose.version", "2.40.0")];
    of_all.iter().chain(more).map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect()
}

/// The body of a container's creation, with all that compose leaves empty.
fn container(service: &str, command: &[&str], host: &Value, health: &Value) -> String {
    let aliases = [format!("shop-{service}-1"), service.to_owned()];
    let endpoint = json!({
        "IPAMConfig": null, "Links": null, "Aliases": aliases, "MacAddress": "", "DriverOpts": null, "GwPriority": 0,
        "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
        "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": null,
    });
    let mut all: Value = serde_json::from_str(HOST).expect("an object");
    for (name, value) in host.as_object().expect("an object") {
        all[name] = value.clone();
    }
    let body = json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": true, "AttachStderr": true,
        "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": command, "Image": "busybox",
        "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "ExposedPorts": {}, "Healthcheck": health,
        "Labels": labels(&[
            ("com.docker.compose.config-hash", "0a1b2c"),
            ("com.docker.compose.container-number", "1"),
            ("com.docker.compose.oneoff", "False"),
            ("com.docker.compose.service", service),
        ]),
        "HostConfig": all,
        "NetworkingConfig": { "EndpointsConfig": { "shop_default": endpoint } },
    });
    body.to_string()
}

#[test]
fn compose_2_has_what_it_asks_for() {
    let serve = Serve::with_qemu(&[]);
    let ask = |method: &str, path: &str, status: u16| {
        let reply = serve.ask(method, path, "");
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        reply
    };
    let tell = |path: &str, body: &str, status: u16| {
        let reply = serve.ask("POST", path, body);
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
        reply.json()
    };
    // up
    let ping = ask("HEAD", "/_ping", 200);
    assert!(ping.head.to_lowercase().contains("api-version: 1.50") && ping.body.is_empty(), "{ping:?}");
    let image = ask("GET", "/images/busybox/json", 200).json()["Id"].clone();
    ask("GET", "/images/redis:latest/json", 404);
    ask("GET", "/networks/shop_default", 404);
    let by_name = "/networks?filters=%7B%22name%22%3A%7B%22shop_default%22%3Atrue%7D%7D";
    assert_eq!(ask("GET", by_name, 200).json(), json!([]));
    let network = json!({
        "Name": "shop_default", "Driver": "bridge", "Scope": "", "EnableIPv4": null, "EnableIPv6": null, "IPAM": null,
        "Internal": false, "Attachable": false, "Ingress": false, "ConfigOnly": false, "ConfigFrom": null, "Options": null,
        "Labels": labels(&[("com.docker.compose.network", "default"), ("com.docker.compose.config-hash", "3d4e5f")]),
    });
    let network = tell("/networks/create", &network.to_string(), 201)["Id"].clone();
    let found = ask("GET", by_name, 200).json();
    assert_eq!((&found[0]["Id"], &found[0]["Name"]), (&network, &json!("shop_default")));
    assert_eq!(found[0]["Labels"]["com.docker.compose.network"], "default", "{found}");
    ask("GET", "/volumes/shop_data", 404);
    let volume = json!({
        "Name": "shop_data", "Driver": "", "DriverOpts": null, "ClusterVolumeSpec": null,
        "Labels": labels(&[("com.docker.compose.volume", "data"), ("com.docker.compose.config-hash", "6a7b8c")]),
    });
    assert_eq!(tell("/volumes/create", &volume.to_string(), 201)["Name"], "shop_data");
    let volume = ask("GET", "/volumes/shop_data", 200).json();
    assert_eq!(volume["Labels"]["com.docker.compose.volume"], "data", "{volume}");
    let hash = "com.docker.compose.config-hash";
    let one_off = "com.docker.compose.oneoff=False";
    let all = format!("/containers/json?all=1&{}", labelled(&[hash, PROJECT]));
    assert_eq!(ask("GET", &all, 200).json(), json!([]));
    assert_eq!(ask("GET", "/version", 200).json()["ApiVersion"], "1.50");
    let data =
        json!({ "Mounts": [{ "Type": "volume", "Source": "shop_data", "Target": "/data", "VolumeOptions": {} }] });
    let health = json!({ "Test": ["CMD", "test", "-e", "/data/ready"], "Interval": 1_000_000_000, "Retries": 600 });
    let db = container("db", &["sh", "-c", "echo ready; touch /data/ready; exec sleep 100000"], &data, &health);
    let db = tell("/containers/create?name=shop-db-1", &db, 201)["Id"].as_str().expect("an id").to_owned();
    let created = ask("GET", &format!("/containers/{db}/json"), 200).json();
    assert_eq!((&created["State"]["Status"], &created["Image"]), (&json!("created"), &image));
    assert!(created["NetworkSettings"]["Networks"]["shop_default"].is_object(), "{created}");
    // compose makes a container anew whose network or volume is another
    assert_eq!(created["HostConfig"]["NetworkMode"], "shop_default", "{created}");
    assert_eq!(
        (&created["Mounts"][0]["Name"], &created["Mounts"][0]["Destination"]),
        (&"shop_data".into(), &"/data".into())
    );
    let ports = json!({ "PortBindings": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "" }] } });
    let web =
        container("web", &["sh", "-c", "ping -c 1 -W 100 db && echo heard; exec sleep 100000"], &ports, &Value::Null);
    let web = tell("/containers/create?name=shop-web-1", &web, 201)["Id"].as_str().expect("an id").to_owned();
    let listed = ask("GET", &format!("/containers/json?all=1&{}", labelled(&[one_off, PROJECT])), 200).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
    ask("POST", &format!("/containers/{db}/start"), 204);
    let state = |id: &str| ask("GET", &format!("/containers/{id}/json"), 200).json();
    until("the first is healthy", || state(&db)["State"]["Health"]["Status"] == "healthy");
    assert_eq!(state(&db)["NetworkSettings"]["Networks"]["shop_default"]["NetworkID"], network);
    ask("POST", &format!("/containers/{web}/start"), 204);

    // ps
    let listed = ask("GET", &format!("/containers/json?{}", labelled(&[hash, one_off, PROJECT])), 200).json();
    let of = |name: &str| {
        let found = listed.as_array().expect("a list").iter().find(|one| one["Names"] == json!([name]));
        found.unwrap_or_else(|| panic!("no {name} in {listed}")).clone()
    };
    let (first, second) = (of("/shop-db-1"), of("/shop-web-1"));
    assert_eq!((&first["Id"], &first["State"], &first["ImageID"]), (&db.as_str().into(), &"running".into(), &image));
    assert!(first["Status"].as_str().is_some_and(|text| text.ends_with("(healthy)")), "{first}");
    assert_eq!(first["Labels"]["com.docker.compose.service"], "db", "{first}");
    assert!(second["Ports"][0]["PublicPort"].is_u64() && second["Created"].is_u64(), "{second}");
    assert_eq!(state(&web)["State"]["ExitCode"], 0);

    // logs, of one service
    let service = "com.docker.compose.service=web";
    let one =
        ask("GET", &format!("/containers/json?all=1&{}", labelled(&[hash, one_off, PROJECT, service])), 200).json();
    assert_eq!((one.as_array().map(Vec::len), &one[0]["Id"]), (Some(1), &web.as_str().into()), "{one}");
    assert_eq!(state(&web)["Config"]["Tty"], false);
    until("the second has heard the first", || {
        let logs = ask("GET", &format!("/containers/{web}/logs?stderr=1&stdout=1&tail=all"), 200);
        String::from_utf8_lossy(&Demultiplexed::of(&logs.body).stdout).contains("heard")
    });

    // exec
    let exec = json!({
        "User": "", "Privileged": false, "Tty": false, "AttachStdin": false, "AttachStderr": true, "AttachStdout": true,
        "DetachKeys": "", "Env": null, "WorkingDir": "", "Cmd": ["sh", "-c", "echo done; exit 6"], "ConsoleSize": null,
    });
    let exec =
        tell(&format!("/containers/{web}/exec"), &exec.to_string(), 201)["Id"].as_str().expect("an id").to_owned();
    let (_, mut hijacked) = serve.hijack(&format!("/exec/{exec}/start"), r#"{"Detach":false,"Tty":false}"#, b"");
    assert_eq!(Demultiplexed::of(&hijacked.read_to_end()).stdout, b"done\n");
    let ended = ask("GET", &format!("/exec/{exec}/json"), 200).json();
    assert_eq!((&ended["Running"], &ended["ExitCode"]), (&false.into(), &6.into()), "{ended}");

    // stop and down; compose stops again what it has stopped
    for id in [&web, &db] {
        ask("POST", &format!("/containers/{id}/stop?t=1"), 204);
    }
    for id in [&web, &db] {
        ask("POST", &format!("/containers/{id}/stop"), 304);
        ask("DELETE", &format!("/containers/{id}?force=1&v=1"), 204);
    }
    let both = ["com.docker.compose.network=default", PROJECT];
    let found = ask("GET", &format!("/networks?{}", labelled(&both)), 200).json();
    assert_eq!((found.as_array().map(Vec::len), &found[0]["Id"]), (Some(1), &network), "{found}");
    ask("DELETE", "/volumes/shop_data?force=1", 204);
    let id = network.as_str().expect("an id");
    assert_eq!(ask("GET", &format!("/networks/{id}"), 200).json()["Containers"], json!({}));
    ask("DELETE", &format!("/networks/{id}"), 204);
    ask("GET", &format!("/networks/{id}"), 404);
    assert_eq!(ask("GET", &all, 200).json(), json!([]));
    until("no machine is left", || serve.machines().is_empty());
}
