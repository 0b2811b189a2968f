//! Images on a host's bad days: killed at any point, full disks, several clients at once; and archives that go from one host to another.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rig::engine::until;
use rig::images::run;
use rig::registry::faulty::{Faults, Faulty, Image};
use rig::registry::{self, PASSWORD, skopeo};
use rig::serve::Serve;
use serde_json::{Value, json};

use crate::docker_images::{Mounted, image_of, kept, text};

/// What is in no store: downloads half-way.
fn partials(serve: &Serve) -> usize {
    fs::read_dir(serve.state().join("images/partial")).map_or(0, Iterator::count)
}

/// Images that are listed can be read to their last byte.
fn all_are_whole(serve: &Serve) -> usize {
    let ids = serve.docker(&["images", "-q", "--no-trunc"]).output().success();
    let ids: BTreeSet<&str> = ids.lines().collect();
    for id in &ids {
        serve.docker(&["save", "-o", text(&serve.state().join("saved.tar")), id]).output().success();
    }
    ids.len()
}

#[test]
fn a_token_is_fetched_for_a_pull_and_one_image_comes_once_to_all_who_want_it() {
    let image = Image::new(3);
    let registry = Faulty::start(&image, Faults { tokens: Some(1000), ..Faults::default() });
    let serve = Serve::with_qemu(&[]);
    let before = kept(&serve);
    let name = format!("{}:latest", registry.name());
    let config = tempfile::tempdir().unwrap();
    let with_login = |args: &[&str]| serve.docker(&[&["--config", text(config.path())], args].concat());
    serve.docker(&["pull", &name]).output().fails(1, &["pull access denied for", "docker login"]);
    let host = format!("127.0.0.1:{}", registry.port);
    let login = with_login(&["login", "-u", "joe", "--password-stdin", &host]).stdin(PASSWORD).output();
    assert_eq!(login.code, 0, "{login:?}");
    let said = with_login(&["pull", &name]).output().success();
    assert!(said.contains(&format!("Digest: {}", image.digest())), "{said}");
    assert_eq!((kept(&serve), partials(&serve)), ((before.0 + 5, before.1 + 3), 0));
    serve.docker(&["rmi", &name]).output().success();
    assert_eq!(kept(&serve), before);
    // what a name leads to is asked of the registry, which wants to know who asks
    let asked = serve.ask("GET", &format!("/distribution/{name}/json"), "");
    assert_eq!(asked.status, 404, "{}", asked.text());
    assert!(asked.text().contains("may require 'docker login'"), "{}", asked.text());
    let open = Faulty::start(&image, Faults::default());
    let shared = format!("{}:latest", open.name());
    let pulls: Vec<_> = (0..4).map(|_| serve.docker(&["pull", &shared]).start()).collect();
    for pull in pulls {
        let said = pull.finish().success();
        assert!(said.contains(&format!("Digest: {}", image.digest())), "{said}");
    }
    let blobs = open.seen().into_iter().map(|seen| seen.target).filter(|target| target.contains("/blobs/"));
    let blobs: Vec<String> = blobs.collect();
    assert_eq!(blobs.len(), blobs.iter().collect::<BTreeSet<_>>().len(), "each once: {blobs:?}");
    assert_eq!((kept(&serve), partials(&serve)), ((before.0 + 5, before.1 + 3), 0));
    let asked = serve.ask("GET", &format!("/distribution/{}:latest/json", open.name()), "").json();
    assert_eq!(asked["Descriptor"]["digest"], image.digest(), "{asked}");
    assert_eq!(asked["Platforms"][0]["architecture"], "amd64", "{asked}");
    // by its digest, which that registry has too: nothing is fetched again
    let pinned = format!("{}@{}", open.name(), image.digest());
    let said = serve.docker(&["pull", &pinned]).output().success();
    assert!(said.contains("Already exists") && said.contains(&pinned), "{said}");
    let filter = format!("reference={}", open.name());
    let listed = ["images", "--digests", "--filter", &filter, "--format", "{{.Repository}} {{.Tag}} {{.Digest}}"];
    let listed = serve.docker(&listed).output().success();
    assert_eq!(listed, format!("{} latest {}\n", open.name(), image.digest()));
    serve.docker(&["rmi", "-f", &shared, &pinned]).output().success();
    assert_eq!(kept(&serve), before);
}

