//! Damaged, forged and unfit images: one clear error each, and never a panic.

use std::fs;
use std::slice::from_ref;

use serde_json::json;

use crate::build::{Tar, blob, config, docker_archive, flatten, gzip, index, layer, manifest, open, saved};
use crate::build::{sha256, zstd};

#[test]
fn a_path_that_is_no_file_is_told_as_such() {
    let error = open("/nonexistent/busybox:latest").unwrap_err();
    assert!(error.ends_with("busybox:latest: no such file or directory"), "{error}");
    let error = open("docker-archive:/nonexistent/image.tar").unwrap_err();
    assert_eq!(error, "image.tar cannot be read: No such file or directory (os error 2)");
}

#[test]
fn layers_that_are_not_what_the_image_says() {
    let (said, is) = (layer(&["a=1"]), layer(&["a=2"]));
    let of = |bytes: &[u8]| format!("sha256:{}", sha256(bytes));
    let mut tail = is.clone();
    tail.extend([1; 512]);
    let broken = [1; 700].to_vec();
    for blob in [is.clone(), gzip(&is), zstd(&is), tail.clone(), broken] {
        let tar = if blob.starts_with(&[0x1f]) || blob.starts_with(&[0x28]) { &is } else { &blob };
        let expected = format!("layer 2 of 2: its tar has the digest {}, not {}", of(tar), of(&said));
        let layers = [said.clone(), said.clone()];
        let (_dir, path) = saved(&docker_archive(&config(&layers), &[said.clone(), blob.clone()]).end());
        assert_eq!(flatten(path.to_str().unwrap()).unwrap_err(), format!("image.tar: {expected}"));
    }
    // A blob that cannot even be decompressed is reported by its digest.
    let dir = tempfile::tempdir().unwrap();
    let good = gzip(&said);
    index(dir.path(), &[manifest(dir.path(), &config(&[said]), from_ref(&good))]);
    let mut bad = good.clone();
    bad[20..30].fill(0xff);
    fs::write(dir.path().join("blobs/sha256").join(sha256(&good)), &bad).unwrap();
    let error = flatten(dir.path().to_str().unwrap()).unwrap_err();
    assert!(
        error.ends_with(&format!(": layer 1 of 1: its blob has the digest {}, not {}", of(&bad), of(&good))),
        "{error}"
    );
    fs::write(dir.path().join("blobs/sha256").join(sha256(&good)), &good[..50]).unwrap();
    let error = open(dir.path().to_str().unwrap()).unwrap_err();
    assert!(error.contains(&format!("holds 50 bytes, not {} as the manifest says", good.len())), "{error}");
}

/// What stands in a layer that is another one is no news: it is the wrong layer.
#[test]
fn a_wrong_layer_is_told_before_what_is_wrong_in_it() {
    let (said, is) = (layer(&["a=1"]), layer(&["b => nothing"]));
    let (_dir, path) = saved(&docker_archive(&config(from_ref(&said)), from_ref(&is)).end());
    let expected = format!("its tar has the digest sha256:{}, not sha256:{}", sha256(&is), sha256(&said));
    assert_eq!(flatten(path.to_str().unwrap()).unwrap_err(), format!("image.tar: layer 1 of 1: {expected}"));
}

/// Real images have an index in an index; one that goes on and on is refused, while five documents on the way are four more than anybody writes.
#[test]
fn indexes_within_indexes_have_an_end() {
    let image = layer(&["a=1"]);
    let dir = tempfile::tempdir().unwrap();
    let mut descriptor = manifest(dir.path(), &config(from_ref(&image)), &[image]);
    let found = (0..6).map(|_| {
        index(dir.path(), from_ref(&descriptor));
        let found = flatten(dir.path().to_str().unwrap()).map(drop);
        descriptor = blob(dir.path(), json!({"manifests": [descriptor]}).to_string().as_bytes());
        found
    });
    let found: Vec<_> = found.collect();
    assert!(found[..4].iter().all(Result::is_ok), "{found:?}");
    let ends =
        |told: &Result<(), String>| told.as_ref().is_err_and(|it| it.ends_with("its indexes are nested too deep"));
    assert!(found[4..].iter().all(ends), "{found:?}");
}

