//! Archives and layouts in all their forms, and the choice of one image among several.

use std::fs;
use std::process::Command;
use std::slice::from_ref;

use serde_json::json;

use crate::build::{
    self, Tar, at, blob, config, content, docker_archive, flatten, gzip, index, layer, lines, manifest, open,
};
use crate::build::{saved, sha256, tag, with, zstd};

/// Two layers, and what they come to.
fn layers() -> Vec<Vec<u8>> {
    vec![layer(&["a=1", "b=1"]), layer(&[".wh.a=", "c=2"])]
}

const MERGED: [&str; 2] = ["b=1", "c=2"];

#[test]
fn docker_archives() {
    let layers = layers();
    let packed = |pack: fn(&[u8]) -> Vec<u8>| layers.iter().map(|layer| pack(layer)).collect::<Vec<_>>();
    let plain = || docker_archive(&config(&layers), &layers).end();
    let archives = [
        ("plain", plain()),
        ("without an end mark", docker_archive(&config(&layers), &layers).0),
        ("with gzip layers", docker_archive(&config(&layers), &packed(gzip)).end()),
        ("with zstd layers", docker_archive(&config(&layers), &packed(zstd)).end()),
        ("in gzip", gzip(&plain())),
        ("in zstd", zstd(&plain())),
        ("with gzip layers in gzip", gzip(&docker_archive(&config(&layers), &packed(gzip)).end())),
    ];
    for (form, bytes) in archives {
        let (_dir, path) = saved(&bytes);
        for prefix in ["", "docker-archive:"] {
            assert_eq!(lines(&flatten(&format!("{prefix}{}", path.display())).unwrap()), MERGED, "{form}");
        }
        let digest = format!("sha256:{}", sha256(config(&layers).to_string().as_bytes()));
        assert_eq!(open(path.to_str().unwrap()).unwrap().digest, digest, "{form}");
    }
}

#[test]
fn a_layer_of_many_gzip_members_or_zstd_frames() {
    let layer = layer(&["a=1", "b=2"]);
    for pack in [gzip, zstd] {
        let (first, second) = layer.split_at(700);
        let (_dir, path) =
            saved(&docker_archive(&config(from_ref(&layer)), &[[pack(first), pack(second)].concat()]).end());
        assert_eq!(lines(&flatten(path.to_str().unwrap()).unwrap()), ["a=1", "b=2"]);
    }
}

