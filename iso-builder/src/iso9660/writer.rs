//! Decides where everything lies in an image, and writes it.
//!
//! ```text
//! block 0   system area: MBR, GPT                                  with UEFI, the first partition begins at block 16:
//!       16  volume descriptors                                     its system area
//!       32  with UEFI: volume descriptors of the partition         its volume descriptors
//!           path tables and directories: Rock Ridge, Joliet
//!           with UEFI: the same once more, for the partition
//!           boot catalog
//!           contents
//!           the EFI system partition, and the second GPT
//! ```
//!
//! Files whose contents lie in the EFI system partition (see `shared`) are not stored again. They are beyond the first partition then, and there is none:
//! the disk as a whole shows all files, and is what to mount.
//!
//! Otherwise the partition shows the same files as the whole disk: contents are there once, and what has addresses is there twice,
//! since those of a partition count from its own beginning.

use std::fs::File;
use std::io;

use super::descriptors::{self, Descriptor};
use super::el_torito::{self, Entry};
use super::error::Error;
use super::files::Files;
use super::format::SECTOR_BYTES;
use super::hierarchy::Hierarchy;
use super::partitions::{self, Disk, Gpt};
use super::sink::Sink;
use super::volume::FIRST;
use super::{BiosBoot, Options};
use crate::tree::{Content, Kind, NodeId, ROOT, Tree};

/// The first block of the partition that shows the CD's files: after both the GPT and the descriptors of the whole.
const PARTITION: u32 = 16;

/// A disk for BIOSes is whole cylinders of this many blocks: 64 heads, 32 sectors.
const CYLINDER: u64 = 512;

/// Sectors of 512 bytes in a block.
const SECTORS: u64 = SECTOR_BYTES / partitions::SECTOR;

/// Writes `tree` as an ISO 9660 image to `out`, which is emptied first.
///
/// What has no place in it is an error: xattrs, and times before 1900 or after 2155. Parts of a second are dropped. Contents
/// are read as they are written, holes in them stay holes, and what has several names is there once.
pub fn write(tree: &Tree, options: &Options, out: &File) -> Result<(), Error> {
    descriptors::check(&options.volume, &options.publisher, options.time)?;
    let mut files = Files::new(tree)?;
    let mut names = vec![Hierarchy::new(&files, false)?];
    if options.joliet {
        names.push(Hierarchy::new(&files, true)?);
    }
    let bios = options.boot.bios.as_ref().map(|boot| Loader::find(tree, boot)).transpose()?;
    let layout = Layout::plan(&names, &mut files, options)?;
    let mut sink = Sink::new(out, layout.blocks * SECTOR_BYTES)?;
    for view in &layout.views {
        view.write(&names, &files, &layout, options, &mut sink)?;
    }
    contents(&files, &mut sink)?;
    if let Some(catalog) = layout.catalog {
        let mut entries = Vec::new();
        if let Some(loader) = &bios {
            entries.push(Entry::bios(files.file(loader.id).block));
            loader.write_info(&files, &mut sink)?;
        }
        if let (Some(system), Some(boot)) = (&layout.system, &options.boot.uefi) {
            let unreadable = |source| Error::Read { path: "(the EFI system partition)".to_owned(), source };
            store(&boot.image, u64::from(system.block) * SECTOR_BYTES, &mut sink, unreadable)?;
            entries.push(Entry::uefi(system.block, boot.image.size));
        }
        sink.put(u64::from(catalog) * SECTOR_BYTES, &el_torito::catalog(&entries))?;
        let boot_sector = bios.map(|loader| u64::from(files.file(loader.id).block) * SECTORS);
        layout.partitions(options, boot_sector, &mut sink)?;
    }
    sink.digest()?;
    Ok(())
}

/// Where everything lies, in blocks.
struct Layout {
    views: Vec<View>,
    catalog: Option<u32>,
    system: Option<System>,
    blocks: u64,
}

/// One set of descriptors with its directories: that of the whole, or that of the partition.
struct View {
    descriptors: u32,
    /// What addresses are less by.
    shift: u32,
    /// The first block of each hierarchy.
    bases: Vec<u32>,
    /// Blocks of the volume.
    blocks: u32,
}

/// The EFI system partition.
struct System {
    block: u32,
    blocks: u32,
}

