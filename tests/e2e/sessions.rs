//! Sessions beside the main process: what they get, how they end, who hears them, and what is left of them.

use rig::host::{Host, sh};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use rig::stream::Pattern;
use wire::message::{Event, Exec, MAIN, Reply, Request, SessionId, SessionState, Work};
use wire::spec::{Environment, LinkDevice, TermSize};
use wire::status::{Ending, FailureKind};

/// A machine whose main process does nothing, and its host.
fn idle(device: LinkDevice) -> (tempfile::TempDir, Host) {
    let (dir, disk) = busybox_disk();
    let spec = script(device, "exec sleep 100000");
    (dir, Host::boot(Machine::new(&spec, Some(disk)), &spec))
}

/// What PID 1 holds in memory, in KiB.
fn resident(host: &mut Host) -> u64 {
    host.shell("awk '/VmRSS/ { print $2 }' /proc/1/status").trim().parse().unwrap()
}

/// Every session but the main one.
fn others(host: &mut Host) -> Vec<SessionId> {
    let Reply::Sessions(sessions) = host.request(Request::List) else { panic!("no list") };
    sessions.iter().map(|info| info.session).filter(|session| *session != MAIN).collect()
}

#[test]
fn an_exec_gets_what_it_asks_for_and_its_end_is_told() {
    let (_dir, mut host) = idle(LinkDevice::Virtio);
    let exec = Exec {
        env: Environment(vec!["A=b  c|d".into(), "EMPTY=".into()]),
        dir: "/tmp".into(),
        user: "1234:99".into(),
        ..sh("echo \"$A<$EMPTY>$PATH\"; pwd; id -u; id -g; cat; echo err >&2; exit 7")
    };
    let ran = host.run(Work::Exec(exec));
    assert_eq!(ran.exit.ending, Ending::Exited { code: 7 });
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("b  c|d<>/bin:/usr/bin\n/tmp\n1234\n99\n", "err\n"));
    assert!(ran.exit.ended_us >= ran.exit.started_us && ran.exit.started_us > 0);
    // what it does not ask for is the main process's
    assert_eq!(host.shell("pwd; id -u; echo $PATH"), "/\n0\n/bin:/usr/bin\n");
    // all of the input, and its end
    let counting = host.exec(Exec { stdin: true, ..sh("wc -c; sha256sum </dev/null | cut -c1-8") });
    host.stdin(counting).pour(Pattern(1), 3_000_000);
    host.stdin(counting).finish();
    assert_eq!(host.finish(counting).stdout, "3000000\ne3b0c442\n");
    assert_eq!(others(&mut host), []);
}

#[test]
fn a_program_that_cannot_be_run_is_a_reason_and_no_session() {
    let (_dir, mut host) = idle(LinkDevice::Virtio);
    let program = |name: &str| Exec { argv: vec![name.into()], ..sh("") };
    let cases = [
        (program("/no/such/program"), FailureKind::ProgramNotFound, 127),
        (program("nosuchprogram"), FailureKind::ProgramNotFound, 127),
        (program("/etc/passwd"), FailureKind::NotExecutable, 126),
        (program("/etc"), FailureKind::NotExecutable, 126),
        (Exec { user: "stranger".into(), ..sh("true") }, FailureKind::UnknownUser, 125),
    ];
    for (exec, kind, code) in cases {
        let shown = format!("{exec:?}");
        let (_, id) = host.begin(Work::Exec(exec));
        let Reply::Failed(failure) = host.answer(id) else { panic!("{shown} runs") };
        assert_eq!((failure.kind, failure.kind.code()), (kind, code), "{shown}: {failure}");
    }
    assert_eq!(others(&mut host), []);
    // a number that is taken, and numbers that nobody has
    let session = host.exec(sh("sleep 1000"));
    for session in [MAIN, session] {
        let reply = host.request(Request::Create { session, work: Work::Exec(sh("true")) });
        assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
    }
    let nobody = SessionId(999);
    for request in [
        Request::Signal { session: nobody, signal: 15 },
        Request::Resize { session: nobody, size: TermSize { rows: 1, columns: 1 } },
        Request::Attach { session: nobody },
        Request::Detach { session: nobody },
        Request::Forget { session: nobody },
        Request::Create { session: SessionId(998), work: Work::Exec(Exec { argv: vec![], ..sh("") }) },
    ] {
        let reply = host.request(request.clone());
        assert!(matches!(reply, Reply::Refused { .. } | Reply::Failed(_)), "{request:?}: {reply:?}");
    }
    assert_eq!(host.shell("echo still here"), "still here\n");
}

