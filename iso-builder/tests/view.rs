//! Looking into images from the command line: what is printed, how it is answered, and that no image speaks to a terminal.
//! (That it is true what is printed, other programs say, in the end-to-end tests.)

mod program;

use std::fs;
use std::process::Command;

use iso_builder::tree::{Content, Kind, Meta, Node, ROOT, Time, Tree};
use iso_builder::{boot_assets, cpio, ext4};
use serde_json::Value;

use program::{kernel, run, static_elf};

#[test]
fn a_file_is_listed_and_printed_from_an_image_within_an_image() {
    let dir = Dir::new();
    let outer = dir.ext4("outer.ext4", &[("boot.cpio", &archive(&[("etc/motd", b"hello\n")])), ("plain", b"x")]);
    assert_eq!(ok(&["ls", &outer]), "boot.cpio\nlost+found\nplain\n");
    assert_eq!(ok(&["ls", "-R", &format!("{outer}:/boot.cpio:/")]), "etc\netc/motd\n");
    assert_eq!(ok(&["cat", &format!("{outer}:/boot.cpio:/etc/motd")]), "hello\n");
    let listed = ok(&["ls", "-l", &format!("{outer}:/boot.cpio:/etc")]);
    assert_eq!(listed, "-rw-r--r-- 1 1000 100 6 2001-09-09 01:46:40 motd\n");
    fs::create_dir(dir.path("odd:")).unwrap();
    fs::rename(&outer, dir.path("odd:/a:")).unwrap();
    assert_eq!(ok(&["cat", &format!("{}\\:/a::/plain", dir.path("odd"))]), "x");
    assert!(
        refused(&["cat", &dir.path("odd:/a::/plain")], 1).contains("No such file"),
        "without the backslash it parts"
    );
}

#[test]
fn what_a_terminal_would_obey_is_never_printed() {
    let dir = Dir::new();
    let names = ["\x1b]0;owned\x07", "two\nlines", "\u{9b}31m", "\u{202e}gpj.exe", "\x1b[2J/\x1b[31m"];
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, &b"x"[..])).collect();
    let image = dir.file("a.cpio", &archive(&files));
    let other = dir.file("b.cpio", &archive(&[("x", b"")]));
    let missing = format!("{image}:/\x1b[31m\n");
    let calls: [&[&str]; 9] = [
        &["ls", &image],
        &["ls", "-lR", &image],
        &["ls", "-R", "--json", &image],
        &["inspect", &image],
        &["diff", &image, &other],
        &["diff", "--json", &other, &image],
        &["ls", &missing],
        &["--json", "cat", &missing],
        &["verify", &image],
    ];
    for call in calls {
        let output = run(call);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let command = |char: char| (char.is_control() && char != '\n') || char == '\u{202e}';
        assert!(!said.is_empty() && !said.contains(command), "{call:?}: {said:?}");
    }
    assert_eq!(ok(&["ls", &image]).lines().count(), names.len(), "one line for each");
}

#[test]
fn differences_are_told_and_answered_as_diff_does() {
    let dir = Dir::new();
    let first = dir.file("first.cpio", &archive(&[("a", b"same"), ("b", b"one"), ("c/d", b"")]));
    let second = dir.ext4("second.ext4", &[("a", b"same"), ("b", b"two"), ("e", b"")]);
    assert_eq!(run(&["diff", &first, &first]).status.code(), Some(0));
    let output = run(&["diff", &first, &second]);
    assert_eq!(output.status.code(), Some(1));
    // an initramfs says nothing of its root
    let expected = "~ /: owner 0:0 -> 1000:100; time 1970-01-01 00:00:00 -> 2001-09-09 01:46:40\n\
                    ~ /b: content from byte 0\n- /c (directory, 1 below it)\n+ /e (file)\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    let output = run(&["diff", "--json", &first, &second]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["first"][0]["format"], "cpio");
    assert_eq!(said["second"][0]["format"], "ext4");
    let told = said["differences"].as_array().unwrap();
    let told: Vec<_> =
        told.iter().map(|one| (one["path"].as_str().unwrap(), one["change"].as_str().unwrap())).collect();
    assert_eq!(told, [("/", "changed"), ("/b", "changed"), ("/c", "removed"), ("/e", "added")]);
    refused(&["diff", &first, "/nonexistent"], 2);
    assert_eq!(run(&["diff", &first]).status.code(), Some(2));
}

