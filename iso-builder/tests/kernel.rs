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

    let copy = cache.path().join("copy");
    let output = kernel(cache.path(), &["--source", source.to_str().unwrap(), "-o", copy.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}\n", image.display()));
    assert_eq!(output.stderr, b"");
    assert_eq!(fs::read(copy).unwrap(), b"kernel");
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