impl Layout {
    fn plan(names: &[Hierarchy<'_>], files: &mut Files<'_>, options: &Options) -> Result<Layout, Error> {
        let boots = options.boot.bios.is_some() || options.boot.uefi.is_some();
        let uefi = options.boot.uefi.as_ref();
        // Files that lie in the EFI system partition are outside of the other one, which then cannot show them.
        let partition = uefi.is_some_and(|boot| !files.share(&boot.image));
        let shifts = if partition { &[0, PARTITION][..] } else { &[0] };
        let fit = |block: u64| {
            let reason = || "it has more than 2^32 blocks of 2048 bytes".to_owned();
            u32::try_from(block).map_err(|_| Error::Layout { reason: reason() })
        };
        // a primary, a terminator, a boot record in the first view, one with Joliet
        let mut next = u64::from(FIRST + if partition { PARTITION } else { u32::from(boots) });
        next += 1 + names.len() as u64;
        let mut views = Vec::new();
        for &shift in shifts {
            let mut bases = Vec::new();
            for hierarchy in names {
                bases.push(fit(next)?);
                next += u64::from(hierarchy.blocks);
            }
            views.push(View { descriptors: FIRST + shift, shift, bases, blocks: 0 });
        }
        let catalog = boots.then(|| fit(next)).transpose()?;
        next = files.place(next + u64::from(boots));
        let data_end = fit(next)?;
        let mut system = None;
        if let Some(boot) = uefi {
            if boot.image.size == 0 {
                return Err(Error::Layout { reason: "the EFI system partition is empty".to_owned() });
            }
            let blocks = fit(boot.image.size.div_ceil(SECTOR_BYTES))?;
            files.place_shared(fit(next)?);
            system = Some(System { block: fit(next)?, blocks });
            next += u64::from(blocks) + partitions::BACKUP_SECTORS.div_ceil(SECTORS);
        } else if boots {
            next = next.next_multiple_of(CYLINDER);
        }
        for view in &mut views {
            view.blocks = if view.shift == 0 { fit(next)? } else { data_end - view.shift };
        }
        Ok(Layout { views, catalog, system, blocks: next })
    }

    /// MBR and GPT, which are written last, since they have GUIDs that depend on everything else.
    fn partitions(&self, options: &Options, boot: Option<u64>, sink: &mut Sink<'_>) -> Result<(), Error> {
        let sectors = |blocks: u32| u64::from(blocks) * SECTORS;
        let gpt = self.system.as_ref().map(|system| {
            let data = (sectors(PARTITION), sectors(system.block - PARTITION));
            let system = (sectors(system.block), sectors(system.blocks));
            Gpt { data: Some(data).filter(|_| self.views.len() > 1), system }
        });
        let disk = Disk { sectors: self.blocks * SECTORS, gpt };
        let code = options.boot.bios.as_ref().map_or(&[][..], |boot| &boot.mbr);
        let digest = sink.digest()?;
        sink.put(0, &partitions::mbr(&disk, code, boot, &digest))?;
        for (at, bytes) in partitions::gpt(&disk, &digest) {
            sink.put(at, &bytes)?;
        }
        Ok(())
    }
}

impl View {
    fn write(
        &self,
        names: &[Hierarchy<'_>],
        files: &Files<'_>,
        layout: &Layout,
        options: &Options,
        sink: &mut Sink<'_>,
    ) -> Result<(), Error> {
        let described = names.iter().zip(&self.bases).enumerate().map(|(number, (hierarchy, base))| {
            let base = base - self.shift;
            let descriptor = Descriptor {
                joliet: number > 0,
                volume: &options.volume,
                publisher: &options.publisher,
                time: options.time,
                blocks: self.blocks,
                path_table_size: u32::try_from(hierarchy.path_table_size()).expect("it was measured"),
                path_tables: hierarchy.path_tables(base),
                root: hierarchy.root_record(files, base),
            };
            descriptor.bytes()
        });
        let mut all: Vec<_> = described.collect();
        // firmware starts from the whole alone; the boot record comes second, where the specification has it
        if let Some(catalog) = layout.catalog.filter(|_| self.shift == 0) {
            all.insert(1, descriptors::boot_record(catalog));
        }
        all.push(descriptors::terminator());
        sink.put(u64::from(self.descriptors) * SECTOR_BYTES, all.as_flattened())?;
        for (hierarchy, base) in names.iter().zip(&self.bases) {
            hierarchy.write(files, *base, self.shift, sink)?;
        }
        Ok(())
    }
}

/// The boot image of a BIOS, which is a file of the tree.
struct Loader<'a> {
    id: NodeId,
    path: &'a str,
    content: &'a Content,
}

impl<'a> Loader<'a> {
    fn find(tree: &'a Tree, boot: &'a BiosBoot) -> Result<Loader<'a>, Error> {
        if boot.mbr.len() > partitions::CODE {
            let reason =
                format!("the MBR's boot code has {} bytes, and room is for {}", boot.mbr.len(), partitions::CODE);
            return Err(Error::Layout { reason });
        }
        let mut names = boot.image.split('/').filter(|name| !name.is_empty());
        let id = names.try_fold(ROOT, |dir, name| tree.child(dir, name.as_bytes()));
        let missing = || Error::Unfit { path: boot.image.clone(), reason: "the boot image is no file".to_owned() };
        let id = id.ok_or_else(missing)?;
        let Kind::File(content) = &tree.node(id).kind else { return Err(missing()) };
        el_torito::check(&boot.image, content)?;
        Ok(Loader { id, path: &boot.image, content })
    }

    fn write_info(&self, files: &Files<'_>, sink: &mut Sink<'_>) -> Result<(), Error> {
        let block = files.file(self.id).block;
        let info = el_torito::info(block, self.content)
            .map_err(|source| Error::Read { path: self.path.to_owned(), source })?;
        Ok(sink.put(u64::from(block) * SECTOR_BYTES + el_torito::INFO.start as u64, &info)?)
    }
}

fn contents(files: &Files<'_>, sink: &mut Sink<'_>) -> Result<(), Error> {
    for (id, file, content) in files.stored() {
        store(content, u64::from(file.block) * SECTOR_BYTES, sink, |source| files.unreadable(id, source))?;
    }
    Ok(())
}

/// Copies what is stored of a file to byte `start` of the image.
fn store(
    content: &Content,
    start: u64,
    sink: &mut Sink<'_>,
    unreadable: impl Fn(io::Error) -> Error,
) -> Result<(), Error> {
    for extent in content.extents.iter() {
        let mut done = 0;
        while done < extent.len {
            let len = (extent.len - done).min(Sink::CHUNK);
            let room = sink.room(start + extent.at + done, usize::try_from(len).expect("a chunk at most"))?;
            extent.source.read_exact_at(room, extent.from + done).map_err(&unreadable)?;
            done += len;
        }
    }
    Ok(())
}
