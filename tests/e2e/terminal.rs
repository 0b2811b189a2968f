//! `-t`: a terminal of the right size, in both directions, and the user's own is as it was afterwards.

use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, Termios};
use rig::terminal::Session;
use rig::vch::busybox;
use rig::{artifacts, vch};

fn start(link: &str, command: &[&str]) -> Session {
    let image = artifacts::dist("busybox.tar").display().to_string();
    let mut args = vec!["--rm", "-it", "--link", link, &image];
    args.extend(command);
    Session::start(31, 97, args)
}

fn is_cooked(settings: &Termios) -> bool {
    settings.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
}

#[test]
fn a_shell_on_a_terminal() {
    for link in ["virtio", "serial"] {
        let mut session = start(link, &["sh"]);
        session.expect("# ");
        assert!(!is_cooked(&session.settings()), "vch holds the terminal raw");
        session.type_text("stty size; tty; echo $TERM\r");
        session.expect("31 97\r\n/dev/pts/0\r\nxterm\r\n");
        session.resize(40, 120);
        // the resize overtakes nothing: ask until it has come
        session.type_text("until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; echo resi''zed\r");
        session.expect("resized");
        // a shell that is just about to start a command may overhear it: then press again
        session.type_text("echo run''ning; sleep 1000\r");
        session.expect("running\r\n");
        session.press_until("\x03", "# ");
        session.type_text("exit 7\r");
        let (code, settings) = session.finish();
        assert_eq!(code, 7);
        assert!(is_cooked(&settings), "the terminal is as it was");
    }
}

#[test]
fn the_first_thing_that_runs_knows_the_size() {
    let mut session = start("virtio", &["stty", "size"]);
    session.expect("31 97\r\n");
    assert_eq!(session.finish().0, 0);
}

#[test]
fn the_terminal_is_restored_when_vch_is_told_to_end() {
    let mut session = start("virtio", &["sh", "-c", "echo rea''dy; exec sleep 1000"]);
    session.expect("ready");
    session.signal(Signal::SIGTERM);
    let (code, settings) = session.finish();
    assert_eq!(code, 143);
    assert!(is_cooked(&settings));
}

#[test]
fn the_terminal_is_restored_when_the_container_cannot_start() {
    let session = start("virtio", &["nosuchcmd"]);
    let (code, settings) = session.finish();
    assert_eq!(code, 127);
    assert!(is_cooked(&settings));
}

#[test]
fn without_a_terminal_there_is_one_all_the_same() {
    let output = busybox(&["-t"], &["sh", "-c", "tty; echo err >&2"]).output();
    assert_eq!((output.code, output.text().as_str()), (0, "/dev/pts/0\r\nerr\r\n"), "one stream, as a terminal has");
}

#[test]
fn interactive_use_of_what_is_no_terminal_is_refused_as_docker_does() {
    vch::busybox(&["-it"], &["sh"]).output().fails(125, &["the input device is not a TTY"]);
}
