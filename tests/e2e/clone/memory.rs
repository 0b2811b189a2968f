//! What a clone writes is its own: neither its template nor another clone has it.

use std::fs::File;

use rig::clones::{Clones, is_in, is_in_guest, machine_of};
use rig::images;

/// 1 MiB of a line that is in no image and no spec: a container makes it.
const FILL: &str =
    "line=$(echo one clone | sha256sum | cut -c 1-63); for i in $(seq 128); do echo $line; done >/dev/shm/part
    for i in $(seq 128); do cat /dev/shm/part; done >/dev/shm/marker; wc -c </dev/shm/marker; read _";

#[test]
fn no_bytes_of_one_clone_are_in_another_or_in_the_template() {
    let clones = Clones::new();
    let options = ["-i", "-m", "128m", "--clone", "always"];
    let mut one = clones.shell(&options, FILL).talk();
    assert_eq!(one.line(), "1048576");
    let mut other = clones.shell(&options, "echo up; read _").talk();
    assert_eq!(other.line(), "up");

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text"), "one clone\n").unwrap();
    let marker = images::sha256(&dir.path().join("text")).as_bytes()[..63].to_owned();
    let (first, second) = (machine_of(one.pid()), machine_of(other.pid()));
    assert!(is_in_guest(first, &marker), "what it wrote is in its memory");
    assert!(!is_in_guest(second, &marker), "another clone has it");
    assert!(!is_in(&mut File::open(clones.keeper().memory()).unwrap(), &marker), "its template has it");
    // what all have in common is found by the same search
    let common = b"Linux version ";
    assert!([first, second].iter().all(|machine| is_in_guest(*machine, common)));
    assert!(is_in(&mut File::open(clones.keeper().memory()).unwrap(), common));
    for clone in [one, other] {
        let output = clone.finish();
        // `read` finds the end of its input
        assert_eq!((output.code, output.stderr.as_str()), (1, ""), "{output:?}");
    }
}
