//! What iso-builder sees in images is what others see: xorriso, debugfs, cpio, qemu-img and a terminal are asked.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rig::artifacts::{dist, program};
use rig::images::run as tool;
use tempfile::TempDir;

fn iso_builder<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Command::new(program("iso-builder")).args(args).output().expect("iso-builder")
}

/// What it prints when all is well.
fn said<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let output = iso_builder(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Path to mode, owner, group and size or device.
type Listing = BTreeMap<String, [String; 4]>;

/// What `ls -lR` says of what `place` names.
fn listing(place: &str) -> Listing {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let mut next = || words.next().expect("a column").to_owned();
        let (mode, _links, uid, gid, size, _date, _time) = (next(), next(), next(), next(), next(), next(), next());
        let path = words.collect::<Vec<_>>().join(" ");
        (path.split(" -> ").next().expect("one").to_owned(), [mode, uid, gid, size])
    };
    said(["ls", "-lR", place]).lines().map(entry).collect()
}

/// Whether a judge is there; a test without it says so.
fn has(judge: &str, test: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", "command -v \"$0\"", judge]).output().is_ok_and(|out| out.status.success());
    if !found {
        crate::skip(test, &format!("no {judge}"));
    }
    found
}

#[test]
fn the_files_of_an_iso_are_those_that_xorriso_sees() {
    if !has("xorriso", "the_files_of_an_iso_are_those_that_xorriso_sees") {
        return;
    }
    for name in ["bootstrap.iso", "appliance.iso"] {
        let iso = dist(name);
        let listed = tool(Command::new("xorriso").args(["-indev"]).arg(&iso).args(["-find", "/", "-exec", "lsdl"]));
        let entry = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let path = words.last()?.trim_matches('\'').strip_prefix('/')?.to_owned();
            (!path.is_empty()).then(|| (path, [words[0], words[2], words[3], words[4]].map(str::to_owned)))
        };
        let mut expected: Listing = listed.lines().filter(|line| line.contains('\'')).filter_map(entry).collect();
        let mut seen = listing(iso.to_str().expect("UTF-8"));
        // How large a directory is says only how it is stored.
        for listing in [&mut expected, &mut seen] {
            listing.values_mut().filter(|entry| entry[0].starts_with('d')).for_each(|entry| entry[3].clear());
        }
        assert!(expected.len() > 5, "{listed}");
        assert_eq!(seen, expected, "{name}");
        let dir = tempfile::tempdir().expect("a folder");
        tool(
            Command::new("xorriso")
                .args(["-osirrox", "on", "-indev"])
                .arg(&iso)
                .args(["-extract", "/"])
                .arg(dir.path()),
        );
        for (path, _) in expected.iter().filter(|(_, entry)| entry[0].starts_with('-')) {
            let bytes = iso_builder(["cat", &format!("{}:/{path}", iso.display())]).stdout;
            // xorriso patches nothing on its way out
            assert!(bytes == fs::read(dir.path().join(path)).expect("extracted"), "{path} of {name}");
        }
        tool(Command::new("chmod").args(["-R", "u+w"]).arg(dir.path()));
    }
}

#[test]
fn the_initramfs_within_an_iso_is_what_cpio_lists() {
    if !has("cpio", "the_initramfs_within_an_iso_is_what_cpio_lists") {
        return;
    }
    let iso = dist("bootstrap.iso");
    let within = format!("{}:/boot/initramfs.cpio", iso.display());
    let mut archive =
        Command::new(program("iso-builder")).args(["cat", &within]).stdout(Stdio::piped()).spawn().expect("cat");
    let listed = tool(Command::new("cpio").args(["-itvn", "--quiet"]).stdin(archive.stdout.take().expect("piped")));
    assert!(archive.wait().expect("ended").success());
    let entry = |line: &str| {
        // a device's number is two words
        let line = line.replacen(",   ", ",", 1);
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.last().expect("a name").to_string(), [words[0], words[2], words[3], words[4]].map(str::to_owned))
    };
    let expected: Listing = listed.lines().map(entry).collect();
    assert!(expected.contains_key("init") && expected["dev/console"][3] == "5,1", "{listed}");
    assert_eq!(listing(&format!("{within}:/")), expected);
}

