//! Images come from registries: Debian's own is the judge of what is pulled, and skopeo of what it is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::images::{ImageDir, run, sha256};
use rig::registry::{self, Demands, LOGIN, PASSWORD, Registry, skopeo};
use rig::{artifacts, vch};
use serde_json::{Value, json};
use tempfile::TempDir;

mod faults;

/// A user with a cache and a home of their own.
struct User {
    home: TempDir,
}

struct Said {
    ok: bool,
    stdout: String,
    stderr: String,
}

impl User {
    fn new() -> User {
        User { home: tempfile::tempdir().unwrap() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("timeout");
        command.arg("120").arg(artifacts::program("iso-builder")).env_clear().env("HOME", self.home.path());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.home.path().join("bin").display())).env("TETHER_MIRRORS", "");
        command
    }

    fn says(&self, arguments: &[&str]) -> Said {
        let output = self.command().args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { ok: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The digest that was pulled.
    fn pulls(&self, arguments: &[&str]) -> String {
        let said = self.says(&[&["pull"], arguments].concat());
        assert!(said.ok, "{arguments:?}: {}", said.stderr);
        said.stdout.trim_end().to_owned()
    }

    /// A failure is one line, with all of these in it; how far the pull was may stand before it.
    fn fails(&self, arguments: &[&str], parts: &[&str]) {
        let said = self.says(arguments);
        assert!(!said.ok, "{arguments:?}: {}", said.stdout);
        let failure = said.stderr.lines().skip_while(|line| line.starts_with("pull "));
        assert_eq!(failure.count(), 1, "{}", said.stderr);
        for part in parts {
            assert!(said.stderr.contains(part), "{part:?} is not in {:?}", said.stderr);
        }
    }

    /// The digest of the disk of an image.
    fn disk(&self, arguments: &[&str]) -> String {
        let disk = self.home.path().join("disk.raw");
        let mut command = self.command();
        run(command.arg("disk").args(arguments).arg("-o").arg(&disk));
        sha256(&disk)
    }

    fn writes(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

/// Whether what is needed is here.
fn can_judge(test: &str) -> bool {
    let missing = registry::missing();
    if let Some(reason) = &missing {
        crate::skip(test, reason);
    }
    missing.is_none()
}

fn busybox() -> String {
    format!("docker-archive:{}", artifacts::dist("busybox.tar").display())
}

/// An OCI layout with an index of two platforms, called `multi`.
fn two_platforms(dir: &Path) -> String {
    let mut descriptors = Vec::new();
    for arch in ["arm64", "amd64"] {
        let image = ImageDir::with_busybox();
        fs::write(image.root().join("which"), arch).unwrap();
        let archive = image.archive(&json!({}));
        let layer = format!("sha256:{}", sha256(&image.layer()));
        let document =
            json!({ "architecture": arch, "os": "linux", "rootfs": { "type": "layers", "diff_ids": [layer] } });
        let packed = image.pack(&document.to_string());
        assert_eq!(archive, packed);
        let layout = dir.join(arch);
        run(skopeo()
            .args(["copy", "--quiet"])
            .arg(format!("docker-archive:{}", packed.display()))
            .arg(format!("oci:{}", layout.display())));
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        let mut descriptor = index["manifests"][0].clone();
        descriptor["platform"] = json!({ "architecture": arch, "os": "linux" });
        descriptors.push(descriptor);
        run(Command::new("cp").arg("-r").arg(layout.join(".")).arg(dir.join("all")));
    }
    let blob = |value: Value| {
        let bytes = value.to_string();
        fs::write(dir.join("new"), &bytes).unwrap();
        let hex = sha256(&dir.join("new"));
        fs::rename(dir.join("new"), dir.join("all/blobs/sha256").join(&hex)).unwrap();
        (format!("sha256:{hex}"), bytes.len())
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let (digest, size) = blob(json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": descriptors }));
    let name = json!({ "org.opencontainers.image.ref.name": "multi" });
    let top = json!({ "mediaType": media_type, "digest": digest, "size": size, "annotations": name });
    fs::write(dir.join("all/index.json"), json!({ "schemaVersion": 2, "manifests": [top] }).to_string()).unwrap();
    format!("oci:{}:multi", dir.join("all").display())
}

#[test]
fn what_skopeo_pushed_is_pulled_as_it_is() {
    if !can_judge("what_skopeo_pushed_is_pulled_as_it_is") {
        return;
    }
    let (user, registry, dir) = (User::new(), Registry::start(Demands::default()), tempfile::tempdir().unwrap());
    let multi = two_platforms(dir.path());
    registry.push(["--format=v2s2"], &busybox(), "gzip");
    registry.push(["--format=oci", "--dest-compress-format=zstd"], &busybox(), "a/b/zstd:1");
    registry.push(["--all"], &multi, "multi");
    for (name, file) in [("gzip", &busybox()), ("a/b/zstd:1", &busybox()), ("multi", &multi)] {
        let full = registry.name(name);
        let digest = registry.digest(name);
        assert_eq!(user.pulls(&[&full]), digest, "{name}");
        // by name, by digest, and out of a file: the same disk
        let expected = user.disk(&[file]);
        assert_eq!(user.disk(&[&format!("docker://{full}")]), expected, "{name}");
        let pinned = format!("{}@{digest}", full.trim_end_matches(":1"));
        assert_eq!(user.disk(&[&pinned]), expected, "{name}");
    }
    let multi = registry.name("multi");
    let (arm, here) = (["--platform", "linux/arm64", &multi], user.says(&["pull", &multi]));
    assert!(here.stderr.contains("was here already"), "{}", here.stderr);
    assert_eq!(user.pulls(&arm), here.stdout.trim_end(), "one index");
    user.fails(
        &["pull", "--platform", "linux/s390x", &multi],
        &["is for linux/amd64, linux/arm64, and linux/s390x is wanted"],
    );
    user.fails(
        &["pull", &registry.name("none")],
        &["/none:latest: 127.0.0.1:", "there is no such image", "manifest unknown"],
    );

    let tagged = registry.name("moves");
    registry.push(["--format=oci"], &busybox(), "moves");
    let first = user.disk(&[&tagged]);
    registry.push(["--all"], &format!("oci:{}", dir.path().join("amd64").display()), "moves");
    assert_eq!(user.disk(&[&tagged]), first, "what is here is taken");
    assert_ne!(user.disk(&["--pull", "always", &tagged]), first);
    drop(registry);
    assert_ne!(user.disk(&[&tagged]), first, "and without a registry");
    user.fails(&["disk", "--pull", "always", &tagged, "-o", "x"], &["cannot connect: Connection refused"]);
}

#[test]
fn pulled_images_are_listed_forgotten_and_collected() {
    if !can_judge("pulled_images_are_listed_forgotten_and_collected") {
        return;
    }
    let (user, registry) = (User::new(), Registry::start(Demands::default()));
    registry.push(["--format=oci"], &busybox(), "one");
    registry.push(["--format=oci"], &busybox(), "two");
    let (one, two) = (registry.name("one"), registry.name("two"));
    let digest = user.pulls(&[&one]);
    user.pulls(&[&two]);
    let listed = user.says(&["images"]).stdout;
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.contains(&digest) && listed.contains(&format!("{one}:latest")), "{listed}");
    assert!(user.says(&["rmi", &one]).ok);
    user.disk(&["--pull", "never", &two]);
    user.fails(&["disk", "--pull", "never", &one, "-o", "x"], &[&one, "is not here, and may not be pulled"]);
    user.fails(&["rmi", &one], &["is not here; `iso-builder images`"]);
    assert!(user.says(&["gc", "--keep-bytes", "1"]).stderr.contains("two:latest: forgotten"));
    let blobs = user.home.path().join(".cache/tether/content/blobs/sha256");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 0);
}

#[test]
fn a_login_is_found_where_docker_left_it() {
    if !can_judge("a_login_is_found_where_docker_left_it") {
        return;
    }
    let registry = Registry::start(Demands { login: true, tls: false });
    registry.push(["--format=oci"], &busybox(), "app");
    let (name, user) = (registry.name("app"), User::new());
    let host = format!("127.0.0.1:{}", registry.port);
    user.fails(&["pull", &name], &[&name, &host, "guests may not have it", &format!("`docker login {host}`")]);
    let login = |auth: &str| json!({ "auths": { host.clone(): { "auth": auth } } }).to_string();
    user.writes(".docker/config.json", &login("am9lOndyb25n"));
    user.fails(&["pull", &name], &["the login that `docker login", "may not have it"]);
    user.writes(".docker/config.json", &login(LOGIN));
    assert_eq!(user.pulls(&[&name]), registry.digest("app"));

    let other = User::new();
    other.writes(".docker/config.json", r#"{"credsStore":"test"}"#);
    other.fails(&["pull", &name], &["docker-credential-test", "cannot be started"]);
    let helper = format!(
        "#!/bin/sh\n[ \"$1 $(cat)\" = 'get {host}' ] && echo '{{\"Username\":\"joe\",\"Secret\":\"{PASSWORD}\"}}'\n"
    );
    let helper = other.writes("bin/docker-credential-test", &helper);
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(other.pulls(&[&name]), registry.digest("app"));
}

#[test]
fn tls_is_for_those_who_know_the_authority() {
    if !can_judge("tls_is_for_those_who_know_the_authority") {
        return;
    }
    let registry = Registry::start(Demands { login: true, tls: true });
    registry.push(["--format=oci"], &busybox(), "app");
    let (name, user) = (registry.name("app"), User::new());
    user.writes(
        ".docker/config.json",
        &json!({ "auths": { format!("127.0.0.1:{}", registry.port): { "auth": LOGIN } } }).to_string(),
    );
    user.fails(&["pull", &name], &["no secure connection", "certs.d/HOST/ca.crt", "--ca FILE"]);
    let authority = registry.authority();
    let digest = user.pulls(&["--ca", authority.to_str().unwrap(), &name]);
    assert_eq!(digest, registry.digest("app"));
    user.says(&["rmi", &name]);
    let text = fs::read_to_string(&authority).unwrap();
    user.writes(&format!(".config/containers/certs.d/127.0.0.1:{}/ca.crt", registry.port), &text);
    assert_eq!(user.pulls(&[&name]), digest);
    let empty = user.writes("empty.pem", "");
    user.fails(&["pull", "--ca", empty.to_str().unwrap(), &name], &["empty.pem: it holds no certificate in PEM"]);
}

#[test]
fn vch_runs_what_a_registry_has() {
    if !can_judge("vch_runs_what_a_registry_has") {
        return;
    }
    let (registry, cache) = (Registry::start(Demands::default()), tempfile::tempdir().unwrap());
    registry.push(["--format=oci"], &busybox(), "library/busybox");
    let mirror = format!("http://127.0.0.1:{}", registry.port);
    let run = |arguments: &[&str]| {
        vch::run(arguments).env("XDG_CACHE_HOME", cache.path()).env("TETHER_MIRRORS", &mirror).output()
    };
    run(&["--rm", "--pull", "never", "busybox", "true"]).fails(125, &["docker.io/library/busybox:latest is not here"]);
    assert_eq!(run(&["--rm", "busybox", "echo", "hi"]).success(), "hi\n");
    drop(registry);
    assert_eq!(run(&["--rm", "--pull", "never", "busybox", "echo", "again"]).success(), "again\n");
}
