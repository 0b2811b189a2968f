//! The container's exit code is vch's own.

use rig::vch::{busybox, shell};

/// All 256 by tether's own reaper are `guest`'s test; here the ends and those with a meaning of their own travel the whole way.
#[test]
fn exit_codes_come_through() {
    for code in [0, 1, 2, 124, 125, 126, 127, 128, 137, 255] {
        assert_eq!(shell(&[], &format!("exit {code}")).output().code, code);
    }
}

#[test]
fn every_exit_code_is_seen_in_one_machine() {
    let script =
        "i=0; while [ $i -lt 256 ]; do sh -c \"exit $i\"; [ $? = $i ] || echo $i; i=$((i + 1)); done; echo done";
    assert_eq!(shell(&[], script).output().success(), "done\n");
}

#[test]
fn death_by_a_signal_is_128_and_its_number() {
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139), ("USR1", 138)] {
        assert_eq!(shell(&[], &format!("kill -{signal} $$; sleep 60")).output().code, code, "{signal}");
    }
    // a real-time signal, for which libraries have no name
    assert_eq!(shell(&[], "kill -40 $$; sleep 60").output().code, 168);
}

#[test]
fn what_cannot_start_has_dockers_codes_and_words() {
    busybox(&[], &["nosuchcmd"]).output().fails(127, &["exec: \"nosuchcmd\": executable file not found in $PATH"]);
    busybox(&[], &["/no/such"]).output().fails(127, &["exec: \"/no/such\"", "no such file or directory"]);
    busybox(&[], &["/etc/passwd"]).output().fails(126, &["exec: \"/etc/passwd\": permission denied"]);
    busybox(&[], &["/etc"]).output().fails(126, &["exec: \"/etc\": is a directory"]);
    busybox(&["-u", "nosuch"], &["true"])
        .output()
        .fails(125, &["unable to find user nosuch: no matching entries in passwd file"]);
    busybox(&["-u", "root:nosuch"], &["true"]).output().fails(125, &["unable to find group nosuch"]);
    busybox(&["-w", "/etc/passwd"], &["true"]).output().fails(126, &["/etc/passwd", "not a directory"]);
}

/// The same over the serial line, where the failure crosses a link that is slow.
#[test]
fn failures_come_over_a_serial_line_too() {
    busybox(&["--link", "serial"], &["nosuchcmd"]).output().fails(127, &["executable file not found in $PATH"]);
}
