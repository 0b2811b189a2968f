//! The program under test, and the least that it takes for a kernel and for a program.

use std::process::{Command, Output};

/// What passes for a kernel as long as nobody boots it.
pub(crate) fn kernel() -> Vec<u8> {
    let mut bytes = vec![0; 70_000];
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes
}

/// A header and one PT_LOAD.
pub(crate) fn static_elf() -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (bytes[16], bytes[18], bytes[32], bytes[54], bytes[56], bytes[64]) = (2, 62, 64, 56, 1, 1);
    bytes
}

pub(crate) fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iso-builder")).args(args).env_remove("SOURCE_DATE_EPOCH").output().unwrap()
}
