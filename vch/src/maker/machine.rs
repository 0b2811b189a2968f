//! From what was asked for to a machine: the plan, and the files that it lies in.
//!
//! It decides where a container's files are. It blocks: disks are written.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use wire::spec::About;

use super::wishes::{Refusal, Wishes};
use super::{Made, MakeError, Maker, cards};
use crate::cli::{ContainerArgs, LinkKind};
use crate::containers::Container;
use crate::image_store::StoredImage;
use crate::networks::Joined;
use crate::plan::{self, Asked, Plan, TOP_SERIAL};
use crate::vm::{Accel, Begins, Card, Disk, Format, LinkEnd, Machine, qemu};
use crate::{state, volumes};

impl Maker {
    /// What the container's guest is told: its plan, and the text of its spec without the link's key.
    pub(super) fn plan(
        &self,
        id: &str,
        name: &str,
        made: &Made,
        joined: &[Joined],
        created_ns: u64,
    ) -> Result<Planned, MakeError> {
        let image = self.images.of_container(&made.image_id)?;
        let Wishes { mut args, image: said, seccomp, memory_limit, size } = super::wishes::read(&made.asked)?;
        args.disks.mount = self.mount_args(made)?;
        let disks = self.images.disks(&image)?;
        let layers: Vec<String> = disks.iter().map(|disk| disk.serial.clone()).collect();
        let mut variables = Vec::new();
        for entry in &args.env {
            variables.push(plan::resolve(entry, |_| None).map_err(anyhow::Error::from)?);
        }
        let asked = Asked {
            id,
            args: &args,
            link: LinkKind::Virtio,
            // its output is kept by the host, in the container's journal
            transient: true,
            variables: &variables,
            seccomp: seccomp.as_deref(),
            layers: &layers,
            size,
        };
        // it has the image's configuration already
        let mut plan = plan::plan(self.key.link_key(id), asked, &said).map_err(|error| Refusal(error.to_string()))?;
        plan.spec.machine.memory = memory_limit;
        let mut about = About {
            name: Some(name.into()),
            image: made.asked.image.clone(),
            image_id: Some(image.id.clone()),
            created_ns: i64::try_from(created_ns).ok(),
            labels: made.asked.labels.clone().unwrap_or_default().into_iter().collect(),
            ..plan::about(&args, &said)
        };
        cards::place(&mut plan, &mut about, &args.network, joined);
        let disks = disks.into_iter().map(|layer| Disk {
            file: layer.file,
            format: Format::Raw,
            serial: Some(layer.serial),
            read_only: true,
            transient: false,
        });
        let disks = disks.collect();
        Ok(Planned { args, plan, about, disks, image })
    }

    /// The machine, its files written.
    pub(super) fn assemble(&self, container: &Container, made: &Made, cards: Vec<Card>) -> Result<Machine, MakeError> {
        let (id, dir) = (&container.id, container.dir());
        let joined = container.joined().unwrap_or_default();
        let planned = self.plan(id, &container.name(), made, &joined, container.created_ns())?;
        let mut disks = planned.disks.clone();
        let top = Maker::disk(container);
        if !top.exists() {
            copy_sparse(&self.images.top(&planned.image)?, &top)?;
        }
        disks.push(Disk {
            file: top,
            format: Format::Raw,
            serial: Some(TOP_SERIAL.into()),
            read_only: false,
            transient: made.asked.host_config.as_ref().and_then(|host| host.auto_remove).unwrap_or_default(),
        });
        for volume in &planned.plan.volumes {
            disks.push(volumes::held(volume, &self.volumes.store)?);
        }
        let guestinfo = dir.join(GUESTINFO);
        state::write_private(&guestinfo, planned.keys().to_string().as_bytes())?;
        let Planned { args, plan, .. } = planned;
        Ok(Machine {
            boot: self.boot.clone(),
            firmware: qemu::quick_firmware(),
            // its hypervisor takes a better one if it can
            accel: Accel::Tcg,
            memory_mib: args.machine.memory.mebibytes(),
            cpus: args.machine.cpus.processors(),
            link: plan.spec.link.device,
            link_end: LinkEnd::Host(self.links.clone()),
            vsock: None,
            console: dir.join(CONSOLE),
            log: None,
            guestinfo,
            root: None,
            disks,
            cards,
            orders: None,
            begins: Begins::Boot,
        })
    }
}

/// A plan, and what goes with it.
pub(super) struct Planned {
    pub(super) args: ContainerArgs,
    pub(super) plan: Plan,
    pub(super) about: About,
    /// Those of the image's layers.
    pub(super) disks: Vec<Disk>,
    pub(super) image: std::sync::Arc<StoredImage>,
}

impl Planned {
    /// The keys of its guest's spec.
    pub(super) fn keys(&self) -> wire::vmx::Dictionary {
        let mut keys = wire::guestinfo::write(&self.plan.spec);
        wire::guestinfo::write_about(&self.about, &mut keys);
        keys
    }
}

/// Copies a disk that is mostly holes, and keeps them. The two may lie on file systems of different kinds, between which the kernel copies nothing.
fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let copy = || {
        let (source, beside) = (File::open(from)?, to.with_extension("part"));
        let target = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        target.set_len(source.metadata()?.len())?;
        let mut at = 0;
        while let Ok(data) = rustix::fs::seek(&source, rustix::fs::SeekFrom::Data(at)) {
            let hole = rustix::fs::seek(&source, rustix::fs::SeekFrom::Hole(data))?;
            for from in (data..hole).step_by(PIECE) {
                let mut piece = vec![0; usize::try_from(hole - from).map_or(PIECE, |left| left.min(PIECE))];
                source.read_exact_at(&mut piece, from)?;
                target.write_all_at(&piece, from)?;
            }
            at = hole;
        }
        target.sync_all()?;
        fs::rename(&beside, to)
    };
    copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;
/// In the container's directory.
const GUESTINFO: &str = "guestinfo";
/// In the container's directory: what its guest's kernel says.
pub(super) const CONSOLE: &str = "console.log";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_copy_has_the_holes_of_its_disk_wherever_it_lies() {
        let (dir, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let disk = dir.path().join("disk");
        let file = File::create(&disk).unwrap();
        file.set_len(64 << 20).unwrap();
        let data: Vec<u8> = (0..PIECE + 5000).map(|at| u8::try_from(at % 251).unwrap()).collect();
        file.write_all_at(&data, 8 << 20).unwrap();
        file.write_all_at(b"end", (64 << 20) - 3).unwrap();
        for to in [dir.path().join("top.raw"), memory.path().join("top.raw")] {
            copy_sparse(&disk, &to).unwrap();
            assert!(fs::read(&to).unwrap() == fs::read(&disk).unwrap(), "{}", to.display());
            let meta = fs::metadata(&to).unwrap();
            assert!(meta.blocks() * 512 < 4 << 20 && meta.mode() & 0o777 == 0o600, "{meta:?}");
        }
    }
}
