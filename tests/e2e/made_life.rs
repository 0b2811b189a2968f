//! The life of containers whose machines serve makes, by docker's own client: started again, stopped, killed, paused, restarted by policy, updated and removed,
//! with the words, codes and events that scripts rely on. Kills of serve and of machines: [`super::made_faults`].

use std::time::Instant;

use rig::engine::until;
use rig::serve::Serve;

/// What a container's inspect says of one thing.
pub(crate) fn shows(serve: &Serve, name: &str, what: &str) -> String {
    serve.docker(&["inspect", "-f", what, name]).output().text().trim().to_owned()
}

/// It has written something since it was started last.
fn ran_since_start(serve: &Serve, name: &str) -> bool {
    let started = shows(serve, name, "{{.State.StartedAt}}");
    !serve.docker(&["logs", "--since", &started, name]).output().text().is_empty()
}

/// The names of what has happened to a container, in order.
pub(crate) fn events(serve: &Serve, name: &str) -> Vec<String> {
    let filter = format!("container={name}");
    // docker's client makes whole seconds of "0s", and what has just happened would not be told
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a time after 1970");
    let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let args = ["events", "--since", "1h", "--until", &until, "--filter", &filter, "--format", "{{.Action}}"];
    serve.docker(&args).output().success().lines().map(str::to_owned).collect()
}

#[test]
fn a_container_is_started_again_and_its_files_and_logs_go_on() {
    let serve = Serve::with_qemu(&[]);
    let docker = |args: &[&str]| serve.docker(args).output();
    let script = "echo x >> /kept; cat; wc -l < /kept; exit 3";
    docker(&["create", "-i", "--name", "again", "busybox", "sh", "-c", script]).success();
    assert_eq!(shows(&serve, "again", "{{.State.Status}}"), "created");
    docker(&["stop", "again"]).success();
    docker(&["kill", "again"]).fails(1, &["cannot kill container: again: container ", " is not running"]);
    let first = serve.docker(&["start", "-ai", "again"]).stdin("in\n").output();
    assert_eq!((first.code, first.text().as_str()), (3, "in\n1\n"));
    // the input of the second is not the first's, and its end comes with the client's
    let second = serve.docker(&["start", "-ai", "again"]).stdin("").output();
    assert_eq!((second.code, second.text().as_str()), (3, "2\n"));
    assert_eq!(docker(&["logs", "again"]).success(), "in\n1\n2\n");
    assert_eq!(docker(&["wait", "again"]).success().trim(), "3");
    assert_eq!(serve.machines(), [], "an end is told when the machine is off");
    let told = events(&serve, "again");
    assert_eq!(told, ["create", "attach", "start", "die", "attach", "start", "die"]);
    docker(&["rename", "again", "other"]).success();
    docker(&["rm", "other"]).success();
    assert_eq!(serve.ask("POST", "/containers/other/start", "").status, 404);

    // a command that is not there: docker's code, at once, and nothing is left
    let none = docker(&["run", "--rm", "--name", "none", "busybox", "nosuchcmd"]);
    assert!(none.code == 127 && none.stderr.contains("executable file not found in $PATH"), "{none:?}");
    assert_eq!(serve.machines(), []);
    assert_eq!(docker(&["ps", "-aq"]).success(), "");
    let left: Vec<_> = std::fs::read_dir(serve.state().join("serve")).unwrap().flatten().collect();
    assert!(left.iter().all(|entry| entry.path().is_file()), "{left:?}");
}