#[test]
fn the_files_of_a_disk_are_those_that_debugfs_sees_in_every_format() {
    let test = "the_files_of_a_disk_are_those_that_debugfs_sees_in_every_format";
    if !has("debugfs", test) || !has("qemu-img", test) {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let (image, path) = (dist("busybox.tar"), |name: &str| dir.path().join(name));
    for format in ["raw", "vmdk", "stream"] {
        said([
            "disk".as_ref(),
            image.as_os_str(),
            "--format".as_ref(),
            format.as_ref(),
            "-o".as_ref(),
            path(format).as_ref(),
        ]);
    }
    let raw = path("raw");
    let mut expected = Listing::new();
    let mut waiting = vec![String::new()];
    while let Some(dir) = waiting.pop() {
        let listed = tool(Command::new("debugfs").arg("-R").arg(format!("ls -p \"/{dir}\"")).arg(&raw));
        // /inode/mode/uid/gid/name/size/
        for line in listed.lines().filter(|line| line.starts_with('/')) {
            let [_, inode, mode, uid, gid, name, size, ..] = line.split('/').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            if inode == "0" || matches!(name, "." | "..") {
                continue;
            }
            let path = if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
            let bits = u32::from_str_radix(mode, 8).expect("octal");
            let is_dir = bits & 0o170_000 == 0o040_000;
            let size = if is_dir { "0" } else { size };
            expected.insert(path.clone(), [format!("{:04o}", bits & 0o7777), uid.into(), gid.into(), size.into()]);
            if is_dir {
                waiting.push(path);
            }
        }
    }
    assert!(expected.len() > 200, "a busybox has more names");
    for format in ["raw", "vmdk", "stream"] {
        let seen: serde_json::Value =
            serde_json::from_str(&said(["ls", "-R", "--json", path(format).to_str().expect("UTF-8")])).expect("JSON");
        let entries = seen["entries"].as_array().expect("entries").iter();
        let seen: Listing = entries
            .map(|entry| {
                let text = |key: &str| entry[key].as_str().map_or_else(|| entry[key].to_string(), str::to_owned);
                let size =
                    entry["target"].as_str().map_or_else(|| entry["size"].as_u64().unwrap_or(0), |to| to.len() as u64);
                (text("path"), [text("mode"), text("uid"), text("gid"), size.to_string()])
            })
            .collect();
        assert_eq!(seen, expected, "{format}");
        let place = |path: &Path, inside: &str| format!("{}:{inside}", path.display());
        let passwd = iso_builder(["cat", &place(&path(format), "/etc/passwd")]).stdout;
        assert_eq!(passwd, tool(Command::new("debugfs").args(["-R", "cat /etc/passwd"]).arg(&raw)).into_bytes());
        tool(
            Command::new("qemu-img")
                .args(["compare", "-f", "raw", "-F"])
                .arg(if format == "raw" { "raw" } else { "vmdk" })
                .arg(&raw)
                .arg(path(format)),
        );
        let diff = iso_builder(["diff".as_ref(), image.as_os_str(), path(format).as_ref()]);
        assert_eq!(diff.status.code(), Some(0), "{format}: {}", String::from_utf8_lossy(&diff.stdout));
    }
    // what qemu-img makes of it is a disk of another hand
    tool(Command::new("qemu-img").args(["convert", "-O", "vmdk"]).arg(&raw).arg(path("qemu.vmdk")));
    assert_eq!(iso_builder(["diff".as_ref(), raw.as_os_str(), path("qemu.vmdk").as_ref()]).status.code(), Some(0));
}

/// A folder with what images are about: names that a terminal would obey, holes, links, a device where root makes it.
fn folder() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("sub/deep")).expect("a folder");
    for name in [&b"\x1b[31mred"[..], b"two\nlines", b"\xffnot text", "\u{fc}".as_bytes()] {
        fs::write(root.join(OsStr::from_bytes(name)), b"x").expect("a file");
    }
    symlink("sub/deep", root.join("link")).expect("a link");
    fs::write(root.join("sub/one"), b"shared").expect("a file");
    fs::hard_link(root.join("sub/one"), root.join("sub/two")).expect("a link");
    let sparse = File::create(root.join("sub/deep/sparse")).expect("a file");
    sparse.set_len(8 << 20).expect("a size");
    sparse.write_all_at(b"in the middle", 4 << 20).expect("bytes");
    (dir, root)
}

