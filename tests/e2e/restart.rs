//! Processes that end and are started again: how often, when, and when not.

use std::ops::RangeInclusive;

use rig::host::{Host, sh};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use wire::message::{Event, MAIN, Reply, Request, SessionState, Work};
use wire::spec::{LinkDevice, Restart, Spec, TermSize};
use wire::status::{Ending, ProcessState, SessionStatus};

fn boot(text: &str, restart: Restart, edit: impl FnOnce(&mut Spec)) -> (tempfile::TempDir, Host) {
    let (dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, text);
    spec.main.restart = restart;
    edit(&mut spec);
    (dir, Host::boot(Machine::new(&spec, Some(disk)), &spec))
}

/// What was told of the main session, each change once.
fn history(host: &Host) -> Vec<SessionStatus> {
    let mut history: Vec<SessionStatus> =
        host.statuses.iter().filter_map(|status| status.sessions.get("rig").cloned()).collect();
    history.dedup();
    history
}

fn ends(host: &Host) -> usize {
    host.told.iter().filter(|told| matches!(told, Event::Ended { session: MAIN, .. })).count()
}

fn starts(host: &Host) -> Vec<u32> {
    let pid = |told: &Event| match told {
        Event::Started { session: MAIN, pid } => Some(*pid),
        _ => None,
    };
    host.told.iter().filter_map(pid).collect()
}

/// The starts before which the pause is long: 1.6 s, and then always twice as long.
const LONG_PAUSES: RangeInclusive<u32> = 5..=9;

/// Waits for its start, which is that one.
fn is_resting(status: &SessionStatus, restarts: u32) -> bool {
    status.state == ProcessState::Restarting && status.restarts == restarts
}

/// Asks while the main session waits for its start. What was told may be over on a slow machine: it counts if the pause is still the same afterwards.
fn ask_between<T>(host: &mut Host, mut ask: impl FnMut(&mut Host) -> T) -> T {
    for restarts in LONG_PAUSES {
        host.wait_for("rig", "to have a long pause", |status| is_resting(status, restarts));
        let answer = ask(host);
        if is_resting(&host.status().sessions["rig"], restarts) {
            return answer;
        }
    }
    panic!("every pause was over too early: {:?}", history(host));
}

#[test]
fn a_process_that_fails_is_started_again_so_many_times_and_its_output_goes_on() {
    let text = "n=$(cat /n 2>/dev/null || echo 0); echo $((n + 1)) > /n; echo run $n; exit 3";
    let (_dir, mut host) = boot(text, Restart::OnFailure(3), |_| ());
    assert_eq!(host.exit(MAIN).ending, Ending::Exited { code: 3 });
    assert_eq!(host.stdout(MAIN).text(), "run 0\nrun 1\nrun 2\nrun 3\n");
    host.wait_off();
    assert_eq!(ends(&host), 1, "the end is told once: {:?}", host.told);
    let pids = starts(&host);
    assert!(pids.len() == 4 && pids.is_sorted_by(|a, b| a < b), "{pids:?}");
    let history = history(&host);
    for count in 1..=3 {
        let resting =
            history.iter().find(|status| status.state == ProcessState::Restarting && status.restarts == count);
        let resting = resting.unwrap_or_else(|| panic!("restart {count}: {history:?}"));
        assert_eq!(resting.exit.as_ref().map(|exit| exit.ending), Some(Ending::Exited { code: 3 }));
        assert_eq!(resting.pid, None);
    }
    assert_eq!(history.last().map(|status| (status.state, status.restarts)), Some((ProcessState::Ended, 3)));
}

#[test]
fn the_pause_before_each_start_doubles() {
    let (_dir, mut host) = boot("exit 1", Restart::OnFailure(5), |_| ());
    host.exit(MAIN);
    // the guest's own clock: from the end of one process to the start of the next
    let mut exits: Vec<_> = history(&host).into_iter().filter_map(|status| status.exit).collect();
    exits.dedup();
    assert_eq!(exits.len(), 6, "{exits:?}");
    for (number, pair) in exits.windows(2).enumerate() {
        let pause = pair[1].started_us - pair[0].ended_us;
        assert!(pause >= 100_000 << number, "pause {number} was {pause} us");
    }
}

#[test]
fn success_is_the_end_unless_it_is_to_run_always() {
    let (_dir, mut host) = boot("echo once", Restart::OnFailure(0), |_| ());
    assert_eq!(host.exit(MAIN).ending, Ending::Exited { code: 0 });
    assert_eq!(host.stdout(MAIN).text(), "once\n");
    let (_dir, mut host) = boot("echo again", Restart::Always, |_| ());
    host.expect(MAIN, "again\nagain\nagain\n");
    host.order(Request::PowerOff);
    host.wait_off();
    assert_eq!(ends(&host), 1);
}

#[test]
fn what_was_told_to_end_is_not_started_again() {
    // by a stop, whose time does not pass on the slowest machine, and by a kill
    for order in
        [Request::PowerOff, Request::Signal { session: MAIN, signal: 9 }, Request::Signal { session: MAIN, signal: 15 }]
    {
        let endless = |spec: &mut Spec| spec.main.stop_timeout = None;
        let (_dir, mut host) = boot("echo up; exec sleep 100000", Restart::Always, endless);
        host.expect(MAIN, "up\n");
        let signal = if let Request::Signal { signal, .. } = order { signal } else { 15 };
        host.order(order);
        assert_eq!(host.exit(MAIN).ending, Ending::Signaled { signal, core: false });
    }
    // any other signal is what may befall a process
    let (_dir, mut host) = boot("echo up; exec sleep 100000", Restart::Always, |_| ());
    host.expect(MAIN, "up\n");
    host.order(Request::Signal { session: MAIN, signal: 1 });
    host.expect(MAIN, "up\nup\n");
}

