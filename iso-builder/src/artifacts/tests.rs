//! The documents of a release whose parts are known: a piece of each, word for word, and the rules that their readers rely on.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::*;

#[test]
fn moments_as_documents_write_them() {
    for (secs, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (951_868_799, "2000-02-29T23:59:59Z"),
        (1_700_000_000, "2023-11-14T22:13:20Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
        (LAST_SECOND, "9999-12-31T23:59:59Z"),
    ] {
        assert_eq!(date(Time { secs, nanos: 0 }), text);
    }
}

/// A release whose digests are those of the names of what they are of.
fn facts() -> Facts {
    let dir = tempfile::tempdir().unwrap();
    let crates = Crates::read(&crates::tests::workspace(dir.path())).unwrap();
    let tether = crates.program("tether").unwrap();
    let subject = |name: &str| Subject { name: name.to_owned(), sha256: digest::bytes(name.as_bytes()) };
    let program = |name, crates| Program { name, sha256: digest::bytes(name.as_bytes()), crates };
    let note = dir.path().join("manifest.json");
    let built = json!({
        "image_sha256": digest::bytes(b"kernel"), "source_sha256": digest::bytes(b"source"),
        "config_sha256": digest::bytes(b"config"), "compiler": "gcc 12",
    });
    fs::write(note, built.to_string()).unwrap();
    let kernel =
        origin::Kernel::of(&dir.path().join("bzImage"), &Content::default(), &digest::bytes(b"kernel")).unwrap();
    let installed =
        origin::Installed { distribution: "debian".into(), version: "3:6.04".into(), architecture: "all".into() };
    Facts {
        images: [BOOTSTRAP, APPLIANCE, INITRAMFS, KERNEL].map(subject).to_vec(),
        kernel: origin::Kernel { release: Some("6.12.117-tether".into()), ..kernel },
        programs: [program("tether", Some(tether)), program("appliance-init", None), program("vch", None)],
        loaders: vec![origin::Found {
            part: "loader",
            package: "isolinux",
            licence: "GPL-2.0-or-later",
            installed: Some(installed),
            files: vec![("isolinux.bin".into(), digest::bytes(b"isolinux.bin"))],
        }],
        authorities: origin::Found {
            part: "authorities",
            package: "ca-certificates",
            licence: "MPL-2.0",
            installed: None,
            files: vec![("ca-certificates.crt".into(), digest::bytes(b"ca-certificates.crt"))],
        },
        lock: Some(crates.lock),
        commit: Some("0123456789abcdef0123456789abcdef01234567".into()),
        toolchain: Some("rustc 1.95.0 (59807616e 2026-04-14)".into()),
        builder: None,
        time: Time { secs: 1_700_000_000, nanos: 0 },
    }
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn the_bill_word_for_word() {
    let bill = spdx::document(&facts());
    let text = String::from_utf8(bill.clone()).unwrap();
    let golden = include_str!("testdata/crate.spdx.json");
    assert!(text.contains(golden), "{golden} is not in {text}");
    assert_eq!(bill, spdx::document(&facts()));
    let bill = parsed(&bill);
    assert_eq!(bill["spdxVersion"], "SPDX-2.3");
    assert_eq!(bill["creationInfo"]["created"], "2023-11-14T22:13:20Z");
    let version = |id: &str| {
        let found = bill["packages"].as_array().unwrap().iter().find(|package| package["SPDXID"] == id);
        found.unwrap()["versionInfo"].clone()
    };
    assert_eq!(
        (version("SPDXRef-image-kernel"), version("SPDXRef-kernel-source")),
        ("6.12.117-tether".into(), "6.12.117".into())
    );
    let relation = |from: &str, kind: &str, to: &str| {
        let relation = json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to });
        assert!(bill["relationships"].as_array().unwrap().contains(&relation), "{relation}");
    };
    relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-release");
    relation("SPDXRef-release", "CONTAINS", "SPDXRef-image-bootstrap.iso");
    relation("SPDXRef-image-bootstrap.iso", "CONTAINS", "SPDXRef-image-initramfs");
    relation("SPDXRef-image-initramfs", "CONTAINS", "SPDXRef-program-tether");
    relation("SPDXRef-image-appliance.iso", "CONTAINS", "SPDXRef-program-appliance-init");
    relation("SPDXRef-image-appliance.iso", "CONTAINS", "SPDXRef-loader-file-isolinux.bin");
    relation("SPDXRef-image-appliance.iso", "CONTAINS", "SPDXRef-program-vch");
    relation("SPDXRef-image-appliance.iso", "CONTAINS", "SPDXRef-authorities-file-ca-certificates.crt");
    let astray = json!({
        "spdxElementId": "SPDXRef-image-bootstrap.iso", "relationshipType": "CONTAINS",
        "relatedSpdxElement": "SPDXRef-authorities-file-ca-certificates.crt",
    });
    assert!(!bill["relationships"].as_array().unwrap().contains(&astray), "a container has no authorities from us");
    relation("SPDXRef-image-kernel", "GENERATED_FROM", "SPDXRef-kernel-source");
    relation("SPDXRef-program-tether", "STATIC_LINK", "SPDXRef-crate-a-1.0.0");
    relation("SPDXRef-program-tether", "STATIC_LINK", "SPDXRef-rust-std");
    relation("SPDXRef-crate-m-1.0.0", "BUILD_DEPENDENCY_OF", "SPDXRef-program-tether");
    relation("SPDXRef-program-appliance-init", "STATIC_LINK", "NOASSERTION");
}

