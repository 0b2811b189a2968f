//! A layer as an ext4 disk before its judges: `debugfs` copies out what went in, and the kernel sees it when it mounts the disk.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use rig::artifacts;
use rig::images::{ImageDir, run as tool};
use rig::vch::run;
use serde_json::json;

/// Names, links, sizes and times that a file system may get wrong.
fn fill(root: &Path) {
    let odd = root.join("odd");
    fs::create_dir_all(odd.join("many")).unwrap();
    for n in 0..2500 {
        fs::write(odd.join(format!("many/a-name-of-some-length-{n}")), n.to_string()).unwrap();
    }
    for len in [1, 59, 60, 1000, 4000] {
        symlink("t".repeat(len), odd.join(format!("link-{len}"))).unwrap();
    }
    for size in [0, 1, 4095, 4096, 4097, 300_000] {
        fs::write(odd.join(format!("size-{size}")), vec![b'x'; size]).unwrap();
    }
    fs::hard_link(odd.join("size-1"), odd.join("again")).unwrap();
    fs::set_permissions(odd.join("size-1"), fs::Permissions::from_mode(0o6751)).unwrap();
    fs::write(odd.join("a name, with {} and\ttab"), "odd").unwrap();
    fs::write(odd.join("n".repeat(255)), "long").unwrap();
    let sparse = fs::File::create(odd.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 200 << 20).unwrap();
    for (name, date) in [("size-0", "2040-01-02 03:04:05 UTC"), ("size-4095", "1965-01-02 03:04:05 UTC")] {
        tool(Command::new("touch").args(["-d", date]).arg(odd.join(name)));
    }
}

/// Every path below a folder, with what can be told of it without being its owner.
fn describe(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
            let content = match meta.file_type() {
                kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
                kind if kind.is_file() => rig::images::sha256(&path),
                _ => {
                    waiting.push(path);
                    String::new()
                }
            };
            // what a link itself is like, debugfs does not restore; suid and sgid are lost as it changes the owner,
            // and times before 1970 become those of 136 years later; the kernel has these right
            let attributes = match meta.file_type().is_symlink() {
                true => String::new(),
                false => format!("{:o} {}", meta.mode() & 0o171_777, meta.mtime() & 0xFFFF_FFFF),
            };
            lines.push(format!("{name} {attributes} {content}"));
        }
    }
    lines.sort();
    lines
}

#[test]
fn debugfs_copies_out_what_went_in() {
    let image = ImageDir::with_busybox();
    fill(&image.root());
    let archive = image.archive(&json!({}));
    let dir = tempfile::tempdir().unwrap();
    let (disk, out) = (dir.path().join("disk.raw"), dir.path().join("out"));
    tool(Command::new(artifacts::program("iso-builder")).arg("disk").arg(&archive).arg("-o").arg(&disk));
    let checked = tool(Command::new("e2fsck").args(["-fn"]).arg(&disk));
    assert!(checked.contains("Pass 5"), "{checked}");
    let about = tool(Command::new("dumpe2fs").arg("-h").arg(&disk));
    for fact in
        ["metadata_csum", "64bit", "has_journal", "Filesystem state:         clean", "volume name:   containerfs"]
    {
        assert!(about.contains(fact), "{fact} is not in {about}");
    }
    fs::create_dir(&out).unwrap();
    tool(Command::new("debugfs").arg("-R").arg(format!("rdump / {}", out.display())).arg(&disk));
    fs::remove_dir(out.join("lost+found")).unwrap();
    let (expected, found) = (describe(&image.root().join("odd")), describe(&out.join("odd")));
    assert_eq!(expected.len(), found.len());
    expected.iter().zip(&found).for_each(|(one, other)| assert_eq!(one, other));
    assert!(fs::metadata(&disk).unwrap().blocks() * 512 < 32 << 20, "holes are kept");
    let stat = tool(Command::new("debugfs").args(["-R", "stat /odd/again"]).arg(&disk));
    assert!(stat.contains("Links: 2") && stat.contains("Mode:  06751"), "{stat}");
}

#[test]
fn the_kernel_sees_what_went_in() {
    let image = ImageDir::with_busybox();
    fill(&image.root());
    let archive = image.archive(&json!({}));
    let script = "cd /odd && find . | sort | while IFS= read -r f; do stat -c '%n %F %a %u:%g %s %Y %h' \"$f\"; \
        [ ! -f \"$f\" ] || [ \"$f\" = ./sparse ] || md5sum <\"$f\"; done; \
        rm -r many && mkdir many && echo new >many/new && cat many/new; dmesg | grep -i 'ext4-fs error'; true";
    let output = run(["--rm".as_ref(), archive.as_os_str(), "sh".as_ref(), "-c".as_ref(), script.as_ref()]).output();
    let seen = output.success();
    let mut here = Command::new("busybox");
    let listing =
        script.split("rm -r many").next().unwrap().replace("/odd", &image.root().join("odd").display().to_string());
    here.args(["unshare", "-r", "busybox", "sh", "-c"]).arg(listing);
    let expected = tool(&mut here);
    let seen = seen.strip_suffix("new\n").unwrap_or_else(|| panic!("no new file, or errors: {seen}"));
    assert_eq!(expected.lines().count(), seen.lines().count());
    // a folder's size is the file system's own
    let differing =
        expected.lines().zip(seen.lines()).find(|(one, other)| one != other && !one.contains(" directory "));
    assert_eq!(differing, None);
}
