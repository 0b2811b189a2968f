//! Kernel parameters: the files below /proc/sys, by the names of sysctl(8).
//!
//! They are reached through the /proc that only PID 1 sees, from [`open`] on: in the container's they are read-only.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::sync::OnceLock;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

static ROOT: OnceLock<File> = OnceLock::new();

/// Remembers where they are, as long as it is in sight.
pub fn open() -> io::Result<()> {
    let root = File::open("/proc/sys")?;
    // a second one would be the same
    let _first = ROOT.set(root);
    Ok(())
}

/// Sets one. An unknown name is `NotFound`.
pub fn set(name: &str, value: &str) -> io::Result<()> {
    file(name, OFlag::O_WRONLY)?.write_all(value.as_bytes())
}

/// Its value, without the line's end.
pub fn get(name: &str) -> io::Result<String> {
    let mut text = String::new();
    file(name, OFlag::O_RDONLY)?.read_to_string(&mut text)?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

fn file(name: &str, flags: OFlag) -> io::Result<File> {
    let root = ROOT.get().ok_or(io::ErrorKind::NotConnected)?;
    let path = path(name);
    if path.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(openat(root, path.as_str(), flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())?.into())
}

/// The path of a name. Its parts are separated by `.`, and a `/` stands for a `.` within one; or the other way round, if a `/` comes first: sysctl(8).
pub fn path(name: &str) -> String {
    match name.find(['.', '/']).map(|at| &name[at..=at]) {
        Some(".") => name
            .chars()
            .map(|char| {
                if char == '.' {
                    '/'
                } else if char == '/' {
                    '.'
                } else {
                    char
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths_as_sysctl_has_them() {
        for (name, expected) in [
            ("net.core.somaxconn", "net/core/somaxconn"),
            ("net/core/somaxconn", "net/core/somaxconn"),
            ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
            ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
            ("dev", "dev"),
        ] {
            assert_eq!(path(name), expected);
        }
    }

    #[test]
    fn parameters_are_read_and_the_unknown_are_not_there() {
        open().unwrap();
        assert_eq!(get("kernel.ostype").unwrap(), "Linux");
        for name in ["kernel.nosuch", "no.such", "kernel", "..", "kernel/../kernel/ostype", "/etc/passwd", ""] {
            assert!(set(name, "1").is_err(), "{name}");
        }
        assert_eq!(set("kernel.nosuch", "1").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
