//! What docker's own client sees of a container's life: start, stop, kill, restart, wait, rename, rm, and machines that die at every stage of it.

use std::time::{Duration, Instant};

use rig::engine::Demultiplexed;
use rig::host::PATIENCE;
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use rig::serve::Serve;
use wire::spec::{About, LinkDevice, Spec};

/// Ends with the sum of the signals that it was sent.
const COUNTS: &str = "n=0; trap 'n=$((n+1))' USR1; trap 'n=$((n+2))' USR2; trap 'n=$((n+4))' HUP; trap 'exit $n' TERM; \
    echo up; while true; do sleep 0.1; done";

/// A machine of that name, with what a user of docker would have said of it.
pub(crate) fn machine(serve: &Serve, name: &str, spec: &mut Spec, disk: &std::path::Path) -> Machine {
    let mut machine = serve.machine(name, spec, disk.to_owned());
    let mut keys = wire::guestinfo::write(spec);
    let labels = [("tier".to_owned(), name.to_owned())].into();
    let about = About { name: Some(name.into()), image: Some("busybox:1".into()), labels, ..About::default() };
    wire::guestinfo::write_about(&about, &mut keys);
    machine.guestinfo = Some(keys.to_string());
    machine
}

/// Waits until docker says so of a container.
pub(crate) fn wait_until(serve: &Serve, name: &str, template: &str, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = serve.docker(&["inspect", "-f", template, name]).output();
        if output.code == 0 && output.text().trim() == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is not {expected}: {output:?}; {}", serve.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until docker logs shows these lines.
fn wait_for_logs(serve: &Serve, name: &str, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = serve.docker(&["logs", name]).output();
        if output.code == 0 && output.text() == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{name} has not said {expected:?}: {output:?}; {}", serve.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Docker's client failed with this code, and said all of this.
pub(crate) fn fails(output: rig::vch::Output, code: i32, parts: &[&str]) {
    assert_eq!(output.code, code, "{output:?}");
    for part in parts {
        assert!(output.stderr.contains(part), "{part:?} is not in {output:?}");
    }
}

const STATUS: &str = "{{.State.Status}}";

#[test]
fn a_held_vm_is_started_stopped_and_removed() {
    let (_dir, disk) = busybox_disk();
    let serve = Serve::start();
    let docker = |args: &[&str]| serve.docker(args).output();
    let mut spec = script(LinkDevice::Virtio, "trap 'exit 7' TERM; echo up; while true; do sleep 0.1; done");
    spec.hold = true;
    let mut powered = machine(&serve, "web", &mut spec, &disk).power_on();
    wait_until(&serve, "web", STATUS, "created");
    fails(docker(&["kill", "web"]), 1, &["cannot kill container: web: container", "is not running"]);
    assert_eq!(docker(&["start", "web"]).success(), "web\n");
    wait_until(&serve, "web", STATUS, "running");
    // it runs already
    assert_eq!(docker(&["start", "web"]).success(), "web\n");
    fails(docker(&["rm", "web"]), 1, &["cannot remove container \"web\": container is running"]);
    // its trap is set
    wait_for_logs(&serve, "web", "up\n");
    let waiting = serve.docker(&["wait", "web"]).start();
    assert_eq!(docker(&["stop", "-t", "60", "web"]).success(), "web\n");
    assert_eq!(waiting.finish().success(), "7\n");
    assert_eq!(
        docker(&["ps", "-a", "--format", "{{.Names}} {{.State}} {{.Image}}"]).success(),
        "web exited busybox:1\n"
    );
    assert!(docker(&["ps", "-a"]).success().contains("Exited (7) "));
    assert_eq!(docker(&["stop", "web"]).success(), "web\n");
    powered.wait();
    fails(docker(&["start", "web"]), 1, &["power it on where it was made"]);
    assert_eq!(docker(&["rename", "web", "old"]).success(), "");
    assert_eq!(docker(&["rm", "old"]).success(), "old\n");
    fails(docker(&["inspect", "--type", "container", "web"]), 1, &["No such container: web"]);
    assert_eq!(docker(&["ps", "-aq"]).success(), "");

    // in docker's order; the client says the time in whole seconds
    let soon = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1;
    let soon = soon.to_string();
    let words =
        ["events", "--since", "1", "--until", &soon, "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"];
    let told = docker(&words).success();
    let expected = ["create web", "start web", "kill web", "stop web", "die web", "rename old", "destroy old"];
    let expected: Vec<String> = expected.iter().map(|event| format!("container {event}")).collect();
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    let die = docker(&["events", "--since", "1", "--until", &soon, "--filter", "event=die"]).success();
    assert!(die.contains("exitCode=7") && die.contains("image=busybox:1") && die.contains("tier=web"), "{die}");
}

#[test]
fn trap_14_a_failed_start_has_dockers_words() {
    let (_dir, disk) = busybox_disk();
    let serve = Serve::start();
    for (name, program, code, words) in [
        ("none", "nosuchprogram", "127", "executable file not found"),
        ("denied", "/etc/passwd", "126", "permission denied"),
    ] {
        let mut spec = script(LinkDevice::Virtio, "");
        spec.main.argv = vec![program.into()];
        spec.hold = true;
        let _powered = machine(&serve, name, &mut spec, &disk).power_on();
        wait_until(&serve, name, STATUS, "created");
        fails(serve.docker(&["start", name]).output(), 1, &["unable to start container process", words]);
        assert_eq!(serve.docker(&["wait", name]).output().success(), format!("{code}\n"));
        wait_until(&serve, name, "{{.State.Status}} {{.State.ExitCode}}", &format!("exited {code}"));
    }
}

#[test]
fn trap_16_signals_have_names_and_numbers_and_winch_harms_nobody() {
    let (_dir, disk) = busybox_disk();
    let serve = Serve::start();
    let docker = |args: &[&str]| serve.docker(args).output();
    let mut spec = script(LinkDevice::Virtio, COUNTS);
    let _powered = machine(&serve, "web", &mut spec, &disk).power_on();
    wait_until(&serve, "web", STATUS, "running");
    // its traps are set
    wait_for_logs(&serve, "web", "up\n");
    for signal in ["WINCH", "28", "CONT", "USR1", "SIGUSR2", "1"] {
        assert_eq!(docker(&["kill", "-s", signal, "web"]).success(), "web\n", "{signal}");
    }
    fails(docker(&["kill", "-s", "NOSUCH", "web"]), 1, &["invalid signal: NOSUCH"]);
    let waiting = serve.docker(&["wait", "web"]).start();
    assert_eq!(docker(&["kill", "-s", "TERM", "web"]).success(), "web\n");
    assert_eq!(waiting.finish().success(), "7\n");
}

#[test]
fn a_container_is_removed_by_force() {
    let (_dir, disk) = busybox_disk();
    let serve = Serve::start();
    let docker = |args: &[&str]| serve.docker(args).output();
    let mut spec = script(LinkDevice::Virtio, "exec sleep 100000");
    let vm = machine(&serve, "web", &mut spec, &disk);
    let mut powered = vm.power_on();
    wait_until(&serve, "web", STATUS, "running");
    fails(docker(&["rename", "web", "w!"]), 1, &["Invalid container name (w!)"]);
    let waiting = serve.docker(&["wait", "web"]).start();
    assert_eq!(docker(&["rm", "-f", "web"]).success(), "web\n");
    assert_eq!(waiting.finish().success(), "137\n");
    assert_eq!(docker(&["ps", "-aq"]).success(), "");
    powered.wait();
}

#[test]
fn a_machine_that_dies_is_told_at_every_stage() {
    let (_dir, disk) = busybox_disk();
    let serve = Serve::start_with(&["--lost-after", "2"]);
    let docker = |args: &[&str]| serve.docker(args).output();

    // before it has said who it is
    let mut spec = script(LinkDevice::Virtio, "exec sleep 100000");
    drop(machine(&serve, "early", &mut spec, &disk).power_on());
    assert_eq!(docker(&["ps", "-aq"]).success(), "");

    // while it is held, while it runs, and right after its end
    let lives = [
        ("held", "true", true, "created", "exited 255"),
        ("runs", "exec sleep 100000", false, "running", "exited 255"),
        ("ended", "exit 3", false, "exited", "exited 3"),
    ];
    for (name, what, hold, before, after) in lives {
        let mut spec = script(LinkDevice::Virtio, what);
        spec.hold = hold;
        let powered = machine(&serve, name, &mut spec, &disk).power_on();
        wait_until(&serve, name, STATUS, before);
        let waiting = (name == "runs").then(|| serve.docker(&["wait", name]).start());
        drop(powered);
        wait_until(&serve, name, "{{.State.Status}} {{.State.ExitCode}}", after);
        if let Some(waiting) = waiting {
            assert_eq!(waiting.finish().success(), "255\n");
        }
        let why = docker(&["inspect", "-f", "{{.State.Error}}", name]).success();
        assert_eq!(why.contains("its link has been away for 2 s"), name != "ended", "{why}");
        let code = after.rsplit(' ').next().unwrap();
        assert_eq!(docker(&["wait", name]).success(), format!("{code}\n"));
        assert_eq!(docker(&["rm", name]).success(), format!("{name}\n"));
    }
}

#[test]
fn a_serve_that_is_killed_knows_its_containers_again() {
    let (_dir, disk) = busybox_disk();
    let mut serve = Serve::start_with(&["--lost-after", "5"]);
    let mut ended = script(LinkDevice::Virtio, "exit 3");
    let _ended = machine(&serve, "ended", &mut ended, &disk).power_on();
    let mut gone = script(LinkDevice::Virtio, "exec sleep 100000");
    let gone = machine(&serve, "gone", &mut gone, &disk).power_on();
    let mut web = script(LinkDevice::Virtio, "exec sleep 100000");
    let _web = machine(&serve, "web", &mut web, &disk).power_on();
    wait_until(&serve, "ended", STATUS, "exited");
    wait_until(&serve, "gone", STATUS, "running");
    wait_until(&serve, "web", STATUS, "running");
    let format = "{{.Names}} {{.ID}} {{.State}} {{.Image}} {{.Label \"tier\"}}";
    let list = |serve: &Serve| serve.docker(&["ps", "-a", "--no-trunc", "--format", format]).output();
    let before = list(&serve).success();
    assert_eq!(before.lines().count(), 3, "{before}");
    serve.kill();
    // nobody looks
    drop(gone);
    serve.start_again();
    drop(serve.stranger());
    while list(&serve).code != 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(list(&serve).success(), before);
    assert_eq!(serve.docker(&["wait", "ended"]).output().success(), "3\n");
    // one has gone meanwhile, and the other one is reached again
    wait_until(&serve, "gone", "{{.State.Status}} {{.State.ExitCode}}", "exited 255");
    assert_eq!(serve.docker(&["stop", "-t", "0", "web"]).output().success(), "web\n");
    // it is not process 1 of its machine, so that the signal that comes before the last one ends it
    wait_until(&serve, "web", "{{.State.Status}} {{.State.ExitCode}}", "exited 143");
}

/// Counts the boots of its machine, whose disk stays the same. The third one's process ends by itself.
const BOOTS: &str = "trap 'exit 7' TERM; echo x >> /boots; n=$(wc -l < /boots); echo boot $n; \
    if [ $n -gt 2 ]; then exit 3; fi; while true; do sleep 0.1; done";

#[test]
fn a_container_is_restarted_again_and_again() {
    let (_dir, disk) = busybox_disk();
    let serve = Serve::start();
    let docker = |args: &[&str]| serve.docker(args).output();
    let mut spec = script(LinkDevice::Virtio, BOOTS);
    let mut vm = machine(&serve, "web", &mut spec, &disk);
    vm.reboots = true;
    let mut powered = vm.power_on();
    wait_until(&serve, "web", STATUS, "running");
    wait_for_logs(&serve, "web", "boot 1\n");
    let waiting = serve.docker(&["wait", "web"]).start();
    assert_eq!(docker(&["restart", "-t", "1", "web"]).success(), "web\n");
    assert_eq!(waiting.finish().success(), "7\n");
    wait_until(&serve, "web", STATUS, "running");
    wait_for_logs(&serve, "web", "boot 1\nboot 2\n");
    // one that is over before anybody sees it run was restarted all the same
    assert_eq!(docker(&["restart", "-t", "1", "web"]).success(), "web\n");
    powered.wait();
    wait_until(&serve, "web", "{{.State.Status}} {{.State.ExitCode}}", "exited 3");
    wait_for_logs(&serve, "web", "boot 1\nboot 2\nboot 3\n");
    fails(docker(&["restart", "web"]), 1, &["power it on where it was made"]);
    let soon = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1;
    let words = ["events", "--since", "1", "--until", &soon.to_string(), "--format", "{{.Action}}"];
    let told = docker(&words).success();
    let round = ["kill", "stop", "die", "start", "restart"];
    let last = ["kill", "stop", "die", "start", "die", "restart"];
    let mut told: Vec<_> = told.lines().filter(|action| !action.contains("connect")).collect();
    // its own end and the news that it was restarted come in either order
    if told.ends_with(&["restart", "die"]) {
        let at = told.len() - 2;
        told.swap(at, at + 1);
    }
    assert_eq!(told, [&["create", "start"][..], &round, &last].concat());
}

#[test]
fn a_held_container_is_attached_to_before_and_after_a_restart() {
    let (_dir, disk) = busybox_disk();
    let serve = Serve::start();
    let mut spec = script(LinkDevice::Virtio, BOOTS);
    spec.hold = true;
    let mut vm = machine(&serve, "web", &mut spec, &disk);
    vm.reboots = true;
    let mut powered = vm.power_on();
    wait_until(&serve, "web", STATUS, "created");
    let visit = |what: &str| serve.hijack(&format!("/containers/web/attach?stdout=1&stderr=1&{what}"), "", b"").1;
    let mut before = visit("stream=1");
    assert_eq!(serve.docker(&["restart", "web"]).output().success(), "web\n", "what is held is started");
    wait_for_logs(&serve, "web", "boot 1\n");
    assert_eq!(serve.docker(&["restart", "-t", "1", "web"]).output().success(), "web\n");
    assert_eq!(Demultiplexed::of(&before.read_to_end()).stdout, b"boot 1\n");
    wait_for_logs(&serve, "web", "boot 1\nboot 2\n");
    let mut after = visit("stream=1&logs=1");
    let waiting = serve.docker(&["wait", "web"]).start();
    assert_eq!(serve.docker(&["stop", "-t", "60", "web"]).output().success(), "web\n");
    assert_eq!(waiting.finish().success(), "7\n");
    assert_eq!(Demultiplexed::of(&after.read_to_end()).stdout, b"boot 1\nboot 2\n");
    powered.wait();
}
