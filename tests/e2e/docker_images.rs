//! Docker's images on a host that keeps them: loaded, saved, pulled, imported, tagged, removed, by docker's own client; skopeo and Debian's registry judge.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::engine::until;
use rig::images::{ImageDir, run};
use rig::registry::{self, Demands, LOGIN, PASSWORD, Registry, skopeo};
use rig::serve::Serve;
use serde_json::{Value, json};

/// An image whose files are nobody else's, so that its disk is no other test's either.
pub(crate) fn image_of(text: &str) -> (ImageDir, PathBuf) {
    let image = ImageDir::with_busybox();
    fs::write(image.root().join("which"), format!("{text} of {}", std::process::id())).unwrap();
    let archive = image.archive(&json!({ "Cmd": ["cat", "/which"], "Labels": { "of": text } }));
    (image, archive)
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The blobs and disks that a store has.
pub(crate) fn kept(serve: &Serve) -> (usize, usize) {
    let count = |dir: &str| fs::read_dir(serve.state().join("images").join(dir)).map_or(0, Iterator::count);
    (count("blobs/sha256"), count("disks"))
}

/// A directory with its names in another form: archives of every kind are made of it.
fn packed(dir: &Path, archive: &Path, names: &[&str], options: &[&str]) {
    run(Command::new("tar").args(options).arg("-cf").arg(archive).arg("-C").arg(dir).args(names));
}

#[test]
fn archives_of_every_form_are_loaded_or_refused_and_leave_nothing() {
    let mut serve = Serve::with_qemu(&[]);
    let docker = |args: &[&str]| serve.docker(args).output();
    let dir = tempfile::tempdir().unwrap();
    let (_keep, archive) = image_of("forms");
    let parts = dir.path().join("parts");
    fs::create_dir(&parts).unwrap();
    run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&parts));
    let empty = kept(&serve);
    let said = docker(&["load", "-q", "-i", text(&archive)]).success();
    assert_eq!(said, "Loaded image: test:latest\n");
    let full = docker(&["image", "inspect", "-f", "{{.Id}}", "test"]).success();
    let full = full.trim();
    let before = kept(&serve);
    // again, gzip outside, zstd outside, names with ./, a symlink for a layer and manifest.json last
    let config = fs::read_dir(&parts).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let config = config.into_iter().find(|name| name.ends_with(".json") && name != "manifest.json").unwrap();
    let all = dir.path().join("again.tar");
    let dotted: Vec<String> =
        [config.as_str(), "layer.tar", "manifest.json"].iter().map(|name| format!("./{name}")).collect();
    packed(&parts, &all, &dotted.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    for pack in ["gzip", "zstd"] {
        run(Command::new(pack).args(["-k", "-f", "-q"]).arg(&all));
    }
    fs::rename(parts.join("layer.tar"), parts.join("real.tar")).unwrap();
    std::os::unix::fs::symlink("real.tar", parts.join("layer.tar")).unwrap();
    let linked = dir.path().join("linked.tar");
    packed(&parts, &linked, &["real.tar", "layer.tar", &config, "manifest.json"], &[]);
    for form in ["again.tar", "again.tar.gz", "again.tar.zst", "linked.tar"] {
        let said = docker(&["load", "-i", text(&dir.path().join(form))]).success();
        assert_eq!(said, "Loaded image: test:latest\n", "{form}");
        assert_eq!(docker(&["images", "-q", "--no-trunc", "test"]).success().trim(), full, "{form}");
        assert_eq!(kept(&serve), before, "{form}");
    }
    // two at once
    let loads: Vec<_> = (0..2).map(|_| serve.docker(&["load", "-q", "-i", text(&archive)]).start()).collect();
    for load in loads {
        load.finish().success();
    }
    assert_eq!(kept(&serve), before);
    docker(&["run", "--rm", "test"]).success();
    docker(&["rmi", "test"]).success();
    assert_eq!(kept(&serve), empty);
    assert_eq!(before.0, empty.0 + 3);
    // cut off, damaged, nonsense
    let bytes = fs::read(&archive).unwrap();
    let cut = dir.path().join("cut.tar");
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let damaged = dir.path().join("damaged.tar");
    let mut other = bytes.clone();
    let at = other.windows(9).position(|window| window == b"forms of ").unwrap();
    other[at] = b'F';
    fs::write(&damaged, other).unwrap();
    let nonsense = dir.path().join("nonsense.tar");
    fs::write(&nonsense, vec![b'x'; 3 << 20]).unwrap();
    for (file, part) in [(&cut, "truncated"), (&damaged, "digest"), (&nonsense, "archive")] {
        docker(&["load", "-q", "-i", text(file)]).fails(1, &[part]);
        assert_eq!(kept(&serve), empty, "{part}");
    }
    // killed while it loads, at whatever point
    let load = serve.docker(&["load", "-q", "-i", text(&archive)]).start();
    serve.kill();
    load.finish();
    serve.start_again();
    serve.until_docker_answers();
    let there = serve.docker(&["images", "-q", "test"]).output().success().lines().count();
    assert_eq!(kept(&serve), if there == 1 { before } else { empty }, "an image is there or it is not");
    serve.docker(&["load", "-q", "-i", text(&archive)]).output().success();
    assert_eq!(kept(&serve), before);
}