#[test]
fn every_signal_arrives_by_its_number() {
    let (_dir, mut host) = idle(LinkDevice::Virtio);
    for signal in [1, 2, 3, 9, 15, 34, 50, 64] {
        let session = host.exec(Exec { argv: ["sleep", "1000"].map(String::from).to_vec(), ..sh("") });
        host.order(Request::Signal { session, signal });
        let ending = host.finish(session).exit.ending;
        assert!(matches!(ending, Ending::Signaled { signal: by, .. } if by == signal), "{signal}: {ending:?}");
    }
    let session = host.exec(sh("trap 'echo caught; exit 3' 63; echo up; while :; do sleep 0.05; done"));
    host.expect(session, "up\n");
    for signal in [0, 65, 255] {
        let reply = host.request(Request::Signal { session, signal });
        assert!(matches!(reply, Reply::Refused { .. }), "{signal}: {reply:?}");
    }
    host.order(Request::Signal { session, signal: 63 });
    let ran = host.finish(session);
    assert_eq!((ran.exit.ending, ran.stdout.as_str()), (Ending::Exited { code: 3 }, "up\ncaught\n"));
}

#[test]
fn a_terminal_has_its_size_from_the_start_and_changes_it() {
    for device in [LinkDevice::Virtio, LinkDevice::Serial] {
        let (_dir, mut host) = idle(device);
        let size = |rows, columns| TermSize { rows, columns };
        // a shell that is about to read when the signal comes would read on: it looks whether it came
        let script = "stty size; w=; trap 'w=1' WINCH; echo up; until [ $w ]; do sleep 0.1; done; stty size; \
                      read -r x; echo \"got $x\"; tty";
        let session = host.exec(Exec { terminal: Some(size(33, 101)), stdin: true, ..sh(script) });
        host.expect(session, "33 101\r\nup\r\n");
        host.order(Request::Resize { session, size: size(20, 70) });
        host.expect(session, "20 70\r\n");
        host.stdin(session).add(b"typed\n");
        let text = host.finish(session).stdout;
        assert!(text.contains("got typed\r\n/dev/pts/"), "{text:?}");
        let session = host.exec(sh("sleep 1000"));
        let reply = host.request(Request::Resize { session, size: size(1, 1) });
        assert!(matches!(reply, Reply::Refused { .. }), "no terminal: {reply:?}");
    }
}

#[test]
fn a_held_process_waits_and_nothing_of_it_is_missed() {
    let (_dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, "seq 1 20000");
    spec.hold = true;
    let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    let Reply::Sessions(sessions) = host.request(Request::List) else { panic!("no list") };
    assert_eq!(sessions.len(), 1);
    assert_eq!((sessions[0].session, &sessions[0].state), (MAIN, &SessionState::Waiting));
    // nothing of the container runs before it
    let (_, id) = host.begin(Work::Exec(sh("true")));
    let reply = host.answer(id);
    assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
    assert!(matches!(host.told[..], [Event::Ready(_)]), "{:?}", host.told);
    assert_eq!(host.stdout(MAIN).count, 0);
    host.order(Request::Start);
    assert_eq!(host.exit(MAIN).ending, Ending::Exited { code: 0 });
    let expected: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    assert!(host.stdout(MAIN).text() == expected, "{} bytes", host.stdout(MAIN).count);
}

#[test]
fn each_boot_tells_its_own_number_and_times() {
    let boots = [(); 2].map(|()| {
        let (_dir, mut host) = idle(LinkDevice::Virtio);
        host.order(Request::Start); // it runs already
        let Some(Event::Ready(ready)) = host.told.first().cloned() else { panic!("{:?}", host.told) };
        ready
    });
    assert_ne!(boots[0].boot, boots[1].boot);
    for ready in boots {
        assert!(0 < ready.init_us && ready.init_us <= ready.link_us && ready.link_us <= ready.ready_us, "{ready:?}");
        assert!(ready.ready_us < 120_000_000, "{ready:?}");
    }
}

#[test]
fn fifty_execs_at_once_keep_their_bytes_apart() {
    const EACH: u64 = 200_000;
    let (_dir, mut host) = idle(LinkDevice::Virtio);
    let begun: Vec<_> = (0..50).map(|_| host.begin(Work::Exec(Exec { stdin: true, ..sh("cat; exit 5") }))).collect();
    for &(session, id) in &begun {
        let reply = host.answer(id);
        assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
        host.echo(session, Pattern(id), EACH);
    }
    for (session, _) in begun {
        assert_eq!(host.exit(session).ending, Ending::Exited { code: 5 });
        assert_eq!(host.stdout(session).count, EACH);
        host.forget(session);
    }
    assert_eq!(others(&mut host), []);
}

