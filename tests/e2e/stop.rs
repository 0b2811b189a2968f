//! Being asked to stop: with which signal, how long it may take, what becomes of those that do not listen.

use std::time::{Duration, Instant};

use rig::host::{Host, sh};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use wire::message::{Event, Exec, MAIN, Reply, Request, Work};
use wire::spec::{LinkDevice, Spec};
use wire::status::{Ending, MachineState};

fn boot(text: &str, edit: impl FnOnce(&mut Spec)) -> (tempfile::TempDir, Host) {
    let (dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, text);
    edit(&mut spec);
    (dir, Host::boot(Machine::new(&spec, Some(disk)), &spec))
}

/// How the main process ended, of a machine that powers off by itself.
fn end(host: &mut Host) -> Ending {
    let ending = host.exit(MAIN).ending;
    host.wait_off();
    ending
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_process_that_exits_at_once_is_no_wait() {
    // whoever waits for something fixed on the way waits longer than that, and each time; a busy computer does not
    let mut tries = Vec::new();
    while tries.iter().min().is_none_or(|took| *took >= 5 * SECOND) {
        assert!(tries.len() < 5, "from the request to the end of QEMU: {tries:?}");
        let (_dir, mut host) = boot("echo up; exec sleep 100000", |spec| spec.main.stop_timeout = None);
        host.expect(MAIN, "up\n");
        let asked = Instant::now();
        host.order(Request::PowerOff);
        assert_eq!(end(&mut host), Ending::Signaled { signal: 15, core: false });
        tries.push(asked.elapsed());
    }
    println!("from the request to the end of QEMU: {tries:?}");
}

#[test]
fn the_image_says_which_signal_stops_it() {
    // one that kills, one that nobody would guess, and one of the real-time signals
    for signal in [2, 28, 37] {
        let text = format!("trap 'echo got {signal}; exit 9' {signal}; echo up; while :; do sleep 0.05; done");
        let (_dir, mut host) = boot(&text, |spec| spec.main.stop_signal = signal);
        host.expect(MAIN, "up\n");
        host.order(Request::PowerOff);
        assert_eq!(host.exit(MAIN).ending, Ending::Exited { code: 9 });
        assert_eq!(host.stdout(MAIN).text(), format!("up\ngot {signal}\n"));
    }
}

#[test]
fn what_ignores_its_signal_is_killed_when_its_time_has_passed() {
    let text = "trap 'echo no' TERM; (trap '' TERM; exec sleep 100000) & echo up; while :; do sleep 0.05; done";
    let (_dir, mut host) = boot(text, |spec| spec.main.stop_timeout = Some(SECOND));
    host.expect(MAIN, "up\n");
    let execs = host.exec(sh("trap '' TERM; echo up; while :; do sleep 0.05; done"));
    host.expect(execs, "up\n");
    // by the guest's own clock: the test's may run at another speed
    let asked: f64 = host.shell("cut -d' ' -f1 /proc/uptime").trim().parse().expect("seconds");
    host.order(Request::PowerOff);
    host.expect(MAIN, "no\n");
    let exit = host.exit(MAIN);
    host.wait_off();
    assert_eq!(exit.ending, Ending::Signaled { signal: 9, core: false });
    let ended = Duration::from_micros(exit.ended_us).as_secs_f64();
    assert!(ended - asked >= 1.0, "it had its time, from {asked} to {ended}");
    assert!(host.machine.console().contains("is killed"), "{}", host.machine.console());
}

#[test]
fn asking_again_sends_the_signal_again_and_does_not_kill() {
    let text =
        "n=0; trap 'n=$((n + 1)); echo asked $n; [ $n = 3 ] && exit 4' TERM; echo up; while :; do sleep 0.05; done";
    let (_dir, mut host) = boot(text, |spec| spec.main.stop_timeout = None);
    host.expect(MAIN, "up\n");
    for round in 1..=3 {
        host.order(Request::PowerOff);
        host.expect(MAIN, &format!("asked {round}\n"));
    }
    assert_eq!(end(&mut host), Ending::Exited { code: 4 });
}

#[test]
fn a_frozen_process_is_killed_all_the_same() {
    let (_dir, mut host) = boot("echo up; kill -STOP $$; echo never", |spec| spec.main.stop_timeout = Some(SECOND));
    host.expect(MAIN, "up\n");
    let pid = host.status().sessions["rig"].pid.expect("it runs");
    host.shell(&format!("until grep -q '^State:.T' /proc/{pid}/status; do sleep 0.05; done"));
    host.order(Request::PowerOff);
    assert_eq!(end(&mut host), Ending::Signaled { signal: 9, core: false });
    assert_eq!(host.stdout(MAIN).text(), "up\n");
}

#[test]
fn sessions_beside_the_process_are_told_as_well() {
    let text = "trap 'sleep 0.2; echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let (_dir, mut host) = boot(text, |_| ());
    host.expect(MAIN, "up\n");
    let exec = host.exec(sh("trap 'echo exec told; exit 6' TERM; echo up; while :; do sleep 0.05; done"));
    host.expect(exec, "up\n");
    host.order(Request::PowerOff);
    assert_eq!(host.exit(exec).ending, Ending::Exited { code: 6 });
    assert_eq!(host.stdout(exec).text(), "up\nexec told\n");
    assert_eq!(end(&mut host), Ending::Exited { code: 0 });
    let states: Vec<MachineState> = host.statuses.iter().map(|status| status.state).collect();
    assert_eq!(states.first(), Some(&MachineState::Running));
    assert_eq!(states.last(), Some(&MachineState::Stopping));
    assert!(host.statuses.is_sorted_by(|a, b| a.generation < b.generation), "{:?}", host.statuses);
}

#[test]
fn what_a_stopped_process_leaves_behind_holds_nothing_up() {
    // the child has the pipe and ignores what it is told
    let text = "(trap '' TERM; exec sleep 100000) & trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let (_dir, mut host) = boot(text, |spec| spec.main.stop_timeout = None);
    host.expect(MAIN, "up\n");
    host.order(Request::PowerOff);
    assert_eq!(end(&mut host), Ending::Exited { code: 3 });
}

#[test]
fn a_process_that_was_never_started_ends_without_an_end() {
    let (_dir, mut host) = boot("echo never", |spec| spec.hold = true);
    host.order(Request::PowerOff);
    host.wait_off();
    assert!(!host.told.iter().any(|told| matches!(told, Event::Ended { .. } | Event::Failed(_))), "{:?}", host.told);
}

#[test]
fn every_signal_is_known_by_number_and_ends_what_does_not_expect_it() {
    let (_dir, mut host) = boot("exec sleep 100000", |_| ());
    // signal(7): whose default is not the end
    let harmless = |signal| matches!(signal, 17..=23 | 28);
    for signal in 1..=64 {
        // 32 and 33 are the C library's own, and a process may still get them
        let session = host.exec(Exec { argv: ["sleep", "100000"].map(String::from).to_vec(), ..sh("") });
        host.order(Request::Signal { session, signal });
        if harmless(signal) {
            host.order(Request::Signal { session, signal: 9 });
        }
        let ending = host.finish(session).exit.ending;
        let expected = if harmless(signal) { 9 } else { signal };
        assert!(matches!(ending, Ending::Signaled { signal: by, .. } if by == expected), "{signal}: {ending:?}");
        assert_eq!(ending.code(), 128 + expected);
    }
}

#[test]
fn every_exit_code_arrives() {
    let (_dir, mut host) = boot("exec sleep 100000", |_| ());
    // many at once: each is a process of its own
    for chunk in (0..=255_u8).collect::<Vec<u8>>().chunks(32) {
        let begun: Vec<_> = chunk.iter().map(|code| host.begin(Work::Exec(sh(&format!("exit {code}"))))).collect();
        for (&code, (session, id)) in chunk.iter().zip(begun) {
            let reply = host.answer(id);
            assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
            assert_eq!(host.finish(session).exit.ending, Ending::Exited { code });
        }
    }
}

#[test]
fn sigterm_to_pid_1_from_inside_stops_the_machine() {
    let (_dir, mut host) = boot("trap 'echo told; exit 7' TERM; kill -TERM 1; while :; do sleep 0.05; done", |_| ());
    assert_eq!(end(&mut host), Ending::Exited { code: 7 });
    assert_eq!(host.stdout(MAIN).text(), "told\n");
}
