//! What docker's client is told of a container while it lives: whether it is well, that its memory ended, that it stands still, and the room that it gives back.

use rig::engine::until;
use rig::qmp::Qmp;
use rig::serve::Serve;

use super::made_life::{events, shows};
use super::made_power::until_remembered;

/// The verdicts that docker's users have heard of.
fn verdicts(serve: &Serve, name: &str) -> Vec<String> {
    events(serve, name).iter().filter_map(|action| action.strip_prefix("health_status: ").map(str::to_owned)).collect()
}

fn status(serve: &Serve, name: &str) -> String {
    serve.docker(&["ps", "--filter", &format!("name={name}"), "--format", "{{.Status}}"]).output().success()
}

#[test]
fn what_a_check_finds_is_told() {
    let mut serve = Serve::with_qemu(&[]);
    let check = ["--health-cmd", "test ! -e /ill && echo fine", "--health-interval", "200ms", "--health-retries", "2"];
    let run = [&["run", "-d", "--name", "web"][..], &check, &["busybox", "top"]].concat();
    serve.docker(&run).output().success();
    until("it is well", || status(&serve, "web").contains("(healthy)"));
    let health = |what: &str| shows(&serve, "web", &format!("{{{{with .State.Health}}}}{what}{{{{end}}}}"));
    assert_eq!(health("{{.Status}} {{.FailingStreak}} {{(index .Log 0).ExitCode}}"), "healthy 0 0");
    assert_eq!(health("{{(index .Log 0).Output}}"), "fine");
    assert!(health("{{(index .Log 0).End}}").starts_with("20"), "a check has a time");
    serve.docker(&["exec", "web", "touch", "/ill"]).output().success();
    until("it is ill", || status(&serve, "web").contains("(unhealthy)"));
    assert_eq!(shows(&serve, "web", "{{.State.Health.Status}}"), "unhealthy");
    assert_eq!(serve.docker(&["ps", "-q", "--filter", "health=healthy"]).output().success(), "");
    serve.docker(&["exec", "web", "rm", "/ill"]).output().success();
    until("it is well again", || status(&serve, "web").contains("(healthy)"));
    assert_eq!(verdicts(&serve, "web"), ["healthy", "unhealthy", "healthy"]);
    let told = events(&serve, "web");
    let at = |action: &str| told.iter().position(|told| told == action).expect("an event");
    assert!(at("start") < at("health_status: healthy"), "{told:?}");

    // a serve that begins anew has heard of that before
    serve.kill();
    serve.start_again();
    serve.until_docker_answers();
    until("it is known to be well", || status(&serve, "web").contains("(healthy)"));
    serve.docker(&["exec", "web", "touch", "/ill"]).output().success();
    until("it is ill", || status(&serve, "web").contains("(unhealthy)"));
    assert_eq!(verdicts(&serve, "web"), ["unhealthy"]);
    serve.docker(&["stop", "-t", "0", "web"]).output().success();
    assert_eq!(shows(&serve, "web", "{{.State.Status}} {{.State.Health.Status}}"), "exited unhealthy");
    // its next process is another one
    serve.docker(&["start", "web"]).output().success();
    until("it is ill from its beginning", || verdicts(&serve, "web") == ["unhealthy", "unhealthy"]);
    serve.docker(&["rm", "-f", "web"]).output().success();
}

#[test]
fn an_end_for_want_of_memory_is_told_before_it_and_prune_tells_the_room() {
    let serve = Serve::with_qemu(&[]);
    let docker = |args: &[&str]| serve.docker(args).output();
    let hog = docker(&["run", "--name", "hog", "-m", "64m", "busybox", "tail", "/dev/zero"]);
    assert_eq!(hog.code, 137, "{hog:?}");
    assert_eq!(shows(&serve, "hog", "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
    assert_eq!(events(&serve, "hog"), ["create", "attach", "start", "oom", "die"]);

    docker(&["run", "--name", "wrote", "busybox", "dd", "if=/dev/urandom", "of=/file", "bs=1M", "count=8"]).success();
    let pruned = docker(&["container", "prune", "-f"]).success();
    let room = pruned.lines().find_map(|line| line.strip_prefix("Total reclaimed space: ")).expect(&pruned);
    let megabytes: f64 = room.strip_suffix("MB").and_then(|number| number.parse().ok()).expect(room);
    assert!((8.3..20.0).contains(&megabytes), "{room}");
    assert_eq!(docker(&["ps", "-aq"]).success(), "");

    // an image that was removed by force is there for its containers, and goes with the last one
    docker(&["create", "--name", "last", "busybox", "echo", "still"]).success();
    docker(&["rmi", "-f", "busybox"]).success();
    assert_eq!(docker(&["images", "-aq"]).success(), "");
    let kept =
        || std::fs::read_dir(serve.state().join("images/blobs/sha256")).map_or(0, |blobs| blobs.flatten().count());
    assert_eq!(docker(&["start", "-a", "last"]).success(), "still\n");
    assert_ne!(kept(), 0);
    docker(&["rm", "last"]).success();
    assert_eq!(kept(), 0, "nobody can ask for it any more");
}

#[test]
fn one_that_stands_still_is_found_so_and_its_limits_stay() {
    let mut serve = Serve::with_qemu(&[]);
    serve.docker(&["run", "-d", "--name", "web", "busybox", "top"]).output().success();
    let machine = serve.machines()[0];
    let line = std::fs::read(format!("/proc/{machine}/cmdline")).expect("it runs");
    let line = String::from_utf8_lossy(&line).into_owned();
    let orders = line.split('\0').find_map(|word| word.strip_prefix("socket,id=orders,")?.rsplit_once("path="));
    let orders = orders.expect("where it takes orders").1.to_owned();
    until_remembered(&serve, "web");
    serve.kill();
    // as a serve that was killed between the order and its record
    Qmp::connect(orders.as_ref()).execute("stop", "{}");
    serve.start_again();
    serve.until_docker_answers();
    until("it is known to stand still", || shows(&serve, "web", "{{.State.Status}}") == "paused");
    serve.docker(&["update", "--pids-limit", "50", "web"]).output().fails(1, &["it is paused", "unpause it first"]);
    assert_eq!(shows(&serve, "web", "{{.HostConfig.PidsLimit}}"), "<nil>");
    serve.docker(&["update", "--restart", "on-failure:3", "web"]).output().success();
    serve.docker(&["unpause", "web"]).output().success();
    // each order waits for its link, but not for ever
    until("its guest is back", || serve.docker(&["exec", "web", "true"]).output().code == 0);
    serve.docker(&["update", "--pids-limit", "50", "web"]).output().success();
    assert_eq!(shows(&serve, "web", "{{.HostConfig.PidsLimit}}"), "50");
    serve.docker(&["rm", "-f", "web"]).output().success();
    assert_eq!(serve.machines(), []);
}
