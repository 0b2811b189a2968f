//! Our trees and options as `hadris-iso` takes them. The only file that knows that crate.
//!
//! Two of its habits are turned into errors here: it leaves out what it cannot store with no more than a warning, and
//! it moves directories deeper than eight into a visible `/rr_moved`.

use std::collections::HashMap;
use std::fs::File;

use hadris_fs::{Content, DateTime, DeviceNumber, FileType, Node, Owner, Permissions, SetAttr};
use hadris_iso::{BootEntry, BootInfo, ElTorito, Hybrid, IsoId, IsoLevel, IsoOptions, Relocation};
use hadris_storage::host::FileDevice;

use super::{BiosBoot, Error, Options};
use crate::tree::{Kind, Meta, NodeId, ROOT, Time, Tree};

pub(super) fn write(tree: &Tree, options: &Options, out: &File) -> Result<(), Error> {
    let mut copy = hadris_fs::Tree::new();
    let mut first_names = HashMap::new();
    fill(&mut copy, tree, ROOT, "", &mut first_names)?;
    let options = iso_options(options)?;
    let device = FileDevice::new(out.try_clone()?)?;
    let report = hadris_iso::sync::write(device, &copy, &options).map_err(layout)?;
    match report.warnings().first() {
        None => Ok(()),
        Some(warning) => Err(layout(warning)),
    }
}

fn iso_options(options: &Options) -> Result<IsoOptions, Error> {
    let iso = IsoOptions::default()
        .with_id(IsoId::Volume, &options.volume)
        .with_id(IsoId::Publisher, &options.publisher)
        .with_id(IsoId::Application, "ISO-BUILDER")
        .with_level(IsoLevel::L3)
        .with_rock_ridge()
        .with_relocation(Relocation::Refuse)
        .with_time(date(options.time, "")?);
    if options.boot.uefi.is_some() || options.joliet {
        return Err(layout("neither UEFI nor Joliet can be written yet"));
    }
    Ok(match &options.boot.bios {
        Some(boot) => with_boot(iso, boot),
        None => iso,
    })
}

fn with_boot(iso: IsoOptions, boot: &BiosBoot) -> IsoOptions {
    // Four sectors of 512 bytes: isolinux loads the rest of itself, by the boot information table.
    let entry = BootEntry::bios(&boot.image).with_load_size(4).with_boot_info(BootInfo::Table);
    iso.with_el_torito(ElTorito::new().with_entry(entry)).with_hybrid(Hybrid::mbr().with_bootstrap(&boot.mbr))
}

/// Copies what is below `dir`, whose path is `path`.
fn fill(
    copy: &mut hadris_fs::Tree,
    tree: &Tree,
    dir: NodeId,
    path: &str,
    first_names: &mut HashMap<NodeId, String>,
) -> Result<(), Error> {
    for (name, &id) in tree.entries(dir).into_iter().flatten() {
        let name = str::from_utf8(name)
            .map_err(|_| unfit(&format!("{path}{}", name.escape_ascii()), "its name is not UTF-8"))?;
        let path = format!("{path}{name}");
        if let Some(first) = first_names.get(&id) {
            copy.link(first, &path).map_err(layout)?;
            continue;
        }
        copy.insert(&path, node(tree, id, &path)?).map_err(layout)?;
        match &tree.node(id).kind {
            Kind::Dir(_) => fill(copy, tree, id, &format!("{path}/"), first_names)?,
            _ => drop(first_names.insert(id, path)),
        }
    }
    Ok(())
}

fn node(tree: &Tree, id: NodeId, path: &str) -> Result<Node, Error> {
    let from = tree.node(id);
    let node = match &from.kind {
        Kind::Dir(_) => Node::dir(),
        Kind::File(content) => {
            let size = usize::try_from(content.size).map_err(|_| unfit(path, "it does not fit in memory"))?;
            let mut bytes = vec![0; size];
            content.read_exact_at(&mut bytes, 0).map_err(|source| Error::Read { path: path.to_owned(), source })?;
            Node::file(Content::bytes(bytes))
        }
        Kind::Symlink(target) => Node::symlink(target),
        Kind::CharDevice { major, minor } => device(FileType::CharDevice, *major, *minor),
        Kind::BlockDevice { major, minor } => device(FileType::BlockDevice, *major, *minor),
        Kind::Fifo | Kind::Socket => return Err(unfit(path, "it is a FIFO or a socket")),
    };
    if !from.meta.xattrs.is_empty() {
        return Err(unfit(path, "it has extended attributes"));
    }
    Ok(node.with_attrs(attrs(&from.meta, path)?))
}

fn device(kind: FileType, major: u32, minor: u32) -> Node {
    Node::special(kind, Some(DeviceNumber::new(major, minor)))
}

fn attrs(meta: &Meta, path: &str) -> Result<SetAttr, Error> {
    let time = date(meta.mtime, path)?;
    Ok(SetAttr::new()
        .with_permissions(Permissions::new(u32::from(meta.mode)))
        .with_owner(Owner::new(meta.uid, meta.gid))
        .with_modified(time)
        .with_accessed(time)
        .with_created(time))
}

/// Whole seconds: ISO 9660 holds no more.
fn date(time: Time, path: &str) -> Result<DateTime, Error> {
    DateTime::from_unix_seconds(time.secs).map_err(|_| unfit(path, "its time is not within ISO 9660's years"))
}

fn unfit(path: &str, reason: &str) -> Error {
    Error::Unfit { path: path.to_owned(), reason: reason.to_owned() }
}

fn layout(error: impl std::fmt::Display) -> Error {
    Error::Layout { reason: error.to_string() }
}
