//! Networks that the host's kernel carries, `vch serve --network kernel`, in a network namespace of the test's own: names, ports, isolation, and all of it without serve.

use std::path::Path;

use rig::engine::until;
use rig::serve::{Network, Serve};

use crate::docker_life::fails;

/// Docker's client, which succeeds: what it says.
#[track_caller]
fn docker(serve: &Serve, args: &[&str]) -> String {
    let output = serve.docker(args).output();
    assert_eq!(output.code, 0, "{args:?}: {output:?}; {}", serve.log());
    output.text().trim().to_owned()
}

/// A container reaches another: by its name, or an address.
fn reaches(serve: &Serve, from: &str, to: &str) -> bool {
    serve.docker(&["exec", from, "ping", "-c", "1", "-w", "5", to]).output().code == 0
}

/// What a program in serve's namespace says.
fn told(serve: &Serve, words: &[&str]) -> String {
    let output = serve.beside(words[0]).args(&words[1..]).output().expect("it is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What is served at an address of the namespace.
fn fetch(serve: &Serve, at: &str) -> String {
    told(serve, &["busybox", "wget", "-T", "5", "-q", "-O", "-", &format!("http://{at}/word")])
}

/// What a container hears at an address.
fn hears(serve: &Serve, from: &str, at: &str) -> bool {
    let url = format!("http://{at}/word");
    serve.docker(&["exec", from, "wget", "-T", "5", "-q", "-O", "-", &url]).output().text() == "here\n"
}

/// The devices whose names begin so.
fn devices(serve: &Serve, kind: &str) -> usize {
    told(serve, &["ip", "-o", "link", "show"]).matches(&format!(": {kind}")).count()
}

/// Why this host cannot have such networks.
fn missing() -> Option<&'static str> {
    match () {
        () if !nix::unistd::geteuid().is_root() => Some("it needs root"),
        () if !Path::new("/dev/net/tun").exists() => Some("there is no /dev/net/tun"),
        () => None,
    }
}

const WEB: &str = "mkdir /w; echo here > /w/word; exec httpd -f -p 80 -h /w";

#[test]
fn machines_meet_on_bridges_of_the_kernel_and_go_on_without_serve() {
    if let Some(reason) = missing() {
        return crate::skip("kernel_network", reason);
    }
    let network = match Network::new() {
        Ok(network) => network,
        Err(reason) => return crate::skip("kernel_network", &reason),
    };
    // the host's way to others, which there are not
    for words in ["link add out type bridge", "address add 10.200.0.1/24 dev out", "link set out up"] {
        let made = network.command("ip").args(words.split(' ')).status().expect("ip");
        if !made.success() {
            return crate::skip("kernel_network", "no device can be made in a network namespace");
        }
    }
    let mut serve = Serve::with_qemu_in(network, &["--network", "kernel"]);
    docker(&serve, &["network", "create", "--subnet", "10.91.0.0/24", "back"]);
    docker(&serve, &["network", "create", "--subnet", "10.92.0.0/24", "--internal", "inner"]);
    let web = ["run", "-d", "--name", "web", "--network", "back", "-p", "8080:80", "-p", "127.0.0.1:8081:80"];
    docker(&serve, &[&web[..], &["busybox", "sh", "-c", WEB]].concat());
    docker(&serve, &["run", "-d", "--name", "cli", "--network", "back", "busybox", "sleep", "100000"]);
    docker(&serve, &["run", "-d", "--name", "far", "--network", "inner", "busybox", "sleep", "100000"]);
    assert_eq!((devices(&serve, "vchb-"), devices(&serve, "vcht-")), (2, 3));
    assert!(reaches(&serve, "cli", "web") && reaches(&serve, "web", "cli"), "{}", serve.log());
    // the host's own way out is a machine's, and the host answers at its gateway
    assert!(reaches(&serve, "cli", "10.200.0.1") && reaches(&serve, "cli", "10.91.0.1"));
    // an internal network leads nowhere, and nobody comes in
    assert!(!reaches(&serve, "far", "web") && !reaches(&serve, "far", "10.91.0.2"));
    assert!(!reaches(&serve, "far", "10.200.0.1") && !reaches(&serve, "cli", "10.92.0.2"));
    assert!(docker(&serve, &["exec", "far", "nslookup", "far"]).contains("10.92.0.2"));
    for at in ["127.0.0.1:8080", "10.200.0.1:8080", "10.91.0.1:8080", "127.0.0.1:8081"] {
        until("the port leads to the machine", || fetch(&serve, at) == "here\n");
    }
    assert_eq!(fetch(&serve, "10.200.0.1:8081"), "");
    // a port of the host, from a machine: from its neighbour's, too
    assert!(hears(&serve, "cli", "10.200.0.1:8080") && hears(&serve, "web", "10.91.0.1:8080"));
    assert!(!hears(&serve, "far", "10.200.0.1:8080") && !hears(&serve, "far", "10.92.0.1:8080"));
    fails(
        serve.docker(&["run", "--name", "late", "-p", "8080:80", "busybox", "true"]).output(),
        125,
        &["port is already allocated"],
    );
    docker(&serve, &["rm", "late"]);
    // the kernel goes on alone
    serve.kill();
    for at in ["127.0.0.1:8080", "10.200.0.1:8080"] {
        assert_eq!(fetch(&serve, at), "here\n", "{at}");
    }
    serve.start_again();
    serve.until_docker_answers();
    assert_eq!(fetch(&serve, "127.0.0.1:8080"), "here\n");
    assert!(reaches(&serve, "cli", "web") && !reaches(&serve, "far", "10.91.0.2"));
    // nothing is left of what is removed, by whichever serve it was made
    docker(&serve, &["rm", "-f", "web", "cli", "far"]);
    until("the port leads nowhere", || fetch(&serve, "127.0.0.1:8080").is_empty());
    docker(&serve, &["network", "rm", "back", "inner"]);
    until("devices are gone", || (devices(&serve, "vchb-"), devices(&serve, "vcht-")) == (1, 0));
    let rules = told(&serve, &["nft", "list", "ruleset"]);
    assert!(!rules.contains("dnat ip to") && !rules.contains("10.91.0"), "{rules}");
}
