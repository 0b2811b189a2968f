//! The floor of a boot: an init that writes one byte to its console, in 154 bytes of machine code and header.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use rig::artifacts;
use rig::machine::Machine;

/// Where the program is loaded: the usual place.
const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// `write(1, "!", 1)`, then `pause()` for ever (Linux, x86-64 system call numbers).
const CODE: [u8; 34] = [
    0xb8, 1, 0, 0, 0, // mov eax, 1
    0xbf, 1, 0, 0, 0, // mov edi, 1
    0x48, 0x8d, 0x35, 16, 0, 0, 0, // lea rsi, [rip + 16]
    0xba, 1, 0, 0, 0, // mov edx, 1
    0x0f, 0x05, // syscall
    0xb8, 34, 0, 0, 0, // mov eax, 34
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp back to the mov
    b'!',
];

/// An initramfs with that program as its init, made as tether's is.
pub(crate) fn initramfs(dir: &Path) -> Result<PathBuf> {
    let (init, initramfs) = (dir.join("floor"), dir.join("floor.initramfs"));
    fs::write(&init, elf())?;
    let mut command = Command::new(artifacts::program("iso-builder"));
    crate::run(command.arg("initramfs").arg("--init").arg(&init).arg("-o").arg(&initramfs))?;
    Ok(initramfs)
}

/// Power-on to the byte that this init writes.
pub(crate) fn first_byte(mut machine: Machine) -> Result<Duration> {
    machine.console_on_socket = true;
    let mut powered = machine.power_on();
    powered.socket.read_exact(&mut [0])?;
    Ok(powered.began.elapsed())
}

/// ELF-64: System V ABI, "ELF Header" and "Program Header".
fn elf() -> Vec<u8> {
    let size = HEADERS + CODE.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |width: usize, value: u64| elf.extend_from_slice(&value.to_le_bytes()[..width]);
    // an executable for x86-64, version 1, its entry, one program header behind this one, no sections
    for (width, value) in [
        (2, 2),
        (2, 62),
        (4, 1),
        (8, BASE + HEADERS),
        (8, 64),
        (8, 0),
        (4, 0),
        (2, 64),
        (2, 56),
        (2, 1),
        (2, 64),
        (2, 0),
        (2, 0),
    ] {
        put(width, value);
    }
    // load everything, readable and executable
    for (width, value) in [(4, 1), (4, 5), (8, 0), (8, BASE), (8, BASE), (8, size), (8, size), (8, 0x1000)] {
        put(width, value);
    }
    elf.extend_from_slice(&CODE);
    elf
}
