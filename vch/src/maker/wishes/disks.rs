//! What is mounted: `Binds`, `Mounts` and `Tmpfs` of docker's request, as `-v`, `--mount` and `--tmpfs` of `vch run` have it.
//!
//! It decides which texts name a volume, a disk image or a folder of the host. What becomes of a volume is decided elsewhere.

use bollard_stubs::models::{HostConfig, Mount, MountTypeEnum};

use super::Refusal;
use crate::cli::run::disks::{Backing, DiskArgs, MountArg, TmpfsArg, directory, mount, tmpfs, volume};

/// Reads them into the options.
pub(super) fn read(args: &mut DiskArgs, host: &HostConfig) -> Result<(), Refusal> {
    for text in host.binds.iter().flatten() {
        args.volume.push(bind(text)?);
    }
    for asked in host.mounts.iter().flatten() {
        args.mount.push(in_words(asked)?);
    }
    let mut memory: Vec<_> = host.tmpfs.iter().flatten().collect();
    memory.sort();
    for (place, options) in memory {
        let read = tmpfs(&format!("{place}:{options}"));
        args.tmpfs.push(read.map_err(|why| Refusal(format!("--tmpfs {place}: {why}")))?);
    }
    Ok(())
}

/// `NAME:DIR:MODES`
fn bind(text: &str) -> Result<crate::cli::run::disks::VolumeArg, Refusal> {
    let source = text.split_once(':').map_or("", |(source, _)| source);
    if is_folder(source) {
        return Err(Refusal(format!("-v {text}: {NO_FOLDER}")));
    }
    let mut read = volume(text).map_err(|why| Refusal(format!("-v {text}: {why}")))?;
    if matches!(read.backing, Backing::File(_)) && !source.contains('/') {
        // to docker's client a word is a volume's name, whatever it ends with
        read.backing = Backing::Named(source.to_owned());
        read.seed = !text.rsplit(':').next().is_some_and(|modes| modes.split(',').any(|mode| mode == "nocopy"));
    }
    Ok(read)
}

/// The file of a disk image is attached as what it is; any other path is the host's.
fn is_folder(source: &str) -> bool {
    source.starts_with(['/', '.', '~']) && !IMAGES.iter().any(|ending| source.ends_with(ending))
}

/// One of `--mount`.
fn in_words(asked: &Mount) -> Result<MountArg, Refusal> {
    let (source, target) = (asked.source.as_deref().unwrap_or_default(), asked.target.as_deref().unwrap_or_default());
    let wrong = |why: String| Refusal(format!("--mount {target}: {why}"));
    let read_only = asked.read_only.unwrap_or_default();
    match asked.typ.unwrap_or(MountTypeEnum::VOLUME) {
        MountTypeEnum::TMPFS => {
            let options = asked.tmpfs_options.clone().unwrap_or_default();
            let size = options.size_bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
            let mode = options.mode.filter(|&mode| mode > 0).and_then(|mode| mode.try_into().ok()).unwrap_or(0o1777);
            let exec = options.options.iter().flatten().any(|option| option.iter().any(|word| word == "exec"));
            Ok(MountArg::Tmpfs(TmpfsArg {
                destination: directory(target).map_err(wrong)?,
                size,
                mode,
                exec,
                read_only,
            }))
        }
        MountTypeEnum::VOLUME | MountTypeEnum::EMPTY => {
            if source.contains('/') {
                return Err(wrong(format!("{source:?} is no name of a volume: letters, digits, `_`, `.` and `-`")));
            }
            let options = asked.volume_options.clone().unwrap_or_default();
            if options.subpath.as_deref().is_some_and(|path| !path.is_empty()) {
                return Err(wrong("volume-subpath: a volume is a disk, which is mounted whole".into()));
            }
            // a comma would begin another key
            if source.contains(',') || target.contains(',') {
                return Err(wrong("a comma is no part of a name here".into()));
            }
            let mut text = format!("type=volume,source={source},target={target}");
            if read_only {
                text += ",readonly";
            }
            if options.no_copy == Some(true) {
                text += ",volume-nocopy";
            }
            for (name, value) in options.driver_config.and_then(|driver| driver.options).into_iter().flatten() {
                text += &format!(",volume-opt={name}={value}");
            }
            let mut read = mount(&text).map_err(wrong)?;
            if let MountArg::Volume(volume) = &mut read
                && matches!(volume.backing, Backing::File(_))
            {
                volume.backing = Backing::Named(source.to_owned());
                volume.seed = options.no_copy != Some(true);
            }
            Ok(read)
        }
        MountTypeEnum::BIND => Err(wrong(format!("{source}: {NO_FOLDER}"))),
        other => Err(wrong(format!("type={other}: there are `volume` and `tmpfs`"))),
    }
}

const NO_FOLDER: &str = "a virtual machine has disks and shares no file and no folder of the host: use a volume (-v NAME:DIR, filled from the image or with \
                         docker cp)";
/// What a path ends with that names a disk.
const IMAGES: [&str; 4] = [".img", ".raw", ".qcow2", ".vmdk"];
