//! `docker cp`, `diff`, `export`, `top`, `stats`, `images` and `system df`, by docker's own client.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rig::disks::Disks;
use rig::engine::until;
use rig::images::{busybox_disk, run};
use rig::machine::{Machine, Powered, script};
use rig::serve::Serve;
use rig::stream::Pattern;
use serde_json::Value;
use tempfile::TempDir;
use wire::guestinfo;
use wire::spec::{About, DiskId, LinkDevice, Root, Spec, Top};

/// What a machine is told besides its spec.
fn tell(machine: &mut Machine, spec: &Spec) {
    let about = About {
        name: Some("web".into()),
        image: Some("registry.example:5000/shop/web:7".into()),
        image_id: Some(format!("sha256:{}", "ab".repeat(32))),
        cmd: spec.main.argv.clone(),
        ..About::default()
    };
    let mut keys = guestinfo::write(spec);
    guestinfo::write_about(&about, &mut keys);
    machine.guestinfo = Some(keys.to_string());
}

/// A serve with one idle container that is called web.
fn idle() -> (Serve, TempDir, Powered) {
    let (dir, disk) = busybox_disk();
    let serve = Serve::start();
    let mut spec = script(LinkDevice::Virtio, "exec sleep 100000");
    let mut machine = serve.machine("web1", &mut spec, disk);
    tell(&mut machine, &spec);
    let powered = machine.power_on();
    serve.wait_for_docker("web");
    (serve, dir, powered)
}

fn docker(serve: &Serve, args: &[&str]) -> String {
    let output = serve.docker(args).output();
    assert_eq!(output.code, 0, "{args:?}: {output:?}; {}", serve.log());
    output.text()
}

/// What a command in the container says.
fn inside(serve: &Serve, script: &str) -> String {
    serve.command("exec", &["web1", "sh", "-c", script]).output().success()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

fn refused(serve: &Serve, args: &[&str], why: &str) {
    let output = serve.docker(args).output();
    assert!(output.code != 0 && output.stderr.contains(why), "{args:?}: {output:?}");
}

/// A folder with a file, a folder with a file, and a link.
fn tree(dir: &Path) -> PathBuf {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("file"), "one\n").unwrap();
    fs::write(tree.join("sub/deep"), "two\n").unwrap();
    symlink("sub/deep", tree.join("link")).unwrap();
    tree
}

