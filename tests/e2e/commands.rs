//! `vch status`, `reload`, `trim`, `kernel-log` and `reboot`, and what `vch ps` tells of a process's health, with a real machine.

use std::fs;
use std::time::Duration;

use rig::images::busybox_disk;
use rig::machine::script;
use rig::serve::Serve;
use wire::spec::{HealthCheck, LinkDevice, Restart, Spec};
use wire::status::{Health, MachineState, ProcessState, Status, Verdict};

/// A serve, and a spec whose process does nothing.
fn idle() -> (Serve, Spec) {
    (Serve::start(), script(LinkDevice::Virtio, "exec sleep 100000"))
}

fn status(serve: &Serve) -> Status {
    let text = serve.command("status", &["web1"]).output().success();
    assert!(text.ends_with("}\n"), "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn status_trim_and_the_kernels_log_are_told() {
    let (_dir, disk) = busybox_disk();
    let (serve, mut spec) = idle();
    let _machine = serve.machine("web1", &mut spec, disk).power_on();
    serve.wait_for("web1", &["running", "up"]);
    let told = status(&serve);
    assert!(told.generation >= 1 && told.state == MachineState::Running && told.failure.is_none(), "{told:?}");
    assert_eq!(told.sessions.keys().collect::<Vec<_>>(), ["web1"]);
    let main = &told.sessions["web1"];
    assert!(main.state == ProcessState::Running && main.pid.is_some(), "{main:?}");
    let log = serve.command("kernel-log", &["web1"]).output().success();
    assert!(log.contains("Linux version 6."), "{log}");
    let text = serve.command("trim", &["web1"]).output().success();
    let bytes = text.strip_prefix("web1: ").and_then(|rest| rest.strip_suffix(" bytes trimmed\n"));
    assert!(bytes.is_some_and(|bytes| bytes.parse::<u64>().is_ok()), "{text}");
    for name in ["status", "trim", "kernel-log", "reload", "reboot"] {
        let output = serve.command(name, &["nobody"]).output();
        assert!(output.code != 0 && output.stderr.contains("nobody"), "{name}: {output:?}");
    }
}

#[test]
fn a_reload_adds_a_session_changes_a_limit_and_refuses_another_key() {
    let (dir, disk) = busybox_disk();
    let (serve, mut spec) = idle();
    let _machine = serve.machine("web1", &mut spec, disk).power_on();
    serve.wait_for("web1", &["running", "up"]);
    let file = dir.path().join("new.vmx");
    let reload = |spec: &Spec| {
        fs::write(&file, wire::guestinfo::write(spec).to_string()).unwrap();
        serve.command("reload", &["web1", file.to_str().unwrap()]).output()
    };
    let before = status(&serve).generation;
    let mut other = spec.clone();
    other.others.insert("side".into(), script(LinkDevice::Virtio, "exec sleep 200000").main);
    other.machine.pids = Some(77);
    reload(&other).success();
    let told = status(&serve);
    assert!(told.generation > before && told.sessions["side"].state == ProcessState::Running, "{told:?}");
    let table = serve.command("top", &["web1"]).output().success();
    assert!(table.contains("sleep 200000"), "{table}");
    let limit = serve.command("exec", &["web1", "cat", "/sys/fs/cgroup/pids.max"]).output().success();
    assert_eq!(limit, "77\n");
    let mut wrong = other.clone();
    wrong.link.key = wire::handshake::LinkKey::new([7; 32]);
    wrong.machine.pids = Some(99);
    let output = reload(&wrong);
    output.fails(125, &["link/key cannot be changed while the machine runs"]);
    let limit = serve.command("exec", &["web1", "cat", "/sys/fs/cgroup/pids.max"]).output().success();
    assert_eq!(limit, "77\n", "nothing of a spec that is refused is taken over");
}

#[test]
fn a_reboot_ends_the_process_and_resets_the_machine() {
    let (_dir, disk) = busybox_disk();
    let (serve, mut spec) = idle();
    let mut machine = serve.machine("web1", &mut spec, disk).power_on();
    serve.wait_for("web1", &["running", "up"]);
    assert_eq!(serve.command("reboot", &["web1"]).output().success(), "web1\n");
    // the rig's QEMU ends where a machine would boot again
    machine.wait();
    serve.wait_for("web1", &["down"]);
}

#[test]
fn ps_tells_who_is_well_and_who_is_started_again() {
    let (_dir, disk) = busybox_disk();
    let (serve, mut spec) = idle();
    spec.main.argv[2] = "trap 'exit 1' USR1; while :; do sleep 0.05; done".into();
    spec.main.restart = Restart::Always;
    let argv = ["/bin/sh", "-c", "[ ! -e /ill ] || { echo ill; exit 1; }"].map(String::from).to_vec();
    let (interval, timeout) = (Duration::from_millis(100), Duration::from_secs(60));
    let start_period = Duration::ZERO;
    spec.main.health =
        Some(HealthCheck { argv, interval, timeout, start_period, start_interval: interval, retries: 2 });
    let _machine = serve.machine("web1", &mut spec, disk).power_on();
    serve.wait_for("web1", &["running (healthy)", "up"]);
    serve.command("exec", &["web1", "touch", "/ill"]).output().success();
    serve.wait_for("web1", &["running (unhealthy)"]);
    let health = status(&serve).sessions["web1"].health.clone();
    assert!(
        matches!(&health, Some(Health { verdict: Verdict::Unhealthy, code: Some(1), output, .. }) if output == "ill\n"),
        "{health:?}"
    );
    serve.command("exec", &["web1", "rm", "/ill"]).output().success();
    serve.command("kill", &["-s", "USR1", "web1"]).output().success();
    serve.wait_for("web1", &["restarted 1 times"]);
    assert_eq!(status(&serve).sessions["web1"].restarts, 1);
}
