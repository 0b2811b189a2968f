//! QEMU under `vch serve`: it outlives its host, is found again, is told to end, is kept from what it does not need, and is never left behind.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rig::engine::until;
use rig::serve::Serve;

/// The fields of /proc/PID/status: proc(5).
fn status(pid: Pid) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |line: &str| line.split_once(":").map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    text.lines().filter_map(field).collect()
}

fn inspect(serve: &Serve, name: &str, format: &str) -> String {
    serve.docker(&["inspect", "--format", format, name]).output().text().trim().to_owned()
}

#[test]
fn machines_outlive_their_host_and_end_with_their_containers() {
    let mut serve = Serve::with_qemu(&[]);
    let talk = "i=0; while [ ! -e /end ]; do i=$((i+1)); echo line $i; sleep 0.2; done; exit 7";
    serve.docker(&["run", "-d", "--name", "talker", "busybox", "sh", "-c", talk]).output().success();
    serve.docker(&["run", "-d", "--name", "sleeper", "busybox", "sleep", "1000000"]).output().success();
    let mut before = serve.machines();
    before.sort();
    assert_eq!(before.len(), 2);
    for &machine in &before {
        confined(machine);
    }

    serve.kill();
    serve.start_again();
    serve.until_docker_answers();
    let mut after = serve.machines();
    after.sort();
    assert_eq!(before, after, "{}", serve.log());
    until("the containers are used again", || {
        serve.docker(&["exec", "sleeper", "true"]).output().code == 0
            && serve.docker(&["exec", "talker", "true"]).output().code == 0
    });
    let lines = || serve.docker(&["logs", "talker"]).output().text().lines().count();
    let said = lines();
    until("it goes on to speak", || lines() > said);
    serve.docker(&["exec", "talker", "touch", "/end"]).output().success();
    assert_eq!(serve.docker(&["wait", "talker"]).output().text(), "7\n");

    // another one for the same machines ends, and takes nothing from this one
    let second = serve.second();
    assert!(second.contains("another vch serve") || second.contains("in use"), "{second}");
    assert_eq!(serve.docker(&["exec", "sleeper", "echo", "still"]).output().text(), "still\n");

    // a machine that is killed
    until("the first machine is off", || serve.machines().len() == 1);
    let machine = serve.machines()[0];
    kill(machine, Signal::SIGKILL).expect("a machine of ours");
    let code = serve.docker(&["wait", "sleeper"]).output().text();
    assert!(["137\n", "255\n"].contains(&code.as_str()), "{code}");
    until("its end is told", || inspect(&serve, "sleeper", "{{.State.Status}}") == "exited");
    let why = inspect(&serve, "sleeper", "{{.State.Error}}");
    assert!(why.contains("QEMU ended without a word") || why.contains("killed"), "{why}; {}", serve.log());

    // a child of this serve's: how it was killed is known
    serve.docker(&["start", "sleeper"]).output().success();
    until("it runs", || serve.machines().len() == 1);
    kill(serve.machines()[0], Signal::SIGKILL).expect("a machine of ours");
    until("its end is told", || inspect(&serve, "sleeper", "{{.State.Error}}").contains("killed by signal 9"));

    serve.docker(&["rm", "-f", "talker", "sleeper"]).output().success();
    until("nothing is left", || serve.machines().is_empty() && serve.docker(&["ps", "-aq"]).output().text().is_empty());
}

/// What docs/decisions/0013 says of a machine's process.
fn confined(machine: Pid) {
    let status = status(machine);
    let of = |name: &str| status.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!(of("Seccomp"), "2", "{status:?}");
    assert_eq!(of("NoNewPrivs"), "1", "{status:?}");
    if nix::unistd::geteuid().is_root() {
        let uid: u32 = of("Uid").split_whitespace().next().and_then(|uid| uid.parse().ok()).expect("a number");
        assert!(uid >= 0x7000_0000, "{status:?}");
        assert_eq!(of("Groups"), "1879048192");
    }
    for set in ["CapEff", "CapPrm"] {
        assert_eq!(of(set), "0000000000000000", "{status:?}");
    }
    let limits = fs::read_to_string(format!("/proc/{machine}/limits")).expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("every process has one");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}

#[test]
fn a_machine_that_belongs_to_no_container_is_ended() {
    let mut serve = Serve::with_qemu(&[]);
    serve.docker(&["run", "-d", "--name", "stray", "busybox", "sleep", "1000000"]).output().success();
    let id = inspect(&serve, "stray", "{{.Id}}");
    serve.kill();
    fs::remove_dir_all(serve.state().join("serve").join(&id)).expect("its files");
    serve.start_again();
    serve.until_docker_answers();
    until("it is ended", || serve.machines().is_empty());
    assert!(serve.log().contains(&format!("{}: ended a machine that is no container's", &id[..12])), "{}", serve.log());
}
