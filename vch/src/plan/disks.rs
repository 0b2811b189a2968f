//! The container's files: its root, and which disks and memory are mounted where.

use wire::spec::{DiskId, Mount, Root, Source, Top};

use super::PlanError;
use crate::cli::run::disks::{self, Backing, DiskArgs, MountArg, ServerArg, TmpfsArg, VolumeArg};

/// A disk that a mount is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The serial number that it gets: by it the guest finds it.
    pub serial: String,
    pub backing: Backing,
    pub read_only: bool,
    /// Bytes, if it is made now and somebody said.
    pub size: Option<u64>,
}

impl Volume {
    /// Whether this is the disk that goes by that.
    pub fn is(&self, id: &DiskId) -> bool {
        matches!(id, DiskId::Serial(serial) if *serial == self.serial)
    }
}

/// The serial number of the disk that takes what the container writes over layers.
pub const TOP_SERIAL: &str = "vch-top";

/// QEMU's controller has more places; the image's layers take some.
pub const MOST_MOUNTS: usize = 100;

/// The root: one merged disk, or the disks of the image's layers.
pub(super) fn root(layers: &[String]) -> Root {
    if layers.is_empty() {
        return Root::default();
    }
    let layers = layers.iter().cloned().map(DiskId::Serial).collect();
    Root { layers, top: Top::Disk(DiskId::Serial(TOP_SERIAL.into())), read_only: false }
}

/// What is mounted, and the disks under it. The image's own wishes give way to what is asked for.
pub(super) fn mounts(args: &DiskArgs, image: &[String]) -> Result<(Vec<Mount>, Vec<Volume>), PlanError> {
    let mut all: Vec<MountArg> = args.volume.iter().cloned().map(MountArg::Volume).collect();
    all.extend(args.mount.iter().cloned());
    all.extend(args.tmpfs.iter().cloned().map(MountArg::Tmpfs));
    for (at, mount) in all.iter().enumerate() {
        if all[..at].iter().any(|other| destination(other) == destination(mount)) {
            return Err(PlanError::SameMount(destination(mount).to_owned()));
        }
    }
    for wish in image {
        let place = disks::directory(wish).map_err(|_| PlanError::ImageVolume(wish.clone()))?;
        if !all.iter().any(|mount| destination(mount) == place) {
            let backing = Backing::Anonymous;
            all.push(MountArg::Volume(VolumeArg {
                backing,
                destination: place,
                read_only: false,
                seed: true,
                size: None,
            }));
        }
    }
    if all.len() > MOST_MOUNTS {
        return Err(PlanError::ManyMounts(all.len()));
    }
    let (mut mounts, mut volumes) = (Vec::new(), Vec::new());
    for (number, mount) in all.into_iter().enumerate() {
        mounts.push(match mount {
            MountArg::Volume(VolumeArg { backing, destination, read_only, seed, size }) => {
                // nobody can write to a disk that is attached read-only
                let seed = seed && !read_only;
                let source = Source::Disk(disk(&mut volumes, number, backing, read_only, size));
                Mount { name: format!("volume{number}"), source, destination, read_only, seed }
            }
            MountArg::Tmpfs(TmpfsArg { destination, size, mode, exec, read_only }) => Mount {
                name: format!("memory{number}"),
                source: Source::Memory { size, mode, exec },
                destination,
                read_only,
                seed: false,
            },
            MountArg::Server(ServerArg { host, path, options, destination, read_only, seed }) => {
                // who may write is the mount's to say, in one word
                let is_access = |word: &&str| matches!(*word, "ro" | "rw");
                let (access, options): (Vec<&str>, Vec<&str>) = options.split(',').partition(is_access);
                let read_only = read_only || access.last() == Some(&"ro");
                let source = Source::Nfs { host, path, options: options.join(",") };
                let name = format!("server{number}");
                Mount { name, source, destination, read_only, seed: seed && !read_only }
            }
        });
    }
    Ok((mounts, volumes))
}

/// The disk of a mount. What has a name may be mounted twice, and is one disk, which is written to if one of its mounts is.
fn disk(volumes: &mut Vec<Volume>, number: usize, backing: Backing, read_only: bool, size: Option<u64>) -> DiskId {
    let same = volumes.iter_mut().find(|other| backing != Backing::Anonymous && other.backing == backing);
    if let Some(same) = same {
        same.read_only &= read_only;
        same.size = same.size.or(size);
        return DiskId::Serial(same.serial.clone());
    }
    let serial = format!("vch-volume-{number}");
    volumes.push(Volume { serial: serial.clone(), backing, read_only, size });
    DiskId::Serial(serial)
}

