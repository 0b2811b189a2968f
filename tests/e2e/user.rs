//! Who a process is, where it starts, and which program that is: docker's rules, against an image's own files.

use rig::host::{Host, sh};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use tempfile::TempDir;
use wire::message::{Exec, MAIN, Reply, Work};
use wire::spec::{Environment, LinkDevice, Process, Spec};
use wire::status::FailureKind::{self, Machine as OfMachine, NotExecutable, ProgramNotFound, UnknownUser};

fn boot(spec: &Spec) -> (TempDir, Host) {
    let (dir, disk) = busybox_disk();
    (dir, Host::boot(Machine::new(spec, Some(disk)), spec))
}

/// A machine whose main process waits, and what others find in its files.
fn idle(prepare: &str) -> (TempDir, Host) {
    let spec = script(LinkDevice::Virtio, "exec sleep 100000");
    let (dir, mut host) = boot(&spec);
    host.shell(prepare);
    (dir, host)
}

fn as_user(user: &str) -> Exec {
    Exec { user: user.into(), ..sh("awk '/^(Uid|Gid|Groups):/ { $1 = \"\"; print }' /proc/self/status; echo $HOME") }
}

fn check(host: &mut Host, user: &str, uid: u32, gid: u32, groups: &str, home: &str) {
    let ran = host.run(Work::Exec(as_user(user)));
    let four = |id: u32| format!(" {id} {id} {id} {id}");
    assert_eq!(ran.stdout, format!("{}\n{}\n {groups}\n{home}\n", four(uid), four(gid)), "{user:?}: {ran:?}");
}

fn fails(host: &mut Host, exec: Exec, kind: FailureKind, reason: &str) {
    let shown = format!("{exec:?}");
    let (_, id) = host.begin(Work::Exec(exec));
    let Reply::Failed(failure) = host.answer(id) else { panic!("{shown} runs") };
    assert_eq!((failure.kind, failure.reason.as_str()), (kind, reason), "{shown}");
}

const ACCOUNTS: &str = "mkdir -p /etc /data
    printf '%s\\n' root:x:0:0:root:/root:/bin/sh garbled '' '+::::::' www:x:33:33::/var/www:/bin/sh 1000:x:7:7::/odd:/bin/sh \
        wide:x:50:51:$(head -c 100000 /dev/zero | tr '\\0' y):/wide:/bin/sh last:x:60:61 >/etc/passwd
    printf '%s\\n' root:x:0: www:x:33: audio:x:29:www,other : disk:x:6:x,www video:x:44: >/etc/group";

#[test]
fn users_and_groups_are_found_as_docker_finds_them() {
    let (_dir, mut host) = idle(ACCOUNTS);
    let check_all = |host: &mut Host| {
        check(host, "", 0, 0, "0", "/root");
        check(host, "www", 33, 33, "6 29 33", "/var/www");
        check(host, "33", 33, 33, "6 29 33", "/var/www");
        check(host, "www:video", 33, 44, "44", "/var/www");
        check(host, "www:4444", 33, 4444, "4444", "/var/www");
        check(host, ":audio", 0, 29, "29", "/root");
        check(host, "12345", 12345, 0, "0", "/");
        check(host, "12345:6", 12345, 6, "6", "/");
        check(host, "1000", 1000, 0, "0", "/");
        check(host, "wide", 50, 51, "51", "/wide");
        check(host, "last", 60, 61, "61", "/");
        let nosuch = "unable to find user nosuch: no matching entries in passwd file";
        fails(host, as_user("nosuch"), UnknownUser, nosuch);
        fails(host, as_user("garbled"), UnknownUser, &nosuch.replace("nosuch", "garbled"));
        fails(
            host,
            as_user("www:nosuch"),
            UnknownUser,
            "unable to find group nosuch: no matching entries in group file",
        );
        let range = "uids and gids must be in range 0-2147483647: 2147483648 is not";
        fails(host, as_user("2147483648"), UnknownUser, range);
    };
    check_all(&mut host);
    // behind links, which lead where the container would go
    host.shell(
        "mv /etc/passwd /data/p; ln -s ../../../data/p /etc/passwd; mv /etc/group /data/g; ln -s /data/g /etc/group",
    );
    check_all(&mut host);
    host.shell("rm /etc/passwd /etc/group");
    check(&mut host, "", 0, 0, "0", "/");
    check(&mut host, "5:6", 5, 6, "6", "/");
    fails(&mut host, as_user("www"), UnknownUser, "unable to find user www: no matching entries in passwd file");
    // what would never end
    for odd in ["mkfifo /etc/passwd", "rm /etc/passwd; ln -s /dev/zero /etc/passwd"] {
        host.shell(odd);
        check(&mut host, "5:6", 5, 6, "6", "/");
        fails(&mut host, as_user("www"), UnknownUser, "unable to find user www: no matching entries in passwd file");
    }
    host.shell("rm /etc/passwd; truncate -s 65M /etc/passwd");
    fails(&mut host, as_user("www"), OfMachine, "cannot read /etc/passwd: it is larger than 64 MiB");
}

#[test]
fn more_groups_are_the_processes_beside_it_too() {
    let mut spec = script(LinkDevice::Virtio, "grep Groups /proc/self/status; exec sleep 100000");
    spec.main.groups = vec!["44".into(), "4444".into()];
    let (_dir, mut host) = boot(&spec);
    host.expect(MAIN, "Groups:\t0 44 4444 \n");
    check(&mut host, "12345:6", 12345, 6, "6 44 4444", "/");
}

