//! Several processes in one machine: they start with the main one and end with it, and each has a life of its own.

use rig::host::Host;
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use wire::message::{Event, FIRST_OTHER, MAIN, Reply, Request, SessionId};
use wire::spec::{LinkDevice, Process, Restart, Spec};
use wire::status::{Ending, FailureKind, ProcessState};

/// A process like the rig's main one.
fn other(text: &str) -> Process {
    script(LinkDevice::Virtio, text).main
}

fn boot(main: &str, others: &[(&str, Process)], edit: impl FnOnce(&mut Spec)) -> (tempfile::TempDir, Host) {
    let (dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, main);
    spec.others = others.iter().map(|(name, process)| ((*name).to_owned(), process.clone())).collect();
    edit(&mut spec);
    let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    for number in 0..spec.others.len() {
        host.open(SessionId(FIRST_OTHER.0 + u32::try_from(number).unwrap()));
    }
    (dir, host)
}

const FIRST: SessionId = FIRST_OTHER;
const SECOND: SessionId = SessionId(FIRST_OTHER.0 + 1);

#[test]
fn each_process_has_a_number_that_its_name_tells_and_an_end_of_its_own() {
    let others = [("zebra", other("exec sleep 100000")), ("ant", other("exit 8"))];
    let (_dir, mut host) = boot("exec sleep 100000", &others, |_| ());
    assert_eq!(host.exit(FIRST).ending, Ending::Exited { code: 8 });
    let status = host.status();
    let known: Vec<(&str, u32, ProcessState)> =
        status.sessions.iter().map(|(name, session)| (name.as_str(), session.session, session.state)).collect();
    // in the order of their names
    let expected = [
        ("ant", FIRST.0, ProcessState::Ended),
        ("rig", 0, ProcessState::Running),
        ("zebra", SECOND.0, ProcessState::Running),
    ];
    assert_eq!(known, expected);
    assert!(status.sessions["zebra"].pid.is_some_and(|pid| Some(pid) != status.sessions["rig"].pid));
    // one that has ended does not end the others; and none is forgotten
    let reply = host.request(Request::Forget { session: FIRST });
    assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
    host.order(Request::Signal { session: SECOND, signal: 9 });
    assert_eq!(host.exit(SECOND).ending, Ending::Signaled { signal: 9, core: false });
    assert_eq!(host.status().sessions["rig"].state, ProcessState::Running);
}

#[test]
fn one_that_dies_is_started_again_while_the_others_run_on() {
    let mut dying = other("echo born; exec sleep 100000");
    dying.restart = Restart::Always;
    let (_dir, mut host) = boot("exec sleep 100000", &[("dying", dying)], |_| ());
    let first = host.wait_for("dying", "to run", |session| session.pid.is_some());
    let main = host.status().sessions["rig"].pid;
    // inside, as an accident
    host.shell(&format!("kill -9 {}", first.pid.unwrap()));
    let again = host.wait_for("dying", "to run again", |session| session.restarts == 1 && session.pid.is_some());
    assert_ne!(again.pid, first.pid);
    assert_eq!(again.exit.map(|exit| exit.ending), Some(Ending::Signaled { signal: 9, core: false }));
    assert_eq!(host.status().sessions["rig"].pid, main);
}

#[test]
fn the_end_of_the_main_process_ends_all_in_order() {
    let server = other("trap 'echo saved > /saved; exit 2' TERM; echo up; while :; do sleep 0.05; done");
    let main = "until [ -e /end ]; do sleep 0.05; done; exit 6";
    let (_dir, mut host) = boot(main, &[("server", server)], |_| ());
    host.order(Request::Attach { session: FIRST });
    host.shell("touch /end");
    assert_eq!(host.exit(FIRST).ending, Ending::Exited { code: 2 });
    assert_eq!(host.exit(MAIN).ending, Ending::Exited { code: 6 });
    host.wait_off();
    // the main one's end is the last that is told
    let ends: Vec<SessionId> = host
        .told
        .iter()
        .filter_map(|told| match told {
            Event::Ended { session, .. } => Some(*session),
            _ => None,
        })
        .filter(|session| *session == MAIN || *session >= FIRST_OTHER)
        .collect();
    assert_eq!(ends, [FIRST, MAIN]);
}

