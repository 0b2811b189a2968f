//! `docker run` and `docker create` with docker's own client, on a host that makes the machines: what is asked for is seen from inside, and what cannot be
//! is refused in words that scripts know.

use rig::serve::Serve;
use rig::terminal::Session;
use rig::vch::Output;

use crate::docker_life::{fails, wait_until};

/// One line that holds each of the parts, from docker's client, whose own code for what the host refuses is 125.
fn refused(output: Output, parts: &[&str]) {
    fails(output, 125, parts);
}

#[test]
fn a_command_that_ends_gives_its_code_and_leaves_nothing() {
    let serve = Serve::with_qemu(&[]);
    let run = |args: &[&str]| serve.docker(&[&["run", "--rm"], args].concat()).output();
    let output = run(&["busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((output.code, output.text().as_str(), output.stderr.as_str()), (3, "out\n", "err\n"));
    fails(run(&["busybox", "nosuch"]), 127, &["exec: \"nosuch\": executable file not found in $PATH"]);
    fails(run(&["busybox", "/etc"]), 126, &["exec: \"/etc\": "]);
    assert_eq!(run(&["--entrypoint", "sh", "busybox", "-c", "kill -9 $$"]).code, 137);
    // so little memory that the kernel ends it, in a machine that has more
    let output = run(&["-m", "16m", "busybox", "sh", "-c", "x=$(head -c 60000000 /dev/zero | tr '\\0' x)"]);
    assert_eq!(output.code, 137, "{output:?}");
    assert_eq!(serve.docker(&["ps", "-aq"]).output().success(), "");
    rig::engine::until("no machine is left", || serve.machines().is_empty());
}

/// What it says of itself, in a fixed order.
const LOOK: &str = r#"echo "id $(id)"; echo "host $(hostname) $(hostname -f)"; echo "dir $PWD"; echo "env $A $B $LAST";
    echo "files $(ulimit -Sn) $(ulimit -Hn)"; echo "conn $(cat /proc/sys/net/core/somaxconn)";
    echo "root $(touch /new 2>&1)"; echo "tmp $(touch /t/new && df -k /t | awk 'NR == 2 { print $2 }')";
    echo "shm $(df -k /dev/shm | awk 'NR == 2 { print $2 }')"; echo "cpus $(nproc) $(cat /sys/fs/cgroup/cpu.max)";
    echo "pids $(cat /sys/fs/cgroup/pids.max)"; echo "hosts $(grep -c db.example /etc/hosts)";
    echo "dns $(tr '\n' ' ' < /etc/resolv.conf)"; echo "oom $(cat /proc/self/oom_score_adj)";
    grep -E 'CapBnd|NoNewPrivs|^Seccomp:' /proc/self/status; echo "mem $(awk '/MemTotal/ { print ($2 < 200000) }' /proc/meminfo)";
    mkdir /t/x 2>/dev/null || echo "no mkdir""#;

#[test]
fn each_option_is_seen_from_inside() {
    let serve = Serve::with_qemu(&[]);
    let profile = serve.state().with_file_name("profile.json");
    let rules =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(&profile, rules).unwrap();
    let seccomp = format!("seccomp={}", profile.display());
    let line = "run --name all -h web --domainname example.org -e A=1 -e B=2 -e LAST=x=y -w /bin -u 5:6 --group-add 9 --ulimit nofile=100:200 \
                --cap-drop NET_RAW --sysctl net.core.somaxconn=77 --read-only --tmpfs /t:size=3m --shm-size 5m --init --cpus 1.5 -m 150m \
                --pids-limit 50 --add-host db.example:192.0.2.7 --dns 192.0.2.53 --dns-search a.example --dns-opt ndots:3 \
                --security-opt no-new-privileges --oom-score-adj 100 --stop-signal INT --stop-timeout 3 -l tier=front --security-opt";
    let words: Vec<&str> = line.split_whitespace().chain([seccomp.as_str(), "busybox", "sh", "-c", LOOK]).collect();
    let output = serve.docker(&words).output().success();
    for expected in [
        "id uid=5 gid=6 groups=6,9",
        "host web web.example.org",
        "dir /bin",
        "env 1 2 x=y",
        "files 100 200",
        "conn 77",
        "root touch: /new: Read-only file system",
        "tmp 3072",
        "shm 5120",
        "cpus 2 150000 100000",
        "pids 50",
        "hosts 1",
        "dns nameserver 192.0.2.53 search a.example options ndots:3",
        "oom 100",
        "CapBnd:\t00000000a80405fb",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "mem 1",
        "no mkdir",
    ] {
        assert!(output.lines().any(|line| line.trim_end() == expected), "{expected:?} is not in {output}");
    }
    let inspect =
        |template: &str| serve.docker(&["inspect", "-f", template, "all"]).output().success().trim().to_owned();
    let check = |template: &str, expected: &str| assert_eq!(inspect(template), expected, "{template}");
    check(
        "{{.Config.Hostname}} {{.Config.Domainname}} {{.Config.User}} {{.Config.WorkingDir}}",
        "web example.org 5:6 /bin",
    );
    check("{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}", "157286400 1500000000 50");
    check(
        "{{.HostConfig.ShmSize}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}",
        "5242880 true [CAP_NET_RAW]",
    );
    check("{{.Config.StopSignal}} {{.Config.StopTimeout}} {{.HostConfig.Init}}", "INT 3 true");
    check("{{index .Config.Labels \"tier\"}} {{.HostConfig.ExtraHosts}}", "front [db.example:192.0.2.7]");
    check("{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.Path}}", "exited 0 false sh");
    // whoever asks for none of it gets docker's own
    let plain = "id -u; pwd; ulimit -n; grep CapBnd /proc/self/status; test -t 0 || echo no terminal; env | sort";
    let output = serve.docker(&["run", "--rm", "-h", "x", "busybox", "sh", "-c", plain]).output().success();
    let expected = "0\n/\n1048576\nCapBnd:\t00000000a80425fb\nno terminal\nHOME=/root\nHOSTNAME=x\n";
    assert!(output.starts_with("0\n/\n") && output.contains(&expected[expected.find("CapBnd").unwrap()..]), "{output}");
}

#[test]
fn standard_input_is_read_to_its_end() {
    let serve = Serve::with_qemu(&[]);
    let bytes: Vec<u8> = (0..300_000_u32).map(|number| b'a' + u8::try_from(number % 26).unwrap()).collect();
    let output = serve.docker(&["run", "-i", "--rm", "busybox", "cat"]).stdin(bytes.clone()).output();
    assert_eq!((output.code, output.stdout == bytes), (0, true), "{}", output.stderr);
    // nobody asked for it: there is nothing to read
    let run = ["run", "--name", "deaf", "--log-driver", "none", "busybox", "wc", "-c"];
    assert_eq!(serve.docker(&run).stdin("not for it").output().success().trim(), "0");
    let logs = serve.docker(&["logs", "deaf"]).output();
    fails(logs, 1, &["configured logging driver does not support reading"]);
    let create = ["create", "-i", "--name", "held", "busybox", "sh", "-c", "read line; echo got $line; exit 4"];
    let id = serve.docker(&create).output().success();
    assert_eq!(id.trim().len(), 64, "{id}");
    let output = serve.docker(&["start", "-ai", "held"]).stdin("this\n").output();
    assert_eq!((output.code, output.text().as_str()), (4, "got this\n"), "{output:?}");
    // a second life of the same container
    let output = serve.docker(&["start", "-a", "-i", "held"]).stdin("that\n").output();
    assert_eq!((output.code, output.text().as_str()), (4, "got that\n"), "{output:?}");
}

#[test]
fn a_terminal_has_the_size_of_the_clients() {
    let serve = Serve::with_qemu(&[]);
    let host = serve.docker_host();
    let session = |words: &str| {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        Session::of(33, 101, ["docker".to_owned(), "--host".into(), host.clone()].into_iter().chain(words))
    };
    let mut run = session("run --rm -it --name tty busybox sh");
    run.expect("# ");
    run.press_until("stty size\r", "33 101");
    run.type_text("tty; echo $TERM\r");
    run.expect("/dev/pts/0");
    run.expect("xterm");
    run.resize(20, 70);
    run.press_until("stty size\r", "20 70");
    run.type_text("exit 7\r");
    assert_eq!(run.finish().0, 7);
    // it waits for somebody to attach
    serve.docker(&["run", "-dit", "--name", "shell", "busybox", "sh"]).output().success();
    let mut attached = session("attach shell");
    attached.press_until("echo $((6*7))\r", "42");
    attached.type_text("\x10\x11");
    attached.expect("read escape sequence");
    attached.finish();
    wait_until(&serve, "shell", "{{.State.Status}}", "running");
    let mut attached = session("attach shell");
    attached.press_until("\r", "# ");
    attached.type_text("exit 5\r");
    assert_eq!(attached.finish().0, 5);
    wait_until(&serve, "shell", "{{.State.Status}} {{.State.ExitCode}}", "exited 5");
}

#[test]
fn a_detached_container_is_listed() {
    let serve = Serve::with_qemu(&[]);
    let docker = |args: &[&str]| serve.docker(args).output();
    let file = serve.state().with_file_name("cid");
    let file = file.to_str().unwrap();
    let script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done";
    let run = ["run", "-d", "--cidfile", file, "--name", "web", "-l", "tier=front", "busybox", "sh", "-c", script];
    let id = docker(&run).success().trim().to_owned();
    assert_eq!(std::fs::read_to_string(file).unwrap(), id);
    // docker's client does not take a file that is there
    fails(docker(&run), 125, &["container ID file found"]);
    let ps = |filters: &[&str]| {
        let options: Vec<&str> = filters.iter().flat_map(|filter| ["-f", filter]).collect();
        let line = [&["ps", "--format", "{{.Names}} {{.State}}"], options.as_slice()].concat();
        docker(&line).success()
    };
    for filters in [
        &[][..],
        &["status=running"],
        &["name=^web$", "label=tier=front"],
        &["ancestor=busybox"],
        &["ancestor=busybox:latest"],
        &["health=none"],
    ] {
        assert_eq!(ps(filters), "web running\n", "{filters:?}");
    }
    for filters in
        [&["status=exited"][..], &["ancestor=other"], &["network=other"], &["label=tier=back"], &["is-task=true"]]
    {
        assert_eq!(ps(filters), "", "{filters:?}");
    }
    let long = docker(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Command}} {{.Status}}"]).success();
    assert!(long.starts_with(&format!("{id} \"sh -c 'trap 'exit")) && long.contains(" Up "), "{long}");
    let info = docker(&["info"]).success();
    for part in [
        "Containers: 1",
        " Running: 1",
        " Paused: 0",
        " Stopped: 0",
        "Images: 1",
        "Storage Driver: overlay2",
        "Machines: made here",
    ] {
        assert!(info.contains(part), "{part:?} is not in {info}");
    }
    assert_eq!(docker(&["exec", "web", "dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=3"]).code, 0);
    assert_eq!(docker(&["stop", "web"]).success(), "web\n");
    wait_until(&serve, "web", "{{.State.Status}} {{.State.ExitCode}}", "exited 9");
    assert_eq!(docker(&["logs", "web"]).success(), "up\n");
    assert_eq!(docker(&["ps", "-q"]).success(), "");
    let listed = docker(&["ps", "-a", "-f", "exited=9", "--format", "{{.Names}} {{.Status}}"]).success();
    assert!(listed.starts_with("web Exited (9) ") && listed.ends_with(" ago\n"), "{listed}");
    // what it wrote is on its own disk, which is thin: three megabytes, and not the gigabytes that it could hold
    let sizes = docker(&["inspect", "-s", "-f", "{{.SizeRw}} {{.SizeRootFs}}", "web"]).success();
    let sizes: Vec<u64> = sizes.split_whitespace().map(|size| size.parse().unwrap()).collect();
    assert!((3 << 20..6 << 20).contains(&sizes[0]) && sizes[1] > sizes[0] + (1 << 20), "{sizes:?}");
    let size = docker(&["ps", "-as", "-f", "name=web", "--format", "{{.Size}}"]).success();
    assert!(size.contains("MB (virtual ") && !size.starts_with("0B"), "{size}");
}

/// Nothing of this needs a machine.
#[test]
fn what_is_only_created_is_named_listed_and_told_of() {
    let serve = Serve::with_qemu(&[]);
    let docker = |args: &[&str]| serve.docker(args).output();
    let first = docker(&["create", "-l", "k=1", "--health-cmd", "true", "busybox", "true"]).success();
    let name = docker(&["inspect", "-f", "{{.Name}}", first.trim()]).success();
    assert!(name.starts_with('/') && name.matches('_').count() == 1, "{name}");
    let warned =
        docker(&["create", "--name", "bb", "--cpu-shares", "5", "--memory-swap", "1g", "-m", "512m", "busybox"]);
    assert!(warned.stderr.contains("WARNING: --cpu-shares has no effect: "), "{warned:?}");
    assert!(warned.stderr.contains("WARNING: --memory-swap has no effect: ") && warned.code == 0, "{warned:?}");
    docker(&["create", "--name", "cc", "--expose", "99", "-v", "/data", "busybox", "echo", "a b"]).success();
    let names =
        |args: &[&str]| docker(&[&["ps", "-a", "--format", "{{.Names}}"], args].concat()).success().replace('\n', " ");
    assert!(names(&[]).starts_with("cc bb "));
    assert_eq!((names(&["-l"]), names(&["-n", "2"])), ("cc ".into(), "cc bb ".into()));
    assert_eq!(
        (names(&["-f", "since=bb"]), names(&["-f", "before=cc", "-f", "since=bb"])),
        ("cc ".into(), String::new())
    );
    assert_eq!((names(&["-f", "expose=99"]), names(&["-f", "status=created"]).matches(' ').count()), ("cc ".into(), 3));
    assert_eq!(names(&["-f", "label=k=1"]).trim(), name.trim().trim_start_matches('/'));
    fails(docker(&["ps", "-f", "status=odd"]), 1, &["invalid filter 'status=odd'"]);
    fails(docker(&["ps", "-f", "since=nosuch"]), 1, &["No such container: nosuch"]);
    assert_eq!(
        docker(&["ps", "-a", "-f", "name=cc", "--format", "{{.Command}} {{.Status}}"]).success(),
        "\"echo 'a b'\" Created\n"
    );

    // the fields are docker's, and memory and processors have an end
    let whole = serve.ask("GET", "/containers/bb/json?size=1", "").json();
    assert_eq!((&whole["State"]["Status"], &whole["SizeRw"]), (&"created".into(), &0.into()));
    assert_eq!(whole["HostConfig"]["NanoCpus"], 1_000_000_000);
    let asked = r#"{"Image":"busybox","Cmd":"true","Entrypoint":["sh","-c"]}"#;
    let made = serve.ask("POST", "/containers/create?name=raw", asked);
    assert_eq!((made.status, made.json()["Warnings"].clone()), (201, serde_json::json!([])), "{}", made.text());
    let whole = serve.ask("GET", "/containers/raw/json", "").json();
    assert_eq!((&whole["Path"], &whole["Args"]), (&"sh".into(), &serde_json::json!(["-c", "true"])));
    assert_eq!(
        (&whole["HostConfig"]["Memory"], &whole["HostConfig"]["CapAdd"]),
        (&(512 << 20).into(), &serde_json::Value::Null)
    );
    for (body, status) in
        [("", 400), ("{", 400), ("{\"Image\":\"nosuch\",\"Cmd\":[\"x\"]}", 404), ("{\"Image\":5}", 400)]
    {
        assert_eq!(serve.ask("POST", "/containers/create", body).status, status, "{body}");
    }
    let busy = serve.ask("POST", "/containers/create?name=raw", asked);
    assert_eq!(busy.status, 409);
    assert!(busy.text().contains("The container name \\\"/raw\\\" is already in use by container"), "{}", busy.text());
}

#[test]
fn what_a_machine_cannot_do_is_refused_before_there_is_one() {
    let serve = Serve::with_qemu(&[]);
    let run = |options: &str| {
        let words: Vec<&str> = options.split_whitespace().collect();
        serve.docker(&[&["run"], words.as_slice(), &["busybox", "true"]].concat()).output()
    };
    for (options, parts) in [
        ("-m 1m", &["Minimum memory limit allowed is 6MB"][..]),
        ("--cpus 65", &["range of CPUs is from 0.01 to 64.00"]),
        ("-m 100m --memory-swap 50m", &["Minimum memoryswap limit should be larger than memory limit, see usage"]),
        ("--cap-add NO_SUCH", &["invalid CapAdd: unknown capability: \"CAP_NO_SUCH\""]),
        (
            "--restart never",
            &[
                "invalid restart policy: unknown policy 'never'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
            ],
        ),
        ("--restart always:3", &["invalid restart policy: maximum retry count can only be used with 'on-failure'"]),
        ("--log-driver gelf", &["logger: no log driver named 'gelf' is registered"]),
        ("--device /dev/null", &["--device /dev/null: a device of the host cannot be passed into the virtual machine"]),
        ("--gpus all", &["could not select device driver"]),
        ("--pid host", &["--pid host: a virtual machine shares nothing of that kind"]),
        ("--ipc host", &["--ipc host: "]),
        ("--uts host", &["--uts host: "]),
        ("--cgroupns host", &["--cgroupns host: "]),
        ("--network host", &["--network host: a virtual machine has a network of its own"]),
        ("--runtime runc", &["unknown or invalid runtime name: runc"]),
        ("--isolation hyperv", &["invalid isolation \"hyperv\""]),
        ("--storage-opt size=1g", &["--storage-opt size: "]),
        ("--security-opt apparmor=mine", &["has no AppArmor"]),
        ("--stop-signal NONE", &["invalid signal: NONE"]),
        ("-w tmp", &["the working directory 'tmp' is invalid, it needs to be an absolute path"]),
        ("-v /tmp:/h", &["share no folders or files of this host"]),
        ("--name bad!name", &["Invalid container name (bad!name), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"]),
        ("--health-cmd x --health-interval 1us", &["Interval in Healthcheck cannot be less than 1ms"]),
        ("--sysctl net..x=1", &["--sysctl net..x: "]),
    ] {
        refused(run(options), parts);
    }
    // docker's client says so itself
    refused(run("--rm --restart always"), &["cannot specify both --restart and --rm"]);
    serve.docker(&["create", "--name", "taken", "busybox"]).output().success();
    refused(run("--name taken"), &["Conflict. The container name \"/taken\" is already in use by container"]);
    assert_eq!(serve.docker(&["ps", "-aq"]).output().success().lines().count(), 1);
    assert!(serve.machines().is_empty());
}
