//! `vch run --vch`: a machine whose link leads to a VCH that runs elsewhere, as on ESXi.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use rig::artifacts;
use rig::serve::Serve;
use rig::vch::{Run, run};

fn elsewhere(serve: &Serve, options: &[&str], script: &str) -> Run {
    let link = format!("unix://{}", serve.links().display());
    let key = serve.master_key().display().to_string();
    let image = artifacts::dist("busybox.tar").display().to_string();
    let own = ["--vch", &link, "--master-key", &key, "--network", "none"];
    run(own.iter().chain(options).copied().chain([image.as_str(), "sh", "-c", script]))
}

/// The only container's id, and its guestinfo.
fn container(state: &Path) -> (String, String) {
    let all = fs::read_dir(state.join("tether/containers")).unwrap();
    let dirs: Vec<_> = all.map(|entry| entry.unwrap().path()).collect();
    let [dir] = dirs.as_slice() else { panic!("{dirs:?}") };
    let guestinfo = fs::read_to_string(dir.join("guestinfo")).unwrap();
    (dir.file_name().unwrap().to_str().unwrap().to_owned(), guestinfo)
}

#[test]
fn it_waits_for_a_vch_is_started_by_it_and_powers_off_in_order() {
    let mut serve = Serve::start();
    // the machine is there before the VCH
    serve.kill();
    let script = "trap 'echo bye; exit 3' TERM; echo hello; while :; do sleep 0.1; done";
    let options = ["--hold", "--name", "web", "--label", "tier=front", "--disk", "layers"];
    let running = elsewhere(&serve, &options, script).start();
    running.wait_for_output();
    let (id, guestinfo) = container(running.state());
    for line in [
        "guestinfo.vice./common/name = \"web\"",
        "guestinfo.vice./image/cmd~json = \"[|22sh|22,|22-c|22,",
        "guestinfo.vice./imageid = \"sha256:",
        "guestinfo.vice./labels~json = \"{|22tier|22:|22front|22}\"",
        "guestinfo.vice./link/sealed = \"true\"",
    ] {
        assert!(guestinfo.contains(line), "{line} is not in {guestinfo}");
    }
    serve.start_again();
    serve.wait_for(&id[..12], &["held", "up"]);
    serve.command("start", &[&id]).output().success();
    serve.wait_for(&id[..12], &["running", "up"]);
    assert_eq!(serve.command("exec", &[&id, "sh", "-c", "echo in >/new; cat /new"]).output().success(), "in\n");

    let mut log = String::new();
    let state = running.state().to_owned();
    running.signal(Signal::SIGTERM);
    let output = running.finish_with(|| {
        let path = state.join("tether/containers").join(&id).join("output.log");
        log = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    });
    assert_eq!((output.code, output.text().trim_end(), output.stderr.as_str()), (0, id.as_str(), ""));
    assert!(log.contains("hello") && log.contains("bye"), "its log device has what it said: {log:?}");
}

#[test]
fn what_cannot_be_is_said() {
    let serve = Serve::start();
    let broken = elsewhere(&serve, &[], "true").env("VCH_QEMU", "/bin/false").env("VCH_ACCEL", "tcg");
    broken.output().fails(125, &["QEMU ended at once"]);
    let odd = run(["--vch", "vsock://29797", "img"]).output();
    assert!(odd.code == 125 && odd.stderr.contains("write unix://PATH or tcp://HOST:PORT"), "{odd:?}");
}