#[test]
fn times_and_owners_are_compared_unless_they_are_not_to_be() {
    let dir = Dir::new();
    let meta = |secs, uid| Meta { mode: 0o755, uid, mtime: Time { secs, nanos: 0 }, ..Meta::default() };
    let [a, b] = [("a.cpio", meta(1, 0)), ("b.cpio", meta(2, 5))].map(|(name, meta)| {
        let mut tree = Tree::new(Meta::default());
        tree.insert(ROOT, b"dir", Node { meta, kind: Kind::Dir(Default::default()) });
        dir.file(name, &packed(&tree))
    });
    let told = String::from_utf8(run(&["diff", &a, &b]).stdout).unwrap();
    assert_eq!(told, "~ /dir: owner 0:0 -> 5:0; time 1970-01-01 00:00:01 -> 1970-01-01 00:00:02\n");
    assert_eq!(run(&["diff", "--ignore", "times", &a, &b]).status.code(), Some(1));
    assert_eq!(run(&["diff", "--ignore", "times,owners", &a, &b]).status.code(), Some(0));
}

#[test]
fn an_artifact_is_verified_by_building_it_again() {
    if let Err(error) = boot_assets::isolinux() {
        return eprintln!("SKIPPED: {error}");
    }
    let dir = Dir::new();
    let (kernel, init) = (dir.file("bzImage", &kernel()), dir.file("init", &static_elf()));
    let iso = dir.path("a.iso");
    ok(&["bootstrap", "--kernel", &kernel, "--init", &init, "--epoch", "7", "-o", &iso]);
    let verify = |epoch: &str, init: &str| {
        let output = run(&["--epoch", epoch, "verify", &iso, "bootstrap", "--kernel", &kernel, "--init", init]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = verify("7", &init);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("digest    that of ") && said.contains("a.iso: the same bytes\n"), "{said}");
    let (code, said) = verify("8", &init);
    assert_eq!(code, Some(1));
    assert!(said.contains(": other bytes, from byte ") && said.contains("\n  ~ /boot: time "), "{said}");
    let other = dir.file("other", &[&static_elf()[..], b"more"].concat());
    let (code, said) = verify("7", &other);
    assert_eq!(code, Some(1));
    assert!(said.contains("\n  ~ /boot/initramfs.cpio: "), "{said}");

    // a digest that is another's, and an image that cannot be read to its end
    fs::write(dir.path("a.iso.sha256"), format!("{}  a.iso\n", "0".repeat(64))).unwrap();
    assert_eq!(run(&["verify", &iso]).status.code(), Some(1));
    fs::remove_file(dir.path("a.iso.sha256")).unwrap();
    assert_eq!(run(&["verify", &iso]).status.code(), Some(0));
    fs::write(&iso, &fs::read(&iso).unwrap()[..40_000]).unwrap();
    let output = run(&["verify", "--json", &iso]);
    assert_eq!(output.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["ok"], &said["contents"]), (&false.into(), &"damaged".into()));

    refused(&["verify", "/nonexistent"], 2);
    assert!(refused(&["verify", &iso, "ls", &iso], 2).contains("ls: no command that builds a file; those are "));
}

#[test]
fn results_are_json_for_whoever_asks() {
    let dir = Dir::new();
    let init = dir.file("init", &static_elf());
    let out = dir.path("i.cpio");
    let made: Value = serde_json::from_str(&ok(&["--json", "initramfs", "--init", &init, "-o", &out])).unwrap();
    assert_eq!(made["output"], out.as_str());
    assert_eq!(made["size"], fs::metadata(&out).unwrap().len());
    let listed: Value = serde_json::from_str(&ok(&["ls", "--json", &format!("{out}:/dev")])).unwrap();
    assert_eq!(listed["formats"], serde_json::json!([{"format": "cpio"}]));
    assert_eq!(listed["entries"][0]["path"], "console");
    assert_eq!(listed["entries"][0]["device"], serde_json::json!([5, 1]));
    let described: Value = serde_json::from_str(&ok(&["inspect", "--json", &out])).unwrap();
    assert_eq!(described["counts"]["files"], 1);
    let error = run(&["--json", "ls", "/nonexistent"]);
    assert_eq!(error.status.code(), Some(1));
    let event: Value = serde_json::from_slice(&error.stderr).unwrap();
    assert_eq!(event["event"], "error");
}

