//! Containers of docker's whose machines go on where a template waits: they are like any others, and where there can be no clone they are booted.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rig::engine::until;
use rig::serve::Serve;

use super::docker_life::fails;
use super::made_life::shows;
use super::made_power::until_remembered;

/// How many of its machines go on where a template waited.
fn clones(serve: &Serve) -> usize {
    let line = |pid: &nix::unistd::Pid| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    serve.machines().iter().filter(|pid| line(pid).split(|&byte| byte == 0).any(|word| word == b"-incoming")).count()
}

/// A QEMU that ends at once when it is to begin with what another one has saved.
fn without_clones(dir: &Path) -> std::path::PathBuf {
    let program = dir.join("qemu");
    let script = "#!/bin/sh\ncase \" $* \" in *' -incoming '*) echo 'qemu: no clones today' >&2; exit 1 ;; esac\nexec qemu-system-x86_64 \"$@\"\n";
    fs::write(&program, script).expect("a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a file of ours");
    program
}

#[test]
fn a_cloned_container_is_like_any_other() {
    let mut serve = Serve::that_clones("always", None);
    let docker = |serve: &Serve, line: &str| serve.docker(&line.split(' ').collect::<Vec<_>>()).output().success();
    // two of one template
    for name in ["first", "second"] {
        let script = "echo $(hostname) $X; exec sleep 100000";
        let run =
            ["run", "-d", "--name", name, "-h", name, "-e", &format!("X=of-{name}"), "busybox", "sh", "-c", script];
        serve.docker(&run).output().success();
        until("it says who it is", || serve.docker(&["logs", name]).output().text() == format!("{name} of-{name}\n"));
    }
    assert_eq!((clones(&serve), serve.keepers().len()), (2, 1), "{}", serve.log());
    let boot = |serve: &Serve, name: &str| docker(serve, &format!("exec {name} cat /proc/sys/kernel/random/boot_id"));
    assert_ne!(boot(&serve, "first"), boot(&serve, "second"));
    assert_eq!(docker(&serve, "exec first hostname"), "first\n");

    // while it runs
    docker(&serve, "network create other");
    docker(&serve, "network connect other first");
    let address = shows(&serve, "first", "{{.NetworkSettings.Networks.other.IPAddress}}");
    let addresses = || docker(&serve, "exec first ip -4 addr");
    until("it has the address", || addresses().contains(&format!("inet {address}/")));
    docker(&serve, "network disconnect other first");
    until("it has it no more", || !addresses().contains(&address));
    docker(&serve, "pause first");
    assert_eq!(shows(&serve, "first", "{{.State.Status}}"), "paused");
    docker(&serve, "unpause first");
    docker(&serve, "update --memory 640m --memory-swap -1 first");
    let total = "awk '/MemTotal/ { print ($2 > 550000) }' /proc/meminfo";
    until("it has more memory", || serve.docker(&["exec", "first", "sh", "-c", total]).output().text() == "1\n");

    // another machine, and another serve
    let before = boot(&serve, "first");
    docker(&serve, "restart -t 0 first");
    assert_ne!(boot(&serve, "first"), before);
    until_remembered(&serve, "first");
    let before = boot(&serve, "first");
    serve.kill();
    serve.start_again();
    serve.until_docker_answers();
    assert_eq!(boot(&serve, "first"), before);
    assert_eq!(clones(&serve), 2);
    docker(&serve, "rm -f first second");
    until("no machine is left", || serve.machines().is_empty());
}

#[test]
fn a_machine_that_cannot_be_cloned_is_booted_and_serve_says_so_once() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let serve = Serve::that_clones("auto", Some(&without_clones(dir.path())));
    let run = ["run", "--name", "web", "busybox", "sh", "-c", "echo it runs; exit 3"];
    let output = serve.docker(&run).output();
    assert_eq!((output.code, output.text().as_str()), (3, "it runs\n"), "{output:?}");
    let log = serve.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("clone")).collect();
    let expected =
        "vch: serve: web: its machine boots, as it cannot be cloned: QEMU does not go on with the template: ";
    assert!(said.len() == 1 && said[0].starts_with(expected) && said[0].ends_with("no clones today"), "{log}");
    let left = fs::read_dir(serve.state().join("serve").join(shows(&serve, "web", "{{.Id}}"))).expect("its files");
    assert!(left.flatten().all(|file| !file.file_name().to_string_lossy().contains("clone")), "a secret is left");
}

#[test]
fn who_wants_nothing_but_clones_is_told_why_there_is_none() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let serve = Serve::that_clones("always", Some(&without_clones(dir.path())));
    let why = "--clone always: QEMU does not go on with the template: ";
    fails(serve.docker(&["run", "--name", "web", "busybox", "true"]).output(), 125, &[why, "no clones today"]);
    let shown = shows(&serve, "web", "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}");
    assert!(shown.contains(why), "{shown}");
    let refused = serve.refused(&[], &["--hypervisor", "none", "--link-listen", "unix:///none", "--clone", "always"]);
    assert!(refused.contains("--clone always, or VCH_CLONE, is about machines that serve makes"), "{refused}");
}