#[test]
fn one_attaches_and_detaches_a_hundred_times() {
    let (_dir, mut host) = idle(LinkDevice::Virtio);
    // nobody hears what it says before
    let session =
        host.exec(Exec { stdin: true, attach: false, ..sh("echo first; while read -r x; do echo \"<$x>\"; done") });
    host.shell("echo a round trip");
    assert_eq!(host.stdout(session).count, 0);
    let before = resident(&mut host);
    for round in 0..100 {
        host.order(Request::Attach { session });
        host.stdin(session).add(format!("{round}\n").as_bytes());
        host.expect(session, &format!("<{round}>\n"));
        host.order(Request::Detach { session });
    }
    assert!(resident(&mut host) <= before + 64, "it grew from {before} KiB to {}", resident(&mut host));
    host.stdin(session).finish();
    assert_eq!(host.exit(session).ending, Ending::Exited { code: 0 });
    host.forget(session);
}

#[test]
fn what_is_forgotten_is_gone() {
    let (_dir, mut host) = idle(LinkDevice::Virtio);
    let session = host.exec(sh("exit 9"));
    host.exit(session);
    // its end is kept for a host that comes later
    let Reply::Sessions(sessions) = host.request(Request::List) else { panic!("no list") };
    let info = sessions.iter().find(|info| info.session == session).expect("not forgotten");
    assert!(matches!(&info.state, SessionState::Ended(exit) if exit.ending.code() == 9), "{info:?}");
    host.forget(session);
    assert_eq!(others(&mut host), []);
    for _ in 0..20 {
        host.shell("true");
    }
    let before = resident(&mut host);
    for _ in 0..100 {
        host.shell("true");
    }
    let after = resident(&mut host);
    assert!(after <= before + 64, "a hundred sessions took it from {before} to {after} KiB");
}

#[test]
fn the_container_tells_what_runs_in_it_and_what_it_uses() {
    let (_dir, mut host) = idle(LinkDevice::Virtio);
    let Reply::Stats(before) = host.request(Request::Stats) else { panic!("no figures") };
    // 20 MB in a variable of awk, and a processor kept busy on the way
    let eater = "BEGIN { s = \"x\"; while (length(s) < 20000000) s = s s; print \"full\"; fflush(); while ((getline line) > 0) ; }";
    let session =
        host.exec(Exec { argv: ["awk", eater].map(String::from).to_vec(), stdin: true, user: "1234".into(), ..sh("") });
    host.expect(session, "full\n");
    let Reply::Stats(after) = host.request(Request::Stats) else { panic!("no figures") };
    let megabyte = 1_000_000;
    assert!(after.memory.anon >= before.memory.anon + 20 * megabyte, "{before:?} {after:?}");
    assert!(after.memory.current >= after.memory.anon && after.memory.peak >= after.memory.current, "{after:?}");
    assert!((100 * megabyte..=256 << 20).contains(&after.memory.total), "{after:?}");
    assert!(after.cpu.usage_us > before.cpu.usage_us && after.at_us > before.at_us, "{before:?} {after:?}");
    assert!(after.cpu.machine_us > before.cpu.machine_us && after.cpu.online == 1, "{after:?}");
    assert_eq!((before.pids, after.pids), (1, 2));
    let Reply::Processes(processes) = host.request(Request::Top) else { panic!("no processes") };
    assert_eq!(processes.len(), 2, "{processes:?}");
    let awk = processes.iter().find(|process| process.command.first().is_some_and(|name| name == "awk")).expect("awk");
    assert!(awk.uid == 1234 && awk.ppid == 0 && awk.resident > 20 * megabyte && awk.cpu_us > 0, "{awk:?}");
    assert!(processes.iter().any(|process| process.command == ["sleep", "100000"]), "{processes:?}");
    // files
    host.shell("cd /tmp; printf 12345 >f; chmod 640 f; touch -d @1000000000 f; ln -s /etc/passwd l; mkdir -m 1777 d");
    let mut inspect = |path: &str| match host.request(Request::Inspect { path: path.into() }) {
        Reply::Path(info) => info,
        other => panic!("{path}: {other:?}"),
    };
    let file = inspect("/tmp/f");
    assert_eq!(
        (file.name.as_str(), file.size, file.mode, file.mtime_ns),
        ("f", 5, 0o100_640, 1_000_000_000_000_000_000)
    );
    let link = inspect("/tmp/l");
    assert_eq!((link.mode & 0o170_000, link.target.as_str()), (0o120_000, "/etc/passwd"));
    assert_eq!(inspect("/tmp/d").mode, 0o041_777);
    let reply = host.request(Request::Inspect { path: "/tmp/none".into() });
    assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
}