#[test]
fn progress_goes_to_stderr_as_lines_events_or_nothing() {
    let dir = Dir::new();
    let image = dir.ext4("a.ext4", &[("a", &[7; 100_000])]);
    let told = |options: &[&str]| {
        let output = run(&[options, &["diff", &image, &image]].concat());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(told(&[]), "", "it takes no 15 seconds");
    assert_eq!(told(&["--json", "--quiet"]), "");
    for options in [&["--json"][..], &["--progress", "json"]] {
        let events: Vec<Value> = told(options).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = events.last().unwrap();
        assert_eq!((&last["event"], &last["ended"]), (&"progress".into(), &true.into()));
        assert_eq!((&last["done"], &last["total"], &last["unit"]), (&100_000.into(), &100_000.into(), &"bytes".into()));
    }
}

#[test]
fn shells_can_read_the_completions() {
    for shell in ["bash", "zsh", "fish", "elvish"] {
        let script = ok(&["completions", shell]);
        assert!(script.contains("verify") && script.contains("ignore"), "{shell}");
        let dir = Dir::new();
        let file = dir.file("script", script.as_bytes());
        match Command::new(shell).arg("-n").arg(&file).output() {
            Ok(output) => assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => eprintln!("SKIPPED: {shell}: {error}"),
        }
    }
}

#[test]
fn every_command_has_examples_that_fit_a_line() {
    let help = ok(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> =
        commands.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() >= 11, "{commands:?}");
    for command in commands.into_iter().filter(|command| *command != "help") {
        let help = ok(&[command, "--help"]);
        let examples: Vec<&str> = help.lines().filter(|line| line.starts_with("  iso-builder ")).collect();
        let all = help.contains("\nExamples:\n");
        assert!(all && !examples.is_empty(), "{command} has no examples:\n{help}");
        assert!(examples.iter().all(|line| line.contains(command)), "{command}: {examples:?}");
    }
}

#[test]
fn whatever_a_file_holds_there_is_one_line_and_no_panic() {
    let dir = Dir::new();
    let sound =
        [("cpio", archive(&[("a/b", b"hello")])), ("ext4", fs::read(dir.ext4("sound", &[("a", b"hello")])).unwrap())];
    for (kind, bytes) in sound {
        // where headers lie, and a step that meets most of the rest
        let step = bytes.len() / 40 + 1;
        for at in (0..bytes.len()).step_by(step).chain([1024 + 56, 1024 + 0x18, 1030]).filter(|at| *at < bytes.len()) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            for bytes in [&damaged[..], &bytes[..at]] {
                let file = dir.file("damaged", bytes);
                let output = run(&["ls", "-lR", &file]);
                let said = String::from_utf8(output.stderr).unwrap();
                assert!(matches!(output.status.code(), Some(0 | 1)), "{kind} at {at}: {:?} {said}", output.status);
                assert!(said.lines().count() <= 1, "{kind} at {at}: {said}");
                assert_eq!(
                    output.status.code() == Some(1),
                    said.starts_with("iso-builder: "),
                    "{kind} at {at}: {said}"
                );
            }
        }
    }
    for bytes in [&b""[..], b"\x1f\x8b", b"KDMV", b"# Disk DescriptorFile", b"070701", &[0x55; 40_000]] {
        refused(&["ls", &dir.file("nothing", bytes)], 1);
    }
}

fn node(kind: Kind) -> Node {
    let mtime = Time { secs: 1_000_000_000, nanos: 0 };
    let mode = if matches!(kind, Kind::Dir(_)) { 0o755 } else { 0o644 };
    Node { meta: Meta { mode, uid: 1000, gid: 100, mtime, ..Meta::default() }, kind }
}

fn tree(files: &[(&str, &[u8])]) -> Tree {
    let mut tree = Tree::new(node(Kind::Dir(Default::default())).meta);
    for (path, bytes) in files {
        let (mut dir, mut rest) = (ROOT, path.as_bytes());
        while let Some(slash) = rest.iter().position(|byte| *byte == b'/') {
            let name = &rest[..slash];
            dir = tree.child(dir, name).unwrap_or_else(|| tree.insert(dir, name, node(Kind::Dir(Default::default()))));
            rest = &rest[slash + 1..];
        }
        tree.insert(dir, rest, node(Kind::File(Content::from_bytes(*bytes))));
    }
    tree
}

fn packed(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    cpio::write(tree, &mut out).unwrap();
    out
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    packed(&tree(files))
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn ext4(&self, name: &str, files: &[(&str, &[u8])]) -> String {
        let file = fs::File::options().read(true).write(true).create_new(true).open(self.path(name)).unwrap();
        ext4::write(&tree(files), &ext4::Options::default(), &file, &mut |_, _| ()).unwrap();
        self.path(name)
    }
}

fn ok(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// One line of why not.
fn refused(args: &[&str], code: i32) -> String {
    let output = run(args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    assert!(said.starts_with("iso-builder: ") && said.lines().count() == 1, "{args:?}: {said}");
    said
}