#[test]
fn whoever_asks_for_an_end_gets_one() {
    let serve = Serve::with_qemu(&[]);
    let docker = |args: &[&str]| serve.docker(args).output();
    docker(&["create", "--name", "web", "busybox", "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"])
        .success();
    // two that start it at once: one machine
    let starts = [serve.docker(&["start", "web"]).start(), serve.docker(&["start", "web"]).start()];
    for start in starts {
        assert_eq!(start.finish().code, 0);
    }
    assert_eq!(serve.machines().len(), 1);
    assert_eq!(serve.ask("POST", "/containers/web/start", "").status, 304);
    docker(&["rm", "web"]).fails(
        1,
        &["cannot remove container \"web\": container is running: stop the container before removing or force remove"],
    );

    // one that stands still hears docker's words, and stop all the same
    docker(&["pause", "web"]).success();
    assert_eq!(shows(&serve, "web", "{{.State.Status}} {{.State.Running}} {{.State.Paused}}"), "paused true true");
    docker(&["pause", "web"]).fails(1, &["is already paused"]);
    docker(&["exec", "web", "true"]).fails(1, &["Container web is paused, unpause the container before exec"]);
    docker(&["rm", "web"]).fails(1, &["container is paused and must be unpaused first"]);
    docker(&["unpause", "web"]).success();
    docker(&["unpause", "web"]).fails(1, &["is not paused"]);
    docker(&["exec", "web", "true"]).success();
    docker(&["pause", "web"]).success();
    docker(&["stop", "web"]).success();
    assert_eq!(shows(&serve, "web", "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
    assert_eq!(serve.ask("POST", "/containers/web/stop", "").status, 304);

    // what hears nothing is killed when its time is over
    let script = "trap '' TERM; echo deaf; while :; do sleep 0.1; done";
    docker(&["run", "-d", "--name", "deaf", "busybox", "sh", "-c", script]).success();
    docker(&["restart", "-t", "0", "deaf"]).success();
    until("it is deaf again", || ran_since_start(&serve, "deaf"));
    docker(&["kill", "-s", "TERM", "deaf"]).success();
    docker(&["kill", "deaf"]).success();
    assert_eq!(shows(&serve, "deaf", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    let told = events(&serve, "deaf");
    let expected = ["create", "start", "kill", "stop", "die", "start", "restart", "kill", "kill", "die"];
    assert_eq!(told, expected);

    // removed while it begins, whatever it has come to by then
    let start = serve.docker(&["start", "deaf"]).start();
    until("it has a machine", || !serve.machines().is_empty());
    docker(&["rm", "-f", "deaf"]).success();
    start.finish();
    assert_eq!(serve.machines(), []);
    assert_eq!(docker(&["ps", "-a", "--format", "{{.Names}}"]).success(), "web\n");
    docker(&["container", "prune", "-f"]).success();
    assert_eq!(docker(&["ps", "-aq"]).success(), "");
}

#[test]
fn policies_start_it_again_until_its_user_has_enough() {
    let mut serve = Serve::with_qemu(&[]);
    serve.docker(&["run", "-d", "--restart", "on-failure:2", "--name", "fails", "busybox", "false"]).output().success();
    let count = |serve: &Serve, name: &str| shows(serve, name, "{{.RestartCount}}").parse::<u32>().unwrap_or_default();
    until("it has failed three times", || shows(&serve, "fails", "{{.State.Status}} {{.RestartCount}}") == "exited 2");
    assert_eq!(events(&serve, "fails"), ["create", "start", "die", "start", "die", "start", "die"]);

    serve.docker(&["run", "-d", "--restart", "always", "--name", "always", "busybox", "true"]).output().success();
    serve
        .docker(&["run", "-d", "--restart", "unless-stopped", "--name", "unless", "busybox", "top"])
        .output()
        .success();
    serve.docker(&["run", "-d", "--restart", "unless-stopped", "--name", "kept", "busybox", "top"]).output().success();
    until("it is started again", || count(&serve, "always") > 1);
    serve.docker(&["stop", "-t", "1", "always"]).output().success();
    assert_eq!(shows(&serve, "always", "{{.State.Status}}"), "exited");
    serve.docker(&["stop", "-t", "1", "unless"]).output().success();
    let before = shows(&serve, "kept", "{{.State.StartedAt}} {{.State.Pid}}");
    // docker's rule: what is always to run runs when the daemon is back, also if its user had stopped it
    serve.kill();
    serve.start_again();
    serve.until_docker_answers();
    until("it runs again", || events(&serve, "always").iter().any(|action| action == "start"));
    assert_eq!(shows(&serve, "unless", "{{.State.Status}}"), "exited");
    assert_eq!(shows(&serve, "kept", "{{.State.StartedAt}} {{.State.Pid}}"), before, "what runs is left alone");
    for name in ["always", "kept", "unless", "fails"] {
        serve.docker(&["rm", "-f", name]).output().success();
    }
    assert_eq!(serve.machines(), []);
}

#[test]
fn limits_grow_and_shrink_while_it_runs() {
    let serve = Serve::with_qemu(&[]);
    let docker = |args: &[&str]| serve.docker(args).output();
    docker(&["run", "-d", "-m", "128m", "--name", "web", "busybox", "top"]).success();
    docker(&["update", "--pids-limit", "50", "--restart", "on-failure:3", "web"]).success();
    docker(&["update", "--cpus", "0.5", "web"]).success();
    let began = Instant::now();
    docker(&["update", "-m", "96m", "--memory-swap", "96m", "web"]).success();
    docker(&["restart", "-t", "0", "web"]).success();
    let memory = docker(&["exec", "web", "sh", "-c", "grep MemTotal /proc/meminfo"]).success();
    let kib: u64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect(&memory);
    assert!(kib < 96 << 10, "the next machine is as small: {kib} KiB after {:?}", began.elapsed());
    docker(&["rm", "-f", "web"]).success();
}
