//! The store of images, filled from archives that are made here.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};

use serde_json::json;

use super::*;
use iso_builder::oci::Digest;

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// An archive of one image with one layer, as docker writes it.
fn archive(text: &str, names: &[&str]) -> Vec<u8> {
    let layer = tar(&[("file", text.as_bytes())]);
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z", "config": { "Cmd": ["sh"], "Labels": { "a": "b" } },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer).to_string()] },
        "history": [{ "created": "2024-01-01T00:00:00Z", "created_by": "test" }],
    });
    let config = config.to_string();
    let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let manifest = json!([{ "Config": config_name, "RepoTags": names, "Layers": ["layer.tar"] }]).to_string();
    // manifest.json last, and names with ./
    tar(&[
        ("./layer.tar", &layer),
        (&format!("./{config_name}"), config.as_bytes()),
        ("./manifest.json", manifest.as_bytes()),
    ])
}

struct Host {
    dir: tempfile::TempDir,
    store: ImageStore,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&dir.path().join("images"), &dir.path().join("cache")).unwrap();
        Host { dir, store }
    }

    fn again(self) -> Host {
        let store = ImageStore::open(&self.dir.path().join("images"), &self.dir.path().join("cache")).unwrap();
        Host { store, ..self }
    }

    fn load(&self, bytes: &[u8]) -> Result<Vec<Brought>, String> {
        self.store.load(file(bytes), &mut |_| {}).map_err(|error| error.to_string())
    }

    fn loads(&self, text: &str, names: &[&str]) -> String {
        self.load(&archive(text, names)).unwrap().remove(0).id
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.dir.path().join("images/blobs/sha256")).unwrap().count()
    }

    fn disks(&self) -> usize {
        let Ok(all) = fs::read_dir(self.dir.path().join("cache/disks")) else { return 0 };
        all.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("layer-")).count()
    }
}

fn user(image: &str, is_running: bool) -> User {
    User { container: "c".repeat(64), image: image.to_owned(), is_running }
}

#[test]
fn an_image_is_found_by_all_that_it_is_called() {
    let host = Host::new();
    let id = host.loads("one", &["test:1", "r:5000/x:2"]);
    let host = host.again();
    let image = host.store.find("test:1").unwrap();
    assert_eq!((image.id.as_str(), image.names.join(" ")), (id.as_str(), "r:5000/x:2 test:1".to_owned()));
    assert_eq!((image.size(), image.created_ns), (3, 1_704_067_200_000_000_000));
    for name in ["docker.io/library/test:1", "r:5000/x:2", &id, &id[7..19], &id[..20]] {
        assert_eq!(host.store.find(name).unwrap().id, id, "{name}");
    }
    assert_eq!(host.store.find("test").unwrap_err().to_string(), "No such image: test:latest");
    assert_eq!(host.store.disks(&image).unwrap().len(), 1);
    // what has a name already gives it up
    let renamed = host.load(&archive("two", &["test:1"])).unwrap().remove(0).renamed;
    assert_eq!(renamed, [("test:1".to_owned(), id.clone())]);
    assert_eq!(host.store.find(&id).unwrap().names, ["r:5000/x:2"]);
}

#[test]
fn what_is_not_whole_is_nowhere() {
    let host = Host::new();
    let whole = archive("one", &["test:1"]);
    let mut damaged = whole.clone();
    let at = damaged.windows(3).position(|bytes| bytes == b"one").unwrap();
    damaged[at] = b'x';
    for (bytes, why) in [
        (&whole[..whole.len() / 2], "truncated"),
        (&damaged[..], "digest"),
        (&b"nonsense"[..], "archive"),
        (&tar(&[("x", b"y")])[..], "neither manifest.json nor index.json"),
    ] {
        let error = host.load(bytes).unwrap_err();
        assert!(error.contains(why), "{error}");
        assert_eq!((host.store.list().len(), host.blobs(), host.disks()), (0, 0, 0), "{why}");
    }
    let id = host.loads("one", &["test:1"]);
    assert_eq!(host.loads("one", &["test:1"]), id);
    assert_eq!((host.blobs(), host.disks()), (3, 1));
}

