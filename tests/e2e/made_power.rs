//! Power that fails, and the power button: what runs again after a cut by docker's rules of restart, and how a guest ends that hears nothing over its link.

use std::fs;

use nix::sys::signal::{Signal, kill};
use rig::engine::until;
use rig::serve::Serve;

use super::made_life::{events, shows};

/// Waits until a container's record says that it runs: what is not written down is lost with the power.
pub(crate) fn until_remembered(serve: &Serve, name: &str) {
    let record = serve.state().join("serve").join(shows(serve, name, "{{.Id}}")).join("container.json");
    let written = || fs::read_to_string(&record).unwrap_or_default();
    until("it is written down that it runs", || written().contains("\"Running\""));
}

#[test]
fn after_a_power_cut_runs_what_docker_starts_again() {
    let mut serve = Serve::with_qemu(&[]);
    let policies = [
        ("always", "always"),
        ("unless", "unless-stopped"),
        ("stopped", "unless-stopped"),
        ("failed", "on-failure:1"),
        ("none", "no"),
    ];
    for (name, policy) in policies {
        serve.docker(&["run", "-d", "--restart", policy, "--name", name, "busybox", "top"]).output().success();
    }
    serve.docker(&["run", "-d", "--rm", "--name", "gone", "busybox", "top"]).output().success();
    serve.docker(&["create", "--restart", "always", "--name", "never", "busybox", "top"]).output().success();
    serve.docker(&["stop", "-t", "0", "stopped"]).output().success();
    let ended = shows(&serve, "stopped", "{{.State.Status}} {{.State.ExitCode}} {{.State.FinishedAt}}");
    // one that was started again by its policy
    let id = shows(&serve, "always", "{{.Id}}");
    let is_its = |pid: &nix::unistd::Pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&id))
    };
    kill(*serve.machines().iter().find(|pid| is_its(pid)).expect("its machine"), Signal::SIGKILL).expect("a machine");
    let state = |serve: &Serve, name: &str| shows(serve, name, "{{.State.Status}} {{.RestartCount}}");
    until("it is started again", || state(&serve, "always") == "running 1");
    for name in ["always", "unless", "failed", "none", "gone"] {
        until_remembered(&serve, name);
    }
    let before = shows(&serve, "unless", "{{.State.StartedAt}}");

    serve.kill();
    for machine in serve.machines() {
        kill(machine, Signal::SIGKILL).expect("a machine");
    }
    until("all is dark", || serve.machines().is_empty());
    serve.start_again();
    serve.until_docker_answers();
    for name in ["always", "unless", "failed"] {
        // docker counts from the beginning when its daemon begins
        until(name, || state(&serve, name) == "running 0");
        let told = events(&serve, name);
        assert_eq!(told, ["die", "start"], "{name}");
    }
    assert_ne!(shows(&serve, "unless", "{{.State.StartedAt}}"), before);
    let none = shows(&serve, "none", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}} {{.State.Error}}");
    assert_eq!(none, "exited 255 0 its machine went off while this host was away");
    assert_eq!(shows(&serve, "stopped", "{{.State.Status}} {{.State.ExitCode}} {{.State.FinishedAt}}"), ended);
    assert_eq!(state(&serve, "never"), "created 0", "what was never started is not started again");
    until("what was to be removed is", || shows(&serve, "gone", "{{.Name}}").is_empty());
    assert_eq!(serve.machines().len(), 3);
    for name in ["always", "unless", "failed", "none", "stopped", "never"] {
        serve.docker(&["rm", "-f", name]).output().success();
    }
    assert_eq!(serve.machines(), []);
}

#[test]
fn a_guest_whose_link_is_away_hears_its_power_button() {
    let mut serve = Serve::with_qemu(&[]);
    let script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done";
    serve.docker(&["run", "-d", "--name", "web", "busybox", "sh", "-c", script]).output().success();
    until("its trap is set", || serve.docker(&["logs", "web"]).output().text() == "up\n");
    until_remembered(&serve, "web");
    let machine = serve.machines()[0];
    let line = fs::read(format!("/proc/{machine}/cmdline")).expect("it runs");
    let line = String::from_utf8_lossy(&line).into_owned();
    let orders = line.split('\0').find_map(|word| word.strip_prefix("socket,id=orders,")?.rsplit_once("path="));
    let sockets =
        std::path::Path::new(orders.expect("where it takes orders").1).parent().expect("a directory").to_owned();
    serve.kill();
    // it is not to connect before its way is gone
    kill(machine, Signal::SIGSTOP).expect("a machine");
    serve.start_again();
    serve.until_docker_answers();
    fs::rename(sockets.join("links"), sockets.join("away")).expect("where links connect");
    kill(machine, Signal::SIGCONT).expect("a machine");
    serve.docker(&["stop", "-t", "100", "web"]).output().success();
    assert_eq!(shows(&serve, "web", "{{.State.Status}} {{.State.ExitCode}}"), "exited 7", "{}", serve.log());
    assert!(serve.log().contains("web: its link is not there: its power button is pressed"), "{}", serve.log());
    serve.docker(&["rm", "web"]).output().success();
    assert_eq!(serve.machines(), []);
}
