//! Small files that an image brings, read without being led out of it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Longer ones are cut off: who reads them all has to keep them.
const LONGEST: u64 = 256 * 1024;

/// The text of a file below `root`, empty where there is none. Links are followed as if `root` were the root: openat2(2).
pub fn text(root: &Path, path: &str) -> String {
    let read = || {
        let root = File::open(root).ok()?;
        // a pipe in its place must not hold anybody up
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let file = File::from(openat2(&root, path, how).ok()?);
        let mut bytes = Vec::new();
        file.metadata().ok()?.is_file().then_some(())?;
        file.take(LONGEST).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside() {
        let root = std::env::temp_dir().join(format!("tether-image-{}", std::process::id()));
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/real"), "inside").unwrap();
        symlink("/etc/real", root.join("etc/link")).unwrap();
        symlink("../../../../../../etc/hostname", root.join("etc/out")).unwrap();
        nix::unistd::mkfifo(&root.join("etc/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let read = |path| text(&root, path);
        let all = ["etc/real", "etc/link", "etc/out", "etc/pipe", "etc", "etc/none"].map(read);
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(all, ["inside", "inside", "", "", "", ""]);
    }
}
