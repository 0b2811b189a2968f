//! The program as it is called: exit codes, one-line errors, nothing half-made left behind, the same bytes twice.

mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use iso_builder::boot_assets;
use iso_builder::digest;

use program::{kernel, run, static_elf};

#[test]
fn a_wrong_command_line_is_2_and_a_failure_1() {
    let dir = Dir::new();
    assert_eq!(run(&["bootstrap"]).status.code(), Some(2));
    let output = run(&["initramfs", "--init", "/nonexistent/init", "-o", &dir.path("x.cpio")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "iso-builder: /nonexistent/init: No such file or directory (os error 2)\n");
}

#[test]
fn a_failure_leaves_no_file() {
    let dir = Dir::new();
    let init = dir.file("init", b"#!/bin/sh\n");
    let output = run(&["initramfs", "--init", &init, "-o", &dir.path("x.cpio")]);
    assert!(stderr(&output).contains("cannot be used"), "{}", stderr(&output));
    assert_eq!(dir.names(), ["init"]);
}

#[test]
fn an_init_that_nobody_built_is_named_with_the_way_out() {
    let dir = Dir::new();
    let program = dir.path("iso-builder");
    // by another process: a child that a test beside this one starts would keep our own copy open for writing, and what is written to cannot be run
    assert!(Command::new("cp").args([env!("CARGO_BIN_EXE_iso-builder"), &program]).status().unwrap().success());
    let output = Command::new(&program).args(["initramfs", "-o", &dir.path("x.cpio")]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&dir.path("tether")), "{}", stderr(&output));
    assert!(stderr(&output).contains("--init FILE"), "{}", stderr(&output));
    assert_eq!(stderr(&output).lines().count(), 1);
}

#[test]
fn a_stub_that_will_not_do_is_named() {
    let dir = Dir::new();
    let (kernel, init) = (dir.file("bzImage", &kernel()), dir.file("init", &static_elf()));
    let wrong = dir.file("wrong.stub", b"#!/bin/sh\n");
    for (firmware, stub, expected) in [
        ("uefi", "/nonexistent", "iso-builder: /nonexistent: No such file or directory (os error 2)\n".to_owned()),
        (
            "uefi",
            &wrong,
            format!("iso-builder: {wrong}: the UEFI stub cannot be used: it is no program for UEFI (no MZ)"),
        ),
        ("bios", &wrong, format!("iso-builder: {wrong}: an ISO for --firmware bios holds no stub")),
    ] {
        let output = dir.path("x.iso");
        let args = ["--kernel", &kernel, "--init", &init, "--firmware", firmware, "--efi-stub", stub, "-o", &output];
        let output = run(&[&["bootstrap"], &args[..]].concat());
        assert!(output.status.code() == Some(1) && stderr(&output).contains(&expected), "{}", stderr(&output));
    }
    assert_eq!(dir.names().len(), 3, "{:?}", dir.names());
}

#[test]
fn two_builds_of_an_iso_are_the_same_and_have_their_digest_beside_them() {
    if let Err(error) = boot_assets::isolinux() {
        return eprintln!("SKIPPED: {error}");
    }
    let dir = Dir::new();
    let (kernel, init) = (dir.file("bzImage", &kernel()), dir.file("init", &static_elf()));
    let build = |name: &str, epoch: &str| {
        let args = ["bootstrap", "--kernel", &kernel, "--init", &init, "-o", &dir.path(name), "--epoch", epoch];
        let output = run(&args);
        assert!(output.status.success(), "{}", stderr(&output));
        fs::read(dir.path(name)).unwrap()
    };
    let first = build("one.iso", "1700000000");
    assert_eq!(first, build("two.iso", "1700000000"));
    assert_ne!(first, build("three.iso", "1700000001"));
    let check = Command::new("sha256sum").args(["-c", "one.iso.sha256"]).current_dir(&dir.0).output().unwrap();
    assert!(check.status.success(), "{}", stderr(&check));
}

