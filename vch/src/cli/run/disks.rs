//! `-v`, `--mount`, `--tmpfs`, `--read-only`: what is mounted where, as docker writes it.
//!
//! Whether a name is a volume or the file of a disk image is decided here, by its spelling alone. Docker shares directories of the host; a virtual machine
//! has disks.

#![allow(rustdoc::broken_intra_doc_links, reason = "these comments are help texts: brackets hold what can be left out")]

use std::path::PathBuf;

use clap::Args;

use super::DiskForm;
use crate::ids::is_name;
use crate::size;

/// What a containerVM has mounted.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Files")]
pub struct DiskArgs {
    /// Mount a volume, made on first use, or the disk image in a file; without a name, a volume that is the container's own. Modes, with commas: ro, rw, nocopy
    #[arg(short, long, value_name = "[NAME|FILE.img:]DIR[:MODES]", value_parser = volume)]
    pub volume: Vec<VolumeArg>,

    /// The same in words: type=volume,source=NAME,target=DIR[,readonly][,volume-nocopy][,volume-opt=size=SIZE] or type=tmpfs,target=DIR[,tmpfs-size=SIZE][,tmpfs-mode=MODE]
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = mount)]
    pub mount: Vec<MountArg>,

    /// Mount memory; options, with commas: size=SIZE, mode=MODE, exec, ro
    #[arg(long, value_name = "DIR[:OPTIONS]", value_parser = tmpfs)]
    pub tmpfs: Vec<TmpfsArg>,

    /// Let the container write to its mounts only
    #[arg(long)]
    pub read_only: bool,

    /// One disk with all of the image, or one for each of its layers, shared by all images that have it, and a thin one over them
    #[arg(long = "disk", value_enum, default_value_t = DiskForm::Merged)]
    pub form: DiskForm,
}

/// A disk with a file system of its own, and where it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeArg {
    pub backing: Backing,
    /// Absolute, without `.` and `..`.
    pub destination: String,
    pub read_only: bool,
    /// Filled from the image while it is empty.
    pub seed: bool,
    /// Bytes, for a volume that is made now.
    pub size: Option<u64>,
}

/// Where a volume's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Kept under a name, for whoever asks for it.
    Named(String),
    /// The container's own.
    Anonymous,
    /// In a file of the user's.
    File(PathBuf),
}

/// Memory as a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmpfsArg {
    pub destination: String,
    /// Bytes; 0 is half of the machine's memory.
    pub size: u64,
    pub mode: u32,
    pub exec: bool,
    pub read_only: bool,
}

/// A directory of a file server, which the guest itself mounts: nfs(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerArg {
    pub host: String,
    pub path: String,
    pub options: String,
    pub destination: String,
    pub read_only: bool,
    /// Filled from the image while it is empty.
    pub seed: bool,
}

/// What is mounted. Docker's API alone asks for servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountArg {
    Volume(VolumeArg),
    Tmpfs(TmpfsArg),
    Server(ServerArg),
}

/// Parses `-v`.
pub fn volume(text: &str) -> Result<VolumeArg, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, modes) = match parts[..] {
        [destination] => ("", destination, ""),
        // `-v DIR:ro` names nothing to mount; docker takes it for a volume DIR at `ro`, and refuses that
        [source, destination] => (source, destination, ""),
        [source, destination, modes] => (source, destination, modes),
        _ => return Err("write it as NAME:DIR, NAME:DIR:ro or DIR".into()),
    };
    if source.is_empty() && parts.len() > 1 {
        return Err("it names no volume before the colon".into());
    }
    let backing = backing(source)?;
    let mut volume = VolumeArg {
        seed: !matches!(backing, Backing::File(_)),
        backing,
        destination: directory(destination)?,
        read_only: false,
        size: None,
    };
    for mode in modes.split(',').filter(|mode| !mode.is_empty()) {
        match mode {
            "ro" => volume.read_only = true,
            "rw" => volume.read_only = false,
            "nocopy" => volume.seed = false,
            // labels for SELinux and propagation between host and container: there is nothing to label and nobody to propagate to
            "z" | "Z" | "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" => {}
            other => return Err(format!("{other:?} is no mode: ro, rw and nocopy are")),
        }
    }
    Ok(volume)
}

