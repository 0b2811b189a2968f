//! From a plan to a machine: the files, disks, locks and ports that are the container's own for as long as it runs.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use wire::spec::Source;

use crate::cli::RunArgs;
use crate::cli::run::disks::Backing;
use crate::plan::{Plan, TOP_SERIAL, Volume};
use crate::state::{About, Container};
use crate::vm::vsock::Vsock;
use crate::vm::{Accel, Begins, Boot, Card, CardEnd, Disk, Format, LinkEnd, Machine, overlay, ports, qemu};
use crate::volumes::{self, Attached};

/// The disks that an image's files are on.
#[derive(Debug)]
pub(super) enum RootDisks {
    Merged(PathBuf),
    /// Serial numbers and files, the lowest first, and the empty disk that a thin one is made over.
    Layers {
        disks: Vec<(String, PathBuf)>,
        top: PathBuf,
    },
}

/// What a machine is put together from.
pub(super) struct Parts<'a> {
    pub(super) args: &'a RunArgs,
    pub(super) plan: &'a Plan,
    pub(super) root: RootDisks,
    pub(super) about: About,
    pub(super) boot: Boot,
    pub(super) accel: Accel,
    pub(super) vsock: Option<Vsock>,
    pub(super) link_end: LinkEnd,
    pub(super) orders: Option<PathBuf>,
    /// What a VCH is told.
    pub(super) told: wire::spec::About,
}

/// A machine, and what it holds on to.
pub(super) struct Assembled {
    pub(super) machine: Machine,
    _volumes: Vec<Attached>,
}

impl Parts<'_> {
    /// Makes what is missing. Nobody else uses the container's directory.
    pub(super) fn assemble(mut self, container: &Container) -> Result<Assembled> {
        let Plan { spec, volumes, card } = self.plan;
        let card = match card {
            None => None,
            Some(card) => {
                let forwards = ports::choose(&card.publish)?;
                eprint!("{}", ports::tell(&card.publish, &forwards));
                self.about.ports = forwards.iter().map(shown).collect();
                self.told.published = forwards.iter().map(published).collect();
                Some(Card { mac: card.mac, end: CardEnd::User(forwards) })
            }
        };
        self.about.mounts = self.mounts();
        container.write_about(&self.about)?;
        let mut attached = Vec::new();
        for volume in volumes {
            attached.push(volumes::attach(volume, container.dir(), container.is_transient())?);
        }
        let (root, mut disks) = root(&self.root, container)?;
        disks.extend(attached.iter().map(|volume| volume.disk.clone()));
        let machine = Machine {
            boot: self.boot,
            firmware: qemu::quick_firmware(),
            accel: self.accel,
            memory_mib: self.args.container.machine.memory.mebibytes(),
            cpus: self.args.container.machine.cpus.processors(),
            link: spec.link.device,
            link_end: self.link_end,
            vsock: self.vsock,
            console: container.console(),
            log: spec.log.map(|_| container.log()),
            guestinfo: container.guestinfo(),
            root,
            disks,
            cards: card.into_iter().collect(),
            orders: self.orders,
            begins: Begins::Boot,
        };
        for file in [Some(&machine.console), machine.log.as_ref()].into_iter().flatten() {
            container.create_file(file, |_| Ok(()))?;
        }
        let mut keys = wire::guestinfo::write(spec);
        wire::guestinfo::write_about(&self.told, &mut keys);
        container.create_file(&machine.guestinfo, |file| write!(file, "{keys}"))?;
        Ok(Assembled { machine, _volumes: attached })
    }

    fn mounts(&self) -> Vec<String> {
        let mounts = self.plan.spec.mounts.iter().map(|mount| {
            let source = match &mount.source {
                Source::Memory { .. } => "tmpfs".to_owned(),
                Source::Nfs { host, path, .. } => format!("{host}:{path}"),
                // two mounts may be on one disk
                Source::Disk(id) => match self.plan.volumes.iter().find(|volume| volume.is(id)) {
                    Some(Volume { backing: Backing::Named(name), .. }) => name.clone(),
                    Some(Volume { backing: Backing::File(path), .. }) => path.display().to_string(),
                    Some(Volume { backing: Backing::Anonymous, serial, .. }) => format!("{serial}.raw"),
                    None => String::new(),
                },
            };
            format!("{source}:{}{}", mount.destination, if mount.read_only { ":ro" } else { "" })
        });
        mounts.collect()
    }
}

/// The root's disks: a thin one takes what the container writes.
fn root(root: &RootDisks, container: &Container) -> Result<(Option<Disk>, Vec<Disk>)> {
    let thin = |base: &Path, serial: Option<&str>| -> Result<Disk> {
        let size = fs::metadata(base).with_context(|| format!("cannot read {}", base.display()))?.len();
        container.create_file(&container.disk(), |file| overlay::write(file, base, size))?;
        Ok(Disk {
            file: container.disk(),
            format: Format::Qcow2,
            serial: serial.map(str::to_owned),
            read_only: false,
            transient: container.is_transient(),
        })
    };
    match root {
        RootDisks::Merged(base) => Ok((Some(thin(base, None)?), Vec::new())),
        RootDisks::Layers { disks, top } => {
            let layers = disks.iter().map(|(serial, file)| Disk {
                file: file.clone(),
                format: Format::Raw,
                serial: Some(serial.clone()),
                read_only: true,
                transient: false,
            });
            let mut disks: Vec<Disk> = layers.collect();
            disks.push(thin(top, Some(TOP_SERIAL))?);
            Ok((None, disks))
        }
    }
}

fn shown(forward: &ports::Forward) -> String {
    let ports::Forward { protocol, address, host, guest } = forward;
    format!("{address}:{host}->{guest}/{}", ports::name(*protocol))
}

/// As a VCH is told.
fn published(forward: &ports::Forward) -> String {
    let ports::Forward { protocol, address, host, guest } = forward;
    format!("{address}:{host}:{guest}/{}", ports::name(*protocol))
}
