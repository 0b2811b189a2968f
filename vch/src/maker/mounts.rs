//! What lies in a container beside its image: settled when it is created, as docker does, so that each start finds the same.
//!
//! It decides what `-v`, `--mount`, `--volumes-from` and an image's own volumes come to, and which volumes are made for them. How a volume is kept is
//! decided in [`crate::volumes`].

use std::path::{Path, PathBuf};

use bollard_stubs::models::{ContainerCreateBody, Mount, MountTypeEnum};
use serde::{Deserialize, Serialize};

use super::{Made, MakeError, Maker, Refusal};
use crate::cli::run::disks::{self, Backing, MountArg, ServerArg, TmpfsArg, VolumeArg};
use crate::containers::Container;
use crate::plan::ImageConfig;
use crate::state;
use crate::volumes::{ANONYMOUS, DRIVER, Denied, Held, Kind, Options, Stored, Want, Wanted, check_name};

/// Something that is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountPoint {
    pub(crate) on: On,
    /// Absolute, without `.` and `..`.
    pub(crate) destination: String,
    pub(crate) read_only: bool,
    /// As docker shows it.
    pub(crate) mode: String,
}

/// What a mount is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum On {
    Volume {
        name: String,
        /// Its disk.
        file: PathBuf,
        /// It was made for this container, which did not name it.
        is_own: bool,
        /// Filled from the image while it is empty.
        seed: bool,
    },
    /// A disk image of the user's.
    File(PathBuf),
    Memory {
        size: u64,
        mode: u32,
    },
}

/// A mount, and the volume that is to be made for it if there is none.
struct Asked {
    mount: MountPoint,
    wanted: Wanted,
}

/// The mounts of a new container, and the volumes that were made for them.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) mounts: Vec<MountPoint>,
    pub(super) new: Vec<String>,
}

impl Maker {
    /// Settles what a new container has mounted; volumes that are not there are made. It blocks: disks are written.
    pub(super) fn settle_mounts(&self, asked: &ContainerCreateBody, image: &ImageConfig) -> Result<Settled, MakeError> {
        let all = self.asked_mounts(asked, image)?;
        let mut settled = Settled::default();
        for Asked { mut mount, wanted } in all {
            if let On::Volume { name, file, .. } = &mut mount.on {
                let made = self.volumes.store.make(name, &wanted);
                let (_, is_new) = made.inspect_err(|_| self.unmake(&settled.new))?;
                *file = self.volumes.store.disk(name);
                if is_new {
                    settled.new.push(name.clone());
                }
            }
            settled.mounts.push(mount);
        }
        Ok(settled)
    }

    /// Removes the volumes of a container that was not created after all.
    pub(super) fn unmake(&self, volumes: &[String]) {
        for name in volumes {
            // one that is left is nobody's, and docker volume prune finds it
            drop(self.volumes.store.remove(name));
        }
    }

    fn asked_mounts(&self, asked: &ContainerCreateBody, image: &ImageConfig) -> Result<Vec<Asked>, MakeError> {
        let host = asked.host_config.clone().unwrap_or_default();
        if let Some(driver) = host.volume_driver.filter(|driver| !driver.is_empty() && driver != DRIVER) {
            return Err(Refusal(no_driver(&driver)).into());
        }
        let (mut all, mut own) = (Vec::<Asked>::new(), Vec::<Asked>::new());
        for text in host.volumes_from.iter().flatten() {
            all.extend(self.of_another(text)?);
        }
        for text in host.binds.iter().flatten() {
            own.push(bind(text)?);
        }
        for mount in host.mounts.iter().flatten() {
            own.push(worded(mount)?);
        }
        let memory: Vec<String> =
            host.tmpfs.iter().flatten().filter_map(|(dir, _)| disks::directory(dir).ok()).collect();
        for (at, one) in own.iter().enumerate() {
            let place = &one.mount.destination;
            if own[..at].iter().any(|other| other.mount.destination == *place) || memory.contains(place) {
                return Err(Refusal(format!("Duplicate mount point: {place}")).into());
            }
        }
        all.retain(|other| own.iter().all(|one| one.mount.destination != other.mount.destination));
        all.extend(own);
        let mut wishes: Vec<&String> = asked.volumes.iter().flat_map(|all| all.keys()).chain(&image.volumes).collect();
        wishes.sort();
        for wish in wishes {
            let place = disks::directory(wish)
                .map_err(|why| Refusal(format!("invalid volume specification: '{wish}': {why}")))?;
            if all.iter().all(|one| one.mount.destination != place) && !memory.contains(&place) {
                all.push(volume("", place, false, true)?);
            }
        }
        Ok(all)
    }

