//! Another spec while the machine runs: what can be had is had, what cannot is refused whole, and what is no spec changes nothing.

use rig::host::Host;
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use wire::message::{FIRST_OTHER, MAIN, Reply, Request, SessionId, SpecText};
use wire::spec::{LinkDevice, Restart, Spec};
use wire::status::{Ending, ProcessState};

fn boot(text: &str) -> (tempfile::TempDir, Spec, Host) {
    let (dir, disk) = busybox_disk();
    let spec = script(LinkDevice::Virtio, text);
    let host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    (dir, spec, host)
}

fn reload(spec: &Spec) -> Request {
    Request::Reload { keys: SpecText(wire::guestinfo::write(spec).to_string()) }
}

#[track_caller]
fn refused(host: &mut Host, request: Request, parts: &[&str]) {
    match host.request(request) {
        Reply::Refused { reason } => {
            assert!(parts.iter().all(|part| reason.contains(part)), "{reason:?} lacks one of {parts:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_is_added_and_taken_away_while_the_machine_runs() {
    let (_dir, mut spec, mut host) = boot("exec sleep 100000");
    let text = "echo here; trap 'echo leaving; exit 5' TERM; while :; do sleep 0.05; done";
    spec.others.insert("late".into(), script(LinkDevice::Virtio, text).main);
    host.open(FIRST_OTHER);
    host.order(reload(&spec));
    let late = host.wait_for("late", "to run", |session| session.pid.is_some());
    assert_eq!(late.session, FIRST_OTHER.0);
    // the same spec again is no change
    host.order(reload(&spec));
    assert_eq!(host.status().sessions["late"].pid, late.pid);
    host.order(Request::Attach { session: FIRST_OTHER });
    host.shell("sleep 1");
    spec.others.clear();
    host.order(reload(&spec));
    host.exit(FIRST_OTHER);
    host.wait("the session to be gone", |host| (!host.status().sessions.contains_key("late")).then_some(()));
    // one that comes again is another one
    spec.others.insert("late".into(), script(LinkDevice::Virtio, "exec sleep 100000").main);
    host.order(reload(&spec));
    assert_eq!(host.status().sessions["late"].session, FIRST_OTHER.0 + 1);
}

#[test]
fn what_cannot_be_changed_is_named_and_then_nothing_is() {
    let (_dir, spec, mut host) = boot("exec sleep 100000");
    let mut other = spec.clone();
    other.others.insert("late".into(), script(LinkDevice::Virtio, "exec sleep 100000").main);
    other.main.argv.push("more".into());
    refused(&mut host, reload(&other), &["sessions|rig/cmd/Args", "power it off"]);
    let mut other = spec.clone();
    other.id = "another".into();
    refused(&mut host, reload(&other), &["common/id"]);
    let mut other = spec.clone();
    other.link.key = wire::handshake::LinkKey::new([7; 32]);
    refused(&mut host, reload(&other), &["link/key"]);
    refused(&mut host, Request::Reload { keys: "nonsense".into() }, &["line 1"]);
    refused(&mut host, Request::Reload { keys: "a = \"b\"".into() }, &["common/id"]);
    let status = host.status();
    assert_eq!(status.sessions.keys().collect::<Vec<_>>(), ["rig"]);
    assert_eq!(status.sessions["rig"].state, ProcessState::Running);
}

#[test]
fn a_program_that_is_not_there_adds_no_session() {
    let (_dir, mut spec, mut host) = boot("exec sleep 100000");
    spec.others.insert("none".into(), wire::spec::Process::new(vec!["/no/such/program".into()]));
    refused(&mut host, reload(&spec), &["sessions|none", "/no/such/program", "done before that: nothing"]);
    assert!(!host.status().sessions.contains_key("none"));
    let Reply::Sessions(sessions) = host.request(Request::List) else { panic!("no list") };
    assert_eq!(sessions.iter().map(|info| info.session).collect::<Vec<SessionId>>(), [MAIN]);
}

#[test]
fn a_process_gets_another_restart_policy_and_another_stop_signal() {
    let (_dir, mut spec, mut host) = boot("echo up; trap 'exit 1' USR1; while :; do sleep 0.05; done");
    host.expect(MAIN, "up\n");
    spec.main.restart = Restart::Always;
    host.order(reload(&spec));
    host.order(Request::Signal { session: MAIN, signal: 10 });
    host.expect(MAIN, "up\nup\n");
    spec.main.stop_signal = 10;
    host.order(reload(&spec));
    host.shell("sleep 1");
    host.order(Request::PowerOff);
    assert_eq!(host.exit(MAIN).ending, Ending::Exited { code: 1 });
}

#[test]
fn the_store_is_read_again_when_asked_to() {
    let (_dir, _spec, mut host) = boot("exec sleep 100000");
    // QEMU's store is what it was: no change, also from inside
    host.order(Request::Reload { keys: "".into() });
    host.shell("kill -HUP 1");
    let mut other = script(LinkDevice::Virtio, "exec sleep 100000");
    other.others.insert("late".into(), script(LinkDevice::Virtio, "exec sleep 100000").main);
    host.open(FIRST_OTHER);
    host.order(reload(&other));
    host.wait_for("late", "to run", |session| session.pid.is_some());
    host.order(Request::Reload { keys: "".into() });
    host.wait("the session to be gone", |host| (!host.status().sessions.contains_key("late")).then_some(()));
}
