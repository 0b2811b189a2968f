//! What is mounted in the container: volumes, filled once; memory; file servers that do not answer. Where a link of the image leads, it leads within its root.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::process::Command;

use rig::disks::{Disks, assert_clean, debugfs};
use rig::images::run as tool;
use rig::machine::script;
use wire::spec::{LinkDevice, Mount, Source, Spec};

use crate::disks::{fails, label, prints};

pub(crate) fn mount(name: &str, source: Source, destination: &str) -> Mount {
    Mount { name: name.into(), source, destination: destination.into(), read_only: false, seed: true }
}

fn volume(name: &str, destination: &str) -> Mount {
    mount(name, Source::Disk(label(name)), destination)
}

fn with(mounts: Vec<Mount>, text: &str) -> Spec {
    Spec { mounts, ..script(LinkDevice::Virtio, text) }
}

/// A root disk of busybox and what is done to its files, and an empty volume of each name.
fn disks(change: impl FnOnce(&std::path::Path), volumes: &[&str]) -> Disks {
    let mut disks = Disks::new();
    change(&disks.busybox());
    disks.root();
    for name in volumes {
        let file = disks.ext4(name, None, 8);
        disks.scsi(&file, name, "");
    }
    disks
}

fn is_root(test: &str) -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        crate::skip(test, "only root makes devices, owners and trusted attributes");
    }
    root
}

#[test]
fn an_empty_volume_is_filled_once_with_all_that_the_image_has_there() {
    if !is_root("an_empty_volume_is_filled_once_with_all_that_the_image_has_there") {
        return;
    }
    let disks = disks(
        |root| {
            let data = root.join("data");
            fs::create_dir_all(data.join("sub/deep")).unwrap();
            fs::write(data.join("file"), "content\n").unwrap();
            fs::hard_link(data.join("file"), data.join("sub/same")).unwrap();
            symlink("../etc/passwd", data.join("link")).unwrap();
            tool(Command::new("mknod").arg(data.join("null")).args(["c", "1", "3"]));
            tool(Command::new("mkfifo").arg(data.join("pipe")));
            fs::set_permissions(data.join("file"), fs::Permissions::from_mode(0o4751)).unwrap();
            chown(data.join("sub"), Some(1000), Some(2000)).unwrap();
            chown(&data, Some(70), Some(71)).unwrap();
            fs::set_permissions(&data, fs::Permissions::from_mode(0o2750)).unwrap();
        },
        &["vol"],
    );
    debugfs(&disks.path("containerfs.ext4"), "ea_set data/file user.note kept");
    let look = "cd /data; stat -c '%n %F %a %u:%g %h' . file sub sub/same link null pipe; cat file; readlink link";
    let printed = prints(&with(vec![volume("vol", "/data")], look), &disks);
    let expected = ". directory 2750 70:71 4\nfile regular file 4751 0:0 2\nsub directory 755 1000:2000 3\n\
                    sub/same regular file 4751 0:0 2\nlink symbolic link 777 0:0 1\n\
                    null character special file 644 0:0 1\npipe fifo 644 0:0 1\ncontent\n../etc/passwd\n";
    assert_eq!(printed, expected);
    let disk = disks.path("vol.ext4");
    assert_clean(&disk);
    assert!(debugfs(&disk, "ea_list file").contains("user.note (4) = \"kept\""));
    // what its owner changes stays changed, also when nothing is left
    let change = with(vec![volume("vol", "/data")], "cd /data; rm -rf file sub link null pipe; ls");
    assert_eq!(prints(&change, &disks), "lost+found\n");
    assert_eq!(prints(&with(vec![volume("vol", "/data")], "ls /data"), &disks), "lost+found\n");
}

#[test]
fn what_a_power_cut_left_half_filled_is_filled_again() {
    let disks = disks(
        |root| {
            fs::create_dir_all(root.join("data/sub")).unwrap();
            fs::write(root.join("data/sub/file"), "whole\n").unwrap();
        },
        &["vol"],
    );
    let disk = disks.path("vol.ext4");
    for command in ["ea_set / trusted.tether.seed begun", "mkdir sub", "mkdir sub/half", "write /etc/passwd sub/file"] {
        debugfs(&disk, command);
    }
    let spec = with(vec![volume("vol", "/data")], "cd /data; find . -type f | xargs cat; find . | sort");
    assert_eq!(prints(&spec, &disks), "whole\n.\n./lost+found\n./sub\n./sub/file\n");
    assert_clean(&disk);
    assert!(debugfs(&disk, "ea_get / trusted.tether.seed").contains("done"));
}

