//! An image's layers as disks of their own: the container sees what it would see on one merged disk, and images share what they have in common.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use rig::images::run as tool;
use rig::layers::Layers;
use rig::vch::{Run, run};

/// Every file with its type, mode, owner, links of a symlink and content.
const EVERYTHING: &str = "for dir in /bin /etc /srv /usr /var /opt; do [ -e $dir ] && find $dir; done | grep -v ^/etc/host | grep -v ^/etc/resolv | \
     sort | while read -r f; do stat -c '%n %F %a %u:%g %N' \"$f\"; [ ! -f \"$f\" ] || md5sum <\"$f\"; done";

fn vch(options: &[&str], image: &Path, cache: &Path, script: &str) -> Run {
    let words = ["--rm", "--network", "none"].iter().chain(options).map(OsStr::new);
    let command = ["sh", "-c", script].map(OsStr::new);
    // a cache of its own holds no decision about KVM
    run(words.chain([image.as_os_str()]).chain(command)).env("XDG_CACHE_HOME", cache).env("VCH_ACCEL", "tcg")
}

#[test]
fn layers_look_like_a_merged_disk() {
    let cache = tempfile::tempdir().unwrap();
    let mut layers = Layers::over_busybox();
    layers.add(|root| {
        for dir in ["srv/kept/deep", "srv/gone", "srv/opaque/old", "usr/lib", "opt"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::write(root.join("srv/kept/deep/a"), "1").unwrap();
        fs::write(root.join("srv/gone/b"), "2").unwrap();
        fs::write(root.join("srv/opaque/old/c"), "3").unwrap();
        fs::write(root.join("srv/changed"), "4").unwrap();
        fs::hard_link(root.join("srv/changed"), root.join("srv/link")).unwrap();
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
        fs::write(root.join("opt/file"), "was a file").unwrap();
    });
    layers.add(|root| {
        for dir in ["srv/opaque", "lib", "opt/file"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::write(root.join("srv/.wh.gone"), "").unwrap();
        fs::write(root.join("srv/opaque/.wh..wh..opq"), "").unwrap();
        fs::write(root.join("srv/opaque/new"), "5").unwrap();
        fs::write(root.join("srv/changed"), "6").unwrap();
        fs::write(root.join("opt/file/in"), "now a directory").unwrap();
    });
    // not in a folder `lib`, which would replace the link: its file only, as some builders have it
    layers.add_tar(|path| {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lib")).unwrap();
        fs::write(dir.path().join("lib/through"), "the link").unwrap();
        tool(Command::new("tar").arg("-cf").arg(path).arg("-C").arg(dir.path()).arg("lib/through"));
    });
    let image = layers.archive("image.tar");
    let merged = vch(&[], &image, cache.path(), EVERYTHING).output().success();
    let layered = vch(&["--disk", "layers"], &image, cache.path(), EVERYTHING).output().success();
    for line in ["/srv/kept/deep/a regular file", "/srv/opaque/new regular file", "/opt/file/in regular file"] {
        assert!(merged.contains(line), "{line} is not in {merged}");
    }
    assert!(!merged.contains("/srv/gone") && !merged.contains("/srv/opaque/old"), "{merged}");
    assert_eq!(layered, merged);

    // what it writes lands in the thin disk: the next container has the image's files again
    let script = "rm -r /srv/kept; echo mine > /srv/changed; mkdir /new; ls /srv";
    let seen = vch(&["--disk", "layers"], &image, cache.path(), script).output().success();
    assert_eq!(seen, "changed\nlink\nopaque\n");
    assert_eq!(vch(&["--disk", "layers"], &image, cache.path(), EVERYTHING).output().success(), merged);
}

#[test]
fn forty_layers_and_those_that_two_images_share() {
    let cache = tempfile::tempdir().unwrap();
    let mut layers = Layers::over_busybox();
    for number in 1..40 {
        layers.add(|root| {
            fs::create_dir_all(root.join("srv/all")).unwrap();
            fs::write(root.join(format!("srv/all/{number}")), number.to_string()).unwrap();
            fs::write(root.join("srv/which"), number.to_string()).unwrap();
        });
    }
    let script = "ls /srv/all | wc -l; cat /srv/which";
    let output = vch(&["--disk", "layers"], &layers.archive("forty.tar"), cache.path(), script).output();
    println!("first output after {:?}", output.first_byte);
    assert_eq!(output.success(), "39\n39");

    let disks = || {
        let entries = fs::read_dir(cache.path().join("tether/disks")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("layer-") && name.ends_with(".raw")).count()
    };
    assert_eq!(disks(), 40);
    layers.add(|root| fs::write(root.join("more"), "more").unwrap());
    let image = layers.archive("more.tar");
    let output = vch(&["--disk", "layers"], &image, cache.path(), "cat /more /srv/which").output();
    assert_eq!(output.success(), "more39");
    assert_eq!(disks(), 41, "only what is new was made");
}
