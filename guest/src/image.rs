//! What an image brings, reached without being led out of it: by its links, or by the kernel's own in /proc, which for PID 1 lead to all that it has open.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag};

use crate::within::{Made, open_below, reach};

/// Longer ones are cut off: who reads them all has to keep them.
const LONGEST: u64 = 256 * 1024;

/// Opens a file below `root` to be read. Links are followed as if `root` were the root: openat2(2).
pub fn open(root: &Path, path: &str) -> io::Result<File> {
    let root = File::open(root)?;
    // a pipe in its place must not hold anybody up
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    Ok(open_below(root.as_fd(), path.as_bytes(), flags, ResolveFlag::RESOLVE_IN_ROOT)?.into())
}

/// Makes a directory below `root`, and those on the way, where there are none. Nothing is made in what the kernel shows there.
pub fn make_dir(root: &Path, path: &str) -> io::Result<()> {
    match reach(File::open(root)?.as_fd(), path, Made::Directory) {
        Err(Errno::EPERM) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// The text of a file below `root`, empty where there is none.
pub fn text(root: &Path, path: &str) -> String {
    let read = || {
        let file = open(root, path).ok()?;
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
