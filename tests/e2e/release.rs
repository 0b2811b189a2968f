//! What a release says of itself is so: its sums, its manifest of files, its bill of materials.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use rig::artifacts;
use rig::images::{run, sha256};
use serde_json::Value;

/// What the cache of kernels notes beside a kernel, for the kernel whose digest takes the place of `IMAGE`.
pub(crate) const KERNEL_NOTE: &str = r#"{"version": "6.12", "source_sha256": "5c", "config_sha256": "c0", "compiler": "gcc 12", "image_sha256": "IMAGE"}"#;

/// What `cargo metadata` prints, as if the workspace were at `root`.
pub(crate) fn metadata(root: &Path) -> String {
    let said = run(Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", TARGET])
        .current_dir(artifacts::root()));
    let mut metadata: Value = serde_json::from_str(&said).unwrap();
    metadata["workspace_root"] = root.to_str().unwrap().into();
    metadata.to_string()
}

fn release(dir: &Path, epoch: &str) {
    let crates = dir.with_extension("crates");
    fs::write(&crates, metadata(artifacts::root())).unwrap();
    run(Command::new(artifacts::program("iso-builder"))
        .args(["release", "--epoch", epoch, "--toolchain", "rustc 1.95.0", "--kernel"])
        .args([artifacts::dist("kernel"), "--crates".into(), crates, "-o".into(), dir.to_owned()]));
}

fn document(dir: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap()
}

#[test]
fn the_sums_are_right_also_when_a_release_takes_the_place_of_another() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("release");
    let check = || run(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&dir));
    release(&dir, "0");
    let names: BTreeSet<String> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(check().lines().count() + 1, names.len(), "all but the sums have a sum: {names:?}");
    let first = sha256(&dir.join("bootstrap.iso"));
    fs::write(dir.join("mine"), "kept").unwrap();
    release(&dir, "1700000000");
    check();
    assert_ne!(first, sha256(&dir.join("bootstrap.iso")), "nothing was replaced");
    assert_eq!(fs::read_to_string(dir.join("mine")).unwrap(), "kept");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), names.len() + 1, "something is left");
}

#[test]
fn the_manifest_is_what_other_tools_find() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("release");
    release(&dir, "1700000000");
    let manifest = document(&dir, "tether.files.json");
    let images: BTreeMap<&str, &Value> =
        manifest["images"].as_array().unwrap().iter().map(|image| (image["name"].as_str().unwrap(), image)).collect();
    let archive = "boot/initramfs.cpio";
    let nested = ["bootstrap.iso", "appliance.iso"].map(|iso| format!("{iso}:/{archive}"));
    for iso in ["bootstrap.iso", "appliance.iso"] {
        let out = root.path().join(iso);
        run(Command::new("xorriso")
            .args(["-osirrox", "on:auto_chmod_off", "-indev"])
            .arg(dir.join(iso))
            .args(["-extract", "/"])
            .arg(&out));
        compare(images[iso], &out);
        assert_eq!(images[iso]["sha256"], sha256(&dir.join(iso)).as_str());
        let inner = images[format!("{iso}:/{archive}").as_str()];
        let unpacked = root.path().join(format!("{iso}.initramfs"));
        fs::create_dir(&unpacked).unwrap();
        unpack(&out.join(archive), &unpacked, inner);
    }
    assert_eq!(images[nested[0].as_str()]["files"], images["initramfs"]["files"]);
    assert_eq!(images[nested[0].as_str()]["sha256"], sha256(&dir.join("initramfs")).as_str());
    assert_eq!(images.len(), 5, "{:?}", images.keys());
}

/// Every entry of the image is in the folder with its mode, size and digest, and nothing else is.
fn compare(image: &Value, dir: &Path) {
    let files = image["files"].as_array().unwrap();
    for file in files {
        let path = dir.join(file["path"].as_str().unwrap().trim_start_matches('/'));
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(file["mode"], format!("{:04o}", meta.permissions().mode() & 0o7777), "{file}");
        match file["type"].as_str().unwrap() {
            "directory" => assert!(meta.is_dir(), "{file}"),
            "file" => {
                assert_eq!((file["size"].as_u64(), file["sha256"].as_str()), (Some(meta.len()), Some(&*sha256(&path))));
            }
            other => assert!(other.ends_with("device") && !meta.is_file(), "{file}"),
        }
    }
    let found = run(Command::new("find").arg(dir).args(["-mindepth", "1"]));
    assert_eq!(found.lines().count(), files.len(), "{found}");
}