#[test]
fn documents_that_are_not_what_they_are_called() {
    let image = layer(&["a=1"]);
    let dir = tempfile::tempdir().unwrap();
    let config = config(from_ref(&image));
    let descriptor = manifest(dir.path(), &config, &[image]);
    index(dir.path(), from_ref(&descriptor));
    for digest in [sha256(config.to_string().as_bytes()), descriptor["digest"].as_str().unwrap()[7..].to_owned()] {
        let path = dir.path().join("blobs/sha256").join(&digest);
        let good = fs::read(&path).unwrap();
        fs::write(&path, [&good[..], b" "].concat()).unwrap();
        let error = open(dir.path().to_str().unwrap()).unwrap_err();
        assert!(error.contains(&format!(r#""blobs/sha256/{digest}" has the digest sha256:"#)), "{error}");
        fs::write(&path, vec![b' '; (4 << 20) + 1]).unwrap();
        let error = open(dir.path().to_str().unwrap()).unwrap_err();
        assert!(error.ends_with(&format!(r#""blobs/sha256/{digest}" is larger than 4 MiB"#)), "{error}");
        fs::remove_file(&path).unwrap();
        let error = open(dir.path().to_str().unwrap()).unwrap_err();
        assert!(error.ends_with(&format!(r#""blobs/sha256/{digest}" is missing"#)), "{error}");
        fs::write(&path, good).unwrap();
    }
    open(dir.path().to_str().unwrap()).unwrap();
}

#[test]
fn archives_that_are_no_images() {
    let archive = |name: &str, text: &str| {
        let mut tar = Tar::default();
        tar.plain(b'0', name.as_bytes(), b"", text.as_bytes());
        let (_dir, path) = saved(&tar.end());
        open(path.to_str().unwrap()).unwrap_err()
    };
    let long = json!([{"Config": format!("{}.json", "0".repeat(64)), "Layers": []}]).to_string();
    let nested = |config: &str| json!([{"Config": config, "Layers": []}]).to_string();
    let cases = [
        ("etc/passwd", "", "neither manifest.json nor index.json is there"),
        ("manifest.json", "[]", "manifest.json names no image"),
        (
            "manifest.json",
            "{}",
            r#""manifest.json" is not as it should be: invalid type: map, expected a sequence at line 1 column 0"#,
        ),
        ("manifest.json", &long, &format!(r#""{}.json" is missing"#, "0".repeat(64))),
        ("manifest.json", &nested("../../etc/passwd"), r#""../../etc/passwd" is missing"#),
        ("index.json", "{}", "index.json names no manifests"),
        (
            "index.json",
            r#"{"manifests":[{"digest":"sha256:../../x","size":1}]}"#,
            r#""sha256:../../x" is no sha256 digest"#,
        ),
        ("index.json", r#"{"manifests":[{"digest":"sha512:00","size":1}]}"#, r#""sha512:00" is no sha256 digest"#),
    ];
    for (name, text, expected) in cases {
        assert_eq!(archive(name, text), format!("image.tar: {expected}"));
    }
    let many = json!([{"Config": "a", "RepoTags": ["a\n".repeat(400)]}, {"Config": "b", "RepoTags": ["b:2"]}]);
    assert!(archive("manifest.json", &many.to_string()).len() < 400);
    let two = json!([{"Config": "a", "RepoTags": ["a:1"]}, {"Config": "b", "RepoTags": ["b:2"]}]);
    assert_eq!(archive("manifest.json", &two.to_string()), "image.tar: it holds several images; name one of a:1, b:2");
    for (bytes, expected) in [
        (&b""[..], "image.tar: neither manifest.json nor index.json is there; the archive is truncated"),
        (b"hello", "image.tar is no image archive: the archive ends early: it is truncated"),
        (&[b'x'; 512], "image.tar is no image archive: no tar header at byte 0: a number is not octal"),
        (b"\xfd7zXZ\0\0\0", "image.tar cannot be read: compressed with xz, which is not read: use gzip, zstd or none"),
    ] {
        let (_dir, path) = saved(bytes);
        assert_eq!(open(path.to_str().unwrap()).unwrap_err(), expected);
    }
}

#[test]
fn a_config_of_a_docker_archive_that_is_not_what_it_is_called() {
    let mut bytes = docker_archive(&config(&[]), &[]).end();
    let at = bytes.windows(5).position(|text| text == b"linux").unwrap();
    bytes[at] = b'L';
    let (_dir, path) = saved(&bytes);
    let name = format!("{}.json", sha256(config(&[]).to_string().as_bytes()));
    let error = open(path.to_str().unwrap()).unwrap_err();
    assert!(error.starts_with(&format!("image.tar: {name:?} has the digest sha256:")), "{error}");
}

#[test]
fn a_wrong_number_of_layers() {
    let image = layer(&["a=1"]);
    let (_dir, path) = saved(&docker_archive(&config(&[]), &[image]).end());
    assert_eq!(open(path.to_str().unwrap()).unwrap_err(), "image.tar: its manifest names 1 layers, its config 0");
}

#[test]
fn truncation_at_any_byte_is_one_clear_error() {
    let image = layer(&["a=some text that takes a block", "d/", "s -> a"]);
    let whole = docker_archive(&config(from_ref(&image)), &[gzip(&image)]).0;
    for (form, bytes) in [("plain", whole.clone()), ("gzip", gzip(&whole)), ("zstd", zstd(&whole))] {
        let step = if form == "plain" { 331 } else { 11 };
        for len in (0..bytes.len()).step_by(step) {
            let (_dir, path) = saved(&bytes[..len]);
            // The last block may lack zeros that nobody needs, but then everything else is there.
            match flatten(path.to_str().unwrap()) {
                Ok(tree) => assert_eq!(crate::build::lines(&tree).len(), 3, "{form} {len}"),
                Err(error) => assert!(error.contains("truncated") || len < 8, "{form} {len}: {error}"),
            }
        }
    }
    let packed = gzip(&image);
    let of_layer = |blob: &[u8]| {
        let (_dir, path) = saved(&docker_archive(&config(from_ref(&image)), &[blob.to_vec()]).end());
        flatten(path.to_str().unwrap()).unwrap_err()
    };
    let truncated = "image.tar: layer 1 of 1: the archive ends early: it is truncated";
    // A gzip stream that ends before its first member is an empty tar, as far as can be told without a digest.
    (8..packed.len()).step_by(5).for_each(|len| assert_eq!(of_layer(&packed[..len]), truncated, "{len}"));
    let digest = "image.tar: layer 1 of 1: its tar has the digest";
    (0..image.len()).step_by(301).for_each(|len| assert!(of_layer(&image[..len]).starts_with(digest), "{len}"));
}

#[test]
fn flipped_bits_are_no_panic() {
    let image = layer(&["a=text", "d/", "s -> a", "h => a"]);
    let bytes = docker_archive(&config(from_ref(&image)), &[image]).end();
    for at in (0..bytes.len()).step_by(29) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let (_dir, path) = saved(&damaged);
        drop(flatten(path.to_str().unwrap()));
    }
}

#[test]
fn a_full_disk_names_the_spool() {
    let image = layer(&["a=1"]);
    let (_dir, path) = saved(&docker_archive(&config(from_ref(&image)), &[gzip(&image)]).end());
    let image = open(path.to_str().unwrap()).unwrap();
    let error = image.flatten("/nonexistent".as_ref(), &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "cannot write to the spool directory /nonexistent");
}