fn destination(mount: &MountArg) -> &str {
    match mount {
        MountArg::Volume(volume) => &volume.destination,
        MountArg::Tmpfs(tmpfs) => &tmpfs.destination,
        MountArg::Server(server) => &server.destination,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ImageConfig;
    use super::super::tests::{image, plan};
    use super::*;

    #[test]
    fn each_mount_has_its_disk() {
        let plan =
            plan("vch run -v data:/srv:ro -v /a --tmpfs /run:size=1m -v x.img:/x --read-only img", &image()).unwrap();
        let serial = |number: usize| format!("vch-volume-{number}");
        let volume =
            |number: usize, backing, read_only| Volume { serial: serial(number), backing, read_only, size: None };
        let expected = [
            volume(0, Backing::Named("data".into()), true),
            volume(1, Backing::Anonymous, false),
            volume(2, Backing::File("x.img".into()), false),
        ];
        assert_eq!(plan.volumes, expected);
        let mounts: Vec<_> =
            plan.spec.mounts.iter().map(|mount| (mount.destination.as_str(), mount.read_only, mount.seed)).collect();
        assert_eq!(mounts, [("/srv", true, false), ("/a", false, true), ("/x", false, false), ("/run", false, false)]);
        assert_eq!(plan.spec.mounts[1].source, Source::Disk(DiskId::Serial(serial(1))));
        assert_eq!(plan.spec.mounts[3].source, Source::Memory { size: 1 << 20, mode: 0o1777, exec: false });
        assert!(plan.spec.root.read_only && plan.spec.root.layers.is_empty());
    }

    #[test]
    fn a_server_is_read_only_if_its_volume_or_its_mount_is() {
        let access = |options: &str, read_only| {
            let server = ServerArg {
                host: "files".into(),
                path: "/srv".into(),
                options: options.into(),
                destination: "/f".into(),
                read_only,
                seed: true,
            };
            let args = DiskArgs {
                volume: Vec::new(),
                mount: vec![MountArg::Server(server)],
                tmpfs: Vec::new(),
                read_only: false,
                form: crate::cli::run::DiskForm::Merged,
            };
            let (mounts, _) = super::mounts(&args, &[]).unwrap();
            let Source::Nfs { options, .. } = &mounts[0].source else { panic!("{mounts:?}") };
            (options.clone(), mounts[0].read_only, mounts[0].seed)
        };
        assert_eq!(access("port=2050,rw,noatime", true), ("port=2050,noatime".into(), true, false));
        assert_eq!(access("rw", false), (String::new(), false, true));
        assert_eq!(access("ro,soft", false), ("soft".into(), true, false));
        assert_eq!(access("", false), (String::new(), false, true));
    }

    #[test]
    fn the_images_volumes_give_way() {
        let image = ImageConfig { volumes: vec!["/data".into(), "/logs/".into()], ..image() };
        let places = |line: &str| {
            let plan = plan(line, &image).unwrap();
            let places: Vec<_> = plan.spec.mounts.into_iter().map(|mount| mount.destination).collect();
            (places.join(" "), plan.volumes.len())
        };
        assert_eq!(places("vch run img"), ("/data /logs".into(), 2));
        assert_eq!(places("vch run -v mine:/data img"), ("/data /logs".into(), 2));
        assert_eq!(places("vch run --tmpfs /logs img"), ("/logs /data".into(), 1));
        let odd = ImageConfig { volumes: vec!["data".into()], ..image.clone() };
        assert_eq!(plan("vch run img", &odd).unwrap_err(), PlanError::ImageVolume("data".into()));
        let same = plan("vch run -v a:/x -v b:/x/. img", &image).unwrap_err();
        assert_eq!(same, PlanError::SameMount("/x".into()));
    }

    #[test]
    fn layers_lie_under_a_top() {
        let root = root(&["aa".into(), "bb".into()]);
        assert_eq!(root.layers, [DiskId::Serial("aa".into()), DiskId::Serial("bb".into())]);
        assert_eq!(root.top, Top::Disk(DiskId::Serial(TOP_SERIAL.into())));
    }
}
