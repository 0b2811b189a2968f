//! Another client than docker's own: docker-py goes through what people do with it, with a machine made elsewhere (docker_py/client.py) and with those that vch
//! serve makes (docker_py/made.py).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rig::artifacts::root;
use rig::engine::until;
use rig::images::busybox_disk;
use rig::machine::script;
use rig::serve::Serve;
use wire::guestinfo;
use wire::spec::{About, LinkDevice};

/// What the script says, step by step.
const STEPS: &str = "host\nlisting\nlogs\nexec\nattach\narchives\nresources\nerrors\nlife\n";

/// What the other one says.
const MADE_STEPS: &str = "runs\nlife\nnetworks\nimages\nvolumes\nlow level\nmany\ntold\n";

fn here(name: &str) -> PathBuf {
    root().join("tests/e2e/docker_py").join(name)
}

/// The interpreter of an environment with docker-py in it, or why there is none.
fn docker_py(dir: &Path) -> Result<PathBuf, String> {
    let venv = dir.join("venv");
    let said = |output: std::io::Result<Output>| match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it says nothing").to_owned())
        }
        Err(error) => Err(error.to_string()),
    };
    said(Command::new("python3").arg("-m").arg("venv").arg(&venv).output())
        .map_err(|why| format!("python3 -m venv: {why} (Debian's package is python3-venv)"))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "15"];
    let pinned = ["--require-hashes", "--only-binary", ":all:", "--requirement"];
    let python = venv.join("bin/python");
    said(Command::new(&python).args(pip).args(pinned).arg(here("requirements.txt")).output())
        .map_err(|why| format!("PyPI gives no docker-py: {why}"))?;
    Ok(python)
}

#[test]
fn docker_py_does_what_people_do_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let python = match docker_py(dir.path()) {
        Ok(python) => python,
        Err(reason) => return crate::skip("docker_py_does_what_people_do_with_it", &reason),
    };
    let (_disk_dir, disk) = busybox_disk();
    let serve = Serve::start();
    let text = "trap 'exit 7' USR1; echo out 1; echo err 1 >&2; while read line; do echo in $line; done; \
                while :; do sleep 0.1; done";
    let mut spec = script(LinkDevice::Virtio, text);
    spec.main.stdin = true;
    let mut machine = serve.machine("web1", &mut spec, disk);
    let about = About {
        name: Some("web".into()),
        image: Some("busybox:rig".into()),
        image_id: Some(format!("sha256:{}", "cd".repeat(32))),
        cmd: spec.main.argv.clone(),
        ..About::default()
    };
    let mut keys = guestinfo::write(&spec);
    guestinfo::write_about(&about, &mut keys);
    machine.guestinfo = Some(keys.to_string());
    let _machine = machine.power_on();
    serve.wait_for("web1", &["running", "up"]);
    serve.wait_for_docker("web");
    let output = Command::new(python).arg("-B").arg(here("client.py")).arg(serve.docker_host()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}{}", serve.log());
    assert_eq!(stdout, STEPS);
}

#[test]
fn docker_py_does_it_with_machines_that_are_made_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let python = match docker_py(dir.path()) {
        Ok(python) => python,
        Err(reason) => return crate::skip("docker_py_does_it_with_machines_that_are_made_for_it", &reason),
    };
    let serve = Serve::with_qemu(&[]);
    let output = Command::new(python).arg("-B").arg(here("made.py")).arg(serve.docker_host()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}{}", serve.log());
    assert_eq!(stdout, MADE_STEPS);
    until("no machine is left", || serve.machines().is_empty());
}