    /// `--volumes-from NAME:ro`
    fn of_another(&self, text: &str) -> Result<Vec<Asked>, MakeError> {
        let (name, mode) = text.split_once(':').unwrap_or((text, ""));
        if !["", "ro", "rw", "z", "Z"].contains(&mode) {
            return Err(Refusal(format!("invalid mode for volumes-from: {mode}")).into());
        }
        let other = self.containers.find(name).map_err(|error| Refusal(error.to_string()))?;
        let Some(made) = other.made() else {
            return Err(
                Refusal(format!("--volumes-from {name}: its machine is not made here, nor are its volumes")).into()
            );
        };
        // the image's files are in them by now
        let unseeded = |mut mount: MountPoint| {
            if let On::Volume { seed, .. } = &mut mount.on {
                *seed = false;
            }
            mount.read_only |= mode == "ro";
            Asked { mount, wanted: Wanted::default() }
        };
        let lasting = made.mounts.iter().filter(|mount| !matches!(mount.on, On::Memory { .. })).cloned();
        Ok(lasting.map(unseeded).collect())
    }

    /// The same in the words of `vch run`, for a plan.
    pub(super) fn mount_args(&self, made: &Made) -> Result<Vec<MountArg>, MakeError> {
        let of = |mount: &MountPoint| {
            let MountPoint { on, destination, read_only, .. } = mount.clone();
            let disk = |backing, destination, seed| {
                MountArg::Volume(VolumeArg { backing, destination, read_only, seed, size: None })
            };
            Ok(match on {
                On::File(path) => disk(Backing::File(path), destination, false),
                On::Memory { size, mode } => {
                    MountArg::Tmpfs(TmpfsArg { destination, size, mode, exec: false, read_only })
                }
                On::Volume { name, seed, .. } => match self.volumes.store.find(&name)?.kind() {
                    Kind::Disk(_) => disk(Backing::Named(name), destination, seed),
                    Kind::Memory { size, mode, exec } => {
                        MountArg::Tmpfs(TmpfsArg { destination, size, mode, exec, read_only })
                    }
                    Kind::Server { host, path, options } => {
                        MountArg::Server(ServerArg { host, path, options, destination, read_only, seed })
                    }
                },
            })
        };
        let mut all = made.mounts.iter().map(of).collect::<Result<Vec<_>, MakeError>>()?;
        let host = made.asked.host_config.as_ref();
        for (dir, options) in host.and_then(|host| host.tmpfs.as_ref()).into_iter().flatten() {
            let memory = disks::tmpfs(&format!("{dir}:{options}"));
            all.push(MountArg::Tmpfs(memory.map_err(|why| Refusal(format!("invalid tmpfs option for {dir}: {why}")))?));
        }
        Ok(all)
    }

    /// Takes a container's volumes for its machine. One whose process has ended has them until its machine is off: that is waited for.
    pub(super) async fn hold(&self, container: &Container, mounts: &[MountPoint]) -> Result<Held, MakeError> {
        loop {
            let mut freed = self.volumes.freed();
            let (volume, other) = match self.try_hold(&container.id, mounts).await? {
                Ok(held) => return Ok(held),
                Err(taken) => taken,
            };
            let refused = || {
                let by = self.containers.find(&other).map_or_else(|_| other.clone(), |other| other.name());
                MakeError::InUse(format!(
                    "volume {volume} is in use by container {by}: only containers that all mount it read-only can share it; \
                     stop {by} first"
                ))
            };
            let Ok(holder) = self.containers.find(&other) else {
                // it is forgotten, and its machine goes off
                drop(freed.changed().await);
                continue;
            };
            let mut life = holder.watch();
            if !life.borrow_and_update().is_over() {
                return Err(refused());
            }
            tokio::select! {
                _ = freed.changed() => {}
                _ = life.wait_for(|life| !life.is_over()) => {}
            }
        }
    }

