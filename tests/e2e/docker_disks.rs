//! The files of containers whose machines are off, by docker's own client: cp, diff, export and commit, also after a machine was killed while it wrote.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use rig::engine::until;
use rig::images::run;
use rig::serve::Serve;

use crate::docker_life::{fails, wait_until};

/// Of each kind something new, and of what the image has some things gone.
const WORK: &str = "mkdir -p /d/sub; echo one >/d/file; ln /d/file /d/hard; ln -s /d/file /abs; ln -s sub /d/rel; mkfifo /d/pipe; \
    rm /etc/passwd; rm -r /var; mkdir /var; echo v >/var/v; chmod 4755 /d/file; chown 1234:5 /d/sub; touch -d @5 /d/sub; echo done";

fn docker(serve: &Serve, args: &[&str]) -> String {
    let output = serve.docker(args).output();
    assert_eq!(output.code, 0, "{args:?}: {output:?}; {}", serve.log());
    output.text()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

/// Names in an archive of all of a container's files.
fn exported(serve: &Serve, name: &str, archive: &Path) -> Vec<String> {
    docker(serve, &["export", "-o", text(archive), name]);
    run(Command::new("tar").arg("-tf").arg(archive)).lines().map(str::to_owned).collect()
}

#[test]
fn files_of_stopped_containers_are_had_and_changed() {
    let serve = Serve::with_qemu(&[]);
    let dir = tempfile::tempdir().unwrap();
    let here = |name: &str| dir.path().join(name);
    let cp = |from: &str, to: &str| docker(&serve, &["cp", "-q", from, to]);
    fs::write(here("in"), "from outside\n").unwrap();

    // one that was never started: what is put in it is there when it is
    docker(&serve, &["create", "--name", "web", "busybox", "sh", "-c", &format!("cat /etc/in && {WORK}")]);
    assert_eq!(docker(&serve, &["diff", "web"]), "");
    cp(text(&here("in")), "web:/etc/in");
    assert_eq!(docker(&serve, &["diff", "web"]), "C /etc\nA /etc/in\n");
    assert_eq!(docker(&serve, &["start", "-a", "web"]), "from outside\ndone\n");
    wait_until(&serve, "web", "{{.State.Status}}", "exited");

    let expected =
        "A /abs\nA /d\nA /d/file\nA /d/hard\nA /d/pipe\nA /d/rel\nA /d/sub\nC /etc\nA /etc/in\nD /etc/passwd\n";
    let diff = docker(&serve, &["diff", "web"]);
    assert!(diff.starts_with(expected) && diff.ends_with("A /var/v\n"), "{diff}");

    // out: a directory, what is in it, a link as one and followed, nothing
    cp("web:/d", text(&here("out")));
    let meta = |name: &str| fs::symlink_metadata(here(name)).unwrap();
    assert_eq!(meta("out/file").mode() & 0o7777, 0o4755);
    assert_eq!(meta("out/file").ino(), meta("out/hard").ino());
    assert_eq!((meta("out/sub").mtime(), meta("out/pipe").file_type().is_fifo()), (5, true));
    assert_eq!(fs::read_link(here("out/rel")).unwrap(), Path::new("sub"));
    fs::create_dir(here("content")).unwrap();
    cp("web:/d/.", text(&here("content")));
    assert_eq!(fs::read_to_string(here("content/hard")).unwrap(), "one\n");
    cp("web:/abs", text(&here("abs")));
    assert_eq!(fs::read_link(here("abs")).unwrap(), Path::new("/d/file"));
    docker(&serve, &["cp", "-q", "-L", "web:/abs", text(&here("followed"))]);
    assert_eq!(fs::read_to_string(here("followed")).unwrap(), "one\n");
    let missing = serve.docker(&["cp", "web:/nosuch", "."]).output();
    fails(missing, 1, &["Could not find the file /nosuch in container web"]);
    let onto = serve.docker(&["cp", text(&here("out")), "web:/etc/group"]).output();
    assert_ne!(onto.code, 0, "{onto:?}");

    let names = exported(&serve, "web", &here("all.tar"));
    for name in ["abs", "bin/busybox", "d/pipe", "etc/in", "var/v"] {
        assert!(names.iter().any(|one| one == name), "{name}: {names:?}");
    }
    assert!(!names.iter().any(|one| one == "etc/passwd"), "{names:?}");

    // an image of it, and one of a container of that
    let change = "CMD [\"sh\", \"-c\", \"cat /d/hard /etc/in; ls -A /var; test -e /etc/passwd || echo gone\"]";
    let id = docker(&serve, &["commit", "-m", "first", "-a", "me", "-c", change, "-c", "ENV A=b", "web", "mine:1"]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(docker(&serve, &["run", "--name", "two", "mine:1"]), "one\nfrom outside\nv\ngone\n");
    cp(text(&here("in")), "two:/second");
    docker(&serve, &["commit", "two", "mine:2"]);
    assert_eq!(docker(&serve, &["run", "--rm", "mine:2", "cat", "/second"]), "from outside\n");
    let history = docker(&serve, &["history", "-q", "--no-trunc", "mine:2"]);
    assert_eq!(history.lines().count(), 2, "{history}");
    assert!(docker(&serve, &["inspect", "-f", "{{.Config.Env}}", "mine:2"]).contains("A=b"));
}

#[test]
fn files_of_volumes_and_of_running_containers() {
    let serve = Serve::with_qemu(&[]);
    let dir = tempfile::tempdir().unwrap();
    let here = |name: &str| dir.path().join(name);
    let cp = |from: &str, to: &str| docker(&serve, &["cp", "-q", from, to]);
    let refused =
        |to: &str, words: &str| fails(serve.docker(&["cp", "-q", text(&here("in")), to]).output(), 1, &[words]);
    fs::write(here("in"), "from outside\n").unwrap();

    // before the first start: what the volume will be filled with
    let volumes = ["-v", "data:/data", "-v", "seen:/seen:ro", "--tmpfs", "/mem"];
    docker(&serve, &[&["create", "--name", "web"], &volumes[..], &["busybox", "cat", "/data/in"]].concat());
    cp(text(&here("in")), "web:/data/in");
    refused("web:/seen/in", "mounted volume is marked read-only");
    refused("web:/mem/in", "/mem is memory");
    assert_eq!(docker(&serve, &["start", "-a", "web"]), "from outside\n");
    wait_until(&serve, "web", "{{.State.Status}}", "exited");

    // after it: the volume's disk itself
    cp(text(&here("in")), "web:/data/two");
    cp("web:/data/.", text(&here("out")));
    let mut names: Vec<_> = fs::read_dir(here("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["in", "two"]);
    docker(&serve, &["run", "-d", "--name", "other", "-v", "data:/other", "busybox", "sleep", "100000"]);
    let inside = |script: &str| docker(&serve, &["exec", "other", "sh", "-c", script]);
    assert_eq!(inside("ls -A /other; cat /other/two"), "in\ntwo\nfrom outside\n");
    refused("web:/data/three", "volume data is in use by container other");

    // one that runs: its guest has its files
    cp(text(&here("in")), "other:/top");
    cp("other:/top", text(&here("back")));
    assert_eq!(fs::read_to_string(here("back")).unwrap(), "from outside\n");
    assert!(docker(&serve, &["diff", "other"]).contains("A /top\n"));
    let names = exported(&serve, "other", &here("all.tar"));
    assert!(names.iter().any(|one| one == "./top"), "{names:?}");

    // its image has what was written and not synced, and needs no program of its own for that
    inside("rm -f /bin/sync /usr/bin/sync; echo unsynced >/kept");
    docker(&serve, &["commit", "other", "runs:1"]);
    assert_eq!(inside("ls -A /dev | grep -c sync || true"), "0\n");
    assert_eq!(docker(&serve, &["run", "--rm", "runs:1", "cat", "/kept", "/top"]), "unsynced\nfrom outside\n");
}

#[test]
fn a_copy_that_meets_a_start_is_there_or_is_told() {
    let serve = Serve::with_qemu(&[]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("much");
    fs::write(&path, vec![b'x'; 3_000_000]).unwrap();
    for name in ["one", "two"] {
        docker(&serve, &["create", "--name", name, "busybox", "sleep", "100000"]);
        let copied = std::thread::scope(|scope| {
            let target = format!("{name}:/much");
            let (serve, path) = (&serve, &path);
            let copying = scope.spawn(move || serve.docker(&["cp", "-q", text(path), &target]).output());
            docker(serve, &["start", name]);
            copying.join().unwrap()
        });
        match copied.code {
            0 => assert_eq!(docker(&serve, &["exec", name, "wc", "-c", "/much"]), "3000000 /much\n"),
            _ => {
                assert!(copied.stderr.contains("copy again") || copied.stderr.contains("is not running"), "{copied:?}")
            }
        }
        // either way it lives, and is copied to
        docker(&serve, &["cp", "-q", text(&path), &format!("{name}:/more")]);
        assert_eq!(docker(&serve, &["exec", name, "wc", "-c", "/more"]), "3000000 /more\n");
    }
}

#[test]
fn a_machine_that_was_killed_while_it_wrote_keeps_what_it_wrote() {
    let serve = Serve::with_qemu(&[]);
    let dir = tempfile::tempdir().unwrap();
    let writes = "mkdir /w; i=0; while :; do i=$((i+1)); mkdir -p /w/$((i%50)); echo $i >/w/$((i%50))/f$i; \
        [ $((i%10)) = 0 ] && sync; [ $((i%40)) = 0 ] && rm -r /w/7 2>/dev/null; [ $i = 200 ] && echo far; done";
    docker(&serve, &["run", "-d", "--name", "writer", "busybox", "sh", "-c", writes]);
    until("it has written much", || docker(&serve, &["logs", "writer"]).contains("far"));

    // while it runs: what was synced is in the image
    docker(&serve, &["exec", "writer", "sh", "-c", "echo kept >/kept; sync"]);
    docker(&serve, &["commit", "writer", "running:1"]);
    assert_eq!(docker(&serve, &["run", "--rm", "running:1", "cat", "/kept"]), "kept\n");

    let machines = serve.machines();
    assert_eq!(machines.len(), 1, "{machines:?}");
    kill(machines[0], Signal::SIGKILL).unwrap();
    wait_until(&serve, "writer", "{{.State.Running}}", "false");
    let names = exported(&serve, "writer", &dir.path().join("all.tar"));
    assert!(names.iter().filter(|name| name.starts_with("w/")).count() > 100, "{} names", names.len());
    docker(&serve, &["cp", "-q", "writer:/kept", text(dir.path())]);
    assert_eq!(fs::read_to_string(dir.path().join("kept")).unwrap(), "kept\n");
    docker(&serve, &["cp", "-q", text(&dir.path().join("kept")), "writer:/again"]);
    docker(&serve, &["commit", "writer", "killed:1"]);
    assert_eq!(docker(&serve, &["run", "--rm", "killed:1", "cat", "/again"]), "kept\n");
}
