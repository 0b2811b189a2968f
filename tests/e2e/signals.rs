//! Signals to vch are the container's; vch's own death is the machine's.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rig::vch::{DEADLINE, shell};

#[test]
fn signals_are_forwarded() {
    for (signal, name, code) in
        [(Signal::SIGINT, "INT", 42), (Signal::SIGTERM, "TERM", 43), (Signal::SIGUSR1, "USR1", 44)]
    {
        let script = format!("trap 'echo got {name}; exit {code}' {name}; echo ready; while :; do sleep 0.1; done");
        let run = shell(&[], &script).start();
        run.wait_for_output();
        run.signal(signal);
        let output = run.finish();
        assert_eq!((output.code, output.text()), (code, format!("ready\ngot {name}\n")));
    }
}

#[test]
fn a_signal_that_nobody_catches_kills() {
    let run = shell(&[], "echo ready; exec sleep 1000").start();
    run.wait_for_output();
    run.signal(Signal::SIGTERM);
    assert_eq!(run.finish().code, 143);
}

#[test]
fn three_interrupts_end_what_does_not_listen() {
    let run = shell(&[], "trap '' INT; echo ready; sleep 1000; sleep 1000").start();
    run.wait_for_output();
    let deadline = Instant::now() + DEADLINE;
    let pid = run.pid();
    // it ends by itself once it has seen three
    while nix::sys::signal::kill(pid, Signal::SIGINT).is_ok() && !is_zombie(pid) {
        assert!(Instant::now() < deadline, "it goes on");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(run.finish().code, 137);
}

fn is_zombie(pid: nix::unistd::Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn no_machine_outlives_its_vch() {
    let run = shell(&[], "echo ready; sleep 1000").start();
    run.wait_for_output();
    let state = run.state().display().to_string();
    assert!(machine_of(&state), "QEMU names the state folder");
    run.signal(Signal::SIGKILL);
    let deadline = Instant::now() + DEADLINE;
    while machine_of(&state) {
        assert!(Instant::now() < deadline, "QEMU goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(run.finish().code, 137);
}

/// Whether a process that still runs has `text` in its arguments.
fn machine_of(text: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        arguments.windows(text.len()).any(|window| window == text.as_bytes())
    })
}