#[test]
fn files_go_in_and_out_as_docker_has_it() {
    let (serve, _disk, _machine) = idle();
    let dir = tempfile::tempdir().unwrap();
    let here = |name: &str| dir.path().join(name);
    let tree = tree(dir.path());
    let cp = |from: &str, to: &str| docker(&serve, &["cp", "-q", from, to]);
    let seen = |path: &str| inside(&serve, &format!("cd {path} && find . | sort && cat file && readlink link"));
    let all = ".\n./file\n./link\n./sub\n./sub/deep\none\nsub/deep\n";

    // in: under a new name, in a directory that is there, only what is in it, through a link, out of the root
    cp(text(&tree), "web:/srv");
    assert_eq!(seen("/srv"), all);
    cp(text(&tree), "web:/srv");
    assert_eq!(seen("/srv/tree"), all);
    inside(&serve, "mkdir /content; ln -s /content /to; ln -s ../../../../../content /up");
    cp(&format!("{}/.", text(&tree)), "web:/content");
    assert_eq!(seen("/content"), all);
    cp(text(&tree.join("file")), "web:/to/through");
    cp(text(&tree.join("file")), "web:/up");
    cp(text(&tree.join("file")), "web:/../../content/above");
    assert_eq!(inside(&serve, "cd /content; cat through above; ls -l /content | grep -c file"), "one\none\n1\n");

    // out: a file, a directory, a link as one and followed
    cp("web:/srv/file", text(&here("file")));
    assert_eq!(fs::read_to_string(here("file")).unwrap(), "one\n");
    cp("web:/srv/", text(&here("out")));
    assert_eq!(fs::read_to_string(here("out/sub/deep")).unwrap(), "two\n");
    cp("web:/srv/link", text(&here("link")));
    assert_eq!(fs::read_link(here("link")).unwrap(), Path::new("sub/deep"));
    docker(&serve, &["cp", "-q", "-L", "web:/srv/link", text(&here("followed"))]);
    assert_eq!(fs::read_to_string(here("followed")).unwrap(), "two\n");
    cp("web:/srv/.", text(dir.path()));
    assert_eq!(fs::read_to_string(here("sub/deep")).unwrap(), "two\n");

    // owners: root's, or kept
    fs::write(here("owned"), "x").unwrap();
    std::os::unix::fs::chown(here("owned"), Some(1234), Some(99)).unwrap_or_default();
    let owner = fs::metadata(here("owned")).unwrap();
    cp(text(&here("owned")), "web:/tmp/plain");
    docker(&serve, &["cp", "-q", "-a", text(&here("owned")), "web:/tmp/kept"]);
    let owners = inside(&serve, "stat -c %u:%g /tmp/plain /tmp/kept");
    assert_eq!(owners, format!("0:0\n{}:{}\n", owner.uid(), owner.gid()));

    // archives on standard streams
    let archive = serve.docker(&["cp", "web:/srv", "-"]).output();
    fs::write(here("a.tar"), &archive.stdout).unwrap();
    let names = run(Command::new("tar").arg("-tf").arg(here("a.tar")));
    assert!(names.lines().any(|name| name == "srv/sub/deep"), "{names}");
    inside(&serve, "mkdir /again");
    let output = serve.docker(&["cp", "-", "web:/again"]).stdin(archive.stdout).output();
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(inside(&serve, "cat /again/srv/sub/deep"), "two\n");

    // what is not there, and what cannot be
    refused(&serve, &["cp", "web:/nosuch", text(&here("x"))], "Could not find the file /nosuch in container web");
    refused(&serve, &["cp", text(&tree), "web:/nodir/xx"], "Could not find the file /nodir in container web");
    refused(&serve, &["cp", text(&here("file")), "web:/srv/file/x"], "not a directory");
    refused(&serve, &["cp", text(&tree), "web:/srv/file"], "cannot copy directory");
    refused(&serve, &["cp", "nobody:/x", "-"], "No such container: nobody");
    let garbage = serve.docker(&["cp", "-", "web:/again"]).stdin(Pattern(7).bytes(0, 3_000_000)).output();
    assert!(garbage.code != 0 && garbage.stderr.contains("the archive is broken"), "{garbage:?}");
}

