//! A host whose disk is full under containers that run: each can be told, stopped and removed, and what has room again goes on.
//!
//! The state lies on a small file system of its own, which only this test and its programs see.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rig::engine::until;
use rig::serve::Serve;

use super::made_life::shows;
use super::made_power::until_remembered;

/// The file system of the state: one image, some containers, and what one of them writes.
const SIZE: &str = "size=24m,mode=700";

#[test]
fn a_full_disk_is_told_and_given_back() {
    // a view of the file systems is a thread's own, and its children's
    std::thread::scope(|scope| scope.spawn(in_a_view_of_its_own).join()).expect("it went well");
}

fn in_a_view_of_its_own() {
    let root: Option<&str> = None;
    let private = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(root, "/", root, MsFlags::MS_REC | MsFlags::MS_PRIVATE, root));
    if let Err(error) = private {
        return super::skip(
            "a_full_disk_is_told_and_given_back",
            &format!("no view of file systems of its own: {error}"),
        );
    }
    let mut serve = Serve::with_qemu(&[]);
    serve.kill();
    let state = serve.state();
    mount(Some("none"), &state, Some("tmpfs"), MsFlags::empty(), Some(SIZE)).expect("a small file system");
    serve.start_again();
    serve.until_docker_answers();
    fills_and_frees(&mut serve);
    serve.kill();
    umount2(&state, MntFlags::MNT_DETACH).expect("the small file system");
}

/// Writes until nothing has room.
fn fill(path: &Path) {
    let mut file = File::options().append(true).create(true).open(path).expect("room for a name");
    let full = std::iter::repeat_with(|| file.write_all(&[1; 4096])).find_map(Result::err).expect("an end");
    assert_eq!(full.kind(), ErrorKind::StorageFull);
}

fn fills_and_frees(serve: &mut Serve) {
    let archive = rig::artifacts::dist("busybox.tar");
    serve.docker(&["load", "-q", "-i", archive.to_str().expect("a path of ours")]).output().success();
    serve.docker(&["run", "-d", "--name", "web", "busybox", "top"]).output().success();
    let script = "while :; do echo line; sleep 0.2; done";
    serve.docker(&["run", "-d", "--name", "talk", "busybox", "sh", "-c", script]).output().success();
    serve.docker(&["create", "--name", "spare", "busybox", "true"]).output().success();
    for name in ["web", "talk"] {
        until_remembered(serve, name);
    }
    // how it comes back tells nothing: what is written late fails late
    serve.docker(&["exec", "web", "sh", "-c", "dd if=/dev/urandom of=/file bs=64k count=500; sync"]).output();
    let full = "one of its disks could not be written: No space left on device";
    until("its user is told", || shows(serve, "web", "{{.State.Error}}").starts_with(full));
    until("its log says so", || serve.log().contains(&format!("web: {full}")));
    // what is too little for one that writes a lot may do for one that begins
    let rest = serve.state().join("rest");
    fill(&rest);
    // a record has some room that is kept for it
    serve.docker(&["rename", "spare", "late"]).output().success();
    until("what was kept is used", || !serve.state().join("serve/reserve").exists());
    fill(&rest);
    let names = ["ps", "-a", "--format", "{{.Names}} {{.State}}"];
    let all = "late created\ntalk running\nweb running\n";
    assert_eq!(serve.docker(&names).output().success(), all);
    assert_eq!(serve.docker(&["exec", "web", "echo", "there"]).output().success(), "there\n");
    // no half of one
    let start = serve.docker(&["start", "late"]).output();
    assert_eq!(start.code, 1, "{start:?}");
    assert!(start.stderr.contains("No space left on device"), "{start:?}");
    assert_eq!(shows(serve, "late", "{{.State.Status}}"), "created");

    // one that begins now finds them all
    serve.kill();
    serve.start_again();
    serve.until_docker_answers();
    assert_eq!(serve.docker(&names).output().success(), all);
    assert_eq!(serve.docker(&["stop", "-t", "5", "web"]).output().success(), "web\n");
    assert_eq!(shows(serve, "web", "{{.State.Status}}"), "exited");
    serve.docker(&["rm", "web"]).output().success();

    // there is room again
    std::fs::remove_file(&rest).expect("a file of ours");
    let lines = || serve.docker(&["logs", "talk"]).output().text().lines().count();
    let said = lines();
    until("it goes on to speak", || lines() > said);
    serve.docker(&["start", "-a", "late"]).output().success();
    serve.docker(&["rm", "-f", "talk", "late"]).output().success();
    assert_eq!(serve.docker(&["run", "--rm", "busybox", "echo", "again"]).output().success(), "again\n");
    assert_eq!(serve.machines(), []);
}
