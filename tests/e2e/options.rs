//! The options of `vch run`: what docker's mean for a container, they mean for a machine.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rig::images::{ImageDir, run as tool};
use rig::vch::{DEADLINE, Run, busybox, run, shell};
use serde_json::json;

/// `vch run OPTIONS… IMAGE sh -c SCRIPT`, with a state folder that outlives it.
fn kept(state: &Path, options: &[&str], image: &Path, script: &str) -> Run {
    let words = options.iter().map(OsStr::new).chain([image.as_os_str()]);
    run(words.chain(["sh", "-c", script].map(OsStr::new))).env("XDG_STATE_HOME", state)
}

fn plain() -> PathBuf {
    rig::artifacts::dist("busybox.tar")
}

/// The container's folder, when there is only one.
fn container(state: &Path) -> PathBuf {
    let mut all = fs::read_dir(state.join("tether/containers")).unwrap().map(|entry| entry.unwrap().path());
    let first = all.next().expect("a container was kept");
    assert!(all.next().is_none(), "one container");
    first
}

fn clean(disk: &Path) {
    let check = Command::new("e2fsck").arg("-fn").arg(disk).output().expect("e2fsck");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    let header = tool(Command::new("dumpe2fs").arg("-h").arg(disk));
    assert!(!header.contains("needs_recovery"), "its journal is written out");
}

#[test]
fn a_volume_is_filled_from_the_image_once_and_outlives_its_container() {
    let state = tempfile::tempdir().unwrap();
    let dir = ImageDir::with_busybox();
    fs::create_dir_all(dir.root().join("srv")).unwrap();
    fs::write(dir.root().join("srv/from-image"), "image\n").unwrap();
    let image = dir.archive(&json!({}));
    let of = |options: &[&str], script: &str| kept(state.path(), options, &image, script).output().success();
    let volume = ["--rm", "-v", "data:/srv"];
    assert_eq!(of(&volume, "cat /srv/from-image; rm /srv/from-image; echo mine > /srv/kept"), "image\n");
    assert_eq!(of(&volume, "ls /srv; cat /srv/kept"), "kept\nmine\n");
    clean(&state.path().join("tether/volumes/data/disk.raw"));
    let script = "cat /srv/kept; echo no > /srv/kept 2>/dev/null || echo refused";
    assert_eq!(of(&["--rm", "--mount", "source=data,target=/srv,readonly"], script), "mine\nrefused\n");
    assert_eq!(of(&["--rm", "-v", "empty:/srv:nocopy"], "ls /srv | wc -l"), "0\n");
}

#[test]
fn one_machine_writes_to_a_volume() {
    let state = tempfile::tempdir().unwrap();
    let options = ["--rm", "-i", "-v", "data:/srv"];
    let first = kept(state.path(), &options, &plain(), "echo ready; sleep 600").start();
    first.wait_for_output();
    kept(state.path(), &options, &plain(), "true").output().fails(125, &["volume data is in use"]);
    first.signal(nix::sys::signal::Signal::SIGTERM);
    first.finish();
    kept(state.path(), &options, &plain(), "true").output().success();
}

#[test]
fn mounts_are_as_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("my.img");
    fs::File::create(&disk).unwrap().set_len(32 << 20).unwrap();
    tool(Command::new("mkfs.ext4").arg("-q").arg(&disk));
    let image = format!("{}:/disk", disk.display());
    let options = [
        "--read-only",
        "--tmpfs",
        "/small:size=1m,mode=700",
        "--mount",
        "type=tmpfs,target=/words",
        "-v",
        "/own",
        "-v",
        &image,
    ];
    let script = "touch /x 2>/dev/null || echo root refused
        for dir in /own /disk /small /words; do echo $dir > $dir/x && cat $dir/x; done
        stat -c %a /small
        df -k /small | tail -n 1 | tr -s ' ' | cut -d' ' -f2
        cp /bin/busybox /small/busybox 2>/dev/null || echo full
        cp /bin/busybox /words/ls; /words/ls 2>/dev/null || echo not executed";
    let expected = "root refused\n/own\n/disk\n/small\n/words\n700\n1024\nfull\nnot executed\n";
    assert_eq!(shell(&options, script).output().success(), expected);
    clean(&disk);
    assert_eq!(tool(Command::new("debugfs").args(["-R", "cat /x"]).arg(&disk)), "/disk\n");
}

#[test]
fn an_images_volumes_are_the_containers_own() {
    let dir = ImageDir::with_busybox();
    fs::create_dir_all(dir.root().join("data")).unwrap();
    fs::write(dir.root().join("data/first"), "1\n").unwrap();
    let image = dir.archive(&json!({ "Volumes": { "/data": {} } }));
    let state = tempfile::tempdir().unwrap();
    let script = "cat /data/first; grep -c ' /data ' /proc/mounts; echo kept > /data/kept";
    assert_eq!(kept(state.path(), &["--rm"], &image, script).output().success(), "1\n1\n");
    assert_eq!(fs::read_dir(state.path().join("tether/containers")).unwrap().count(), 0, "gone with --rm");
    assert_eq!(kept(state.path(), &[], &image, script).output().success(), "1\n1\n");
    clean(&container(state.path()).join("vch-volume-0.raw"));
}

