//! Files in and out of a running container, as tar archives. GNU tar judges them, and stat(1) in the container.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rig::host::{Host, Ran};
use rig::images::{busybox_disk, run};
use rig::machine::{Machine, script};
use wire::message::Work;
use wire::spec::LinkDevice;

fn idle() -> (tempfile::TempDir, Host) {
    let (dir, disk) = busybox_disk();
    let spec = script(LinkDevice::Virtio, "exec sleep 100000");
    (dir, Host::boot(Machine::new(&spec, Some(disk)), &spec))
}

/// The archive of a path.
fn copy_out(host: &mut Host, path: &str) -> (Vec<u8>, Ran) {
    let session = host.create(Work::CopyOut { path: path.into() });
    host.exit(session);
    let archive = std::mem::take(&mut host.stdout(session).kept);
    (archive, host.finish(session))
}

fn copy_in(host: &mut Host, dir: &str, archive: &[u8], owners: bool, replace: bool) -> Ran {
    let session = host.create(Work::CopyIn { dir: dir.into(), owners, replace });
    host.feed(session, archive);
    host.finish(session)
}

fn whole(ran: &Ran) {
    assert_eq!((ran.exit.ending.code(), ran.stderr.as_str()), (0, ""), "{ran:?}");
}

/// Everything that tar(1) knows of an archive's members, sorted.
fn listing(archive: &Path) -> Vec<String> {
    let text = run(Command::new("tar")
        .env("TZ", "UTC")
        .args(["--numeric-owner", "--full-time", "--xattrs", "-tvf"])
        .arg(archive));
    let mut lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.sort();
    lines
}

/// Everything that stat(1) of the container knows of a folder's files.
fn stats(host: &mut Host, dir: &str) -> String {
    host.shell(&format!("cd {dir} && find . | sort | tr '\\n' '\\0' | xargs -0 stat -c '%N %f %u:%g %s %Y %h'"))
}

/// A tree in which every attribute occurs, and the digest of its contents.
const MAKE: &str = "mkdir -p /data/tree/sub /data/tree/empty && cd /data/tree && \
    printf hello >plain && chmod 640 plain && chown 12:34 plain && \
    seq 1 50000 >sub/large && ln sub/large sub/second && ln -s plain link && ln -s /no/where dangling && \
    : >'with space' && printf x >setuid && chown 1000:1000 setuid && chmod 4755 setuid && mkfifo fifo && \
    long=$(printf %0120d 7) && mkdir $long && printf deep >$long/$long && chmod 1777 empty && \
    find . -exec touch -h -d @1234567890 {} +";

#[test]
fn a_tree_comes_out_with_every_attribute_and_goes_in_the_same() {
    let (dir, mut host) = idle();
    host.shell(MAKE);
    let (archive, ran) = copy_out(&mut host, "/data/tree");
    whole(&ran);
    let file = dir.path().join("out.tar");
    fs::write(&file, &archive).unwrap();
    let lines = listing(&file);
    for expected in [
        "-rw-r----- 12/34 5 2009-02-13 23:31:30 tree/plain",
        "lrwxrwxrwx 0/0 0 2009-02-13 23:31:30 tree/link -> plain",
        "lrwxrwxrwx 0/0 0 2009-02-13 23:31:30 tree/dangling -> /no/where",
        "-rwsr-xr-x 1000/1000 1 2009-02-13 23:31:30 tree/setuid",
        "prw-r--r-- 0/0 0 2009-02-13 23:31:30 tree/fifo",
        "drwxrwxrwt 0/0 0 2009-02-13 23:31:30 tree/empty/",
        "-rw-r--r-- 0/0 0 2009-02-13 23:31:30 tree/with space",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected:?} is not in {lines:#?}");
    }
    assert_eq!(lines.iter().filter(|line| line.contains(" link to tree/sub/")).count(), 1, "{lines:#?}");
    // the contents, by tar(1)
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    run(Command::new("tar").args(["--no-same-owner", "-xf"]).arg(&file).arg("-C").arg(&out));
    assert_eq!(fs::read_to_string(out.join("tree/plain")).unwrap(), "hello");
    let large: String = (1..=50_000).map(|n| format!("{n}\n")).collect();
    assert!(fs::read_to_string(out.join("tree/sub/second")).unwrap() == large, "sub/second differs");
    // back in, beside it
    host.shell("mkdir /data/again");
    whole(&copy_in(&mut host, "/data/again", &archive, true, false));
    let (before, after) = (stats(&mut host, "/data/tree"), stats(&mut host, "/data/again/tree"));
    assert_eq!(before, after);
    let digest = "find . -type f | sort | tr '\\n' '\\0' | xargs -0 cat | sha256sum";
    assert_eq!(host.shell(&format!("cd /data/tree; {digest}")), host.shell(&format!("cd /data/again/tree; {digest}")));
    // without owners, everything is root's
    host.shell("mkdir /data/root");
    whole(&copy_in(&mut host, "/data/root", &archive, false, false));
    assert_eq!(host.shell("find /data/root ! -user 0 -o ! -group 0"), "");
}