#[test]
fn identifiers_are_of_the_allowed_letters_and_each_is_used_once() {
    let bill = parsed(&spdx::document(&facts()));
    let packages = bill["packages"].as_array().unwrap();
    let ids: BTreeSet<&str> = packages.iter().map(|package| package["SPDXID"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), packages.len());
    for id in &ids {
        let rest = id.strip_prefix("SPDXRef-").unwrap();
        assert!(!rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c)), "{id}");
    }
    for relation in bill["relationships"].as_array().unwrap() {
        for end in ["spdxElementId", "relatedSpdxElement"] {
            let end = relation[end].as_str().unwrap();
            assert!(ids.contains(end) || end == "SPDXRef-DOCUMENT" || end == "NOASSERTION", "{end}");
        }
    }
    let mut other = facts();
    other.time.secs += 1;
    assert_ne!(parsed(&spdx::document(&other))["documentNamespace"], bill["documentNamespace"]);
}

#[test]
fn the_statement_names_what_came_in_and_what_came_out() {
    let facts = facts();
    let statement = parsed(&provenance::statement(&facts, &facts.images));
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let subject = json!({ "name": "bootstrap.iso", "digest": { "sha256": digest::bytes(b"bootstrap.iso") } });
    assert_eq!(statement["subject"][0], subject);
    let definition = &statement["predicate"]["buildDefinition"];
    assert_eq!(definition["buildType"], "https://tether.invalid/build/images/v1");
    assert_eq!(definition["externalParameters"], json!({ "SOURCE_DATE_EPOCH": 1_700_000_000 }));
    let names: Vec<&str> = definition["resolvedDependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|dependency| dependency["name"].as_str().unwrap())
        .collect();
    let expected = [
        "tether source",
        "Cargo.lock",
        "linux source",
        "linux .config",
        "bzImage",
        "tether",
        "appliance-init",
        "vch",
        "isolinux.bin",
        "ca-certificates.crt",
    ];
    assert_eq!(names, expected);
    assert_eq!(definition["resolvedDependencies"][8]["uri"], "pkg:deb/debian/isolinux@3%3A6.04?arch=all");
    let unknown =
        Facts { lock: None, commit: None, toolchain: None, builder: Some("https://b.example".into()), ..facts };
    let statement = parsed(&provenance::statement(&unknown, &[]));
    assert_eq!(statement["predicate"]["runDetails"]["builder"]["id"], "https://b.example");
    assert!(statement["predicate"]["buildDefinition"]["internalParameters"].get("rust").is_none());
}
