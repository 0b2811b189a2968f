//! What `docker volume create -o` asks for: a disk of a size, memory, or a directory of a file server, in the words of docker's own driver.

use std::collections::BTreeMap;

use crate::cli::run::disks::{TmpfsArg, tmpfs};
use crate::size;

/// Options by name.
pub(crate) type Options = BTreeMap<String, String>;

/// What a volume is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A disk of so many bytes; none: of the usual size.
    Disk(Option<u64>),
    /// Memory, which each machine has for itself.
    Memory { size: u64, mode: u32, exec: bool },
    /// A directory of a file server, which the guests themselves mount.
    Server { host: String, path: String, options: String },
}

/// Reads the options; an error is a sentence.
pub(crate) fn kind(options: &Options) -> Result<Kind, String> {
    if let Some(unknown) = options.keys().find(|name| !["size", "type", "o", "device"].contains(&name.as_str())) {
        return Err(format!("invalid option: {unknown:?}"));
    }
    let option = |name: &str| options.get(name).map(String::as_str).unwrap_or_default();
    let size = match option("size") {
        "" => None,
        text => Some(size::bytes(text).map_err(|why| format!("invalid size: {text:?}: {why}"))?),
    };
    if let Some(size) = size.filter(|size| *size < LEAST) {
        return Err(format!("invalid size: {size} bytes hold no file system: at least {LEAST} are needed"));
    }
    match (option("type"), size) {
        ("", size) if option("o").is_empty() && option("device").is_empty() => Ok(Kind::Disk(size)),
        ("tmpfs", None) => {
            let TmpfsArg { size, mode, exec, .. } = tmpfs(&format!("/volume:{}", option("o")))?;
            Ok(Kind::Memory { size, mode, exec })
        }
        ("nfs" | "nfs4", None) => server(option("type"), option("o"), option("device")),
        ("tmpfs" | "nfs" | "nfs4", Some(_)) => {
            Err("size is for volumes on disks: leave it out, or leave out type".into())
        }
        ("none" | "bind", _) => {
            Err("type=none binds a directory of the host, and a virtual machine shares none: leave out \
            type, o and device for a disk of its own"
                .into())
        }
        ("", _) => Err("missing required option: \"type\"".into()),
        (other, _) => Err(format!(
            "type={other}: a volume of a virtual machine is a disk (no type), memory (type=tmpfs) or a directory of a \
             file server (type=nfs)"
        )),
    }
}

/// `o=addr=10.0.0.1,rw,nfsvers=4` and `device=:/path`, as docker's driver wants them.
fn server(kind: &str, options: &str, device: &str) -> Result<Kind, String> {
    let (before, path) = device.split_once(':').ok_or("missing device in volume options: write device=:/path")?;
    let fields: Vec<&str> = options.split(',').filter(|option| !option.is_empty()).collect();
    let address = fields.iter().find_map(|option| option.strip_prefix("addr="));
    let host = address.unwrap_or(before);
    if host.is_empty() {
        return Err("missing address of the file server: write o=addr=ADDRESS".into());
    }
    if !path.starts_with('/') {
        return Err(format!("device={device}: the directory needs to be an absolute path: write device=:/path"));
    }
    let mut options: Vec<&str> = fields.iter().copied().filter(|option| !option.starts_with("addr=")).collect();
    let says_version = options.iter().any(|option| option.starts_with("vers=") || option.starts_with("nfsvers="));
    if kind == "nfs4" && !says_version {
        options.push("vers=4");
    }
    Ok(Kind::Server { host: host.into(), path: path.into(), options: options.join(",") })
}

/// Bytes that a file system with a journal takes at least.
const LEAST: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Kind, String> {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        kind(&pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn disks_memory_and_servers() {
        assert_eq!(read(""), Ok(Kind::Disk(None)));
        assert_eq!(read("size=10g"), Ok(Kind::Disk(Some(10 << 30))));
        let memory = Kind::Memory { size: 1 << 20, mode: 0o700, exec: false };
        assert_eq!(read("type=tmpfs device=tmpfs o=size=1m,mode=700"), Ok(memory));
        let server =
            |options: &str| Kind::Server { host: "10.0.0.1".into(), path: "/srv".into(), options: options.into() };
        assert_eq!(read("type=nfs o=addr=10.0.0.1,rw device=:/srv"), Ok(server("rw")));
        assert_eq!(read("type=nfs4 device=10.0.0.1:/srv"), Ok(server("vers=4")));
    }

    #[test]
    fn what_a_virtual_machine_cannot_have_is_refused() {
        for (text, why) in [
            ("colour=red", "invalid option: \"colour\""),
            ("size=x", "invalid size: \"x\""),
            ("size=1k", "hold no file system"),
            ("type=none o=bind device=/srv", "shares none"),
            ("o=bind", "missing required option"),
            ("type=btrfs device=/dev/sda1", "type=btrfs"),
            ("type=nfs device=:/srv", "missing address"),
            ("type=nfs o=addr=a device=/srv", "missing device"),
            ("type=tmpfs size=1g", "leave it out"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
