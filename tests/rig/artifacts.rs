//! Where programs and images lie: cargo's release folder, `dist/`, the cache.

use std::path::{Path, PathBuf};

/// The checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the workspace")
}

/// A release program: `vch`, `tether`, `iso-builder`, `appliance-init`, `vmx-double`. One that lies in the folder `TETHER_PROGRAMS` comes first: a build for
/// debugging, say.
pub fn program(name: &str) -> PathBuf {
    let preferred = std::env::var_os("TETHER_PROGRAMS").map(|dir| PathBuf::from(dir).join(name));
    if let Some(program) = preferred.filter(|program| program.exists()) {
        return program;
    }
    made(root().join("target/x86_64-unknown-linux-musl/release").join(name))
}

/// An image that `./dev build` makes: `kernel`, `initramfs`, `bootstrap.iso`, `busybox.tar`.
pub fn dist(name: &str) -> PathBuf {
    made(root().join("dist").join(name))
}

/// Debian with Python, as a docker archive. Made once, by `./dev test`.
pub fn debian() -> PathBuf {
    cached("images/debian.tar")
}

/// nginx, redis and postgresql out of Debian's packages, as a docker archive. Made once, by `./dev test`.
pub fn services() -> PathBuf {
    cached("images/services.tar")
}

/// What is made once.
fn cached(name: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).expect("HOME is set");
    made(cache.join("tether").join(name))
}

fn made(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: ./dev test makes it", path.display());
    path
}
