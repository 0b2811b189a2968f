//! Bad input: one line that names the thing and the way out, exit code 125, and nothing half-written.

use std::fs;
use std::path::Path;

use rig::images::{ImageDir, sha256};
use rig::vch::{run, shell};
use rig::{artifacts, images};

/// Runs the image in a cache of its own, which must be without half a disk afterwards.
fn check(image: &Path, parts: &[&str]) {
    let cache = tempfile::tempdir().unwrap();
    run([Path::new("--rm"), image])
        .env("XDG_CACHE_HOME", cache.path())
        .env("VCH_ACCEL", "tcg")
        .output()
        .fails(125, parts);
    let disks = cache.path().join("tether/disks");
    let left: Vec<_> = fs::read_dir(&disks).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    assert!(left.iter().all(|path| path.extension().is_some_and(|kind| kind == "lock")), "left behind: {left:?}");
}

#[test]
fn an_image_that_is_not_there() {
    check(Path::new("/no/such/image.tar"), &["/no/such/image.tar"]);
    check(Path::new("./busybox"), &["./busybox", "no such file"]);
    // a name is one of a registry, and there is none
    check(Path::new("127.0.0.1:1/busybox"), &["127.0.0.1:1/busybox:latest", "cannot connect"]);
    check(Path::new("Busy Box"), &["Busy Box", "no such file", "no name of an image"]);
}

#[test]
fn an_archive_that_is_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(artifacts::dist("busybox.tar")).unwrap();
    let cut = dir.path().join("cut.tar");
    for len in [0, 100, 512, 2000, whole.len() / 2, whole.len() * 9 / 10] {
        fs::write(&cut, &whole[..len]).unwrap();
        check(&cut, &["cut.tar"]);
    }
}

#[test]
fn what_is_no_image_at_all() {
    check(&artifacts::dist("kernel"), &["kernel"]);
    check(Path::new("/etc"), &["/etc"]);
}

#[test]
fn a_layer_with_another_digest() {
    let image = ImageDir::with_busybox();
    image.archive(&serde_json::json!({}));
    let wrong = "0".repeat(64);
    let document = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/bin/true"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{wrong}")] },
    });
    let found = sha256(&image.layer());
    check(&image.pack(&document.to_string()), &["layer", wrong.as_str(), found.as_str()]);
}

#[test]
fn a_path_that_climbs_out() {
    let image = ImageDir::with_busybox();
    fs::write(image.root().join("evil"), "x").unwrap();
    images::run(std::process::Command::new("tar").arg("-cf").arg(image.layer()).arg("-C").arg(image.root()).args([
        "--transform",
        "s,^evil$,../../evil,",
        "-P",
        "evil",
    ]));
    let document = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/bin/true"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&image.layer()))] },
    });
    check(&image.pack(&document.to_string()), &["../../evil"]);
}

#[test]
fn an_image_for_another_architecture() {
    let image = ImageDir::with_busybox();
    image.archive(&serde_json::json!({}));
    let diff_id = format!("sha256:{}", sha256(&image.layer()));
    let document = serde_json::json!({
        "architecture": "arm64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    });
    check(&image.pack(&document.to_string()), &["linux/arm64", "linux/amd64"]);
}

#[test]
fn no_qemu() {
    shell(&[], "true").env("VCH_QEMU", "/no/such/qemu").output().fails(125, &["/no/such/qemu"]);
    shell(&[], "true").env("PATH", "/no/such").output().fails(125, &["qemu-system-x86_64", "install"]);
}

#[test]
fn kvm_that_cannot_be_had() {
    if Path::new("/dev/kvm").exists() {
        let output = shell(&[], "echo ran").env("VCH_ACCEL", "kvm").output();
        // a machine with a KVM that works runs it; one whose KVM hangs says so
        match output.code {
            0 => assert_eq!(output.text(), "ran\n"),
            _ => output.fails(125, &["KVM", "VCH_ACCEL"]),
        }
    } else {
        shell(&[], "true").env("VCH_ACCEL", "kvm").output().fails(125, &["/dev/kvm", "VCH_ACCEL"]);
    }
    shell(&[], "true").env("VCH_ACCEL", "warp").output().fails(125, &["VCH_ACCEL", "warp", "tcg"]);
}

#[test]
fn missing_assets() {
    let empty = tempfile::tempdir().unwrap();
    let output = shell(&["--assets", empty.path().to_str().unwrap()], "true").output();
    output.fails(125, &[empty.path().to_str().unwrap(), "./dev"]);
}

#[test]
fn options_that_make_no_sense() {
    for (options, part) in [
        (&["-m", "lots"][..], "lots"),
        (&["--cpus", "0"], "0"),
        (&["--link", "carrier-pigeon"], "carrier-pigeon"),
        (&["--boot", "floppy"], "floppy"),
        (&["--no-such-option"], "--no-such-option"),
    ] {
        let output = shell(options, "true").output();
        assert_eq!(output.code, 125, "{options:?}: {output:?}");
        assert!(output.stderr.contains(part), "{options:?}: {}", output.stderr);
    }
    let output = run(["--rm"]).output();
    assert_eq!(output.code, 125, "no image: {output:?}");
}

#[test]
fn a_full_disk() {
    let script = "mount -t tmpfs -o size=600k none \"$2\" && XDG_CACHE_HOME=\"$2\" exec \"$0\" run --rm \"$1\" true";
    let dir = tempfile::tempdir().unwrap();
    let unshare =
        if nix::unistd::Uid::effective().is_root() { &["--mount"][..] } else { &["--map-root-user", "--mount"] };
    let possible =
        std::process::Command::new("unshare").args(unshare).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        return crate::skip("a_full_disk", "this machine lets nobody mount a small file system");
    }
    let output = std::process::Command::new("unshare")
        .args(unshare)
        .args(["sh", "-c", script])
        .args([artifacts::program("vch"), artifacts::dist("busybox.tar"), dir.path().into()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(said.contains("No space left on device") && said.contains(dir.path().to_str().unwrap()), "{said}");
}