#[test]
fn images_are_saved_imported_tagged_and_removed() {
    let serve = Serve::with_qemu(&[]);
    let docker = |args: &[&str]| serve.docker(args).output();
    let dir = tempfile::tempdir().unwrap();
    let (_keep, archive) = image_of("saved");
    docker(&["load", "-q", "-i", text(&archive)]).success();
    docker(&["tag", "test", "127.0.0.1:1/a/b:2"]).success();
    docker(&["tag", "test", "Bad"]).fails(1, &["must be lowercase"]);
    docker(&["tag", "nosuch", "x"]).fails(1, &["No such image: nosuch:latest"]);
    let ids = |filters: &[&str]| docker(&[&["images", "-q", "--no-trunc"], filters].concat()).success();
    let id = ids(&["127.0.0.1:1/a/b"]);
    for filter in ["reference=te*", "label=of=saved", "reference=127.0.0.1:1/a/b:2", "dangling=false"] {
        assert!(ids(&["-f", filter]).contains(id.trim()), "{filter}");
    }
    assert_eq!(ids(&["-f", "dangling=true"]), "");
    docker(&["images", "-f", "colour=red"]).fails(1, &["invalid filter 'colour'"]);
    let tree: Value = serde_json::from_str(&docker(&["image", "inspect", "test"]).success()).unwrap();
    let told = &tree[0];
    assert_eq!(told["RepoTags"], json!(["127.0.0.1:1/a/b:2", "test:latest"]));
    assert_eq!(told["RootFS"]["Layers"].as_array().map(Vec::len), Some(1));
    assert!(told["Size"].as_u64() > Some(1 << 20), "{told}");

    // what is saved is read back, here and by skopeo, in both of its forms
    let saved = dir.path().join("saved.tar");
    docker(&["save", "-o", text(&saved), "test", "127.0.0.1:1/a/b:2", "busybox"]).success();
    docker(&["save", "nosuch"]).fails(1, &["No such image: nosuch:latest"]);
    let skopeo_reads = |name: &str| {
        let out = dir.path().join("layout");
        run(skopeo().args(["copy", "--quiet", name]).arg(format!("oci:{}", out.display())));
    };
    if let Some(reason) = registry::missing() {
        crate::skip("images_are_saved_imported_tagged_and_removed", &reason);
    } else {
        skopeo_reads(&format!("docker-archive:{}:test:latest", saved.display()));
        let layout = dir.path().join("saved");
        fs::create_dir(&layout).unwrap();
        run(Command::new("tar").arg("-xf").arg(&saved).arg("-C").arg(&layout));
        skopeo_reads(&format!("oci:{}:2", layout.display()));
        fs::remove_file(layout.join("manifest.json")).unwrap();
        let oci = dir.path().join("oci.tar");
        packed(&layout, &oci, &["."], &[]);
        docker(&["rmi", "test", "127.0.0.1:1/a/b:2"]).success();
        docker(&["load", "-q", "-i", text(&oci)]).success();
        assert_eq!(ids(&["test"]), id, "by its layout alone");
    }
    docker(&["rmi", "-f", id.trim()]).success();
    let said = docker(&["load", "-i", text(&saved)]).success();
    assert_eq!(said.lines().count(), 3, "{said}");
    assert_eq!(ids(&["test"]), id);

    // a tar of files is an image, too
    let files = dir.path().join("files.tar");
    run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(dir.path()).arg("layer.tar"));
    fs::rename(dir.path().join("layer.tar"), &files).unwrap();
    run(Command::new("gzip").arg(&files));
    let import = ["import", "-c", "CMD [\"cat\", \"/which\"]", "-c", "ENV A=b", "-m", "by hand"];
    let new = docker(&[&import[..], &[text(&dir.path().join("files.tar.gz")), "made:1"]].concat()).success();
    assert!(new.starts_with("sha256:"), "{new}");
    docker(&["import", "-c", "RUN x", text(&archive), "made:2"]).fails(1, &["RUN is not a valid change command"]);
    assert!(docker(&["history", "made:1"]).success().contains("by hand"));
    assert!(docker(&["run", "--rm", "made:1"]).success().starts_with("saved of "));

    // what a container has stays
    docker(&["run", "-d", "--name", "web", "test", "sleep", "100000"]).success();
    let short = &id.trim()["sha256:".len()..][..12];
    docker(&["rmi", "127.0.0.1:1/a/b:2"]).success();
    docker(&["rmi", "test"])
        .fails(1, &["conflict: unable to remove repository reference \"test\" (must force) - container ", short]);
    docker(&["rmi", "-f", short]).fails(1, &["cannot be forced", "image is being used by running container"]);
    assert_eq!(docker(&["image", "prune", "-f"]).success(), "Total reclaimed space: 0B\n");
    docker(&["kill", "web"]).success();
    until("web is over", || docker(&["ps", "-q"]).success().is_empty());
    docker(&["rmi", short]).fails(1, &["must be forced", "image is being used by stopped container"]);
    let gone = docker(&["rmi", "-f", short]).success();
    assert!(gone.contains("Untagged: test:latest") && gone.contains(&format!("Deleted: {}", id.trim())), "{gone}");
    assert_eq!(ids(&["test"]), "");
    docker(&["start", "web"]).success();
    docker(&["rm", "-f", "web"]).success();
    let pruned = docker(&["image", "prune", "-af"]).success();
    assert!(pruned.contains("untagged: made:1") && !pruned.contains("reclaimed space: 0B"), "{pruned}");
    assert_eq!(kept(&serve), (0, 0));
    assert!(docker(&["system", "df"]).success().contains("Images          0 "), "nothing is left");
    let told = docker(&["events", "--since", "1", "--until", &now(), "--format", "{{.Type}} {{.Action}}"]).success();
    for action in ["load", "tag", "untag", "save", "import", "delete", "prune"] {
        assert!(told.contains(&format!("image {action}\n")), "{action}: {told}");
    }
}

