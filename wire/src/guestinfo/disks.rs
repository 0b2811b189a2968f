//! The keys of the container's root and of what is mounted in it.
//!
//! A mount's source is written as VIC wrote it, as the parts of a URL. VIC knew `label` and `nfs`; `serial`, `uuid` and `tmpfs` are ours, as are the keys
//! below `root` and `tmpfs`.

use super::SpecError;
use super::node::{Node, Writer};
use crate::spec::{DiskId, Mount, Root, Source, Spec, Top};

const DISK: &str = "a disk: `label:` and at most 16 bytes, `serial:` and its text, or `uuid:` and 36 characters";
/// VIC's CopyNever and CopyNew.
const NEVER: &str = "1";
const ONCE: &str = "2";

pub(super) fn read_root(root: &Node<'_>) -> Result<Root, SpecError> {
    let mut layers = Vec::new();
    for text in root.list("root/layers")? {
        let layer = read_disk(&text).ok_or_else(|| root.invalid("root/layers", &text, DISK))?;
        if layers.contains(&layer) {
            return Err(root.invalid("root/layers", &text, "listed once"));
        }
        layers.push(layer);
    }
    let top = match root.filled("root/top") {
        None => Top::Memory(0),
        Some(text) if layers.is_empty() => {
            return Err(root.invalid("root/top", &text, "possible without root/layers: a merged disk has no top"));
        }
        Some(text) => {
            let memory = text.strip_prefix("memory");
            let size = memory.and_then(|rest| match rest.strip_prefix(':') {
                Some(size) => size.parse().ok(),
                None => rest.is_empty().then_some(0),
            });
            match (size, read_disk(&text)) {
                (Some(size), _) => Top::Memory(size),
                (None, Some(disk)) if !layers.contains(&disk) => Top::Disk(disk),
                (None, Some(_)) => return Err(root.invalid("root/top", &text, "a disk that is no layer")),
                (None, None) => {
                    return Err(root.invalid("root/top", &text, "`memory`, `memory:` and bytes, or a disk"));
                }
            }
        }
    };
    Ok(Root { layers, top, read_only: root.flag("root/readonly", false)? })
}