    /// The same for a machine that is on already. It goes on without what it cannot have: QEMU keeps others from writing to its disks.
    pub(super) async fn hold_again(&self, container: &Container, mounts: &[MountPoint]) -> Option<Held> {
        let why = match self.try_hold(&container.id, mounts).await {
            Ok(Ok(held)) => return Some(held),
            Ok(Err((volume, other))) => format!("volume {volume} is in use by container {other}, too"),
            Err(error) => error.to_string(),
        };
        crate::serve::say(&format!("{}: {why}", container.name()));
        None
    }

    async fn try_hold(&self, id: &str, mounts: &[MountPoint]) -> Result<Result<Held, (String, String)>, MakeError> {
        let wants: Vec<Want> = mounts.iter().filter_map(want).collect();
        let (volumes, id) = (self.volumes.clone(), id.to_owned());
        let held = tokio::task::spawn_blocking(move || volumes.hold(&id, &wants));
        match held.await.map_err(anyhow::Error::from)? {
            Ok(held) => Ok(Ok(held)),
            Err(Denied::By { volume, container }) => Ok(Err((volume, container))),
            Err(Denied::Otherwise(error)) => Err(error.into()),
        }
    }

    /// The containers that have a volume, whether they run or not.
    pub(crate) fn users(&self, volume: &str) -> Vec<String> {
        let all = self.containers.list();
        let has = |container: &&std::sync::Arc<Container>| {
            container.made().is_some_and(|made| made.mounts.iter().any(|mount| mount.volume() == Some(volume)))
        };
        all.iter().filter(has).map(|container| container.id.clone()).collect()
    }

    /// Removes the volumes that were made for a container which goes, unless another one has them: `docker rm -v`.
    pub(super) async fn remove_own(&self, container: &Container) {
        for mount in container.made().iter().flat_map(|made| &made.mounts) {
            if let On::Volume { name, is_own: true, .. } = &mount.on
                && self.users(name).iter().all(|user| *user == container.id)
                && let Err(error) = self.remove_volume(name).await
            {
                crate::serve::say(&format!("volume {name}: {error}"));
            }
        }
    }
}

impl MountPoint {
    /// The volume that it is on.
    pub(crate) fn volume(&self) -> Option<&str> {
        match &self.on {
            On::Volume { name, .. } => Some(name),
            On::File(_) | On::Memory { .. } => None,
        }
    }
}

fn want(mount: &MountPoint) -> Option<Want> {
    let read_only = mount.read_only;
    match &mount.on {
        On::Volume { name, .. } => Some(Want::Volume { name: name.clone(), read_only }),
        On::File(path) => Some(Want::File { path: path.clone(), read_only }),
        On::Memory { .. } => None,
    }
}

/// `-v NAME:/DIR:MODES`
fn bind(text: &str) -> Result<Asked, Refusal> {
    let invalid = |why: &str| Refusal(format!("invalid volume specification: '{text}': {why}"));
    let (source, rest) = text.split_once(':').ok_or_else(|| invalid("write it as NAME:DIR or NAME:DIR:ro"))?;
    // docker's rules for the rest are those of a volume
    let VolumeArg { destination, read_only, seed, .. } =
        disks::volume(&format!("any:{rest}")).map_err(|why| invalid(&why))?;
    let modes = rest.split_once(':').map(|(_, modes)| modes).unwrap_or_default();
    let mut asked = match source.contains('/') {
        true => file(source, destination, read_only)?,
        false => volume(source, destination, read_only, seed)?,
    };
    if !modes.is_empty() {
        asked.mount.mode = modes.into();
    }
    Ok(asked)
}