#[test]
fn a_volume_with_files_and_one_that_says_nocopy_stay_as_they_are() {
    let disks = disks(
        |root| {
            for name in ["data", "other"] {
                fs::create_dir(root.join(name)).unwrap();
                fs::write(root.join(name).join("image"), "x").unwrap();
            }
        },
        &["full", "bare"],
    );
    debugfs(&disks.path("full.ext4"), "write /etc/passwd mine");
    let bare = Mount { seed: false, ..volume("bare", "/other") };
    let spec = with(vec![volume("full", "/data"), bare], "cd /data; echo *; cd /other; echo *");
    assert_eq!(prints(&spec, &disks), "lost+found mine\nlost+found\n");
}

#[test]
fn nested_volumes_in_any_order_get_what_the_image_has() {
    let disks = disks(
        |root| {
            fs::create_dir_all(root.join("a/b/c")).unwrap();
            for path in ["a/1", "a/b/2", "a/b/c/3"] {
                fs::write(root.join(path), "x").unwrap();
            }
        },
        &["va", "vb", "vc"],
    );
    let mounts = vec![volume("vc", "/a/b/c"), volume("va", "/a"), volume("vb", "/a/b")];
    let script = "cd /a; find . | grep -v lost | sort; grep -o ' /a[^ ]*' /proc/mounts | sort; touch b/c/deep";
    let expected = ".\n./1\n./b\n./b/2\n./b/c\n./b/c/3\n /a\n /a/b\n /a/b/c\n";
    assert_eq!(prints(&with(mounts, script), &disks), expected);
    // each is its own
    for (disk, there, hidden) in [("va", "1", "b/c/deep"), ("vb", "2", "c/deep"), ("vc", "deep", "b")] {
        let disk = disks.path(&format!("{disk}.ext4"));
        assert_clean(&disk);
        assert!(debugfs(&disk, &format!("stat {there}")).contains("Inode"));
        assert!(!debugfs(&disk, &format!("stat {hidden}")).contains("Inode"));
    }
    // the image has lost nothing and got nothing
    assert!(debugfs(&disks.path("containerfs.ext4"), "stat a/b/c/3").contains("Inode"));
    assert!(!debugfs(&disks.path("containerfs.ext4"), "stat a/b/c/deep").contains("Inode"));
}

#[test]
fn a_read_only_volume_is_filled_and_then_takes_no_write() {
    let disks = disks(
        |root| {
            fs::create_dir(root.join("data")).unwrap();
            fs::write(root.join("data/image"), "x").unwrap();
        },
        &["vol"],
    );
    let read_only = Mount { read_only: true, ..volume("vol", "/data") };
    let write = "ls /data; (echo x > /data/y) 2>&1 | grep -o 'Read-only.*'";
    let spec = with(vec![read_only.clone()], write);
    assert_eq!(prints(&spec, &disks), "image\nlost+found\nRead-only file system\n");
    let disk = disks.path("vol.ext4");
    let before = fs::read(&disk).unwrap();
    assert_eq!(prints(&spec, &disks), "image\nlost+found\nRead-only file system\n");
    assert!(fs::read(&disk).unwrap() == before, "not a byte of it is written");
    // one disk, at two places
    let mounts = vec![read_only, Mount { name: "twice".into(), ..volume("vol", "/twice") }];
    let printed = prints(&with(mounts, &format!("{write}; echo x > /twice/y; ls /data")), &disks);
    assert_eq!(printed, "image\nlost+found\nRead-only file system\nimage\nlost+found\ny\n");
    assert_clean(&disk);
}

#[test]
fn a_write_protected_volume_is_an_error_unless_it_is_read_only() {
    let mut disks = disks(|_| {}, &[]);
    let file = disks.ext4("fixed", None, 2);
    debugfs(&file, "write /etc/passwd there");
    disks.scsi(&file, "fixed", ",readonly=on");
    let reason = "the disk sdb cannot be written, and the spec wants to: mount it read-only, or attach it writable";
    assert_eq!(fails(&with(vec![volume("fixed", "/data")], "true"), &disks), reason);
    let read_only = Mount { read_only: true, ..volume("fixed", "/data") };
    assert_eq!(prints(&with(vec![read_only], "ls /data"), &disks), "lost+found\nthere\n");
}