pub(super) fn read_mounts(root: &Node<'_>) -> Result<Vec<Mount>, SpecError> {
    let mut mounts: Vec<Mount> = Vec::new();
    for name in root.names("mounts")? {
        let node = root.below(&format!("mounts|{name}"));
        let mount = read_mount(&node, name)?;
        if mounts.iter().any(|other| other.destination == mount.destination) {
            return Err(node.invalid("dest", &mount.destination, "another mount's destination as well"));
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

fn read_mount(node: &Node<'_>, name: String) -> Result<Mount, SpecError> {
    let destination = node.required("dest")?;
    if !is_destination(&destination) {
        let expected = "an absolute path without `.`, `..` and `//`, outside of /proc and /sys, and neither / nor /dev";
        return Err(node.invalid("dest", &destination, expected));
    }
    let scheme = node.required("source/Scheme")?;
    let path = node.text("source/Path").unwrap_or_default();
    let mut mode = Mode::default();
    let text = node.text("mode").unwrap_or_default();
    let (source, seeded) = match scheme.as_str() {
        "nfs" => {
            let host = node.filled("source/Host").ok_or_else(|| node.missing("source/Host"))?;
            if !path.starts_with('/') {
                return Err(node.invalid("source/Path", &path, "an absolute path"));
            }
            let options: Vec<&str> = text.split(',').filter(|word| !mode.takes(word)).collect();
            (Source::Nfs { host, path, options: options.join(",") }, false)
        }
        "tmpfs" => {
            let octal = |text: &str| u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            let source = Source::Memory {
                size: node.parsed("tmpfs/size", "a number of bytes", |text| text.parse().ok())?.unwrap_or(0),
                mode: node.parsed("tmpfs/mode", "permissions in octal", octal)?.unwrap_or(0o1777),
                exec: node.flag("tmpfs/exec", false)?,
            };
            (source, false)
        }
        _ => {
            let schemes = "`label`, `serial`, `uuid`, `nfs` or `tmpfs`";
            let disk = match scheme.as_str() {
                "label" | "serial" | "uuid" => read_disk(&format!("{scheme}:{path}")),
                _ => return Err(node.invalid("source/Scheme", &scheme, schemes)),
            };
            (Source::Disk(disk.ok_or_else(|| node.invalid("source/Path", &path, "what a disk can have"))?), true)
        }
    };
    let known = text.split(',').fold(true, |known, word| known & (mode.takes(word) || word.is_empty()));
    if mode.is_contradictory() || !known && !matches!(source, Source::Nfs { .. }) {
        return Err(node.invalid("mode", &text, "`rw` or `ro`, and `nocopy`"));
    }
    let seed = match node.filled("copymode").as_deref() {
        None => seeded && !mode.never_seed,
        Some(NEVER) => false,
        Some(ONCE) if !mode.never_seed && !matches!(source, Source::Memory { .. }) => true,
        Some(other) => return Err(node.invalid("copymode", other, "1, or 2 for what can be filled")),
    };
    Ok(Mount { name, source, destination, read_only: mode.read_only, seed })
}

/// What a docker's mode says.
#[derive(Default)]
struct Mode {
    read_only: bool,
    writable: bool,
    never_seed: bool,
}

impl Mode {
    /// False for a word that is none of docker's.
    fn takes(&mut self, word: &str) -> bool {
        match word {
            "ro" => self.read_only = true,
            "rw" => self.writable = true,
            "nocopy" => self.never_seed = true,
            _ => return false,
        }
        true
    }

    fn is_contradictory(&self) -> bool {
        self.read_only && self.writable
    }
}

fn is_destination(path: &str) -> bool {
    let Some(inside) = path.strip_prefix('/') else { return false };
    let mut components = inside.split('/');
    let first = components.clone().next();
    components.all(|component| !matches!(component, "" | "." | "..") && !component.contains('\0'))
        && !matches!(first, Some("proc" | "sys"))
        && inside != "dev"
}

fn read_disk(text: &str) -> Option<DiskId> {
    let (kind, value) = text.split_once(':')?;
    // what a superblock has room for
    const LABEL: usize = 16;
    match kind {
        "label" if (1..=LABEL).contains(&value.len()) => Some(DiskId::Label(value.into())),
        "serial" if !value.is_empty() => Some(DiskId::Serial(value.into())),
        "uuid" => {
            let mut chars = value.chars().enumerate();
            let is_uuid = value.len() == 36
                && chars.all(|(at, char)| match at {
                    8 | 13 | 18 | 23 => char == '-',
                    _ => char.is_ascii_hexdigit(),
                });
            is_uuid.then(|| DiskId::Uuid(value.to_ascii_lowercase()))
        }
        _ => None,
    }
}

fn disk_text(id: &DiskId) -> String {
    let (kind, value) = id.parts();
    format!("{kind}:{value}")
}

pub(super) fn write(keys: &mut Writer<'_>, spec: &Spec) {
    let layers: Vec<String> = spec.root.layers.iter().map(disk_text).collect();
    keys.list("root/layers", &layers);
    if !layers.is_empty() {
        match &spec.root.top {
            Top::Disk(id) => keys.set("root/top", &disk_text(id)),
            Top::Memory(0) => keys.set("root/top", "memory"),
            Top::Memory(size) => keys.set("root/top", &format!("memory:{size}")),
        }
    }
    if spec.root.read_only {
        keys.flag("root/readonly", true);
    }
    keys.names("mounts", spec.mounts.iter().map(|mount| mount.name.as_str()));
    for mount in &spec.mounts {
        write_mount(&mut keys.below(&format!("mounts|{}", mount.name)), mount);
    }
}

fn write_mount(keys: &mut Writer<'_>, mount: &Mount) {
    let access = if mount.read_only { "ro" } else { "rw" };
    keys.set("dest", &mount.destination);
    keys.set("copymode", if mount.seed { ONCE } else { NEVER });
    match &mount.source {
        Source::Disk(id) => {
            let (kind, value) = id.parts();
            keys.set("source/Scheme", kind);
            keys.set("source/Path", value);
            keys.set("mode", access);
        }
        Source::Nfs { host, path, options } => {
            keys.set("source/Scheme", "nfs");
            keys.set("source/Host", host);
            keys.set("source/Path", path);
            let comma = if options.is_empty() { "" } else { "," };
            keys.set("mode", &format!("{options}{comma}{access}"));
        }
        Source::Memory { size, mode, exec } => {
            keys.set("source/Scheme", "tmpfs");
            keys.set("tmpfs/size", &size.to_string());
            keys.set("tmpfs/mode", &format!("{mode:o}"));
            keys.flag("tmpfs/exec", *exec);
            keys.set("mode", access);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::LinkKey;
    use crate::spec::{LinkDevice, LinkSpec, Process, SPEED};
    use crate::vmx::Dictionary;

    fn spec() -> Spec {
        let device = LinkDevice::Virtio;
        let link = LinkSpec { device, key: LinkKey::new([0x5a; 32]), sealed: true, speed: SPEED };
        let mount = |name: &str, source, read_only, seed| Mount {
            name: name.into(),
            source,
            destination: format!("/srv/{name}"),
            read_only,
            seed,
        };
        let uuid = "0f3c2a8e-1111-4222-8333-0123456789ab";
        let nfs = |options: &str| Source::Nfs { host: "files".into(), path: "/a|b".into(), options: options.into() };
        let root = Root {
            layers: vec![DiskId::Serial("base:1".into()), DiskId::Label("two".into()), DiskId::Uuid(uuid.into())],
            top: Top::Memory(1 << 20),
            read_only: true,
        };
        Spec {
            root,
            mounts: vec![
                mount("data", Source::Disk(DiskId::Label("data".into())), false, true),
                mount("fixed", Source::Disk(DiskId::Serial("S1".into())), true, false),
                mount("files", nfs("vers=3,nolock"), true, true),
                mount("plain", nfs(""), false, false),
                mount("tmp", Source::Memory { size: 65536, mode: 0o750, exec: true }, false, false),
            ],
            ..Spec::new("3f0c", link, Process::new(vec!["true".into()]))
        }
    }

    fn read(keys: &Dictionary) -> Result<Spec, SpecError> {
        crate::guestinfo::read(keys)
    }

    #[test]
    fn disks_survive_the_keys_and_their_text() {
        let text = crate::guestinfo::write(&spec()).to_string();
        assert_eq!(read(&Dictionary::parse(&text).unwrap()), Ok(spec()));
        let top = Top::Disk(DiskId::Label("top".into()));
        let other = Spec { root: Root { top, ..spec().root }, ..spec() };
        assert_eq!(read(&crate::guestinfo::write(&other)), Ok(other));
    }

    /// As VIC's port layer wrote them.
    #[test]
    fn the_original_mounts_are_read() {
        let mut keys = crate::guestinfo::write(&Spec { root: Root::default(), mounts: Vec::new(), ..spec() });
        for (key, value) in [
            ("mounts", "a|b"),
            ("mounts|a/source/Scheme", "label"),
            ("mounts|a/source/Path", "0123456789abcdef"),
            ("mounts|a/source/Opaque", "<nil>"),
            ("mounts|a/dest", "/data"),
            ("mounts|a/mode", "<nil>"),
            ("mounts|a/copymode", "2"),
            ("mounts|b/source/Scheme", "nfs"),
            ("mounts|b/source/Host", "10.0.0.1"),
            ("mounts|b/source/Path", "/exports/b"),
            ("mounts|b/dest", "/b"),
            ("mounts|b/mode", "vers=3,hard,nolock,addr=10.0.0.1"),
            ("mounts|b/copymode", "2"),
        ] {
            keys.set(&format!("guestinfo.vice./{key}"), value);
        }
        let options = "vers=3,hard,nolock,addr=10.0.0.1".into();
        let [data, files] = read(&keys).unwrap().mounts.try_into().unwrap();
        assert_eq!(data.source, Source::Disk(DiskId::Label("0123456789abcdef".into())));
        assert_eq!((data.destination.as_str(), data.read_only, data.seed), ("/data", false, true));
        assert_eq!(files.source, Source::Nfs { host: "10.0.0.1".into(), path: "/exports/b".into(), options });
        assert!(files.seed && !files.read_only);
    }

    #[test]
    fn what_is_wrong_or_contradictory_is_named() {
        let check = |changes: &[(&str, &str)], part: &str| {
            let mut keys = crate::guestinfo::write(&spec());
            for (key, value) in changes {
                keys.set(&format!("guestinfo.vice./{key}"), *value);
            }
            let error = read(&keys).unwrap_err().to_string();
            assert!(error.contains(part), "{changes:?}: {error}");
        };
        for path in ["", "data", "/", "/a/", "//a", "/a/../b", "/./a", "/proc", "/proc/x", "/sys", "/sys/fs/x", "/dev"]
        {
            let value = if path.is_empty() { "<nil>" } else { path };
            check(&[("mounts|data/dest", value)], &format!("mounts|data/dest: {path:?} is not an absolute path"));
        }
        check(&[("mounts|tmp/dest", "/srv/data")], "is not another mount's destination as well");
        check(&[("mounts|data/source/Scheme", "iscsi")], "mounts|data/source/Scheme: \"iscsi\" is not `label`");
        check(&[("mounts|data/source/Path", "longer than sixteen")], "mounts|data/source/Path");
        check(&[("mounts|data/mode", "ro,rw")], "mounts|data/mode: \"ro,rw\" is not");
        check(&[("mounts|files/mode", "ro,rw,vers=3")], "mounts|files/mode");
        check(&[("mounts|data/mode", "rw,noexec")], "mounts|data/mode");
        check(&[("mounts|data/copymode", "3")], "mounts|data/copymode");
        check(&[("mounts|data/mode", "rw,nocopy")], "mounts|data/copymode");
        check(&[("mounts|tmp/copymode", "2")], "mounts|tmp/copymode");
        check(&[("mounts|tmp/tmpfs/mode", "888")], "mounts|tmp/tmpfs/mode");
        check(&[("mounts|tmp/tmpfs/mode", "77777")], "mounts|tmp/tmpfs/mode");
        check(&[("mounts|tmp/tmpfs/size", "64m")], "mounts|tmp/tmpfs/size");
        check(&[("mounts|files/source/Host", "<nil>")], "guestinfo has no guestinfo.vice./mounts|files/source/Host");
        check(&[("mounts|files/source/Path", "exports")], "mounts|files/source/Path");
        check(&[("root/layers~json", "[\"sda\"]")], "root/layers: \"sda\" is not a disk");
        check(&[("root/layers~json", "[\"uuid:123\"]")], "root/layers: \"uuid:123\" is not a disk");
        check(&[("root/layers~json", "[\"label:a\",\"label:a\"]")], "root/layers: \"label:a\" is not listed once");
        check(&[("root/layers~json", "[]")], "root/top: \"memory:1048576\" is not possible without root/layers");
        check(&[("root/top", "label:two")], "root/top: \"label:two\" is not a disk that is no layer");
        check(&[("root/top", "memory:lots")], "root/top: \"memory:lots\"");
        check(&[("root/readonly", "yes")], "root/readonly");
    }

    #[test]
    fn nocopy_is_heard_where_copymode_is_silent() {
        let mut keys = crate::guestinfo::write(&spec());
        keys.set("guestinfo.vice./mounts|data/copymode", "<nil>");
        assert!(read(&keys).unwrap().mounts[0].seed);
        keys.set("guestinfo.vice./mounts|data/mode", "ro,nocopy");
        let mount = read(&keys).unwrap().mounts.swap_remove(0);
        assert!(mount.read_only && !mount.seed);
    }
}
