//! Health checks: what they are run as, what they say, and that they leave nothing behind.

use std::time::Duration;

use rig::host::{Host, sh};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use wire::message::{MAIN, Reply, Request};
use wire::spec::{HealthCheck, LinkDevice, Restart, Spec};
use wire::status::{Health, Verdict};

fn check(script: &str) -> HealthCheck {
    HealthCheck {
        argv: ["/bin/sh", "-c", script].map(String::from).to_vec(),
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(60),
        start_period: Duration::ZERO,
        start_interval: Duration::from_millis(100),
        retries: 3,
    }
}

fn boot(text: &str, check: HealthCheck, edit: impl FnOnce(&mut Spec)) -> (tempfile::TempDir, Host) {
    let (dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, text);
    spec.main.health = Some(check);
    edit(&mut spec);
    (dir, Host::boot(Machine::new(&spec, Some(disk)), &spec))
}

fn wait(host: &mut Host, what: &str, is_so: impl Fn(&Health) -> bool) -> Health {
    host.wait_for("rig", what, |session| session.health.as_ref().is_some_and(&is_so)).health.expect("it is so")
}

fn verdicts(host: &Host) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> =
        host.statuses.iter().filter_map(|status| Some(status.sessions.get("rig")?.health.as_ref()?.verdict)).collect();
    verdicts.dedup();
    verdicts
}

#[test]
fn a_process_becomes_well_ill_and_well_again() {
    let (_dir, mut host) = boot("exec sleep 100000", check("echo looked; cat /ill && exit 1; exit 0"), |_| ());
    assert_eq!(verdicts(&host), []);
    let well = wait(&mut host, "to be well", |health| health.verdict == Verdict::Healthy);
    assert_eq!((well.failing, well.code), (0, Some(0)));
    assert!(well.output.starts_with("looked\ncat: "), "both streams: {well:?}");
    host.shell("echo fever > /ill");
    let ill = wait(&mut host, "to be ill", |health| health.verdict == Verdict::Unhealthy);
    assert_eq!((ill.failing, ill.code, ill.output.as_str()), (3, Some(1), "looked\nfever\n"));
    host.statuses.clear();
    host.shell("rm /ill");
    wait(&mut host, "to be well again", |health| health.verdict == Verdict::Healthy && health.failing == 0);
    // nothing of it is a session, or anybody's output
    let Reply::Sessions(sessions) = host.request(Request::List) else { panic!("no list") };
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    assert_eq!((host.stdout(MAIN).count, host.stderr(MAIN).count), (0, 0));
}

#[test]
fn failures_do_not_count_while_a_process_starts() {
    let start = HealthCheck { start_period: Duration::from_secs(100_000), ..check("cat /ready") };
    let (_dir, mut host) = boot("exec sleep 100000", start, |_| ());
    let first = wait(&mut host, "to be looked at", |health| health.code.is_some());
    assert_eq!((first.verdict, first.failing, first.code), (Verdict::Starting, 0, Some(1)));
    host.shell("echo yes > /ready");
    wait(&mut host, "to be well", |health| health.verdict == Verdict::Healthy);
    // from the first success on they do
    host.shell("rm /ready");
    wait(&mut host, "to be ill", |health| health.verdict == Verdict::Unhealthy);
    assert_eq!(verdicts(&host), [Verdict::Starting, Verdict::Healthy, Verdict::Unhealthy]);
}

#[test]
fn a_check_that_takes_too_long_is_killed_with_all_that_it_began() {
    let slow = "setsid sleep 77777 & sleep 77777; echo never";
    let stuck = HealthCheck { timeout: Duration::from_millis(300), ..check(slow) };
    let (_dir, mut host) = boot("exec sleep 100000", stuck, |_| ());
    let health = wait(&mut host, "to be ill", |health| health.verdict == Verdict::Unhealthy);
    assert_eq!((health.failing, health.code), (3, Some(124)));
    assert_eq!(health.output, "the health check took more than 300 ms");
    // there is the one that runs now, if it does; none of those before it
    let left = host.shell("ps | grep -c '[s]leep 77777'; true");
    assert!(left.trim().parse::<u32>().unwrap() <= 2, "{left}");
}

#[test]
fn what_a_check_leaves_behind_does_not_pile_up() {
    let (_dir, mut host) =
        boot("exec sleep 100000", check("setsid sleep 66666 & ps | grep -c '0:0[0-9] sleep 66666'"), |_| ());
    for _ in 0..5 {
        let health = wait(&mut host, "to be looked at", |health| health.code.is_some());
        assert!(["0\n", "1\n"].contains(&health.output.as_str()), "{health:?}");
        host.shell("true");
    }
}

#[test]
fn a_check_runs_as_its_process_does() {
    let (_dir, mut host) =
        boot("exec sleep 100000", check("id -u; pwd; echo $NOTE; sed -n 's/^CapEff:.//p' /proc/self/status"), |spec| {
            spec.main.user = "1234".into();
            spec.main.dir = "/tmp".into();
            spec.main.env.set("NOTE=of the process".into());
        });
    let health = wait(&mut host, "to be looked at", |health| health.code.is_some());
    assert_eq!(health.output, "1234\n/tmp\nof the process\n0000000000000000\n");
}

#[test]
fn much_output_holds_no_check_up_and_its_beginning_is_kept() {
    let (_dir, mut host) = boot("exec sleep 100000", check("seq 1 100000"), |_| ());
    let health = wait(&mut host, "to be well", |health| health.verdict == Verdict::Healthy);
    let all: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(health.output == all[..4096], "{} bytes", health.output.len());
}

#[test]
fn a_check_that_cannot_be_run_is_a_failure_with_a_reason() {
    let none = HealthCheck { argv: vec!["/no/such/check".into()], ..check("") };
    let (_dir, mut host) = boot("exec sleep 100000", none, |_| ());
    let health = wait(&mut host, "to be ill", |health| health.verdict == Verdict::Unhealthy);
    assert_eq!(health.code, Some(127));
    assert!(health.output.contains("/no/such/check"), "{health:?}");
}

#[test]
fn a_process_that_is_started_again_has_to_become_well_again() {
    let text = "rm -f /ill; until [ -e /die ]; do sleep 0.05; done; rm /die; touch /ill; exit 1";
    let (_dir, mut host) = boot(text, check("[ ! -e /ill ]"), |spec| spec.main.restart = Restart::Always);
    wait(&mut host, "to be well", |health| health.verdict == Verdict::Healthy);
    host.shell("touch /die");
    host.wait_for("rig", "to start anew", |session| {
        session.restarts == 1
            && session.pid.is_some()
            && session.health.as_ref().is_some_and(|health| health.verdict == Verdict::Starting)
    });
    host.wait_for("rig", "to be well again", |session| {
        session.restarts == 1 && session.health.as_ref().is_some_and(|health| health.verdict == Verdict::Healthy)
    });
}

#[test]
fn a_check_that_is_under_way_does_not_hold_up_a_stop() {
    let (_dir, mut host) = boot("exec sleep 100000", check("touch /looked; exec sleep 55555"), |_| ());
    host.exec(sh("true"));
    host.shell("until [ -e /looked ]; do sleep 0.05; done");
    host.order(Request::PowerOff);
    host.exit(MAIN);
    host.wait_off();
}