/// Parses `--mount`.
pub fn mount(text: &str) -> Result<MountArg, String> {
    let (mut kind, mut source, mut destination) = ("volume", "", "");
    let (mut read_only, mut seed, mut size, mut mode) = (false, true, None, 0o1777);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        match key {
            "type" => kind = value,
            "source" | "src" => source = value,
            "target" | "destination" | "dst" => destination = value,
            "readonly" | "ro" => read_only = flag(key, value)?,
            "volume-nocopy" => seed = !flag(key, value)?,
            "volume-opt" => match value.split_once('=') {
                Some(("size", value)) => size = Some(size::bytes(value)?),
                _ => return Err(format!("volume-opt={value}: a volume has the option size=SIZE only")),
            },
            "tmpfs-size" => size = Some(size::bytes(value)?),
            "tmpfs-mode" => mode = octal(value)?,
            _ => return Err(format!("{key:?} is no key of --mount here")),
        }
    }
    let destination = directory(destination)?;
    match kind {
        "volume" => {
            let backing = backing(source)?;
            let seed = seed && !matches!(backing, Backing::File(_));
            Ok(MountArg::Volume(VolumeArg { backing, destination, read_only, seed, size }))
        }
        "tmpfs" if source.is_empty() => {
            let size = size.unwrap_or(0);
            // as docker's: --mount's tmpfs runs no programs either
            Ok(MountArg::Tmpfs(TmpfsArg { destination, size, mode, exec: false, read_only }))
        }
        "tmpfs" => Err("type=tmpfs has no source".into()),
        "bind" => Err(NO_DIRECTORY.into()),
        other => Err(format!("type={other}: there are `volume` and `tmpfs`")),
    }
}

/// Parses `--tmpfs`.
pub fn tmpfs(text: &str) -> Result<TmpfsArg, String> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    let destination = directory(destination)?;
    let mut tmpfs = TmpfsArg { destination, size: 0, mode: 0o1777, exec: false, read_only: false };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("size", value) => tmpfs.size = size::bytes(value)?,
            ("mode", value) => tmpfs.mode = octal(value)?,
            ("exec", _) => tmpfs.exec = true,
            ("noexec", _) => tmpfs.exec = false,
            ("ro", _) => tmpfs.read_only = true,
            ("rw" | "nosuid" | "nodev", _) => {}
            (other, _) => return Err(format!("{other:?} is no option here: size, mode, exec, noexec, ro and rw are")),
        }
    }
    Ok(tmpfs)
}

/// An absolute path without `.`, `..` and doubled slashes.
pub fn directory(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("{text:?} is no place to mount at: it needs to be an absolute path"));
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    match parts.is_empty() {
        true => Err("nothing can be mounted over the container's root".into()),
        false => Ok(format!("/{}", parts.join("/"))),
    }
}

fn backing(source: &str) -> Result<Backing, String> {
    if source.is_empty() {
        return Ok(Backing::Anonymous);
    }
    let path = PathBuf::from(source);
    if is_disk_image(source) || path.is_file() && source.contains('/') {
        return Ok(Backing::File(path));
    }
    if source.contains('/') || source == "." || source == ".." || source.starts_with('~') {
        return Err(NO_DIRECTORY.into());
    }
    match is_name(source) {
        true => Ok(Backing::Named(source.to_owned())),
        false => Err(format!("{source:?} is no name of a volume: letters, digits, `_`, `.` and `-`")),
    }
}

/// By its name, a file that holds a disk.
pub fn is_disk_image(path: &str) -> bool {
    DISK_IMAGES.iter().any(|ending| path.ends_with(ending))
}

fn flag(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(format!("{key}={other}: write true or false")),
    }
}