#[test]
fn fifty_megabytes_go_both_ways_and_a_client_that_goes_leaves_nothing_behind() {
    let (serve, _disk, _machine) = idle();
    let dir = tempfile::tempdir().unwrap();
    let (here, back) = (dir.path().join("noise"), dir.path().join("back"));
    let noise = Pattern(5).bytes(0, 50_000_000);
    fs::write(&here, &noise).unwrap();
    docker(&serve, &["cp", "-q", text(&here), "web:/tmp/noise"]);
    let digest = inside(&serve, "md5sum /tmp/noise");
    assert_eq!(digest.split(' ').next(), run(Command::new("md5sum").arg(&here)).split(' ').next());
    docker(&serve, &["cp", "-q", "web:/tmp/noise", text(&back)]);
    assert!(fs::read(&back).unwrap() == noise, "what came back differs");

    // it reads a little, and is gone
    let mut client = Command::new("docker")
        .args(["--host", &serve.docker_host(), "cp", "web:/tmp/noise", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdout.as_mut().unwrap().read_exact(&mut [0; 1000]).unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    // the guest's copying program, under the name of its PID 1
    until("the guest's copying has ended", || docker(&serve, &["top", "web"]).lines().count() <= 2);
}

#[test]
fn what_a_container_uses_and_is_made_of() {
    let (serve, _disk, mut machine) = idle();
    // processes
    let table = docker(&serve, &["top", "web"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("UID ") && lines[0].trim_end().ends_with("CMD"), "{table}");
    assert!(lines[1].starts_with("root ") && lines[1].trim_end().ends_with("sleep 100000"), "{table}");
    let table = docker(&serve, &["top", "web", "aux"]);
    assert!(table.starts_with("USER ") && table.contains("sleep 100000"), "{table}");
    refused(&serve, &["top", "web", "-o", "pid"], "ps is not run here");

    // figures
    until("docker stats has figures", || {
        // the client itself shows none if it has waited 2 s for them
        let asked = ["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}} {{.CPUPerc}}", "web"];
        let line = docker(&serve, &asked);
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], "web", "{line}");
        words[1] == "1" && words[2].ends_with("iB") && words[2] != "0B" && words[5].ends_with('%')
    });

    // images
    let line = docker(&serve, &["images", "--format", "{{.Repository}} {{.Tag}} {{.ID}}"]);
    assert_eq!(line, "registry.example:5000/shop/web 7 abababababab\n");
    assert_eq!(docker(&serve, &["images", "-q", "registry.example:5000/shop/web"]), "abababababab\n");
    assert_eq!(docker(&serve, &["images", "-q", "other"]), "");
    let inspected = docker(&serve, &["image", "inspect", "registry.example:5000/shop/web:7"]);
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected[0]["Config"]["Cmd"][2], "exec sleep 100000");
    let history = docker(&serve, &["history", "--format", "{{.ID}}", "abababababab"]);
    assert_eq!(history, "abababababab\n");
    refused(&serve, &["image", "inspect", "nosuch"], "No such image: nosuch:latest");
    let table = docker(&serve, &["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"]);
    assert!(table.contains("Images 1 1\n") && table.contains("Containers 1 1\n"), "{table}");

    // what is done where machines are made
    let tar = serve.docker(&["load"]).stdin(Pattern(8).bytes(0, 3_000_000)).output();
    assert!(tar.code != 0 && tar.stderr.contains("keeps no images"), "{tar:?}");
    for args in [
        &["pull", "busybox"][..],
        &["push", "127.0.0.1:5000/x"],
        &["rmi", "abababababab"],
        &["tag", "abababababab", "x"],
        &["image", "prune", "-f"],
        &["search", "busybox"],
        &["save", "abababababab"],
    ] {
        refused(&serve, args, "this host keeps no images");
    }

    // all files
    let export = serve.docker(&["export", "web"]).output();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.tar"), &export.stdout).unwrap();
    let names = run(Command::new("tar").arg("-tf").arg(dir.path().join("a.tar")));
    assert!(names.lines().any(|name| name == "./bin/busybox"), "{names}");

    // one disk, and none
    refused(&serve, &["diff", "web"], "the container's root is one disk");
    docker(&serve, &["kill", "web"]);
    machine.wait();
    serve.wait_for("web1", &["killed", "down"]);
    refused(&serve, &["cp", "web:/etc", "-"], "container web is not running");
    refused(&serve, &["diff", "web"], "container web is not running");
    refused(&serve, &["export", "web"], "container web is not running");
    refused(&serve, &["top", "web"], "is not running");
    let line = docker(&serve, &["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", "web"]);
    assert!(line.starts_with("web 0B / 0B") || line.starts_with("web -- / --"), "{line}");
}

#[test]
fn a_diff_tells_what_is_not_the_images() {
    let mut disks = Disks::new();
    let busybox = disks.busybox();
    let low = disks.ext4("low", Some(&busybox), 16);
    disks.scsi(&low, "low", ",readonly=on");
    let root = Root { layers: vec![DiskId::Serial("low".into())], top: Top::Memory(0), read_only: false };
    let serve = Serve::start();
    let mut spec = Spec { root, ..script(LinkDevice::Virtio, "exec sleep 100000") };
    let mut machine = serve.machine("web1", &mut spec, PathBuf::new());
    machine.disk = None;
    machine.extra = disks.arguments();
    tell(&mut machine, &spec);
    let _machine = machine.power_on();
    serve.wait_for_docker("web");
    assert_eq!(docker(&serve, &["diff", "web"]), "");
    inside(&serve, "mkdir /new; echo x >/new/file; rm /bin/vi; chmod 700 /bin/busybox");
    let mut lines: Vec<String> = docker(&serve, &["diff", "web"]).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["A /new", "A /new/file", "C /bin", "C /bin/busybox", "D /bin/vi"]);
}