#[test]
fn the_appliance_is_the_same_recipe_with_its_own_label() {
    if let Err(error) = boot_assets::isolinux() {
        return eprintln!("SKIPPED: {error}");
    }
    let dir = Dir::new();
    let (kernel, init) = (dir.file("bzImage", &kernel()), dir.file("init", &static_elf()));
    let iso = dir.path("a.iso");
    let bundle = dir.file("ca.pem", b"-----BEGIN CERTIFICATE-----\nBgcI\n-----END CERTIFICATE-----\n");
    let build = |bundle: &str| {
        let shell = ["--vch", &init, "--debug-console", &init, "--ca-bundle", bundle];
        run(&[&["appliance", "--kernel", &kernel, "--init", &init, "--cmdline", "one two", "-o", &iso], &shell[..]]
            .concat())
    };
    let output = build(&init);
    assert!(stderr(&output).contains("cannot be used: it is no bundle of certificates in PEM"), "{}", stderr(&output));
    let output = build(&bundle);
    assert!(output.status.success(), "{}", stderr(&output));
    let listed = run(&["ls", "-R", &format!("{iso}:/boot/initramfs.cpio:/")]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    for file in ["init", "bin/vch", "bin/busybox", "etc/ssl/certs/ca-certificates.crt", "etc/passwd", "data", "run"] {
        assert!(listed.lines().any(|line| line.contains(file)), "{file} is not in {listed}");
    }
    let bytes = fs::read(iso).unwrap();
    assert!(bytes[16 * 2048 + 40..].starts_with(b"TETHER_APPLIANCE "));
    let line = b"\n  append one two\n";
    assert!(bytes.windows(line.len()).any(|part| part == line));
}

#[test]
fn the_layers_of_an_image_become_disks_once() {
    let dir = Dir::new();
    let image = dir.file("image.tar", &docker_archive());
    let disks = dir.path("disks");
    let build = || {
        let output = run(&["layers", &image, "-o", &disks]);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    let index: serde_json::Value = serde_json::from_slice(&fs::read(build()).unwrap()).unwrap();
    let layers = index["layers"].as_array().unwrap();
    assert!(!layers.is_empty());
    let disk = Path::new(&disks).join(layers[0]["disk"].as_str().unwrap());
    let chain = layers[0]["chainId"].as_str().unwrap();
    assert!(chain.starts_with(&format!("sha256:{}", layers[0]["serial"].as_str().unwrap())));
    let check = Command::new("e2fsck").arg("-fn").arg(&disk).output().expect("e2fsck");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    // what is there is left, unless it was cut off
    let bytes = fs::read(&disk).unwrap();
    let made = || fs::metadata(&disk).unwrap().modified().unwrap();
    let first = made();
    build();
    assert_eq!(made(), first);
    for damage in [&bytes[..bytes.len() - 4096], &[0; 4096], b""] {
        fs::write(&disk, damage).unwrap();
        build();
        assert!(fs::read(&disk).unwrap() == bytes);
    }
    let mut damaged = bytes.clone();
    damaged[1024 + 40] ^= 1;
    fs::write(&disk, damaged).unwrap();
    build();
    assert!(fs::read(&disk).unwrap() == bytes);
}

#[test]
fn an_image_becomes_a_disk_of_any_format() {
    let dir = Dir::new();
    let image = dir.file("image.tar", &docker_archive());
    for (format, checker) in [
        ("raw", &["e2fsck", "-fn"][..]),
        ("vmdk", &["qemu-img", "check"]),
        ("stream", &["qemu-img", "check", "-f", "vmdk"]),
    ] {
        let disk = dir.path(&format!("disk.{format}"));
        let output = run(&["disk", &format!("docker-archive:{image}"), "--format", format, "-o", &disk]);
        assert!(output.status.success(), "{}", stderr(&output));
        match Command::new(checker[0]).args(&checker[1..]).arg(&disk).output() {
            Ok(check) => assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout)),
            Err(error) => eprintln!("SKIPPED: {}: {error}", checker[0]),
        }
        let output = run(&["inspect", &disk]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert!(String::from_utf8(run(&["inspect", &dir.path("disk.raw")]).stdout).unwrap().contains("containerfs"));

    let small = run(&["disk", &image, "--size", "64K", "-o", &dir.path("small")]);
    assert_eq!(small.status.code(), Some(1));
    assert_eq!(stderr(&small).lines().count(), 1, "{}", stderr(&small));
    assert!(!Path::new(&dir.path("small")).exists());
}

/// An image of one layer, as `docker save` writes it.
fn docker_archive() -> Vec<u8> {
    let layer = tar(&[("hello", b"hello\n"), ("etc/motd", b"hi\n")]);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        digest::bytes(&layer)
    );
    let manifest = br#"[{"Config":"config.json","RepoTags":["t:1"],"Layers":["layer.tar"]}]"#;
    tar(&[("config.json", config.as_bytes()), ("layer.tar", &layer), ("manifest.json", manifest)])
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn the_page_about_the_command_line_has_the_commands_that_there_are() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut commands: Vec<&str> = listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    let page = include_str!("../../docs/iso-builder.md");
    let table = page.split("## Commands").nth(1).unwrap().split("\n## ").next().unwrap();
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let mut told: Vec<&str> =
        cells.flat_map(|cell| cell.split(", ")).filter_map(|form| form.trim_matches('`').split(' ').next()).collect();
    commands.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, commands, "docs/iso-builder.md and `iso-builder --help`");
    for command in commands {
        let help = String::from_utf8(run(&[command, "--help"]).stdout).unwrap();
        let examples = help.split("Examples:\n").nth(1).unwrap_or_default();
        assert!(examples.contains(&format!("iso-builder {command}")), "{help}");
    }
}

