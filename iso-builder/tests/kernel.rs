//! `iso-builder kernel` without a compile: what is in the cache is found at once, what cannot be built is told why.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use iso_builder::digest;
use iso_builder::kernel::{build, config, store};

#[test]
fn a_kernel_in_the_cache_is_printed_and_nothing_is_built() {
    let Ok(compiler) = build::Compiler::find() else { return eprintln!("SKIPPED: no gcc and binutils") };
    let cache = tempfile::tempdir().unwrap();
    let source = cache.path().join("linux.tar.xz");
    fs::write(&source, b"not really").unwrap();
    let key = store::key(&digest::bytes(b"not really"), &config::merged(), &compiler.version);
    let image = cache.path().join("tether/kernel").join(key).join("bzImage");
    fs::create_dir_all(image.parent().unwrap()).unwrap();
    fs::write(&image, b"kernel").unwrap();
    fs::write(image.with_file_name("config"), config::merged() + config::REQUIRED).unwrap();

    let copy = cache.path().join("copy");
    let output = kernel(cache.path(), &["--source", source.to_str().unwrap(), "-o", copy.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}\n", image.display()));
    assert_eq!(output.stderr, b"");
    assert_eq!(fs::read(copy).unwrap(), b"kernel");
    assert!(cache.path().join("copy.config").exists());
}

#[test]
fn groups_are_listed_and_those_that_are_none_refused() {
    let cache = tempfile::tempdir().unwrap();
    let output = kernel(cache.path(), &["--list"]);
    let listing = String::from_utf8(output.stdout).unwrap();
    assert_eq!(listing.lines().filter(|line| !line.starts_with(' ')).count(), config::FRAGMENTS.len(), "{listing}");
    for (arguments, expected) in [
        (["--without", "vmwar"], "there is no fragment vmwar; there are base, abi,"),
        (["--without", "base"], "base is the machine itself"),
        (["--fragment", "./none.config"], "./none.config: No such file"),
    ] {
        let output = kernel(cache.path(), &arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn a_kernel_of_ones_own_is_told_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinuz-1");
    // a header, and a packed kernel of 8 bytes that nobody unpacks
    let mut bytes = vec![0; 1024];
    bytes[0x1f1] = 1;
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x24c] = 8;
    bytes.extend(b"\xfd7zXZ\0\0\0");
    fs::write(&path, bytes).unwrap();
    let check = |expected: &str, code: i32| {
        let output = kernel(dir.path(), &["--kernel", path.to_str().unwrap()]);
        let said = String::from_utf8(if code == 0 { output.stdout } else { output.stderr }).unwrap();
        assert!(output.status.code() == Some(code) && said.contains(expected), "{said}");
    };
    check("says nothing of its options (it is packed in XZ, which is not unpacked here): name its .config", 1);
    let config = dir.path().join("config-1");
    let all = config::merged() + config::REQUIRED;
    fs::write(&config, all.replace("CONFIG_OVERLAY_FS=y", "CONFIG_OVERLAY_FS=m")).unwrap();
    check("vmlinuz-1 lacks what a containerVM needs: CONFIG_OVERLAY_FS=y (it is a module, and PID 1 loads none)", 1);
    fs::write(&config, all).unwrap();
    check("has all that a containerVM needs, by the options in ", 0);
}

#[test]
fn another_release_is_refused_before_it_is_configured() {
    if !build::missing_packages().is_empty() {
        return eprintln!("SKIPPED: the kernel's build tools are not installed");
    }
    let cache = tempfile::tempdir().unwrap();
    let tree = cache.path().join("linux-5.4");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("Makefile"), "VERSION = 5\nPATCHLEVEL = 4\nSUBLEVEL = 1\n").unwrap();
    let source = cache.path().join("linux.tar");
    let tar = Command::new("tar").arg("-cf").arg(&source).arg("-C").arg(cache.path()).arg("linux-5.4").status();
    assert!(tar.unwrap().success());

    let output = kernel(cache.path(), &["--source", source.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("is Linux 5.4, and kernel-config/ is for 6.12"), "{stderr}");
    assert!(!cache.path().join("tether/kernel/.build").exists());
}

fn kernel(cache: &Path, args: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_iso-builder"));
    Command::new(program).arg("kernel").arg("--cache").arg(cache).args(args).output().unwrap()
}
