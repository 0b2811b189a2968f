//! Has a running guest write to its disks what it holds in memory.
//!
//! The image need not have a program for it (one from scratch has none), and what it calls `sync` may be anything. So one is brought along: 148 bytes, which lie
//! in `/dev`, on no disk, for as long as it runs.

use axum::body::Body;
use tar::{Builder, EntryType, Header};
use wire::message::{Exec, Work};

use crate::api::carried::Carried;
use crate::containers::{AbsentError, Container};
use crate::timestamp::now_ns;

/// Fails with the reason.
pub(super) async fn sync(container: &Container) -> Result<(), String> {
    let name = format!(".sync-{}", now_ns());
    let archive = archive(&name).map_err(|error| error.to_string())?;
    let reach = async || container.reach().await.map_err(|error: AbsentError| error.to_string());
    let copy = Work::CopyIn { dir: DIRECTORY.into(), owners: false, replace: false };
    let copying = Carried::begin(reach().await?, copy).await.map_err(|error| error.to_string())?;
    copying.feed(&mut Body::from(archive).into_data_stream()).await.map_err(|failure| failure.to_string())?;
    let program = Work::Exec(Exec {
        argv: vec![format!("{DIRECTORY}/{name}")],
        env: Default::default(),
        dir: "/".into(),
        user: "0".into(),
        terminal: None,
        stdin: false,
        attach: true,
    });
    let mut running = Carried::begin(reach().await?, program).await.map_err(|error| error.to_string())?;
    while running.next().await.map_err(|failure| failure.to_string())?.is_some() {}
    Ok(())
}

/// The program, as an archive.
fn archive(name: &str) -> std::io::Result<Vec<u8>> {
    let program = program();
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o500);
    header.set_size(program.len() as u64);
    let mut archive = Builder::new(Vec::new());
    archive.append_data(&mut header, name, &program[..])?;
    archive.into_inner()
}

/// An ELF program for x86-64 without sections, of one segment that is the whole file: elf(5).
fn program() -> Vec<u8> {
    let size = (HEADERS + CODE.len()) as u64;
    let halves = |halves: &[u16]| halves.iter().flat_map(|half| half.to_le_bytes()).collect::<Vec<u8>>();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let wide = |wides: &[u64]| wides.iter().flat_map(|wide| wide.to_le_bytes()).collect::<Vec<u8>>();
    [
        // 64 bits, little endian, version 1, System V
        &b"\x7FELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"[..],
        // an executable for x86-64, version 1; where it begins, its segments' table, no sections
        &halves(&[2, 62]),
        &words(&[1]),
        &wide(&[BASE + HEADERS as u64, 64, 0]),
        &words(&[0]),
        // the sizes of this header and of a segment's, one segment
        &halves(&[64, 56, 1, 0, 0, 0]),
        // to be loaded, to be read and executed; from the file's start to the base
        &words(&[1, 5]),
        &wide(&[0, BASE, BASE, size, size, 4096]),
        CODE,
    ]
    .concat()
}

/// `unlink(argv[0]); sync(); exit(0)`.
const CODE: &[u8] = &[
    0x48, 0x8B, 0x7C, 0x24, 0x08, // mov rdi, [rsp + 8]
    0xB8, 87, 0, 0, 0, // mov eax, SYS_unlink
    0x0F, 0x05, // syscall
    0xB8, 162, 0, 0, 0, // mov eax, SYS_sync
    0x0F, 0x05, // syscall
    0x31, 0xFF, // xor edi, edi
    0xB8, 60, 0, 0, 0, // mov eax, SYS_exit
    0x0F, 0x05, // syscall
];
/// Where it is loaded.
const BASE: u64 = 0x10_0000;
/// Of the program and of its segment.
const HEADERS: usize = 64 + 56;
/// A file system in memory in every container, on which programs may be run.
const DIRECTORY: &str = "/dev";

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_program_runs_and_leaves_nothing() {
        assert_eq!(program().len(), 148);
        let dir = tempfile::tempdir().unwrap();
        tar::Archive::new(&archive("it").unwrap()[..]).unpack(dir.path()).unwrap();
        let path = dir.path().join("it");
        let mut bytes = Vec::new();
        std::fs::File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, program());
        let status = Command::new(&path).status().unwrap();
        assert!(status.success(), "{status}");
        assert!(!path.exists());
    }
}
