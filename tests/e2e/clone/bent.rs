//! A template that is not what it was is never forked: the machine boots and says why in a sentence, or does not start at all where only a clone will do.

use std::fs;

use rig::clones::{Clones, Keeper};
use rig::images;
use rig::keeper::{Fake, Handed, memory_file};

/// Makes a template, has a keeper hand out what was made of it, and runs a container either way.
fn check(bend: impl FnOnce(&Keeper, &mut Handed), reason: &str) {
    let clones = Clones::new();
    assert_eq!(clones.shell(&["--clone", "always"], "echo first").output().success(), "first\n");
    let keeper = clones.keeper();
    let mut handed = Handed::by(&keeper);
    bend(&keeper, &mut handed);
    let _fake = Fake::in_place_of(&keeper, handed);
    let output = clones.shell(&["--clone", "auto"], "echo second").output();
    assert_eq!((output.code, output.text().as_str()), (0, "second\n"), "{output:?}");
    let said: Vec<&str> = output.stderr.lines().collect();
    let [said] = said[..] else { panic!("one sentence: {said:?}") };
    assert!(said.starts_with("vch: the machine boots, as it cannot be cloned: ") && said.contains(reason), "{said}");
    clones.shell(&["--clone", "always"], "echo third").output().fails(125, &["--clone always", reason]);
}

#[test]
fn of_another_kind() {
    check(
        |_, handed| handed.bend("kind", "0".repeat(64)),
        "the template is of another kernel, QEMU or size of machine",
    );
}

#[test]
fn that_is_truncated() {
    let cut = |keeper: &Keeper, handed: &mut Handed| {
        let whole = fs::read(keeper.state()).unwrap();
        handed.files[1] = memory_file(&whole[..whole.len() / 2], true);
    };
    check(cut, "the template is truncated: it has ");
}

#[test]
fn whose_memory_is_truncated() {
    check(|_, handed| handed.files[0] = memory_file(&[0; 4096], true), "the template is truncated: it has 4096 of ");
}

#[test]
fn that_is_not_sealed() {
    let open = |keeper: &Keeper, handed: &mut Handed| {
        handed.files[1] = memory_file(&fs::read(keeper.state()).unwrap(), false);
    };
    check(open, "the template could be written: it is not sealed");
}

#[test]
fn whose_state_is_bent() {
    check(|keeper, handed| handed.files[1] = bent(keeper), "the template's state is not what was saved");
}

#[test]
fn whose_state_qemu_refuses() {
    let bend = |keeper: &Keeper, handed: &mut Handed| {
        handed.files[1] = bent(keeper);
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("state");
        fs::copy(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handed.files[1])), &copy).unwrap();
        handed.bend("state_sha256", images::sha256(&copy));
    };
    check(bend, "QEMU does not go on with the template");
}

#[test]
fn that_is_half_handed_over() {
    check(|_, handed| drop(handed.files.pop()), "it passes 1 files, and not 2");
}

#[test]
fn of_a_keeper_that_says_something_else() {
    check(|_, handed| handed.record = b"ICY 200 OK\r\n".to_vec(), "it says something else");
}

/// The state of the devices with a byte in fifty changed, behind its head.
fn bent(keeper: &Keeper) -> fs::File {
    let mut state = fs::read(keeper.state()).unwrap();
    for byte in state.iter_mut().skip(512).step_by(50) {
        *byte ^= 0x55;
    }
    memory_file(&state, true)
}