#[test]
fn hosts_that_are_killed_at_any_point_have_whole_images_or_none() {
    let image = Image::new(3);
    let registry = Faulty::start(&image, Faults::default());
    let mut serve = Serve::with_qemu(&[]);
    let (_keep, archive) = image_of("killed");
    let name = registry.name();
    let none = kept(&serve);
    // one that would go on for long, in its middle
    let slow = Faulty::start(&image, Faults { drip: true, ..Faults::default() });
    let pull = serve.docker(&["pull", "-q", &slow.name()]).start();
    until("a layer has begun to come", || partials(&serve) != 0);
    assert_ne!(kept(&serve), none);
    serve.kill();
    assert_ne!(pull.finish().code, 0);
    serve.start_again();
    serve.until_docker_answers();
    assert_eq!((kept(&serve), partials(&serve)), (none, 0));
    let load = ["load", "-q", "-i", text(&archive)];
    for after in [0, 15, 40, 80, 160] {
        for what in [&load[..], &["pull", "-q", &name], &["rmi", "test", &name]] {
            let doing = serve.docker(what).start();
            // whatever it has come to is right
            std::thread::sleep(Duration::from_millis(after));
            serve.kill();
            doing.finish();
            serve.start_again();
            serve.until_docker_answers();
            let count = all_are_whole(&serve);
            assert_eq!(partials(&serve), 0, "{what:?} after {after} ms");
            if count == 1 {
                assert_eq!(kept(&serve), none, "{what:?} after {after} ms");
            }
        }
    }
    serve.docker(&load).output().success();
    serve.docker(&["pull", "-q", &name]).output().success();
    assert_eq!((all_are_whole(&serve), kept(&serve)), (3, (none.0 + 3 + 5, none.1 + 1 + 3)));
    serve.docker(&["rmi", "test", &name]).output().success();
    assert_eq!(kept(&serve), none);
}

#[test]
fn a_disk_that_fills_up_in_a_pull_is_one_error_and_nothing_is_left() {
    let name = "a_disk_that_fills_up_in_a_pull_is_one_error_and_nothing_is_left";
    let image = Image::new(3);
    let registry = Faulty::start(&image, Faults::default());
    let mut serve = Serve::with_qemu(&[]);
    serve.kill();
    let Some(mounted) = Mounted::over(&serve.state().join("images"), "700k") else {
        return crate::skip(name, "no file system of its own can be mounted");
    };
    serve.start_again();
    serve.until_docker_answers();
    serve.docker(&["pull", &registry.name()]).output().fails(1, &["No space left on device"]);
    assert_eq!((kept(&serve), partials(&serve)), ((0, 0), 0));
    mounted.grow("30m");
    serve.docker(&["pull", "-q", &registry.name()]).output().success();
    assert_eq!(all_are_whole(&serve), 1);
    serve.kill();
}

#[test]
fn what_one_host_saves_another_loads() {
    let name = "what_one_host_saves_another_loads";
    let (serve, other) = (Serve::with_qemu(&[]), Serve::with_qemu(&[]));
    let docker = |args: &[&str]| serve.docker(args).output();
    let (_keep, archive) = image_of("moved");
    let dir = tempfile::tempdir().unwrap();
    docker(&["load", "-q", "-i", text(&archive)]).success();
    // an image of a container's changes
    docker(&["create", "--name", "web", "test"]).success();
    let added = dir.path().join("added");
    fs::write(&added, "more").unwrap();
    docker(&["cp", text(&added), "web:/added"]).success();
    docker(&["commit", "-m", "with more", "-a", "joe", "-c", "CMD [\"cat\", \"/added\"]", "web", "made:1"]).success();
    let history = docker(&["history", "--format", "{{.CreatedBy}}|{{.Comment}}", "made:1"]).success();
    assert!(history.lines().next().is_some_and(|line| line.ends_with("|with more")), "{history}");
    let df = docker(&["system", "df", "-v"]).success();
    let line = df.lines().find(|line| line.starts_with("made ")).unwrap_or_default();
    assert!(line.contains(" 1 ") && line.contains("MB"), "{df}");
    let saved = dir.path().join("saved.tar");
    docker(&["save", "-o", text(&saved), "test", "made:1", "busybox"]).success();
    let said = other.docker(&["load", "-i", text(&saved)]).output().success();
    for name in ["test:latest", "made:1", "busybox:latest"] {
        assert!(said.contains(&format!("Loaded image: {name}\n")), "{said}");
    }
    let ids = |serve: &Serve| serve.docker(&["images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}"]).output();
    let sorted = |text: String| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(ids(&serve).success()), sorted(ids(&other).success()));
    assert_eq!(other.docker(&["run", "--rm", "made:1"]).output().success(), "more");

    // layers that are packed inside are the same layers
    let told = |what: &str| -> Value {
        let told = other.docker(&["image", "inspect", what]).output().success();
        let told: Value = serde_json::from_str(&told).unwrap();
        json!([told[0]["RootFS"]["Layers"], told[0]["Size"]])
    };
    if let Some(reason) = registry::missing() {
        crate::skip(name, &reason);
    } else {
        for form in ["gzip", "zstd"] {
            let packed = dir.path().join(format!("{form}.tar"));
            let options = ["copy", "--quiet", "--dest-compress", "--dest-compress-format", form];
            let from = format!("docker-archive:{}", archive.display());
            run(skopeo().args(options).arg(from).arg(format!("oci-archive:{}:{form}:1", packed.display())));
            other.docker(&["load", "-q", "-i", text(&packed)]).output().success();
            let name = format!("{form}:1");
            assert_eq!(told(&name), told("test"), "{form}");
            other.docker(&["rmi", &name]).output().success();
        }
    }
    docker(&["rm", "-f", "web"]).success();
    let pruned = docker(&["image", "prune", "-af"]).success();
    assert!(pruned.contains("untagged: made:1") && !pruned.contains("reclaimed space: 0B"), "{pruned}");
    assert_eq!(kept(&serve), (0, 0));
}