#[test]
fn what_waits_for_its_start_and_is_told_to_end_is_not_started() {
    // where the pause was over before the request came, the process ran, and ends by the stop's signal: then once more, with a pause twice as long
    let mut seen = Vec::new();
    for restarts in LONG_PAUSES {
        let (_dir, mut host) = boot("exit 5", Restart::Always, |_| ());
        host.wait_for("rig", "to have a long pause", |status| is_resting(status, restarts));
        host.order(Request::PowerOff);
        let (ending, starts) = (host.exit(MAIN).ending, starts(&host).len());
        if ending == (Ending::Exited { code: 5 }) && starts <= restarts as usize {
            return;
        }
        seen.push((ending, starts));
    }
    panic!("it was started every time: {seen:?}");
}

#[test]
fn input_that_one_process_has_not_taken_is_the_next_ones() {
    let (_dir, mut host) =
        boot("read -r x; echo \"<$x>\"; [ \"$x\" = end ]", Restart::OnFailure(0), |spec| spec.main.stdin = true);
    for (round, word) in ["one", "two", "end"].into_iter().enumerate() {
        host.wait_for("rig", "to run", |status| status.restarts as usize == round && status.pid.is_some());
        host.stdin(MAIN).add(format!("{word}\n").as_bytes());
        host.expect(MAIN, &format!("<{word}>\n"));
    }
    assert_eq!(host.exit(MAIN).ending, Ending::Exited { code: 0 });
    // what is typed while nobody is there waits
    let (_dir, mut host) =
        boot("read -r x; echo \"<$x>\"; [ \"$x\" = end ]", Restart::OnFailure(0), |spec| spec.main.stdin = true);
    host.stdin(MAIN).add(b"one\n");
    host.wait_for("rig", "to be started again", |status| status.state == ProcessState::Restarting);
    host.feed(MAIN, b"end\n");
    assert_eq!(host.exit(MAIN).ending, Ending::Exited { code: 0 });
    assert_eq!(host.stdout(MAIN).text(), "<one>\n<end>\n");
}

#[test]
fn a_terminal_comes_again_with_the_size_that_it_had() {
    let size = |rows, columns| TermSize { rows, columns };
    let (_dir, mut host) = boot("stty size; read -r x; exit 1", Restart::Always, |spec| {
        spec.main.terminal = Some(size(30, 90));
        spec.main.stdin = true;
    });
    host.expect(MAIN, "30 90\r\n");
    host.order(Request::Resize { session: MAIN, size: size(40, 100) });
    host.stdin(MAIN).add(b"x\n");
    host.expect(MAIN, "40 100\r\n");
}

#[test]
fn what_a_process_has_left_behind_is_gone_before_it_starts_again() {
    // as a server whose worker holds the port
    let text = "kill -0 $(cat /left) 2>/dev/null && echo held || echo free; rm -f /left
        (setsid sh -c 'echo $$ > /left; exec sleep 100000' &); until [ -s /left ]; do sleep 0.05; done; exit 1";
    let (_dir, mut host) = boot(text, Restart::OnFailure(2), |_| ());
    host.exit(MAIN);
    assert_eq!(host.stdout(MAIN).text(), "free\nfree\nfree\n");
}

#[test]
fn between_two_processes_there_is_nothing_to_exec_in_and_the_machine_lives() {
    let (_dir, mut host) = boot("exit 1", Restart::Always, |_| ());
    let (exec, list, signal) = ask_between(&mut host, |host| {
        let (_, id) = host.begin(Work::Exec(sh("true")));
        let exec = host.answer(id);
        (exec, host.request(Request::List), host.request(Request::Signal { session: MAIN, signal: 1 }))
    });
    match exec {
        Reply::Refused { reason } => {
            assert_eq!(reason, "container rig is restarting, wait until the container is running");
        }
        other => panic!("{other:?}"),
    }
    let Reply::Sessions(sessions) = list else { panic!("no list") };
    assert!(matches!(sessions[0].state, SessionState::Running { pid: 0, .. }), "{sessions:?}");
    assert!(matches!(signal, Reply::Refused { .. }), "{signal:?}");
}

#[test]
fn a_host_that_comes_back_goes_on_where_it_was() {
    let text = "n=$(cat /n 2>/dev/null || echo 0); echo $((n + 1)) > /n; seq $((n * 1000 + 1)) $((n * 1000 + 1000)); [ $n = 2 ]";
    let (_dir, mut host) = boot(text, Restart::OnFailure(0), |_| ());
    host.expect(MAIN, "\n1000\n");
    host.kill();
    host.connect();
    let status = host.status();
    assert!(status.sessions["rig"].restarts <= 2 && status.generation > 0, "{status:?}");
    assert_eq!(host.exit(MAIN).ending, Ending::Exited { code: 0 });
    let expected: String = (1..=3000).map(|n| format!("{n}\n")).collect();
    assert!(host.stdout(MAIN).text() == expected, "{} bytes", host.stdout(MAIN).count);
}

#[test]
fn a_program_that_is_gone_is_the_end_and_its_reason_is_told() {
    let (_dir, mut host) = boot("echo up; rm /bin/sh; exit 2", Restart::Always, |_| ());
    assert_eq!(host.exit(MAIN).ending, Ending::Exited { code: 2 });
    host.wait_off();
    let failure = host.statuses.last().and_then(|status| status.failure.clone()).expect("a reason");
    assert!(failure.reason.contains("/bin/sh"), "{failure:?}");
}