#[test]
fn an_archive_of_gnu_tar_is_unpacked_as_gnu_tar_would() {
    let (dir, mut host) = idle();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("d")).unwrap();
    fs::write(tree.join("d/f"), "content\n").unwrap();
    fs::hard_link(tree.join("d/f"), tree.join("hard")).unwrap();
    symlink("d/f", tree.join("soft")).unwrap();
    let name = "n".repeat(200);
    fs::write(tree.join(&name), "long\n").unwrap();
    for format in ["gnu", "pax", "ustar"] {
        let file = dir.path().join(format);
        let mut tar = Command::new("tar");
        tar.args([&format!("--format={format}"), "--owner=77", "--group=88", "--mtime=@1111111111", "--numeric-owner"]);
        if format == "ustar" {
            tar.arg(format!("--exclude={name}")); // it has no room for that
        }
        run(tar.arg("-cf").arg(&file).arg("-C").arg(dir.path()).arg("tree"));
        host.shell("rm -rf /in; mkdir /in");
        whole(&copy_in(&mut host, "/in", &fs::read(&file).unwrap(), true, false));
        let facts = host.shell(
            "cd /in/tree; stat -c '%F %u:%g %Y %h' d/f; cat hard; readlink soft; cat n* 2>/dev/null; stat -c %u:%g .",
        );
        let long = if format == "ustar" { "" } else { "long\n" };
        assert_eq!(facts, format!("regular file 77:88 1111111111 2\ncontent\nd/f\n{long}77:88\n"), "{format}");
    }
    // a file where a directory is, and the other way
    let archive = fs::read(dir.path().join("gnu")).unwrap();
    host.shell("rm -rf /in; mkdir -p /in/tree/hard/x; echo old >/in/tree/d");
    let ran = copy_in(&mut host, "/in", &archive, true, false);
    assert!(ran.exit.ending.code() != 0 && !ran.stderr.is_empty(), "{ran:?}");
    whole(&copy_in(&mut host, "/in", &archive, true, true));
    assert_eq!(host.shell("cat /in/tree/hard /in/tree/d/f"), "content\ncontent\n");
}

#[test]
fn what_cannot_be_copied_is_named() {
    let (_dir, mut host) = idle();
    let (archive, ran) = copy_out(&mut host, "/no/such/file");
    assert!(ran.exit.ending.code() != 0 && ran.stderr.contains("/no/such/file"), "{ran:?}");
    assert!(archive.is_empty());
    let ran = copy_in(&mut host, "/no/such/dir", &[0; 1024], true, false);
    assert!(ran.exit.ending.code() != 0 && ran.stderr.contains("/no/such/dir"), "{ran:?}");
    // cut off, or no archive at all
    for bytes in [&[0x55; 700][..], &[0x55; 4096], b"short"] {
        let ran = copy_in(&mut host, "/tmp", bytes, true, false);
        assert!(ran.exit.ending.code() != 0 && !ran.stderr.is_empty(), "{ran:?}");
    }
    host.shell("seq 1 100000 >/tmp/f");
    let (archive, ran) = copy_out(&mut host, "/tmp/f");
    whole(&ran);
    host.shell("mkdir /cut");
    let ran = copy_in(&mut host, "/cut", &archive[..archive.len() / 2], true, false);
    assert!(ran.exit.ending.code() != 0 && !ran.stderr.is_empty(), "{ran:?}");
}

#[test]
fn a_hostile_archive_stays_in_its_directory() {
    let (dir, mut host) = idle();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("f"), "evil\n").unwrap();
    let tar = |archive: &str, verb: &str, transform: &str, member: &str| {
        let mut command = Command::new("tar");
        command.args(["-P", "--owner=0", "--group=0", &format!("--transform={transform}"), verb]);
        run(command.arg(at(archive)).arg("-C").arg(dir.path()).arg(member));
    };
    tar("dots", "-cf", "s,^f$,../../evil,", "f");
    tar("absolute", "-cf", "s,^f$,/evil,", "f");
    tar("middle", "-cf", "s,^f$,a/../../../evil,", "f");
    // through a link that the archive brings
    symlink("/", at("root")).unwrap();
    tar("absolute-link", "-cf", "s,x,x,", "root");
    tar("absolute-link", "-rf", "s,^f$,root/evil,", "f");
    symlink("../..", at("up")).unwrap();
    tar("relative-link", "-cf", "s,x,x,", "up");
    tar("relative-link", "-rf", "s,^f$,up/evil,", "f");
    // a hard link to a file outside, and then a file of its name: the file outside would be written
    fs::hard_link(at("f"), at("g")).unwrap();
    for (name, target) in [("hard-absolute", "/etc/victim"), ("hard-dots", "../../etc/victim")] {
        let mut command = Command::new("tar");
        command.args(["-P", "--owner=0", "--group=0", &format!("--transform=s,^f$,{target},RSh"), "-cf"]);
        run(command.arg(at(name)).arg("-C").arg(dir.path()).args(["f", "g"]));
        tar(name, "-rf", "s,^f$,g,", "f");
    }
    host.shell("mkdir -p /jail/inner; echo unharmed >/etc/victim; ln -s /etc /jail/inner/there");
    let outside = "find / -xdev -path /jail/inner -prune -o -path /proc -prune -o -path /dev -prune -o -print | sort | sha256sum; cat /etc/victim";
    let before = host.shell(outside);
    for name in ["dots", "absolute", "middle", "absolute-link", "relative-link", "hard-absolute", "hard-dots"] {
        let archive = fs::read(at(name)).unwrap();
        for replace in [false, true] {
            let ran = copy_in(&mut host, "/jail/inner", &archive, true, replace);
            assert_eq!(host.shell(outside), before, "{name}: {ran:?}");
        }
    }
    // a link that the container itself has made is its own choice of a place
    tar("there", "-cf", "s,^f$,there/new,", "f");
    whole(&copy_in(&mut host, "/jail/inner", &fs::read(at("there")).unwrap(), true, false));
    assert_eq!(host.shell("cat /etc/new"), "evil\n");
}