#[test]
fn a_home_is_the_users_unless_somebody_says_otherwise() {
    let (_dir, mut host) = idle(ACCOUNTS);
    let home =
        |variable: &str| Exec { env: Environment(vec![variable.into()]), user: "www".into(), ..sh("echo $HOME") };
    for (variable, expected) in [("A=1", "/var/www"), ("HOME=", "/var/www"), ("HOME=/x", "/x")] {
        assert_eq!(host.run(Work::Exec(home(variable))).stdout.trim(), expected, "{variable}");
    }
}

#[test]
fn a_directory_is_made_for_root_and_one_that_is_none_is_named() {
    let mut spec = script(LinkDevice::Virtio, "pwd; stat -c '%u:%g %a' /new /new/dir; exec sleep 100000");
    spec.main = Process { dir: "/new/dir".into(), user: "1000:1000".into(), ..spec.main };
    let (_dir, mut host) = boot(&spec);
    host.expect(MAIN, "/new/dir\n0:0 755\n0:0 755\n");
    let within = |dir: &str, user: &str| Exec { dir: dir.into(), user: user.into(), ..sh("pwd -P") };
    let no = |dir: &str, why: &str| format!("chdir to cwd ({dir:?}) set in config.json failed: {why}");
    fails(&mut host, within("/nowhere", ""), ProgramNotFound, &no("/nowhere", "no such file or directory"));
    fails(&mut host, within("/bin/sh", ""), NotExecutable, &no("/bin/sh", "not a directory"));
    // root enters for its user, as runc does it
    let ran =
        host.run(Work::Exec(Exec { user: "0:0".into(), ..sh("mkdir -m 700 /closed /loop; ln -s round /loop/round") }));
    assert_eq!(ran.exit.ending.code(), 0, "{ran:?}");
    let ran = host.run(Work::Exec(Exec { dir: "/closed".into(), ..sh("readlink /proc/self/cwd; ls") }));
    assert!(ran.stdout == "/closed\n" && ran.stderr.contains("Permission denied"), "{ran:?}");
    let round = no("/loop/round", "too many symbolic links encountered");
    let (_, id) = host.begin(Work::Exec(within("/loop/round", "0:0")));
    let Reply::Failed(failure) = host.answer(id) else { panic!("it runs") };
    assert!(failure.kind == NotExecutable && failure.reason.starts_with(&round[..20]), "{failure}");
}

#[test]
fn a_program_is_looked_for_as_docker_looks() {
    let (_dir, mut host) = idle(
        "mkdir /p /q /p/dir; cd /p
        printf '#!/bin/sh\\necho p $0' >prog; printf '#!/bin/sh\\necho q $0' >/q/prog; chmod 755 /q/prog; chmod 644 prog
        printf '#!/no/such/interpreter\\n' >lost; printf 'echo text' >text; printf x >none; : >empty; chmod 755 lost text empty
        mkdir -m 700 /secret; cp /q/prog /secret/prog; cp /q/prog /p/mine; chmod 700 /p/mine; chown 1000 /p/mine",
    );
    let program = |name: &str, path: &str, user: &str| Exec {
        argv: vec![name.into()],
        env: Environment(vec![format!("PATH={path}")]),
        dir: "/p".into(),
        user: user.into(),
        ..sh("")
    };
    let mut runs = |exec: Exec, expected: &str| {
        let ran = host.run(Work::Exec(exec));
        assert_eq!(ran.stdout, expected, "{ran:?}");
    };
    // what may not be executed is passed over: a file without the right, a directory, one in a directory that is closed
    runs(program("prog", "/p:/q", ""), "q /q/prog\n");
    runs(program("prog", "/nosuch:/p/none:/q", ""), "q /q/prog\n");
    runs(program("prog", "/secret:/q", "1000"), "q /q/prog\n");
    runs(program("../q/prog", "", ""), "q ../q/prog\n");
    runs(program("./mine", "", "1000"), "q ./mine\n");
    runs(program("mine", "/p:/bin", "1000"), "q /p/mine\n");
    let not_found = |name: &str| format!("exec: {name:?}: executable file not found in $PATH");
    for (name, path, user) in
        [("prog", "/p", ""), ("prog", "", ""), ("dir", "/p", ""), ("mine", "/p", "1001"), ("", "/p", "")]
    {
        fails(&mut host, program(name, path, user), ProgramNotFound, &not_found(name));
    }
    // found in the directory that the process happens to be in: as Go, docker does not trust that
    let here = "exec: \"text\": cannot run executable found relative to current directory";
    for path in [".", "", "../p", "/nosuch:"].map(|path| if path.is_empty() { ":/bin" } else { path }) {
        fails(&mut host, program("text", path, ""), NotExecutable, here);
    }
    for (name, user, kind, why) in [
        ("/nosuch", "", ProgramNotFound, "stat /nosuch: no such file or directory"),
        ("./nosuch", "", ProgramNotFound, "stat ./nosuch: no such file or directory"),
        ("./none/x", "", ProgramNotFound, "stat ./none/x: not a directory"),
        ("/p/none", "", NotExecutable, "permission denied"),
        ("/p/mine", "1001", NotExecutable, "permission denied"),
        ("/secret/prog", "1000", NotExecutable, "stat /secret/prog: permission denied"),
        ("/p/dir", "", NotExecutable, "is a directory"),
        ("/p/lost", "", ProgramNotFound, "its interpreter or loader: no such file or directory"),
        ("/p/text", "", NotExecutable, "exec format error"),
        ("/p/empty", "", NotExecutable, "exec format error"),
        // not there for programs
        ("/dev/shm/prog", "", NotExecutable, "permission denied"),
    ] {
        if name.starts_with("/dev") {
            host.shell("cp /q/prog /dev/shm/prog");
        }
        fails(&mut host, program(name, "/bin", user), kind, &format!("exec: {name:?}: {why}"));
    }
    assert_eq!(host.shell("echo still here"), "still here\n");
}