/// A port of this host that nobody uses.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_published_port_leads_in_and_the_way_out_is_open() {
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, there) = (free_port(), host.local_addr().unwrap().port());
    let publish = format!("127.0.0.1:{port}:80");
    let script = format!("echo out | nc 10.0.2.2 {there}; echo ready; echo hello from inside | nc -l -p 80");
    let running = shell(&["-p", &publish], &script).start();
    let (mut stream, _) = host.accept().unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    drop(stream);
    assert_eq!(said, "out\n");
    running.wait_for_output();
    // QEMU accepts before the guest does
    let until = Instant::now() + DEADLINE;
    let mut said = String::new();
    while said.is_empty() && Instant::now() < until {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"hi\n").ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
        stream.read_to_string(&mut said).ok();
    }
    assert_eq!(said, "hello from inside\n");
    assert_eq!(running.finish().code, 0);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let publish = format!("{}:80", taken.local_addr().unwrap());
    busybox(&["-p", &publish], &["true"]).output().fails(125, &["is in use: choose another one"]);
}

#[test]
fn names_and_networks_are_as_they_are_asked_for() {
    let options = [
        "-h",
        "web",
        "--domainname",
        "example.org",
        "--add-host",
        "db:10.9.8.7",
        "--add-host",
        "me:host-gateway",
        "--dns",
        "9.9.9.9",
        "--dns-search",
        "a.org",
        "--dns-option",
        "ndots:3",
        "--mac-address",
        "02:42:ac:11:00:02",
    ];
    let script = "hostname; echo domain $(cat /proc/sys/kernel/domainname); grep -E '(db|me)$' /etc/hosts | tr -s ' \\t' ' '; cat /etc/resolv.conf; cat /sys/class/net/eth0/address";
    let said = shell(&options, script).output().success();
    for line in [
        "web\n",
        "domain example.org\n",
        "10.9.8.7 db\n",
        "10.0.2.2 me\n",
        "nameserver 9.9.9.9\n",
        "search a.org\n",
        "options ndots:3\n",
        "02:42:ac:11:00:02\n",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said:?}");
    }
    let said =
        shell(&["--network", "none"], "ls /sys/class/net | tr '\\n' ' '; wc -l < /proc/net/route").output().success();
    assert!(!said.contains("eth0") && said.ends_with("1\n"), "{said:?}");
}

#[test]
fn rights_and_limits_are_dockers() {
    let options = [
        "--cap-drop",
        "ALL",
        "--cap-add",
        "CHOWN",
        "--cap-add",
        "net_bind_service",
        "--ulimit",
        "nofile=100:200",
        "--security-opt",
        "no-new-privileges",
        "--oom-score-adj",
        "77",
        "--group-add",
        "5",
        "-u",
        "65534",
        "--sysctl",
        "kernel.msgmax=9999",
        "--shm-size",
        "1m",
        "--cpus",
        "1.5",
        "--init",
    ];
    let script = "grep -E 'CapBnd|NoNewPrivs' /proc/self/status | tr -s '\\t' ' '; ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj
        id -u; id -G | tr ' ' '\\n' | grep -c '^5$'; cat /proc/sys/kernel/msgmax; df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d' ' -f2; nproc
        cat /sys/fs/cgroup/cpu.max";
    let expected = "CapBnd: 0000000000000401\nNoNewPrivs: 1\n100\n200\n77\n65534\n1\n9999\n1024\n2\n150000 100000\n";
    assert_eq!(shell(&options, script).output().success(), expected);
    let said = shell(&["--privileged"], "grep CapBnd /proc/self/status").output().success();
    assert!(said.contains("000001ffffffffff"), "{said}");
    // what asks for the figures may make no process any more; those that are left are the shell and its 28
    let script = "(i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i + 1)); done) 2> /said
        read -r said < /said; echo \"$said\"; cd /sys/fs/cgroup; read -r all < pids.current; read -r most < pids.max; echo $all $most";
    let said = shell(&["--pids-limit", "30"], script).output().success();
    assert!(said.contains("can't fork") && said.ends_with("\n29 30\n"), "{said:?}");
}