/// GNU cpio unpacks what is no device; those it can make only as root, and then only where the machine lets it.
fn unpack(archive: &Path, to: &Path, image: &Value) {
    let script = "umask 0; cpio --quiet --extract --make-directories --nonmatching 'dev/*' <\"$1\"";
    run(Command::new("sh").args(["-c", script, "sh"]).arg(archive).current_dir(to));
    let devices = |file: &&Value| !file["path"].as_str().unwrap().starts_with("/dev/");
    let files: Vec<Value> = image["files"].as_array().unwrap().iter().filter(devices).cloned().collect();
    compare(&serde_json::json!({ "files": files }), to);
    let listed = run(Command::new("sh").args(["-c", "cpio --quiet --list --verbose <\"$1\"", "sh"]).arg(archive));
    assert!(listed.lines().any(|line| line.starts_with("crw------- ") && line.ends_with(" dev/console")), "{listed}");
}

#[test]
fn the_bill_names_what_cargo_links() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("release");
    release(&dir, "0");
    let bill = document(&dir, "tether.spdx.json");
    let packages: BTreeMap<&str, &Value> = bill["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["SPDXID"].as_str().unwrap(), package))
        .collect();
    for program in ["tether", "appliance-init", "vch"] {
        let id = format!("SPDXRef-program-{program}");
        let ends = |from: &str, to: &str, kind: &str| {
            let relations = bill["relationships"].as_array().unwrap().iter();
            let of = relations.filter(|relation| relation["relationshipType"] == kind && relation[from] == id.as_str());
            of.map(|relation| packages[relation[to].as_str().unwrap()]).collect::<Vec<_>>()
        };
        let linked = ends("spdxElementId", "relatedSpdxElement", "STATIC_LINK");
        let ran = ends("relatedSpdxElement", "spdxElementId", "BUILD_DEPENDENCY_OF");
        let word = |package: &Value| {
            format!("{} v{}", package["name"].as_str().unwrap(), package["versionInfo"].as_str().unwrap_or(""))
        };
        let linked: BTreeSet<String> = linked.into_iter().map(word).collect();
        let ran: BTreeSet<String> = ran.into_iter().map(word).collect();
        for one in tree(program, "normal,no-proc-macro") {
            assert!(linked.contains(&one), "{program} links {one}, and the bill does not say so");
        }
        let everything = tree(program, "normal,build");
        let unknown: Vec<_> = linked.union(&ran).filter(|one| !everything.contains(*one)).collect();
        // cargo's metadata counts what an optional dependency would bring that only another's `?` names: the bill of vch names some
        // crates too many, and none too few
        if program != "vch" {
            assert_eq!(unknown, ["musl v", "rust-std v1.95.0"], "cargo knows nothing of these");
        }
        assert!(ran.iter().any(|one| one.starts_with("serde_derive ")), "{ran:?}");
        let sum = sha256(&artifacts::program(program));
        assert_eq!(packages[id.as_str()]["checksums"][0]["checksumValue"], sum.as_str());
    }
    for package in packages.values().filter(|package| package["SPDXID"].as_str().unwrap().contains("-crate-")) {
        assert_ne!(package["licenseDeclared"], "NOASSERTION", "{package}");
        let ours = ["wire", "guest", "iso-builder"].iter().any(|name| package["name"] == *name);
        assert_eq!(package.get("checksums").is_none(), ours, "{package}");
    }
}

/// The crates that `cargo tree` shows below a program, itself excepted.
fn tree(program: &str, edges: &str) -> BTreeSet<String> {
    let said = run(Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--prefix",
            "none",
            "--target",
            TARGET,
            "--edges",
            edges,
            "-p",
            program,
        ])
        .current_dir(artifacts::root()));
    let crates = said.lines().skip(1).filter(|line| !line.is_empty());
    crates.map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn the_readers_of_those_who_made_the_formats_take_the_documents() {
    let modules = "import spdx_tools, in_toto_attestation";
    if !Command::new("python3").args(["-c", modules]).output().is_ok_and(|output| output.status.success()) {
        let name = "release::the_readers_of_those_who_made_the_formats_take_the_documents";
        return crate::skip(name, "python3 has no spdx-tools and in-toto-attestation: pip install them");
    }
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("release");
    release(&dir, "1700000000");
    run(Command::new("python3").args(["-c", include_str!("release/readers.py")]).arg(&dir));
}

const TARGET: &str = "x86_64-unknown-linux-musl";