#[test]
fn what_is_no_regular_file_is_neither_waited_for_nor_replaced() {
    let dir = Dir::new();
    let (pipe, disk) = (dir.path("pipe"), dir.file("disk", &[1; 4096]));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (out, image) = (dir.path("out"), format!("docker-archive:{pipe}"));
    for args in [
        &["convert", &pipe, &out][..],
        &["inspect", &pipe],
        &["disk", &image, "-o", &out],
        &["initramfs", "--init", &pipe, "-o", &out],
        &["kernel", "--kernel", &pipe],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).ends_with("not a regular file\n"), "{args:?}: {}", stderr(&output));
    }
    let output = run(&["convert", &disk, &pipe]);
    assert!(stderr(&output).contains("a device or pipe of that name"), "{}", stderr(&output));
}

#[test]
fn a_disk_is_not_converted_onto_itself_nor_out_of_nothing() {
    let dir = Dir::new();
    let (disk, empty) = (dir.file("disk", &[1; 4096]), dir.file("empty", b""));
    let output = run(&["convert", &disk, &format!("{}/./disk", dir.0.display()), "--format", "vmdk"]);
    assert!(stderr(&output).contains("another name"), "{}", stderr(&output));
    assert_eq!(fs::read(&disk).unwrap(), [1; 4096]);
    let output = run(&["convert", &empty, &dir.path("out")]);
    assert!(stderr(&output).contains("empty file is no disk"), "{}", stderr(&output));
}

#[test]
fn what_is_in_the_store_is_told_to_a_machine() {
    let dir = Dir::new();
    let cache = dir.path("cache");
    let output = run(&["images", "--json", "--cache", &cache]);
    assert_eq!(output.stdout, b"{\"images\":[]}\n");
    let output = run(&["gc", "--json", "--cache", &cache]);
    assert_eq!(output.stdout, b"{\"blobs\":0,\"freed\":0,\"images\":[],\"kept\":0}\n");
    assert_eq!(
        stderr(&output),
        "{\"event\":\"note\",\"message\":\"0 blobs and 0 B freed; 0 B stay\"}\n",
        "all of stderr is JSON"
    );
}

struct Dir(PathBuf, #[expect(dead_code, reason = "removes the directory")] tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        let dir = tempfile::tempdir().unwrap();
        Dir(dir.path().to_owned(), dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn names(&self) -> Vec<String> {
        fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