/// Seconds since 1970, rounded up.
fn now() -> String {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    (since.as_secs() + 1).to_string()
}

#[test]
fn images_come_from_registries() {
    let name = "images_come_from_registries";
    if let Some(reason) = registry::missing() {
        return crate::skip(name, &reason);
    }
    let registry = Registry::start(Demands { login: true, tls: false });
    let (_keep, archive) = image_of("pulled");
    let from = format!("docker-archive:{}", archive.display());
    registry.push(["--format=oci"], &from, "app:1");
    registry.push(["--format=v2s2"], &from, "old");
    let serve = Serve::with_qemu(&[]);
    let (app, host) = (registry.name("app:1"), format!("127.0.0.1:{}", registry.port));
    let config = tempfile::tempdir().unwrap();
    let docker = |args: &[&str]| {
        // a login is to last from one command to the next
        let config = ["--config", text(config.path())];
        serve.docker(&[&config[..], args].concat()).output()
    };
    let refused = docker(&["run", "--rm", &app]);
    assert_eq!(refused.code, 125);
    for part in ["pull access denied for", "/app, repository does not exist or may require 'docker login'"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    let login = |password: &str| {
        let config = ["--config", text(config.path()), "login", "-u", "joe", "--password-stdin", &host];
        serve.docker(&config).stdin(password).output()
    };
    login("wrong").fails(1, &["401 Unauthorized"]);
    assert_eq!(login(PASSWORD).code, 0);
    // by itself, as it is not here
    let ran = docker(&["run", "--rm", &app]);
    let stderr = ran.stderr.clone();
    assert!(ran.success().starts_with("pulled of "));
    let digest = registry.digest("app:1");
    for part in [
        &format!("Unable to find image '{app}' locally"),
        "1: Pulling from app",
        ": Pulling fs layer",
        ": Download complete",
        ": Pull complete",
        &format!("Digest: {digest}"),
        &format!("Status: Downloaded newer image for {app}"),
    ] {
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
    let said = docker(&["pull", &app]).success();
    assert!(said.contains(&format!("Status: Image is up to date for {app}")), "{said}");
    let pinned = format!("{}@{digest}", app.trim_end_matches(":1"));
    assert_eq!(docker(&["image", "inspect", "-f", "{{index .RepoDigests 0}}", &app]).success().trim(), pinned);
    docker(&["rmi", &app]).success();
    docker(&["pull", "-q", &pinned]).success();
    assert!(docker(&["run", "--rm", &pinned]).success().starts_with("pulled of "));
    docker(&["pull", "-q", &registry.name("old")]).success();
    docker(&["pull", &registry.name("nosuch")])
        .fails(1, &["manifest for", "/nosuch:latest not found: manifest unknown"]);
    docker(&["pull", "-a", app.trim_end_matches(":1")]).fails(1, &["does not pull all tags"]);
    docker(&["pull", "--platform", "linux/arm64", &app]).fails(1, &["linux/arm64"]);
    docker(&["push", &registry.name("old")]).fails(1, &["does not push"]);
    docker(&["search", "x"]).fails(1, &["does not search"]);
    // an image keeps what registries call it, and nothing keeps the login
    let found =
        Command::new("grep").args(["-rlE", &format!("{PASSWORD}|{LOGIN}")]).arg(serve.state()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    let pulled = docker(&["images", "--digests", "--format", "{{.Digest}}"]).success();
    assert!(pulled.contains(&digest), "{pulled}");
    drop(registry);
    docker(&["pull", &app]).fails(1, &["cannot connect"]);
    docker(&["run", "--rm", "--pull", "never", &pinned, "true"]).success();
}

#[test]
fn a_full_disk_is_one_error_and_nothing_is_left() {
    let name = "a_full_disk_is_one_error_and_nothing_is_left";
    let mut serve = Serve::with_qemu(&[]);
    serve.kill();
    let store = serve.state().join("images");
    let Some(mounted) = Mounted::over(&store, "3m") else {
        return crate::skip(name, "no file system of its own can be mounted");
    };
    let (_keep, archive) = image_of("full");
    serve.start_again();
    serve.until_docker_answers();
    let load = || serve.docker(&["load", "-q", "-i", text(&archive)]).output();
    load().fails(1, &["No space left on device"]);
    assert_eq!(kept(&serve), (0, 0));
    assert_eq!(serve.docker(&["images", "-q"]).output().success(), "");
    mounted.grow("30m");
    load().success();
    serve.docker(&["run", "--rm", "test"]).output().success();
    serve.kill();
}

/// A small file system, while it is mounted.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// None where nothing can be mounted.
    pub(crate) fn over(dir: &Path, size: &str) -> Option<Mounted> {
        let options = ["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(dir).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Mounted(dir.to_owned()))
    }

    pub(crate) fn grow(&self, size: &str) {
        run(Command::new("mount").arg("-o").arg(format!("remount,size={size}")).arg(&self.0));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // what holds it holds it for a moment only
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}