#[test]
fn images_that_others_made_of_one_folder_do_not_differ() {
    let test = "images_that_others_made_of_one_folder_do_not_differ";
    if ["mke2fs", "xorriso", "cpio", "zstd"].iter().any(|judge| !has(judge, test)) {
        return;
    }
    let (dir, root) = folder();
    let path = |name: &str| dir.path().join(name);
    let shell = |script: &str| tool(Command::new("sh").args(["-ec", script]).current_dir(&root));
    shell("mke2fs -q -t ext4 -d . ../a.ext4 64M && mke2fs -q -t ext2 -b 1024 -O ^dir_index -d . ../a.ext2 64M");
    shell("xorriso -as mkisofs -quiet -R -o ../a.iso . 2>&1");
    shell("find . | cpio -o -H newc --quiet >../a.cpio; gzip -c ../a.cpio >../a.gz; zstd -qf ../a.cpio -o ../a.zst");
    shell("find . | head -3 | cpio -o -H newc --quiet >../early; cat ../early ../a.zst >../two");
    shell(
        "qemu-img create -q ../parted 72M && printf '2048,131072,83\\n' | sfdisk -q ../parted && dd if=../a.ext4 of=../parted bs=1M seek=1 conv=notrunc status=none",
    );
    for name in ["a.ext2", "a.iso", "a.cpio", "a.gz", "a.zst", "two", "parted"] {
        let diff = iso_builder([
            "diff".as_ref(),
            "--ignore".as_ref(),
            "times".as_ref(),
            path("a.ext4").as_os_str(),
            path(name).as_ref(),
        ]);
        let said = String::from_utf8_lossy(&diff.stdout).into_owned() + &String::from_utf8_lossy(&diff.stderr);
        assert_eq!(diff.status.code(), Some(0), "{name}: {said}");
        let place = format!("{}:/link/sparse", path(name).display());
        let copy = File::create(path("copy")).expect("a file");
        let cat = Command::new(program("iso-builder")).args(["cat", &place]).stdout(copy).status().expect("cat");
        assert!(cat.success(), "{name}");
        assert!(fs::read(path("copy")).unwrap() == fs::read(root.join("sub/deep/sparse")).unwrap(), "{name}");
        if name == "a.ext2" || name == "parted" {
            let blocks = fs::metadata(path("copy")).expect("a file").blocks();
            assert!(blocks * 512 < 1 << 20, "{name}: the holes are filled");
        }
    }
    fs::write(root.join("sub/two"), b"Shared").expect("a file");
    shell("find . | cpio -o -H newc --quiet >../b.cpio");
    let diff =
        iso_builder(["diff", "--ignore", "times", path("a.iso").to_str().unwrap(), path("b.cpio").to_str().unwrap()]);
    let expected = "~ /sub/one: content from byte 0\n~ /sub/two: content from byte 0\n";
    assert_eq!(String::from_utf8_lossy(&diff.stdout), expected);
}

#[test]
fn on_a_terminal_names_are_harmless_and_bars_go_away() {
    let test = "on_a_terminal_names_are_harmless_and_bars_go_away";
    if !has("script", test) || !has("mke2fs", test) {
        return;
    }
    let (dir, root) = folder();
    let image = dir.path().join("a.ext4");
    tool(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(&image).arg("64M"));
    let on_terminal = |words: &str| {
        let command = format!("{} {words} {}", program("iso-builder").display(), image.display());
        let output =
            Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output().expect("script");
        String::from_utf8(output.stdout).expect("text")
    };
    let listed = on_terminal("ls -lR");
    assert!(
        listed.contains(r"\x1b[31mred") && listed.contains(r"two\nlines") && listed.contains(r"\xffnot text"),
        "{listed}"
    );
    assert!(!listed.contains('\x1b'), "{listed:?}");
    // a bar may have been drawn; it is gone, and what stays is the answer
    let verified = on_terminal("verify");
    let last = verified.trim_end().rsplit(['\n', '\r']).next().unwrap_or_default();
    assert!(last.contains("contents  ext4, all"), "{verified:?}");
}

#[test]
fn a_reader_that_stops_early_is_no_failure() {
    let script = "set -o pipefail 2>/dev/null; \"$0\" cat \"$1:/boot/vmlinuz\" | head -c 10 >/dev/null; \"$0\" ls -lR \"$1\" | true";
    let output = Command::new("bash")
        .args(["-c", script])
        .arg(program("iso-builder"))
        .arg(dist("bootstrap.iso"))
        .output()
        .expect("bash");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