#[test]
fn a_layer_that_is_a_link_to_another() {
    let layer = layer(&["a=1"]);
    let config = config(&[layer.clone(), layer.clone(), layer.clone()]).to_string();
    let name = format!("{}.json", sha256(config.as_bytes()));
    let write = |targets: [&str; 2]| {
        let mut tar = Tar::default();
        tar.plain(b'2', b"two/layer.tar", targets[0].as_bytes(), b"");
        tar.plain(b'0', b"./one/layer.tar", b"", &layer);
        tar.plain(b'1', b"three/layer.tar", targets[1].as_bytes(), b"");
        tar.plain(b'0', name.as_bytes(), b"", config.as_bytes());
        let manifest = json!([{"Config": name, "Layers": ["one/layer.tar", "two/layer.tar", "three/layer.tar"]}]);
        tar.plain(b'0', b"manifest.json", b"", manifest.to_string().as_bytes());
        tar.end()
    };
    let (_dir, path) = saved(&write(["../one/layer.tar", "two/layer.tar"]));
    assert_eq!(lines(&flatten(path.to_str().unwrap()).unwrap()), ["a=1"]);
    for targets in [["../three/layer.tar", "two/layer.tar"], ["../../one/layer.tar", "one/layer.tar"]] {
        let (_dir, path) = saved(&write(targets));
        assert_eq!(open(path.to_str().unwrap()).unwrap_err(), r#"image.tar: "two/layer.tar" is missing"#);
    }
}

#[test]
fn oci_layouts() {
    let layers = layers();
    for (form, pack) in [("plain", <[u8]>::to_vec as fn(&[u8]) -> Vec<u8>), ("gzip", gzip), ("zstd", zstd)] {
        let dir = tempfile::tempdir().unwrap();
        let blobs: Vec<_> = layers.iter().map(|layer| pack(layer)).collect();
        let descriptor = manifest(dir.path(), &config(&layers), &blobs);
        index(dir.path(), &[tag(descriptor.clone(), "v1")]);
        let tar = dir.path().join("tar");
        let made = Command::new("tar")
            .arg("-C")
            .arg(dir.path())
            .arg("-cf")
            .arg(&tar)
            .args(["oci-layout", "index.json", "blobs"])
            .status();
        assert!(made.unwrap().success());
        for (prefix, path, suffix) in [
            ("", dir.path(), ""),
            ("oci:", dir.path(), ""),
            ("oci:", dir.path(), ":v1"),
            ("", &tar, ""),
            ("oci:", &tar, ":v1"),
        ] {
            let reference = format!("{prefix}{}{suffix}", path.display());
            assert_eq!(open(&reference).unwrap().digest, descriptor["digest"], "{form} {reference}");
            assert_eq!(lines(&flatten(&reference).unwrap()), MERGED, "{form} {reference}");
        }
    }
}

/// `docker save` writes both an OCI layout and a `manifest.json` that names the same blobs.
#[test]
fn a_docker_archive_with_a_layout_in_it() {
    let layers = layers();
    let dir = tempfile::tempdir().unwrap();
    let descriptor = manifest(dir.path(), &config(&layers), &layers);
    index(dir.path(), &[tag(descriptor.clone(), "latest")]);
    let name = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
    let config_name = name(config(&layers).to_string().as_bytes());
    let names: Vec<_> = layers.iter().map(|layer| name(layer)).collect();
    let list = json!([{"Config": config_name, "RepoTags": ["busybox:latest"], "Layers": names}]);
    fs::write(dir.path().join("manifest.json"), list.to_string()).unwrap();
    let tar = dir.path().join("tar");
    let made = Command::new("tar")
        .arg("-C")
        .arg(dir.path())
        .arg("-cf")
        .arg(&tar)
        .args(["blobs", "index.json", "manifest.json", "oci-layout"])
        .status();
    assert!(made.unwrap().success());
    for path in [&tar, dir.path()] {
        assert_eq!(lines(&flatten(path.to_str().unwrap()).unwrap()), MERGED);
        let named = format!("docker-archive:{}:busybox:latest", path.display());
        assert_eq!(format!("blobs/{}", open(&named).unwrap().digest.replace(':', "/")), config_name);
        assert_eq!(open(&format!("oci:{}:latest", path.display())).unwrap().digest, descriptor["digest"]);
    }
}

/// Some tools write an OCI layout and nothing else into what they call a docker-archive.
#[test]
fn a_docker_archive_that_is_a_layout_only() {
    let images = [layer(&["a=1"]), layer(&["a=2"])];
    let dir = tempfile::tempdir().unwrap();
    let one = |layer| manifest(dir.path(), &config(from_ref(layer)), from_ref(layer));
    let [first, second] = [one(&images[0]), one(&images[1])];
    index(dir.path(), &[tag(first, "busybox:latest"), tag(second, "other:1")]);
    let mut tar = Tar::default();
    tar.plain(b'0', b"index.json", b"", &fs::read(dir.path().join("index.json")).unwrap());
    for entry in fs::read_dir(dir.path().join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        let name = format!("blobs/sha256/{}", entry.file_name().display());
        tar.plain(b'0', name.as_bytes(), b"", &fs::read(entry.path()).unwrap());
    }
    let plain = tar.end();
    for bytes in [plain.clone(), gzip(&plain)] {
        let (_dir, path) = saved(&bytes);
        for (name, expected) in [("busybox:latest", "a=1"), ("busybox", "a=1"), ("other:1", "a=2")] {
            let found = flatten(&format!("docker-archive:{}:{name}", path.display())).unwrap();
            assert_eq!(lines(&found), [expected], "{name}");
        }
        let error = open(&format!("docker-archive:{}", path.display())).unwrap_err();
        assert_eq!(error, "image.tar: it holds several images; name one of busybox:latest, other:1");
    }
}

#[test]
fn one_image_of_several() {
    let images = [layer(&["a=1"]), layer(&["a=2"])];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display();
    let short = |error: String| error.replace(&format!("{}", dir.path().file_name().unwrap().display()), "DIR");
    let manifests: Vec<_> =
        images.iter().map(|layer| manifest(dir.path(), &config(from_ref(layer)), from_ref(layer))).collect();
    index(dir.path(), &[tag(manifests[0].clone(), "one"), tag(manifests[1].clone(), "two")]);
    assert_eq!(lines(&flatten(&format!("oci:{path}:two")).unwrap()), ["a=2"]);
    let error = short(open(&path.to_string()).unwrap_err());
    assert_eq!(error, "DIR: it holds several images; name one of one, two");
    let error = short(open(&format!("oci:{path}:three")).unwrap_err());
    assert_eq!(error, r#"DIR: no image in it is called "three", but: one, two"#);
    // Two names of one image leave no choice.
    index(dir.path(), &[tag(manifests[0].clone(), "one"), tag(manifests[0].clone(), "two")]);
    assert_eq!(lines(&flatten(&path.to_string()).unwrap()), ["a=1"]);
    index(dir.path(), &[]);
    assert_eq!(short(open(&path.to_string()).unwrap_err()), "DIR: no image is in it");
}

#[test]
fn one_platform_of_several() {
    let image = layer(&["a=1"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let ours = manifest(dir.path(), &config(from_ref(&image)), from_ref(&image));
    let mut other = config(from_ref(&image));
    other["architecture"] = json!("arm64");
    let theirs = manifest(dir.path(), &other, &[image]);
    let on =
        |descriptor: &serde_json::Value, platform: serde_json::Value| with(descriptor.clone(), "platform", platform);
    let amd64 = on(&ours, json!({"os": "linux", "architecture": "amd64"}));
    let arm64 = on(&theirs, json!({"os": "linux", "architecture": "arm64", "variant": "v8"}));
    let proof = on(&theirs, json!({"os": "unknown", "architecture": "unknown"}));
    let proof = with(proof, "annotations", json!({"vnd.docker.reference.type": "attestation-manifest"}));

    let nested = blob(dir.path(), json!({"manifests": [arm64, proof, amd64]}).to_string().as_bytes());
    index(dir.path(), &[tag(nested, "v1")]);
    assert_eq!(lines(&flatten(path).unwrap()), ["a=1"]);
    index(dir.path(), &[arm64.clone(), amd64]);
    assert_eq!(lines(&flatten(path).unwrap()), ["a=1"]);

    // what is for no machine is no image, whether it says what it is instead or not, and is no choice either
    let nothing = on(&theirs, json!({"os": "unknown", "architecture": "unknown"}));
    let bare = with(theirs.clone(), "annotations", json!({"vnd.docker.reference.type": "attestation-manifest"}));
    for beside in [&nothing, &bare, &proof] {
        let mut named = beside.clone();
        named["annotations"]["org.opencontainers.image.ref.name"] = json!("proof");
        index(dir.path(), &[named, tag(ours.clone(), "v1")]);
        assert_eq!(lines(&flatten(path).unwrap()), ["a=1"]);
        let nested = blob(dir.path(), json!({"manifests": [beside, ours]}).to_string().as_bytes());
        index(dir.path(), &[nested]);
        assert_eq!(lines(&flatten(path).unwrap()), ["a=1"]);
        let nested = blob(dir.path(), json!({"manifests": [beside]}).to_string().as_bytes());
        index(dir.path(), &[nested]);
        assert!(open(path).unwrap_err().ends_with(": no image is in it"));
        index(dir.path(), from_ref(beside));
        assert!(open(path).unwrap_err().ends_with(": no image is in it"));
    }

    for (manifests, found) in [(vec![arm64, proof], "linux/arm64/v8"), (vec![theirs], "linux/arm64")] {
        index(dir.path(), &manifests);
        let error = open(path).unwrap_err();
        assert!(
            error.contains(&format!(": image is for {found}; this host runs linux/amd64: `docker pull")),
            "{error}"
        );
    }
}

#[test]
fn what_the_config_says() {
    let image = layer(&[]);
    let mut written = config(from_ref(&image));
    written["config"] = json!({
        "Env": ["PATH=/bin", "A=b=c"], "Entrypoint": "/bin/sh", "Cmd": ["-c", "id"], "WorkingDir": "/w", "User": "1:2",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Volumes": {"/v": {}}, "Labels": {"k": "v"},
        "StopSignal": "SIGQUIT", "Healthcheck": {"Test": ["NONE"]}, "OnBuild": null,
    });
    let open = |config: &serde_json::Value| {
        let (_dir, path) = saved(&docker_archive(config, from_ref(&image)).end());
        build::open(path.to_str().unwrap()).unwrap().config
    };
    let found = open(&written);
    assert_eq!((&found.os[..], &found.architecture[..]), ("linux", "amd64"));
    assert_eq!(found.env, ["PATH=/bin", "A=b=c"]);
    assert_eq!((found.entrypoint, found.cmd), (vec!["/bin/sh".to_owned()], vec!["-c".to_owned(), "id".to_owned()]));
    assert_eq!((&found.working_dir[..], &found.user[..]), ("/w", "1:2"));
    assert_eq!(Vec::from_iter(found.exposed_ports), ["53/udp", "80/tcp"]);
    assert_eq!(Vec::from_iter(found.volumes), ["/v"]);
    assert_eq!(Vec::from_iter(found.labels), [("k".to_owned(), "v".to_owned())]);
    assert_eq!(found.stop_signal.as_deref(), Some("SIGQUIT"));

    let nothing = open(&config(from_ref(&image)));
    written["config"] = json!({"Env": null, "Entrypoint": null, "Cmd": null, "ExposedPorts": null, "Volumes": null,
        "Labels": null, "StopSignal": null, "User": null, "WorkingDir": null});
    assert_eq!(open(&written), nothing);
    written["config"] = json!(null);
    assert_eq!(open(&written), nothing);
}

#[test]
fn busybox() {
    let binary = fs::read("/usr/bin/busybox").expect("the package busybox-static is installed");
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(binary.len() as u64);
    header.set_mode(0o755);
    builder.append_data(&mut header, "bin/busybox", &binary[..]).unwrap();
    for applet in ["sh", "ls", "mount"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        builder.append_link(&mut header, format!("bin/{applet}"), "bin/busybox").unwrap();
    }
    let layer = builder.into_inner().unwrap();
    for blob in [layer.clone(), gzip(&layer), zstd(&layer)] {
        let (_dir, path) = saved(&docker_archive(&config(from_ref(&layer)), &[blob]).end());
        let tree = flatten(path.to_str().unwrap()).unwrap();
        assert!(content(&tree, at(&tree, b"bin/busybox")) == binary);
        assert_eq!(at(&tree, b"bin/sh"), at(&tree, b"bin/busybox"));
    }
}

#[test]
fn progress_grows_to_the_end() {
    let layers = layers();
    let (dir, path) = saved(&docker_archive(&config(&layers), &layers).end());
    let mut told = Vec::new();
    open(path.to_str().unwrap()).unwrap().flatten(dir.path(), &mut |progress| told.push(progress)).unwrap();
    assert!(told.iter().is_sorted_by_key(|progress| (progress.layer, progress.read)));
    let last = told.last().unwrap();
    assert_eq!((last.layer, last.layers, last.read), (2, 2, last.size));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the spool has no name");
}
