//! What is left when things end in the middle: serve and machines that are killed, disks that are full, many at once and many in a row. After each, docker tells
//! of every container how it is, and removes it.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use rig::engine::until;
use rig::serve::Serve;

fn shows(serve: &Serve, name: &str, what: &str) -> String {
    serve.docker(&["inspect", "-f", what, name]).output().text().trim().to_owned()
}

/// Nothing of any container is left: no process, no socket, no file.
fn is_clean(serve: &Serve) {
    assert_eq!(serve.docker(&["ps", "-aq"]).output().success(), "");
    assert_eq!(serve.machines(), []);
    let dirs = fs::read_dir(serve.state().join("serve")).expect("a directory").flatten();
    let left: Vec<_> = dirs.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn back(serve: &mut Serve) {
    serve.kill();
    serve.start_again();
    serve.until_docker_answers();
}

#[test]
fn serve_is_killed_at_any_point_and_every_container_can_be_told_and_removed() {
    let mut serve = Serve::with_qemu(&[]);
    // somewhere in create, in start, in the boot, while it runs, and while it ends
    for at in [0, 20, 60, 150, 400, 900, 1600, 2500] {
        let name = format!("at{at}");
        let run = serve.docker(&["run", "--name", &name, "busybox", "sh", "-c", "sleep 0.5; exit 5"]).start();
        std::thread::sleep(Duration::from_millis(at));
        back(&mut serve);
        run.finish();
        if shows(&serve, &name, "{{.Name}}").is_empty() {
            // it had not come to be
            continue;
        }
        let state = || shows(&serve, &name, "{{.State.Status}} {{.State.ExitCode}}");
        // what was begun goes on, and ends; and its code is not lost
        until("its end is told", || matches!(state().as_str(), "created 0" | "exited 5"));
        let again = serve.docker(&["start", "-a", &name]).output();
        assert_eq!(state(), "exited 5", "{name}: {} {}{}", again.code, again.text(), again.stderr);
        serve.docker(&["rm", &name]).output().success();
    }
    is_clean(&serve);

    // in the middle of an end, and of a removal
    for (how, at) in [("stop", 0), ("stop", 50), ("stop", 200), ("rm", 0), ("rm", 30), ("rm", 100)] {
        let id = serve.docker(&["run", "-d", "busybox", "top"]).output().success();
        let args: &[&str] = if how == "rm" { &["rm", "-f", id.trim()] } else { &["stop", id.trim()] };
        let end = serve.docker(args).start();
        std::thread::sleep(Duration::from_millis(at));
        back(&mut serve);
        end.finish();
        let gone = shows(&serve, id.trim(), "{{.Name}}").is_empty();
        assert!(!gone || how == "rm");
        if !gone {
            serve.docker(&["rm", "-f", id.trim()]).output().success();
        }
    }
    is_clean(&serve);
}

#[test]
fn an_end_that_comes_while_serve_is_away_is_told_with_its_code() {
    let mut serve = Serve::with_qemu(&[]);
    serve.docker(&["run", "-d", "--name", "lost", "busybox", "top"]).output().success();
    serve.docker(&["run", "-d", "--name", "three", "busybox", "sh", "-c", "sleep 1; exit 3"]).output().success();
    serve.kill();
    serve.start_again();
    serve.until_docker_answers();
    assert_eq!(serve.docker(&["wait", "three"]).output().success(), "3\n");
    serve.kill();
    // nobody is there to hear of it
    for pid in serve.machines() {
        kill(pid, Signal::SIGKILL).expect("a machine");
    }
    until("they have gone", || serve.machines().is_empty());
    serve.start_again();
    serve.until_docker_answers();
    assert_eq!(shows(&serve, "lost", "{{.State.Status}} {{.State.ExitCode}}"), "exited 255");
    assert!(shows(&serve, "lost", "{{.State.Error}}").contains("went off"));
    serve.docker(&["start", "lost"]).output().success();
    serve.docker(&["rm", "-f", "lost", "three"]).output().success();
    is_clean(&serve);
}

#[test]
fn machines_that_are_killed_are_told_and_stuck_ones_can_be_stopped() {
    let serve = Serve::with_qemu(&[]);
    serve.docker(&["run", "-d", "--name", "one", "busybox", "top"]).output().success();
    kill(serve.machines()[0], Signal::SIGKILL).expect("a machine");
    until("its end is told", || shows(&serve, "one", "{{.State.Status}} {{.State.ExitCode}}") == "exited 255");
    serve.docker(&["start", "one"]).output().success();
    // nothing in it moves any more, and serve does not know why
    kill(serve.machines()[0], Signal::SIGSTOP).expect("a machine");
    serve.docker(&["stop", "-t", "1", "one"]).output().success();
    assert_eq!(shows(&serve, "one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    let start = serve.docker(&["start", "one"]).start();
    until("it boots", || !serve.machines().is_empty());
    kill(serve.machines()[0], Signal::SIGKILL).expect("a machine");
    // however far it had come
    start.finish();
    serve.docker(&["rm", "-f", "one"]).output().success();
    is_clean(&serve);
}

#[test]
fn many_at_once_and_many_in_a_row_leave_nothing() {
    let serve = Serve::with_qemu(&[]);
    let count =
        |name: &str, otherwise: usize| std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(otherwise);
    let at_once: Vec<_> = (0..count("TETHER_AT_ONCE", 4))
        .map(|number| serve.docker(&["run", "--rm", "busybox", "echo", &number.to_string()]).start())
        .collect();
    for (number, run) in at_once.into_iter().enumerate() {
        assert_eq!(run.finish().success(), format!("{number}\n"));
    }
    is_clean(&serve);
    let before = serve.resident_kib();
    for number in 0..count("TETHER_IN_A_ROW", 6) {
        assert_eq!(serve.docker(&["run", "--rm", "busybox", "echo", "x"]).output().success(), "x\n", "{number}");
    }
    is_clean(&serve);
    let after = serve.resident_kib();
    assert!(after < before + 8 * 1024, "serve held {before} KiB, and holds {after} KiB");
}
