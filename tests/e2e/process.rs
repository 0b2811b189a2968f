//! What a process finds: its environment, its user, its file systems, and an init that reaps.

use rig::vch::{run, shell};

#[test]
fn environment_directory_user_and_host_name_are_as_asked() {
    let options = ["-e", "A=b c|d", "-e", "EMPTY=", "-w", "/new/dir", "-u", "1234:99", "-h", "web-1"];
    let script = "echo \"$A\"; echo \"<$EMPTY>\"; pwd; id -u; id -g; hostname; cat /etc/hostname; grep -c web-1 /etc/hosts; echo $HOME $HOSTNAME";
    assert_eq!(shell(&options, script).output().success(), "b c|d\n<>\n/new/dir\n1234\n99\nweb-1\nweb-1\n1\n/ web-1\n");
}

#[test]
fn a_variable_without_a_value_is_the_callers() {
    assert_eq!(shell(&["-e", "FROM_HERE"], "echo $FROM_HERE").env("FROM_HERE", "there").output().success(), "there\n");
}

#[test]
fn arguments_arrive_as_they_are() {
    let image = rig::artifacts::dist("busybox.tar");
    let hostile = ["a b", "", "|", "\"", "é\n", "$HOME", "-x", "=", "~json"];
    let script = "for a in \"$@\"; do printf '<%s>' \"$a\"; done";
    let args = ["--rm"].iter().map(std::ffi::OsStr::new).chain([image.as_os_str()]);
    let command = ["sh", "-c", script, "sh"];
    let args = args.chain(command.iter().chain(&hostile).map(std::ffi::OsStr::new));
    let expected: String = hostile.iter().map(|arg| format!("<{arg}>")).collect();
    assert_eq!(run(args).output().success(), expected);
}

#[test]
fn the_root_is_the_containers_disk_and_dev_is_as_docker_makes_it() {
    let script = "awk '$2 == \"/\" { print $3 }' /proc/mounts | tail -n 1
        for d in null zero full random urandom tty; do [ -c /dev/$d ] || echo no $d; done
        ls /dev | grep -cE '^(vd|sd|ttyS|vport|hvc|mem|kmsg)'
        echo x > /dev/shm/x && cat /dev/shm/x; echo y | cat /dev/stdin > /dev/stdout
        awk '$2 == \"/sys\" { print substr($4, 1, 2) }' /proc/mounts; [ -e /sys/fs/cgroup/cgroup.controllers ] && echo cgroup2
        ifconfig lo | grep -c 127.0.0.1; ulimit -n";
    assert_eq!(shell(&[], script).output().success(), "ext4\n0\nx\ny\nro\ncgroup2\n1\n1048576\n");
}

#[test]
fn orphans_are_reaped() {
    let script = "i=0; while [ $i -lt 300 ]; do (true &) ; i=$((i + 1)); done
        until ! grep -q ') Z ' /proc/[0-9]*/stat 2>/dev/null; do sleep 0.05; done; echo clean";
    assert_eq!(shell(&[], script).output().success(), "clean\n");
}

#[test]
fn pid_1_is_small() {
    let kib: u64 = shell(&[], "awk '/VmRSS/ { print $2 }' /proc/1/status").output().success().trim().parse().unwrap();
    assert!(kib <= 2048, "tether takes {kib} KiB");
}

#[test]
fn signals_are_as_a_new_process_expects_them() {
    assert_eq!(
        shell(&[], "grep -E 'Sig(Blk|Ign)' /proc/self/status | awk '{ print $2 }'").output().success(),
        "0000000000000000\n0000000000000000\n"
    );
}