#[test]
fn a_seccomp_profile_is_docker_s_json() {
    let dir = tempfile::tempdir().unwrap();
    let profile = dir.path().join("profile.json");
    let rules = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 },
            { "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 1, "value": 10, "op": "SCMP_CMP_EQ" }] },
        ],
    });
    fs::write(&profile, rules.to_string()).unwrap();
    let option = format!("seccomp={}", profile.display());
    let script = "mkdir /x 2>&1; kill -USR1 $$ 2>&1; kill -0 $$ && echo alive; touch /y && echo made";
    let said = shell(&["--security-opt", &option], script).output().success();
    assert!(said.contains("No space left on device") && said.contains("not permitted"), "{said}");
    assert!(said.ends_with("alive\nmade\n"), "{said}");
    fs::write(&profile, "{}").unwrap();
    busybox(&["--security-opt", &option], &["true"]).output().fails(125, &["seccomp profile", "defaultAction"]);
}

#[test]
fn a_process_is_started_again_and_checked() {
    let state = tempfile::tempdir().unwrap();
    let script = "n=$(cat /n 2>/dev/null || echo 0); echo run $n; echo $((n+1)) > /n; exit 3";
    let output = kept(state.path(), &["--restart", "on-failure:2"], &plain(), script).output();
    assert_eq!((output.code, output.text().as_str()), (3, "run 0\nrun 1\nrun 2\n"), "{output:?}");
    let options = ["--health-cmd", "touch /checked", "--health-interval", "100ms"];
    assert_eq!(
        shell(&options, "until [ -e /checked ]; do sleep 0.1; done; echo checked").output().success(),
        "checked\n"
    );
}

#[test]
fn output_goes_to_a_syslog_server_of_this_host() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let address = format!("syslog-address=udp://{}", server.local_addr().unwrap());
    let running = shell(&["--log-driver", "syslog", "--log-opt", &address], "echo to the server; sleep 1").start();
    let mut buffer = [0; 2048];
    let (length, _) = server.recv_from(&mut buffer).unwrap();
    let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(said.starts_with('<') && said.contains(">1 ") && said.ends_with("to the server"), "{said:?}");
    assert_eq!(running.finish().success(), "to the server\n");
}

#[test]
fn what_is_known_of_a_container_is_kept() {
    let state = tempfile::tempdir().unwrap();
    let (id, notes) = (state.path().join("id"), state.path().join("notes"));
    fs::write(&notes, "# of the file\ntier=back\n").unwrap();
    let file = format!("--cidfile={}", id.display());
    let notes = format!("--label-file={}", notes.display());
    let options = ["--name", "web", "-l", "a=b", &notes, &file, "-v", "data:/srv:ro"];
    kept(state.path(), &options, &plain(), "true").output().success();
    let dir = container(state.path());
    assert_eq!(fs::read_to_string(&id).unwrap(), dir.file_name().unwrap().to_str().unwrap());
    let about: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("container.json")).unwrap()).unwrap();
    assert_eq!((&about["name"], &about["labels"]), (&json!("web"), &json!({ "a": "b", "tier": "back" })));
    assert_eq!(about["mounts"], json!(["data:/srv:ro"]));
    kept(state.path(), &["--rm", "--name", "web"], &plain(), "true")
        .output()
        .fails(125, &["the name \"web\" is in use"]);
    kept(state.path(), &["--rm", &file], &plain(), "true").output().fails(125, &["--cidfile"]);
}

#[test]
fn what_a_machine_cannot_do_is_one_sentence() {
    for (options, parts) in [
        (&["--gpus", "all"][..], &["--gpus: a device of the host cannot"][..]),
        (&["-d"], &["vch run stays with its container"]),
        (&["--network", "host"], &["a network of its own", "-p"]),
        (&["-v", "/tmp:/x"], &["shares no directory", "-v NAME:DIR"]),
        (&["-v", "/x:ro"], &["ro"]),
        (&["--tmpfs", "relative"], &["absolute path"]),
        (&["--restart", "always"], &["--restart and --rm"]),
        (&["-v", "a:/x", "-v", "b:/x"], &["duplicate mount point: /x"]),
        (&["--security-opt", "apparmor=x"], &["AppArmor"]),
    ] {
        let output = busybox(options, &["true"]).output();
        assert_eq!(output.code, 125, "{options:?}: {output:?}");
        assert!(output.stderr.starts_with("vch: "), "{output:?}");
        for part in parts {
            assert!(output.stderr.contains(part), "{options:?}: {part:?} is not in {:?}", output.stderr);
        }
    }
}

#[test]
fn a_start_that_fails_says_why_and_keeps_the_kernels_words() {
    let state = tempfile::tempdir().unwrap();
    let empty = state.path().join("empty.img");
    fs::File::create(&empty).unwrap().set_len(1 << 20).unwrap();
    let output = kept(state.path(), &["-v", &format!("{}:/srv", empty.display())], &plain(), "echo never").output();
    let log = container(state.path()).join("kernel.log");
    output.fails(125, &["vch-volume-0", log.to_str().unwrap()]);
    assert!(fs::read_to_string(&log).unwrap().contains("Linux version"), "what the kernel says first");
    let output = busybox(&["--sysctl", "kernel.no_such_parameter=1"], &["true"]).output();
    output.fails(125, &["kernel.no_such_parameter", "no such parameter"]);
}