/// `--mount type=TYPE,...`
fn worded(mount: &Mount) -> Result<Asked, Refusal> {
    let kind = mount.typ.filter(|kind| *kind != MountTypeEnum::EMPTY).unwrap_or(MountTypeEnum::VOLUME);
    let invalid = |why: &str| Refusal(format!("invalid mount config for type \"{kind}\": {why}"));
    let target = mount.target.as_deref().unwrap_or_default();
    if target.is_empty() {
        return Err(invalid("field Target must not be empty"));
    }
    let destination = disks::directory(target).map_err(|why| invalid(&why))?;
    let source = mount.source.as_deref().unwrap_or_default();
    let read_only = mount.read_only.unwrap_or_default();
    match kind {
        MountTypeEnum::VOLUME => {
            let options = mount.volume_options.clone().unwrap_or_default();
            if options.subpath.is_some_and(|path| !path.is_empty()) {
                return Err(invalid("a volume is a disk, and is mounted whole: leave out volume-subpath"));
            }
            let driver = options.driver_config.unwrap_or_default();
            if let Some(other) = driver.name.filter(|name| !name.is_empty() && name != DRIVER) {
                return Err(Refusal(no_driver(&other)));
            }
            let mut asked = volume(source, destination, read_only, !options.no_copy.unwrap_or_default())?;
            asked.wanted.options = driver.options.into_iter().flatten().collect();
            asked.wanted.labels.extend(options.labels.into_iter().flatten());
            asked.mount.mode = DEFAULT_MODE.into();
            Ok(asked)
        }
        MountTypeEnum::TMPFS if source.is_empty() => {
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            let number = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default();
            let mode = number(options.mode);
            let mode = if mode == 0 { STICKY } else { u32::try_from(mode).unwrap_or(STICKY) };
            let on = On::Memory { size: number(options.size_bytes), mode };
            Ok(Asked {
                mount: MountPoint { on, destination, read_only, mode: String::new() },
                wanted: Wanted::default(),
            })
        }
        MountTypeEnum::TMPFS => Err(invalid("field Source must not be specified")),
        MountTypeEnum::BIND => file(source, destination, read_only),
        _ => Err(invalid("a virtual machine has no such mounts: `volume` and `tmpfs` are there")),
    }
}

/// A volume; without a name, one of the container's own.
fn volume(name: &str, destination: String, read_only: bool, seed: bool) -> Result<Asked, Refusal> {
    let is_own = name.is_empty();
    let (name, mode, labels) = match is_own {
        false => (name.to_owned(), DEFAULT_MODE, Options::default()),
        true => {
            let name = state::new_id().map_err(|error| Refusal(format!("{error:#}")))?;
            (name, "", Options::from([(ANONYMOUS.to_owned(), String::new())]))
        }
    };
    check_name(&name, 2).map_err(|error| Refusal(error.to_string()))?;
    let on = On::Volume { name, file: PathBuf::new(), is_own, seed };
    let mount = MountPoint { on, destination, read_only, mode: mode.into() };
    Ok(Asked { mount, wanted: Wanted { labels, ..Wanted::default() } })
}

/// What lies on this host: the image of a disk can be mounted, and nothing else.
fn file(source: &str, destination: String, read_only: bool) -> Result<Asked, Refusal> {
    let path = Path::new(source);
    if !path.is_file() || !disks::is_disk_image(source) {
        return Err(Refusal(format!(
            "{source}: containers here are virtual machines, which have disks and share no folders or files of this host: use a \
             volume (-v NAME:{destination}, filled with docker cp), or the image of a disk (-v /PATH/FILE.img:{destination})"
        )));
    }
    let mount = MountPoint { on: On::File(path.to_owned()), destination, read_only, mode: String::new() };
    Ok(Asked { mount, wanted: Wanted::default() })
}

/// Docker's words.
pub(crate) fn no_driver(name: &str) -> String {
    format!("error looking up volume plugin {name}: plugin {name:?} not found")
}

/// Docker shows it of volumes that somebody has named: a label for SELinux, which changes nothing here.
const DEFAULT_MODE: &str = "z";
/// Of memory, as docker has it.
const STICKY: u32 = 0o1777;

impl Maker {
    /// Makes a volume, and tells of it. The second is whether there was none.
    pub(crate) async fn make_volume(&self, name: String, wanted: Wanted) -> Result<(Stored, bool), MakeError> {
        let volumes = self.volumes.clone();
        let made = tokio::task::spawn_blocking(move || volumes.store.make(&name, &wanted));
        let (stored, is_new) = made.await.map_err(anyhow::Error::from)??;
        if is_new {
            self.containers.events.volume(&stored.name, "create", &[]);
        }
        Ok((stored, is_new))
    }

