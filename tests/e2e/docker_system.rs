//! The host itself, by docker's own client: version, info, events, and what is refused.

use std::io::{Read as _, Write as _};

use rig::images::busybox_disk;
use rig::machine::script;
use rig::serve::Serve;
use wire::spec::LinkDevice;

use crate::docker_life::{fails, machine, wait_until};

#[test]
fn the_host_tells_of_itself() {
    let (_dir, disk) = busybox_disk();
    let serve = Serve::start();
    let docker = |args: &[&str]| serve.docker(args).output();
    let mut spec = script(LinkDevice::Virtio, "exec sleep 100000");
    let _web = machine(&serve, "web", &mut spec, &disk).power_on();
    wait_until(&serve, "web", "{{.State.Status}}", "running");

    let version = docker(&["version"]).success();
    assert!(
        version.contains("tether Virtual Container Host") && version.contains("1.50 (minimum version 1.44)"),
        "{version}"
    );
    let info = docker(&["info"]).success();
    for part in
        ["Containers: 1", "Running: 1", "Stopped: 0", "Swarm: inactive", "Runtimes: tether", "Default Runtime: tether"]
    {
        assert!(info.contains(part), "{part:?} is not in {info}");
    }
    for version in ["1.24", "1.41", "1.44"] {
        let listed = serve.docker(&["ps", "-q"]).env("DOCKER_API_VERSION", version).output();
        assert_eq!(listed.success().lines().count(), 1, "{version}");
    }
    fails(serve.docker(&["ps"]).env("DOCKER_API_VERSION", "1.99").output(), 1, &["client version 1.99 is too new"]);

    // lists that are short, and true
    assert_eq!(docker(&["network", "ls", "-q"]).success(), "");
    assert_eq!(docker(&["volume", "ls", "-q"]).success(), "");
    fails(docker(&["network", "inspect", "nosuch"]), 1, &["network nosuch not found"]);

    // refused with a sentence, and never a hang
    fails(docker(&["create", "busybox"]), 1, &["this host does not make machines"]);
    fails(docker(&["run", "--rm", "busybox", "true"]), 125, &["this host does not make machines"]);
    fails(docker(&["pause", "web"]), 1, &["suspend the virtual machine"]);
    fails(docker(&["update", "--memory", "1g", "web"]), 1, &["change them where it was made"]);
    fails(docker(&["commit", "web"]), 1, &["docker export has its files"]);
    fails(docker(&["network", "create", "x"]), 1, &["give the machine a card"]);
    fails(docker(&["volume", "create", "x"]), 1, &["disks of their machines"]);
    fails(docker(&["swarm", "init"]), 1, &["takes part in no swarm"]);
    fails(docker(&["node", "ls"]), 1, &["This node is not a swarm manager"]);
    fails(docker(&["service", "ls"]), 1, &["This node is not a swarm manager"]);
    fails(docker(&["login", "-u", "joe", "-p", "x", "registry.test"]), 1, &["log in where containerVMs are made"]);
}

/// A body that is no JSON, one of another kind, and one that is longer than anybody needs.
#[test]
fn trap_13_odd_bodies_are_refused_in_json() {
    let serve = Serve::start();
    let long = "x".repeat(3_000_000);
    for (kind, body) in [("application/json", "{"), ("text/plain", "{}"), ("application/json", long.as_str())] {
        let mut stream = serve.engine();
        let length = body.len();
        let head = format!(
            "POST /v1.50/containers/nosuch/exec HTTP/1.1\r\nHost: d\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // who is refused early may not want the rest
        stream.write_all(body.as_bytes()).ok();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{kind}: {answer:?}"));
        assert!(head.starts_with("HTTP/1.1 400 ") || head.starts_with("HTTP/1.1 404 "), "{head}");
        assert!(head.to_lowercase().lines().any(|line| line == "content-type: application/json"), "{head}");
        assert!(body.contains("\"message\":"), "{body}");
    }
}
