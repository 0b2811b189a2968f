//! What a template depends on goes, changes or refuses: there is another template, or the machine boots, and says why.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use rig::artifacts;
use rig::clones::Clones;
use rig::vch::{Output, Run};

/// A clone that is one and says nothing of it.
fn is_cloned(run: Run) {
    let output = run.output();
    assert_eq!((output.code, output.text().as_str(), output.stderr.as_str()), (0, "it ran\n", ""), "{output:?}");
}

/// A machine that has booted, and says why.
fn has_booted(output: &Output, reason: &str) {
    assert_eq!((output.code, output.text().as_str()), (0, "it ran\n"), "{output:?}");
    let said: Vec<&str> = output.stderr.lines().collect();
    let [said] = said[..] else { panic!("one sentence: {said:?}") };
    assert!(said.starts_with("vch: the machine boots, as it cannot be cloned: ") && said.contains(reason), "{said}");
}

const SCRIPT: &str = "echo it ran";
const ALWAYS: [&str; 2] = ["--clone", "always"];
const AUTO: [&str; 2] = ["--clone", "auto"];

#[test]
fn a_template_whose_keeper_was_killed_is_made_again() {
    let clones = Clones::new();
    is_cloned(clones.shell(&ALWAYS, SCRIPT));
    let first = clones.keeper();
    is_cloned(clones.shell(&ALWAYS, SCRIPT));
    assert_eq!(clones.keeper(), first, "it serves more than one");
    first.end(Signal::SIGKILL);
    assert!(first.socket.exists(), "who is killed leaves its socket");
    is_cloned(clones.shell(&ALWAYS, SCRIPT));
    let second = clones.keeper();
    assert!(second.pid != first.pid && second.socket == first.socket, "{second:?}");
}

#[test]
fn another_kernel_has_another_template() {
    let clones = Clones::new();
    is_cloned(clones.shell(&ALWAYS, SCRIPT));
    let assets = tempfile::tempdir().unwrap();
    for name in ["kernel", "initramfs"] {
        fs::copy(artifacts::dist(name), assets.path().join(name)).unwrap();
    }
    let others = ["--clone", "always", "--assets", assets.path().to_str().unwrap()];
    is_cloned(clones.shell(&others, SCRIPT));
    assert_eq!(clones.keepers().len(), 2);
    // the same path, and another file
    let kernel = assets.path().join("kernel");
    fs::copy(&kernel, assets.path().join("copy"))
        .and_then(|_| fs::rename(assets.path().join("copy"), &kernel))
        .unwrap();
    is_cloned(clones.shell(&others, SCRIPT));
    assert_eq!(clones.keepers().len(), 3);
    is_cloned(clones.shell(&others, SCRIPT));
    assert_eq!(clones.keepers().len(), 3);
}

#[test]
fn another_qemu_or_another_size_has_another_template() {
    let clones = Clones::new();
    let run = |options: &[&str], qemu: Option<&Path>| {
        let run = clones.shell(&[&ALWAYS, options].concat(), SCRIPT).env("VCH_ACCEL", "tcg");
        is_cloned(match qemu {
            Some(qemu) => run.env("VCH_QEMU", qemu),
            None => run,
        });
        clones.keepers().len()
    };
    let other = clones.qemu("");
    assert_eq!(run(&[], None), 1);
    assert_eq!(run(&[], Some(&other)), 2);
    assert_eq!(run(&["-m", "128m"], None), 3);
    assert_eq!(run(&["--cpus", "2"], None), 4);
    assert_eq!((run(&[], None), run(&[], Some(&other))), (4, 4));
}

#[test]
fn a_qemu_that_goes_on_with_nothing_boots() {
    let clones = Clones::new();
    let refuses = clones.qemu("case \"$*\" in *-incoming*) echo 'not today' >&2; exit 1 ;; esac");
    let run = |options| clones.shell(options, SCRIPT).env("VCH_ACCEL", "tcg").env("VCH_QEMU", &refuses).output();
    has_booted(&run(&AUTO), "QEMU does not go on with the template: not today");
    run(&ALWAYS).fails(125, &["--clone always", "not today"]);
}

#[test]
fn a_qemu_that_makes_no_template_boots() {
    let clones = Clones::new();
    let refuses = clones.qemu("case \"$*\" in *memory-backend-file*) echo 'no memory' >&2; exit 1 ;; esac");
    let run = |options| clones.shell(options, SCRIPT).env("VCH_ACCEL", "tcg").env("VCH_QEMU", &refuses).output();
    has_booted(&run(&AUTO), "no memory");
    run(&ALWAYS).fails(125, &["--clone always", "no memory"]);
    assert_eq!(clones.keepers(), []);
}

#[test]
fn a_machine_that_boots_from_an_iso_is_not_cloned() {
    let clones = Clones::new();
    let run = |wish| clones.shell(&["--boot", "iso", "--clone", wish], SCRIPT).output();
    has_booted(&run("auto"), "use --boot kernel");
    run("always").fails(125, &["--clone always", "use --boot kernel"]);
    assert_eq!(clones.keepers(), []);
}

#[test]
fn a_machine_with_a_vsock_is_not_cloned() {
    let clones = Clones::new();
    let run = |wish| clones.shell(&["--link", "vsock", "--clone", wish], SCRIPT).output();
    if !Path::new("/dev/vhost-vsock").exists() && !is_there("vhost-device-vsock") {
        return crate::skip(
            "a_machine_with_a_vsock_is_not_cloned",
            "this machine has neither vhost-vsock nor vhost-device-vsock",
        );
    }
    has_booted(&run("auto"), "use --link virtio or --link serial");
    run("always").fails(125, &["--clone always", "use --link virtio or --link serial"]);
}

#[test]
fn a_serial_link_is_cloned_too() {
    let clones = Clones::new();
    is_cloned(clones.shell(&["--link", "serial", "--clone", "always"], SCRIPT));
    clones.keeper();
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