    /// Removes a volume that no container has, and tells of it; the result is how many bytes it took.
    pub(crate) async fn remove_volume(&self, name: &str) -> Result<u64, MakeError> {
        // the machine of a container that is gone may yet have to go off
        let mut freed = self.volumes.freed();
        while self.volumes.is_held(name) {
            drop(freed.changed().await);
        }
        let (volumes, of) = (self.volumes.clone(), name.to_owned());
        let removed = tokio::task::spawn_blocking(move || volumes.store.remove(&of));
        let size = removed.await.map_err(anyhow::Error::from)??;
        self.containers.events.volume(name, "destroy", &[]);
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_binds_ask_for() {
        let told = |text: &str| bind(text).map(|asked| asked.mount).map_err(|error| error.to_string());
        let mount = told("data:/srv/./a:ro,nocopy").unwrap();
        assert_eq!((mount.volume(), mount.destination.as_str(), mount.read_only), (Some("data"), "/srv/a", true));
        assert!(matches!(mount.on, On::Volume { is_own: false, seed: false, .. }) && mount.mode == "ro,nocopy");
        let plain = told("data:/srv").unwrap();
        assert!(plain.mode == "z" && matches!(plain.on, On::Volume { seed: true, .. }));
        for (text, why) in [
            ("/etc:/e", "share no folders or files of this host"),
            ("data", "write it as NAME:DIR"),
            ("data:srv", "absolute path"),
            ("data:/", "container's root"),
            ("data:/srv:fast", "\"fast\" is no mode"),
            ("d:/srv", "volume name is too short"),
            ("a b:/srv", "includes invalid characters"),
            ("/nosuch.img:/srv", "share no folders"),
        ] {
            let told = told(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }

    #[test]
    fn disk_images_of_the_host_are_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("a.img");
        std::fs::write(&image, "").unwrap();
        let mount = bind(&format!("{}:/srv:ro", image.display())).unwrap().mount;
        assert!(mount.on == On::File(image) && mount.read_only);
        let folder = bind(&format!("{}:/srv", dir.path().display()));
        assert!(folder.is_err_and(|error| error.to_string().contains("-v NAME:/srv")));
    }

    #[test]
    fn what_mounts_in_words_ask_for() {
        let read = |text: &str| worded(&serde_json::from_str(text).unwrap()).map_err(|error| error.to_string());
        let named = read(
            r#"{"Type":"volume","Source":"data","Target":"/d","ReadOnly":true,
                "VolumeOptions":{"NoCopy":true,"Labels":{"a":"b"},"DriverConfig":{"Name":"local","Options":{"size":"1g"}}}}"#,
        );
        let named = named.unwrap();
        assert!(named.mount.read_only && named.mount.mode == "z" && named.wanted.options["size"] == "1g");
        assert_eq!(named.wanted.labels, Options::from([("a".to_owned(), "b".to_owned())]));
        let own = read(r#"{"Type":"volume","Target":"/d"}"#).unwrap();
        assert!(matches!(&own.mount.on, On::Volume { name, is_own: true, .. } if name.len() == 64));
        assert!(own.wanted.labels.contains_key(ANONYMOUS));
        let memory = read(r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1048576,"Mode":448}}"#).unwrap();
        assert_eq!(memory.mount.on, On::Memory { size: 1 << 20, mode: 0o700 });
        assert_eq!(read(r#"{"Type":"tmpfs","Target":"/t"}"#).unwrap().mount.on, On::Memory { size: 0, mode: 0o1777 });
        for (text, why) in [
            (
                r#"{"Type":"volume","Source":"data"}"#,
                "invalid mount config for type \"volume\": field Target must not be empty",
            ),
            (r#"{"Type":"bind","Source":"/etc","Target":"/e"}"#, "share no folders"),
            (r#"{"Type":"npipe","Source":"x","Target":"/e"}"#, "has no such mounts"),
            (r#"{"Type":"tmpfs","Source":"x","Target":"/e"}"#, "Source must not be specified"),
            (r#"{"Target":"/e","VolumeOptions":{"Subpath":"a"}}"#, "leave out volume-subpath"),
            (r#"{"Target":"/e","VolumeOptions":{"DriverConfig":{"Name":"rexray"}}}"#, "plugin \"rexray\" not found"),
        ] {
            let told = read(text).err().unwrap_or_default();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
