//! The kernel under the test as the judge, and `nft` as its voice: in a network namespace of the test's own, so that nobody is cut off.

use std::io::Write as _;
use std::process::Command;

use wire::spec::{Endpoint, Port, Protocol, Trust};

use super::super::{FirewallError, set};
use super::{LEVELS, dump, network, rules};

/// Runs one of the tests below in a network namespace.
fn apart(test: &str) {
    apart_in(module_path!(), test);
}

/// The same for a test of another module.
pub(super) fn apart_in(module: &str, test: &str) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let unshare = |with: &[&str]| {
        let mut command = Command::new("unshare");
        let user: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["--map-root-user"] };
        command.arg("--net").args(user).args(with).env("PATH", &path);
        command
    };
    let possible = unshare(&["nft", "list", "ruleset"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        // not eprintln: the harness would swallow it
        writeln!(std::io::stderr(), "SKIPPED {test}: needs nftables, and a network namespace of its own").unwrap();
        return;
    }
    let own = std::env::current_exe().unwrap();
    let name = format!("{}::{test}_apart", module.split_once("::").unwrap().1);
    let words = [own.to_str().unwrap(), "--exact", &name, "--ignored", "--test-threads=1"];
    let output = unshare(&words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// What nft reads back from the kernel.
pub(super) fn listed() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn stands(networks: &[(&str, &Endpoint)]) {
    // an error says that there is none
    Command::new("nft").args(["delete", "table", "inet", "tether"]).output().unwrap();
    set(networks).unwrap();
    assert_eq!(listed(), dump(&rules(networks)), "as nft reads it, and as it was meant");
}

#[test]
fn nft_reads_every_level_as_it_was_meant() {
    apart("nft_reads_every_level_as_it_was_meant");
}

#[test]
#[ignore = "apart() runs it"]
fn nft_reads_every_level_as_it_was_meant_apart() {
    let names = ["closed0", "outbound0", "peers0", "published0", "fifteen-letters"];
    for dhcp in [false, true] {
        let networks = LEVELS.map(|trust| network(trust, dhcp));
        let named: Vec<_> = names.into_iter().zip(&networks).collect();
        stands(&named);
        for one in &named {
            stands(std::slice::from_ref(one));
        }
    }
    stands(&[]);
}

#[test]
fn as_many_ports_as_there_are_can_be_published() {
    apart("as_many_ports_as_there_are_can_be_published");
}

#[test]
#[ignore = "apart() runs it"]
fn as_many_ports_as_there_are_can_be_published_apart() {
    let mut published = network(Trust::Published, false);
    published.ports = (1..=5000).map(|n| Port { protocol: Protocol::Tcp, ports: (n, n), to: Some(n + 1) }).collect();
    stands(&[("eth0", &published)]);
}

#[test]
fn a_change_leaves_no_rule_of_before() {
    apart("a_change_leaves_no_rule_of_before");
}

#[test]
#[ignore = "apart() runs it"]
fn a_change_leaves_no_rule_of_before_apart() {
    let [open, published, closed] = [Trust::Open, Trust::Published, Trust::Closed].map(|trust| network(trust, false));
    let both: &[(&str, &Endpoint)] = &[("eth0", &published), ("eth1", &open)];
    stands(both);
    for networks in [&[("eth1", &closed)], both, &[], both] {
        set(networks).unwrap();
        let (now, mut meant) = (listed(), dump(&rules(networks)));
        if !meant.contains("prerouting") {
            // a chain that has once been there stays, and is empty
            let chain = "\tchain prerouting {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t}\n\n";
            meant = meant.replace("\tchain input", &format!("{chain}\tchain input"));
        }
        assert_eq!(now, meant);
    }
}

#[test]
fn what_cannot_be_set_changes_nothing() {
    apart("what_cannot_be_set_changes_nothing");
}

#[test]
#[ignore = "apart() runs it"]
fn what_cannot_be_set_changes_nothing_apart() {
    let [outbound, open] = [Trust::Outbound, Trust::Open].map(|trust| network(trust, false));
    stands(&[("eth0", &outbound)]);
    let before = listed();
    // the kernel has taken the rules for eth0 when it comes to this
    let too_long = "a-name-that-no-interface-can-have";
    let error = set(&[("eth0", &open), (too_long, &outbound)]).unwrap_err();
    assert!(matches!(error, FirewallError::Refused { .. }), "{error:?}");
    assert!(error.to_string().starts_with("cannot set the firewall: the kernel refuses request "), "{error}");
    assert_eq!(listed(), before);
}
