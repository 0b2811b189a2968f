//! Where in a program's file the instructions lie that must be answered and do not fault by themselves: `cpuid`, `vmcall`, `vmmcall`. Pure.
//!
//! A search for their bytes alone would find them inside of other instructions, some twenty times in a C library; so each section of code is decoded from its
//! beginning. Format: the System V ABI, "Object Files" (elf(5)).

use iced_x86::{Code, Decoder, DecoderOptions, Instruction};

/// What lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cpuid,
    Hypercall(Hypercall),
}

/// Intel's, and AMD's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hypercall {
    Vmcall,
    Vmmcall,
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Bytes from the beginning of the file.
    pub(crate) offset: u64,
    pub(crate) kind: Kind,
    /// Bytes of the instruction.
    pub(crate) length: u64,
}

/// Every site in a 64-bit ELF file; none in what is no such file.
pub(crate) fn sites(file: &[u8]) -> Vec<Site> {
    let mut found = Vec::new();
    for (offset, length) in sections(file).unwrap_or_default() {
        let Some(code) =
            usize::try_from(offset).ok().and_then(|at| file.get(at..)?.get(..usize::try_from(length).ok()?))
        else {
            continue;
        };
        if may_hold_any(code) {
            sweep(code, offset, &mut found);
        }
    }
    found
}

/// Most libraries have none, and this is seen sooner than by decoding.
fn may_hold_any(code: &[u8]) -> bool {
    let second_byte = |&[first, second]: &[u8; 2]| first == 0x0f && matches!(second, 0xa2 | 0x01);
    code.array_windows().any(second_byte)
}

fn sweep(code: &[u8], offset: u64, found: &mut Vec<Site>) {
    let mut decoder = Decoder::with_ip(64, code, offset, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let kind = match instruction.code() {
            Code::Cpuid => Kind::Cpuid,
            Code::Vmcall => Kind::Hypercall(Hypercall::Vmcall),
            Code::Vmmcall => Kind::Hypercall(Hypercall::Vmmcall),
            _ => continue,
        };
        found.push(Site { offset: instruction.ip(), kind, length: instruction.len() as u64 });
    }
}

/// `SHT_PROGBITS` sections with `SHF_EXECINSTR`, as offset and length; in a file without sections, the segments that can be executed.
fn sections(file: &[u8]) -> Option<Vec<(u64, u64)>> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = |at: usize, size: usize, count: usize| {
        let (at, size, count) = (long(file, at)?, half(file, size)?, half(file, count)?);
        let at = usize::try_from(at).ok()?;
        Some((0..count).filter_map(move |index| file.get(at.checked_add(index * size)?..)).collect::<Vec<_>>())
    };
    let of_sections = table(40, 58, 60)?.into_iter().filter_map(|section| {
        let is_code = word(section, 4)? == 1 && long(section, 8)? & 4 != 0;
        is_code.then_some((long(section, 24)?, long(section, 32)?))
    });
    let of_sections: Vec<_> = of_sections.collect();
    if !of_sections.is_empty() {
        return Some(of_sections);
    }
    let of_segments = table(32, 54, 56)?.into_iter().filter_map(|segment| {
        let is_code = word(segment, 0)? == 1 && word(segment, 4)? & 1 != 0;
        is_code.then_some((long(segment, 8)?, long(segment, 32)?))
    });
    Some(of_segments.collect())
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one section of code after its headers.
    fn elf(code: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 128];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[40..48].copy_from_slice(&64u64.to_le_bytes());
        file[58..60].copy_from_slice(&64u16.to_le_bytes());
        file[60..62].copy_from_slice(&1u16.to_le_bytes());
        file[64 + 4] = 1;
        file[64 + 8] = 6;
        file[64 + 24..64 + 32].copy_from_slice(&128u64.to_le_bytes());
        file[64 + 32..64 + 40].copy_from_slice(&(code.len() as u64).to_le_bytes());
        file.extend(code);
        file
    }

    #[test]
    fn instructions_are_found_and_their_bytes_inside_of_others_are_not() {
        let code = [
            0x48, 0xb8, 0x0f, 0xa2, 0x0f, 0x01, 0xc1, 0x0f, 0x01, 0xd9, // mov rax, 0xd9010fc1010fa20f
            0x0f, 0xa2, // cpuid
            0x90, // nop
            0x0f, 0x01, 0xc1, // vmcall
            0x0f, 0x01, 0xd9, // vmmcall
            0xc3,
        ];
        let site = |offset, kind, length| Site { offset, kind, length };
        let expected = [
            site(138, Kind::Cpuid, 2),
            site(141, Kind::Hypercall(Hypercall::Vmcall), 3),
            site(144, Kind::Hypercall(Hypercall::Vmmcall), 3),
        ];
        assert_eq!(sites(&elf(&code)), expected);
        // without sections
        let mut file = elf(&code);
        file[60] = 0;
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56] = 1;
        file[64..72].copy_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
        file[72..80].copy_from_slice(&128u64.to_le_bytes());
        assert_eq!(sites(&file), expected);
    }

    #[test]
    fn what_is_no_program_has_none() {
        let whole = elf(&[0x0f, 0xa2]);
        for length in 0..whole.len() {
            assert_eq!(sites(&whole[..length]), [], "{length}");
        }
        assert_eq!(sites(b"#!/bin/sh\n\x0f\xa2"), []);
        let mut lies = whole.clone();
        lies[40..48].fill(0xff);
        assert_eq!(sites(&lies), []);
        let mut lies = whole;
        lies[64 + 32..64 + 40].fill(0xff);
        assert_eq!(sites(&lies), []);
    }
}
