//! How the static program is linked: without what takes room and has no use in PID 1. Programs for tests are linked as usual.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=discard.ld");
    if env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("musl") {
        let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{here}/discard.ld,--no-eh-frame-hdr");
        // a list of what to relocate that is 50 times as short; the C library reads it since musl 1.2.4
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