#[test]
fn a_link_of_the_image_leads_within_its_root() {
    let disks = disks(
        |root| {
            fs::create_dir(root.join("real")).unwrap();
            fs::write(root.join("real/image"), "x").unwrap();
            for (link, target) in [
                ("abs", "/real"),
                ("up", "../../../../up-target"),
                ("own", "/../../../dev"),
                ("etc/hosts", "/../../../../etc/elsewhere"),
            ] {
                symlink(target, root.join(link)).unwrap();
            }
        },
        &["one", "two", "three"],
    );
    let mounts = vec![volume("one", "/abs"), volume("two", "/up/deep"), volume("three", "/own/inside")];
    let script = "ls /real; cut -d' ' -f2 /proc/mounts | grep -E 'real|up-|inside'; grep -c localhost /etc/elsewhere; readlink /etc/hosts";
    let expected = "image\nlost+found\n/dev/inside\n/real\n/up-target/deep\n2\n/../../../../etc/elsewhere\n";
    let printed = prints(&with(mounts, script), &disks);
    let mut lines: Vec<&str> = printed.lines().collect();
    lines[2..5].sort_unstable();
    assert_eq!(lines.join("\n") + "\n", expected);
    let reason = |link: &str| {
        let change = |root: &std::path::Path| symlink(link, root.join("data")).unwrap();
        fails(&with(vec![volume("one", "/data")], "true"), &self::disks(change, &["one"]))
    };
    let kernels = "cannot mount one on /data: the image's links lead to /, /proc, /sys or /dev";
    assert_eq!(reason("/proc"), kernels);
    assert_eq!(reason("../.."), kernels);
    assert_eq!(reason("data"), "cannot mount one on /data: Symbolic link loop (os error 40)");
    assert_eq!(reason("/etc/passwd"), "cannot mount one on /data: Not a directory (os error 20)");
}

#[test]
fn memory_has_the_size_and_mode_that_it_was_given() {
    let disks = disks(|_| {}, &[]);
    let memory = |size, mode, exec| Source::Memory { size, mode, exec };
    let mounts = vec![
        mount("small", memory(1 << 20, 0o750, false), "/run/small"),
        mount("exec", memory(0, 0o1777, true), "/exec"),
        Mount { read_only: true, ..mount("fixed", memory(0, 0o755, false), "/fixed") },
    ];
    let mounts = mounts.into_iter().map(|mount| Mount { seed: false, ..mount }).collect();
    let script = "stat -c '%a' /run/small /exec; dd if=/dev/zero of=/run/small/x bs=1k count=4096 2>/dev/null; stat -c %s /run/small/x
        for dir in /run/small /exec; do rm -f $dir/*; cp /bin/busybox $dir/true 2>/dev/null || echo '#!/bin/true' > $dir/true; chmod +x $dir/true; $dir/true 2>/dev/null && echo $dir runs; done
        touch /fixed/x 2>&1 | grep -o 'Read-only.*'; grep -E ' /(run/small|exec|fixed) ' /proc/mounts | cut -d' ' -f2,4 | sed 's/,size=.*//; s/,mode=.*//' | sort";
    let expected = "750\n1777\n1048576\n/exec runs\nRead-only file system\n\
                    /exec rw,nosuid,nodev,relatime\n/fixed ro,nosuid,nodev,noexec,relatime\n/run/small rw,nosuid,nodev,noexec,relatime\n";
    assert_eq!(prints(&with(mounts, script), &disks), expected);
}

#[test]
fn a_volume_on_etc_keeps_its_files_and_shows_ours() {
    let disks = disks(|root| fs::write(root.join("etc/own"), "image\n").unwrap(), &["vol"]);
    let spec = with(vec![volume("vol", "/etc")], "cat /etc/own /etc/hostname; echo changed > /etc/own");
    assert_eq!(prints(&spec, &disks), "image\nrig\n");
    assert_eq!(prints(&spec, &disks), "changed\nrig\n");
    let disk = disks.path("vol.ext4");
    assert_clean(&disk);
    assert_eq!(debugfs(&disk, "cat hostname"), "", "what is ours is in nobody's volume");
}

#[test]
fn a_volume_of_the_original_system_hides_lost_and_found() {
    let disks = disks(|_| {}, &["vol"]);
    let disk = disks.path("vol.ext4");
    debugfs(&disk, "mkdir .vic.vol.data");
    let spec = with(vec![volume("vol", "/data")], "ls -A /data; echo x > /data/new");
    assert_eq!(prints(&spec, &disks), "");
    assert_eq!(debugfs(&disk, "cat .vic.vol.data/new"), "x\n");
    assert_eq!(prints(&spec, &disks), "new\n");
    assert_clean(&disk);
}
