//! A kernel, its command line and its initramfs as the one program that a UEFI firmware starts: a unified kernel image.
//!
//! The format is the UAPI Group's "Unified Kernel Image": sections added to a stub, which finds them by name in its own memory (here Debian's
//! `linuxx64.efi.stub`). Headers are those of Microsoft's "PE Format". Nothing is copied: an image is a [`Content`] that says where its parts lie. Sections
//! lie at offsets that are multiples of an ISO 9660 sector, so that a medium which holds the image can name kernel and initramfs, too, and store them once.

use std::io;

use crate::tree::{Content, Extent};

/// What an image is put together from.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// The program that starts the kernel.
    pub stub: Content,
    /// Who made it, as `os-release(5)` has it: boot managers show this.
    pub os_release: &'a str,
    pub cmdline: &'a str,
    pub kernel: Content,
    pub initramfs: Content,
}

/// The program made of `parts`.
pub fn image(parts: Parts<'_>) -> Result<Content, Error> {
    let stub = Stub::read(&parts.stub)?;
    let text = |text: &str| Content::from_bytes(text.as_bytes());
    let sections: [(&[u8; 8], Content); 4] = [
        (b".osrel\0\0", text(parts.os_release)),
        (b".cmdline", text(parts.cmdline)),
        (b".linux\0\0", parts.kernel),
        (b".initrd\0", parts.initramfs),
    ];
    let mut head = stub.head.clone();
    let mut extents = vec![];
    let (mut file_end, mut memory_end) = (parts.stub.size, u64::from(stub.size_of_image));
    for (number, (name, content)) in sections.into_iter().enumerate() {
        let at = file_end.next_multiple_of(FILE_ALIGNMENT);
        let address = memory_end.next_multiple_of(PAGE);
        let stored = content.size.next_multiple_of(u64::from(stub.file_alignment));
        (file_end, memory_end) = (at + stored, address + stored);
        let field = |value: u64| u32::try_from(value).map(u32::to_le_bytes).map_err(|_| Error::TooLarge);
        let place = stub.table_end + number * SECTION;
        let header = &mut head[place..place + SECTION];
        header[..8].copy_from_slice(name);
        header[8..12].copy_from_slice(&field(content.size)?);
        header[12..16].copy_from_slice(&field(address)?);
        header[16..20].copy_from_slice(&field(stored)?);
        header[20..24].copy_from_slice(&field(at)?);
        // initialized data, read only
        header[36..40].copy_from_slice(&0x4000_0040u32.to_le_bytes());
        extents.extend(content.extents.into_iter().map(|extent| Extent { at: at + extent.at, ..extent }));
    }
    let count = stub.sections + 4;
    head[stub.coff + 2..stub.coff + 4].copy_from_slice(&count.to_le_bytes());
    let size_of_image = memory_end.next_multiple_of(u64::from(stub.section_alignment).max(PAGE));
    let size_of_image = u32::try_from(size_of_image).map_err(|_| Error::TooLarge)?;
    head[stub.optional + 56..stub.optional + 60].copy_from_slice(&size_of_image.to_le_bytes());
    // The checksum of the stub is no longer true, and no firmware asks for one of a program.
    head[stub.optional + 64..stub.optional + 68].fill(0);

    let mut whole = Content::from_bytes(head);
    let headers = whole.size;
    let stub = parts.stub.extents.iter().filter_map(|extent| beyond(extent, headers));
    whole.extents = whole.extents.into_iter().chain(stub).chain(extents).collect();
    whole.size = file_end;
    Ok(whole)
}