#[test]
fn an_image_goes_with_its_last_name_unless_something_needs_it() {
    let host = Host::new();
    let id = host.loads("one", &["test:1", "test:2"]);
    let said = |wanted: &str, force, users: &[User]| {
        host.store.remove(wanted, force, || users.to_vec()).map_err(|error| error.to_string())
    };
    let untagged = |name: &str| Removal::Untagged { name: name.to_owned(), id: id.clone() };
    let (stopped, running) = ([user(&id, false)], [user(&id, true)]);
    assert_eq!(
        said(&id, false, &[]).unwrap_err(),
        format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
            &id[7..19]
        )
    );
    assert_eq!(said("test:2", false, &running).unwrap(), [untagged("test:2")]);
    let (short, container) = (&id[7..19], "c".repeat(12));
    assert_eq!(
        said("test:1", false, &stopped).unwrap_err(),
        format!(
            "conflict: unable to remove repository reference \"test:1\" (must force) - container {container} is using its referenced image {short}"
        )
    );
    assert_eq!(
        said(short, true, &running).unwrap_err(),
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container {container}"
        )
    );
    assert_eq!(
        said(short, false, &stopped).unwrap_err(),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container {container}"
        )
    );
    // by force it goes out of sight, and stays for the container
    assert_eq!(said("test:1", true, &stopped).unwrap()[..2], [untagged("test:1"), Removal::Deleted(id.clone())]);
    assert!(host.store.find(&id).is_err() && host.store.list().is_empty());
    assert_eq!(host.store.disks(&host.store.of_container(&id).unwrap()).unwrap().len(), 1);
    assert!(host.store.keep(&id).is_err() && host.store.has_hidden());
    host.store.forget_unused(Vec::new).unwrap();
    assert_eq!((host.blobs(), host.disks()), (0, 0));
    assert!(!host.store.has_hidden());
    let id = host.loads("one", &["test:1"]);
    let gone = said("test:1", false, &[]).unwrap();
    assert!(
        matches!(&gone[..], [Removal::Untagged { .. }, Removal::Deleted(of), Removal::Layer(_)] if *of == id),
        "{gone:?}"
    );
    assert_eq!((host.blobs(), host.disks()), (0, 0));
}

#[test]
fn a_commit_is_an_image_with_one_more_layer() {
    let host = Host::new();
    let id = host.loads("one", &["test:1"]);
    let parent = host.store.find(&id).unwrap();
    let deed = Deed {
        created_ns: 1_800_000_000_000_000_000,
        comment: "why".into(),
        created_by: "sh".into(),
        ..Deed::default()
    };
    let layer = tar(&[(".wh.file", b""), ("new", b"12345")]);
    let new = host.store.commit(Some(&parent), file(&layer), json!({ "Cmd": ["ls"] }), &deed, Some("made")).unwrap();
    let image = host.store.find("made:latest").unwrap();
    assert_eq!((&image.id, image.parent.as_deref(), image.size()), (&new, Some(id.as_str()), 8));
    assert_eq!((image.config.cmd.join(" "), image.chain[0]), ("ls".to_owned(), parent.chain[0]));
    let document = host.store.document(&image).unwrap();
    assert_eq!(
        document["history"][1],
        json!({ "created": "2027-01-15T08:00:00.000000000Z", "created_by": "sh", "comment": "why" })
    );
    assert_eq!(host.store.disks(&image).unwrap().len(), 2);
    // the parent may go: its layer stays with the child
    let gone = host.store.remove("test:1", false, Vec::new).unwrap();
    assert!(!gone.iter().any(|gone| matches!(gone, Removal::Layer(_))));
    assert_eq!((host.store.list().len(), host.disks()), (1, 2));
    let bad = host.store.commit(None, file(b"no tar, but long enough to be none"), json!({}), &deed, None);
    assert!(bad.is_err() && host.store.list().len() == 1);
    let host = host.again();
    assert_eq!(host.store.list().len(), 1);
}

#[test]
fn what_a_killed_host_was_at_is_gone_when_the_store_is_opened() {
    let host = Host::new();
    let half = host.dir.path().join("images/partial").join("a".repeat(64));
    let making = host.dir.path().join("cache/disks/x.partial");
    fs::write(&half, "half").unwrap();
    fs::create_dir_all(&making).unwrap();
    fs::write(making.with_extension("lock"), "").unwrap();
    let host = host.again();
    assert!(!half.exists());
    assert_eq!(fs::read_dir(host.dir.path().join("cache/disks")).unwrap().count(), 0);
}
