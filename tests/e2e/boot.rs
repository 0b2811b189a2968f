//! A containerVM boots by every way in, and says hello.

use rig::vch::{busybox, run, shell};
use rig::{artifacts, images};

#[test]
fn the_demonstration_runs() {
    let output = run(["--rm".into(), artifacts::dist("busybox.tar")]).output().success();
    assert!(output.contains("PID 1 is tether"), "{output:?}");
}

#[test]
fn every_boot_and_link_runs_the_same_container() {
    for boot in ["kernel", "iso"] {
        for link in ["virtio", "serial"] {
            let output = shell(&["--boot", boot, "--link", link], "echo $((6 * 7)); echo err >&2; exit 3").output();
            assert_eq!(
                (output.code, output.text().as_str(), output.stderr.as_str()),
                (3, "42\n", "err\n"),
                "{boot}, {link}"
            );
        }
    }
}

#[test]
fn nothing_but_the_container_writes_to_stdout_and_stderr() {
    let output = busybox(&[], &["true"]).output();
    assert_eq!((output.code, output.stdout.as_slice(), output.stderr.as_str()), (0, &b""[..], ""));
}

#[test]
fn the_machine_is_as_large_as_asked() {
    let script =
        "grep -c ^processor /proc/cpuinfo; awk '/MemTotal/ { print ($2 > 150000 && $2 < 200000) }' /proc/meminfo";
    assert_eq!(shell(&["--cpus", "2", "-m", "192m"], script).output().success(), "2\n1\n");
}

#[test]
fn several_machines_run_at_once() {
    let running: Vec<_> = (0..3).map(|n| shell(&[], &format!("echo {n}")).start()).collect();
    for (n, run) in running.into_iter().enumerate() {
        assert_eq!(run.finish().success(), format!("{n}\n"));
    }
}

#[test]
fn an_image_of_ones_own_runs_by_its_config() {
    let image = images::ImageDir::with_busybox();
    std::fs::write(image.root().join("note"), "from the image\n").unwrap();
    let archive = image.archive(&serde_json::json!({
        "Env": ["PATH=/bin", "GREETING=hi"], "WorkingDir": "/srv/app", "User": "1000:1000",
        "Entrypoint": ["sh", "-c", "cat /note; echo $GREETING $1 $(pwd) $(id -u)", "sh"], "Cmd": ["default"],
    }));
    let archive = archive.to_str().unwrap();
    assert_eq!(run(["--rm", archive]).output().success(), "from the image\nhi default /srv/app 1000\n");
    assert_eq!(run(["--rm", archive, "given"]).output().success(), "from the image\nhi given /srv/app 1000\n");
    let output = run(["--rm", "--entrypoint", "/bin/echo", archive, "a  b"]).output();
    assert_eq!(output.success(), "a  b\n");
}