#[test]
fn each_is_stopped_with_its_own_signal_and_in_its_own_time() {
    let stubborn = Process {
        stop_signal: 10,
        stop_timeout: Some(std::time::Duration::from_millis(500)),
        ..other("trap '' USR1; echo up; while :; do sleep 0.05; done")
    };
    let polite = Process { stop_signal: 2, ..other("trap 'exit 3' INT; echo up; while :; do sleep 0.05; done") };
    let main = "trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done";
    let (_dir, mut host) = boot(main, &[("polite", polite), ("stubborn", stubborn)], |_| ());
    host.expect(MAIN, "up\n");
    for session in [FIRST, SECOND] {
        host.order(Request::Attach { session });
    }
    // both have their traps by then
    host.shell("until [ $(ps | grep -c '[t]rap') -ge 3 ]; do sleep 0.05; done; sleep 1");
    host.order(Request::PowerOff);
    assert_eq!(host.exit(FIRST).ending, Ending::Exited { code: 3 });
    assert_eq!(host.exit(SECOND).ending, Ending::Signaled { signal: 9, core: false });
    assert_eq!(host.exit(MAIN).ending, Ending::Exited { code: 4 });
    host.wait_off();
}

#[test]
fn a_host_hears_what_it_attaches_to_and_writes_where_it_wants() {
    let echo = Process { stdin: true, ..other("while read -r x; do echo \"<$x>\"; done") };
    let (_dir, mut host) = boot("exec sleep 100000", &[("echo", echo)], |_| ());
    host.order(Request::Attach { session: FIRST });
    host.stdin(FIRST).add(b"hello\n");
    host.expect(FIRST, "<hello>\n");
    host.stdin(FIRST).finish();
    assert_eq!(host.exit(FIRST).ending, Ending::Exited { code: 0 });
    assert_eq!(host.stdout(MAIN).count, 0);
}

#[test]
fn a_pod_is_held_as_one() {
    let (_dir, mut host) = boot("echo main; exec sleep 100000", &[("other", other("exec sleep 100000"))], |spec| {
        spec.hold = true;
    });
    let status = host.status();
    assert!(status.sessions.values().all(|session| session.state == ProcessState::Waiting), "{status:?}");
    host.order(Request::Start);
    host.expect(MAIN, "main\n");
    let status = host.status();
    assert!(status.sessions.values().all(|session| session.state == ProcessState::Running), "{status:?}");
}

#[test]
fn one_that_cannot_be_run_is_a_machine_that_cannot() {
    let none = Process::new(vec!["/no/such/program".into()]);
    let (_dir, mut host) = boot("exec sleep 100000", &[("none", none)], |_| ());
    host.machine_ends_without_us();
    let Some(Event::Failed(failure)) = host.told.last() else { panic!("{:?}", host.told) };
    assert_eq!(failure.kind, FailureKind::ProgramNotFound);
    assert!(failure.reason.starts_with("session none: ") && failure.reason.contains("/no/such/program"), "{failure}");
}

#[test]
fn a_process_is_not_pid_1_and_its_orphans_are_nobodys_burden() {
    // a daemon outlives its parents, and nothing that ends stays as a zombie
    let main = "echo $$ > /pid; (setsid sh -c 'echo $$ > /daemon; exec sleep 100000' &) ; exec sleep 100000";
    let (_dir, mut host) = boot(main, &[], |_| ());
    let text = host.shell(
        "until [ -s /daemon ]; do sleep 0.05; done; cat /pid; d=$(cat /daemon); awk '{ print $4 }' /proc/$d/stat; kill -0 $d && echo alive",
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_ne!(lines[0], "1");
    assert_eq!(lines[1..], ["1", "alive"], "{text}");
    // a signal that nobody expects ends a process as it would anywhere
    host.order(Request::Signal { session: MAIN, signal: 15 });
    assert_eq!(host.exit(MAIN).ending, Ending::Signaled { signal: 15, core: false });
    host.wait_off();
}