/// What of `extent` lies at `start` or after it.
fn beyond(extent: &Extent, start: u64) -> Option<Extent> {
    let cut = start.saturating_sub(extent.at);
    (cut < extent.len).then(|| Extent {
        at: extent.at + cut,
        len: extent.len - cut,
        from: extent.from + cut,
        source: extent.source.clone(),
    })
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the UEFI stub cannot be read")]
    Read(#[from] io::Error),
    #[error("the UEFI stub cannot be used: {reason} at offset {offset}")]
    Stub { reason: &'static str, offset: usize },
    #[error("kernel and initramfs together have more than 4 GiB")]
    TooLarge,
}

/// What the stub's headers say.
struct Stub {
    /// All headers, with room for ours.
    head: Vec<u8>,
    /// Where the file header begins, and the optional one.
    coff: usize,
    optional: usize,
    sections: u16,
    /// Where the next section's header goes.
    table_end: usize,
    file_alignment: u32,
    section_alignment: u32,
    size_of_image: u32,
}

impl Stub {
    fn read(stub: &Content) -> Result<Stub, Error> {
        let wrong = |reason, offset| Error::Stub { reason, offset };
        let mut head = vec![0; usize::try_from(stub.size.min(MAX_HEADERS)).expect("at most 64 KiB")];
        stub.read_exact_at(&mut head, 0)?;
        let short = |at: usize| {
            let bytes = head.get(at..at + 2).ok_or(wrong("it ends within its headers", at))?;
            Ok::<_, Error>(u16::from_le_bytes(bytes.try_into().expect("2 bytes")))
        };
        let word = |at: usize| Ok::<_, Error>(u32::from(short(at)?) | u32::from(short(at + 2)?) << 16);
        if !head.starts_with(b"MZ") {
            return Err(wrong("it is no program for UEFI (no MZ)", 0));
        }
        let pe = word(0x3c)? as usize;
        if word(pe)? != u32::from_le_bytes(*b"PE\0\0") {
            return Err(wrong("it is no program for UEFI (no PE header)", pe));
        }
        let coff = pe + 4;
        let optional = coff + 20;
        if short(coff)? != 0x8664 || short(optional)? != 0x20b {
            return Err(wrong("it is not for x86-64", coff));
        }
        // 10 to 13 are the kinds of programs that UEFI knows; 10 is an application.
        if short(optional + 68)? != 10 {
            return Err(wrong("it is no UEFI application", optional + 68));
        }
        let (section_alignment, file_alignment) = (word(optional + 32)?, word(optional + 36)?);
        if !file_alignment.is_power_of_two() || u64::from(file_alignment) > FILE_ALIGNMENT {
            return Err(wrong(
                "its sections are aligned to more than 2048 bytes, or to no power of two",
                optional + 36,
            ));
        }
        let sections = short(coff + 2)?;
        let table = optional + usize::from(short(coff + 16)?);
        let table_end = table + usize::from(sections) * SECTION;
        let size_of_headers = word(optional + 60)? as usize;
        let end = table_end + 4 * SECTION;
        if end > size_of_headers || size_of_headers > head.len() {
            return Err(wrong("its headers have no room for four sections more", table_end));
        }
        for place in (table..table_end).step_by(SECTION) {
            // .linux, and no other name of these eight bytes: the stub would take the first one it finds.
            if [&b".linux\0\0"[..], b".initrd\0", b".cmdline"].contains(&&head[place..place + 8]) {
                return Err(wrong("it is a whole unified kernel image already", place));
            }
        }
        // What starts by itself would start: a kernel without its initramfs, a boot manager without a menu.
        if !holds(stub, b".linux\0")? || !holds(stub, b".initrd\0")? {
            return Err(wrong("it is a program, but looks for no kernel in itself (no .linux)", 0));
        }
        let size_of_image = word(optional + 56)?;
        head.truncate(size_of_headers);
        Ok(Stub { head, coff, optional, sections, table_end, file_alignment, section_alignment, size_of_image })
    }
}

/// Are these bytes somewhere in the program?
fn holds(program: &Content, wanted: &[u8]) -> io::Result<bool> {
    let mut chunk = vec![0; 1 << 16];
    // what lies across the end of a chunk is in the next one, whole
    let overlap = wanted.len() as u64 - 1;
    let mut at = 0;
    while at + overlap < program.size {
        let len = usize::try_from((program.size - at).min(1 << 16)).expect("a chunk at most");
        program.read_exact_at(&mut chunk[..len], at)?;
        if chunk[..len].windows(wanted.len()).any(|bytes| bytes == wanted) {
            return Ok(true);
        }
        at += len as u64 - overlap;
    }
    Ok(false)
}

/// Bytes of a section's header.
const SECTION: usize = 40;

/// Bytes of a sector of an ISO 9660 medium; a multiple of what PE wants.
const FILE_ALIGNMENT: u64 = 2048;

/// What begins a page can be mapped.
const PAGE: u64 = 4096;

/// Stubs have 1 to 4 KiB of headers.
const MAX_HEADERS: u64 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    /// A program of one section, with room for `room` more.
    fn stub(room: usize) -> Vec<u8> {
        let mut bytes = vec![0; 0x400];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x80;
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        let (coff, optional) = (0x84, 0x98);
        bytes[coff..coff + 4].copy_from_slice(&[0x64, 0x86, 1, 0]);
        bytes[coff + 16] = 0xf0;
        bytes[optional..optional + 2].copy_from_slice(&[0x0b, 0x02]);
        bytes[optional + 33] = 2; // 512
        bytes[optional + 37] = 2;
        bytes[optional + 57] = 0x40; // 16 KiB in memory
        let headers = u16::try_from(0x188 + 40 + 40 * room).unwrap();
        bytes[optional + 60..optional + 62].copy_from_slice(&headers.to_le_bytes());
        bytes[optional + 68] = 10;
        bytes[0x188..0x18d].copy_from_slice(b".text");
        bytes.extend(b"code of the stub .linux\0.initrd\0");
        bytes
    }

    fn parts(stub: Vec<u8>) -> Parts<'static> {
        Parts {
            stub: Content::from_bytes(stub),
            os_release: "ID=x\n",
            cmdline: "quiet",
            kernel: Content::from_bytes(vec![1; 5000]),
            initramfs: Content::from_bytes(vec![2; 700]),
        }
    }

    #[test]
    fn sections_lie_where_their_headers_say() {
        let content = image(parts(stub(4))).unwrap();
        let mut all = vec![0; usize::try_from(content.size).unwrap()];
        content.read_exact_at(&mut all, 0).unwrap();
        assert_eq!(all[0x86], 5, "sections");
        assert_eq!(&all[0x400..0x410], b"code of the stub");
        let word = |at: usize| u32::from_le_bytes(all[at..at + 4].try_into().unwrap()) as usize;
        let mut memory = 0x4000;
        for (number, (name, bytes)) in
            [(".osrel", &b"ID=x\n"[..]), (".cmdline", b"quiet"), (".linux", &[1; 5000]), (".initrd", &[2; 700])]
                .into_iter()
                .enumerate()
        {
            let header = 0x188 + 40 * (number + 1);
            assert!(all[header..].starts_with(name.as_bytes()), "{name}");
            let (size, address, stored, at) =
                (word(header + 8), word(header + 12), word(header + 16), word(header + 20));
            assert_eq!(&all[at..at + size], bytes, "{name}");
            assert!(all[at + size..at + stored].iter().all(|byte| *byte == 0), "{name}");
            assert_eq!((at % 2048, stored % 512, address % 4096), (0, 0, 0), "{name}");
            assert!(address >= memory, "{name} lies over what is before it");
            memory = address + stored;
        }
        assert!(word(0x98 + 56) >= memory, "the image ends before its sections");
    }

    #[test]
    fn a_name_across_two_chunks_is_found() {
        for at in [0, 65_530, 65_536 + 65_530, 200_000 - 7] {
            let mut bytes = vec![b'.'; 200_000];
            bytes[at..at + 7].copy_from_slice(b".linux\0");
            assert!(holds(&Content::from_bytes(bytes), b".linux\0").unwrap(), "{at}");
        }
        assert!(!holds(&Content::from_bytes(vec![b'.'; 200_000]), b".linux\0").unwrap());
        assert!(!holds(&Content::from_bytes(&b".li"[..]), b".linux\0").unwrap());
    }

    #[test]
    fn what_is_no_stub_is_refused_with_the_place() {
        let check = |bytes: Vec<u8>, expected: &str| {
            let error = image(parts(bytes)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(b"#!/bin/sh".to_vec(), "no MZ) at offset 0");
        check(stub(4)[..0x90].to_vec(), "it ends within its headers");
        check(stub(3), "no room for four sections more");
        let mut far = stub(4);
        far[0x3c..0x40].fill(0xff);
        check(far, "it ends within its headers");
        let mut arm = stub(4);
        arm[0x84] = 0;
        check(arm, "not for x86-64");
        let mut other = stub(4);
        other.truncate(0x410);
        check(other, "looks for no kernel in itself");
        let mut twice = stub(4);
        twice[0x188..0x18e].copy_from_slice(b".linux");
        check(twice, "a whole unified kernel image already");
    }
}