fn octal(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| format!("{text:?} is no mode: write it in octal, as 1777"))
}

/// What a file's name ends with that holds a disk.
const DISK_IMAGES: [&str; 4] = [".img", ".raw", ".qcow2", ".vmdk"];
const NO_DIRECTORY: &str = "a virtual machine has disks and shares no directory of the host: use a volume (-v NAME:DIR, filled from the image or with \
                            `vch cp`), or a disk image (-v FILE.img:DIR)";

#[cfg(test)]
mod tests {
    use super::*;

    fn of(backing: Backing, destination: &str) -> VolumeArg {
        let seed = !matches!(backing, Backing::File(_));
        VolumeArg { backing, destination: destination.into(), read_only: false, seed, size: None }
    }

    #[test]
    fn volumes_in_dockers_syntax() {
        let named = || of(Backing::Named("data".into()), "/srv");
        let check = |text: &str, expected: VolumeArg| assert_eq!(volume(text), Ok(expected), "{text}");
        check("data:/srv", named());
        check("data:/srv:ro", VolumeArg { read_only: true, ..named() });
        check("data:/srv:rw", named());
        check("data:/srv/./a/../:ro,nocopy", VolumeArg { read_only: true, seed: false, ..named() });
        check("data:/srv:z", named());
        check("/srv", of(Backing::Anonymous, "/srv"));
        check("data.img:/srv", of(Backing::File("data.img".into()), "/srv"));
        check("/a/b.raw:/srv", of(Backing::File("/a/b.raw".into()), "/srv"));
        for text in ["", "srv", "data:srv", "data:/", "/", ":/srv", "data:/srv:fast", "a:/b:ro:x", "-a:/b", "a b:/c"] {
            assert!(volume(text).is_err(), "{text}");
        }
        for text in ["/tmp:/srv", "./x:/srv", "~/x:/srv", ".:/srv", "a/b:/srv"] {
            assert_eq!(volume(text), Err(NO_DIRECTORY.into()), "{text}");
        }
    }

    #[test]
    fn mounts_in_words() {
        let named = || of(Backing::Named("data".into()), "/srv");
        let memory = |size, mode| {
            MountArg::Tmpfs(TmpfsArg { destination: "/srv".into(), size, mode, exec: false, read_only: false })
        };
        let check = |text: &str, expected: MountArg| assert_eq!(mount(text), Ok(expected), "{text}");
        check("type=volume,source=data,target=/srv", MountArg::Volume(named()));
        check("src=data,dst=/srv,ro", MountArg::Volume(VolumeArg { read_only: true, ..named() }));
        let large = VolumeArg { size: Some(2 << 30), seed: false, ..named() };
        check("src=data,destination=/srv,volume-nocopy,volume-opt=size=2g", MountArg::Volume(large));
        check("target=/srv", MountArg::Volume(of(Backing::Anonymous, "/srv")));
        check("type=tmpfs,dst=/srv", memory(0, 0o1777));
        check("type=tmpfs,dst=/srv,tmpfs-size=64k,tmpfs-mode=700", memory(65536, 0o700));
        for text in
            ["type=bind,src=/a,dst=/b", "type=npipe,dst=/b", "src=data", "dst=/a,x=1", "type=tmpfs,src=a,dst=/b"]
        {
            assert!(mount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_in_dockers_syntax() {
        let plain = || TmpfsArg { destination: "/run".into(), size: 0, mode: 0o1777, exec: false, read_only: false };
        let check = |text: &str, expected: TmpfsArg| assert_eq!(tmpfs(text), Ok(expected), "{text}");
        check("/run", plain());
        check("/run:rw,noexec,nosuid,size=65536k", TmpfsArg { size: 64 << 20, ..plain() });
        check("/run:exec,mode=755,ro", TmpfsArg { exec: true, mode: 0o755, read_only: true, ..plain() });
        for text in ["run", "/", "/run:size=x", "/run:mode=999", "/run:uid=5"] {
            assert!(tmpfs(text).is_err(), "{text}");
        }
    }
}
