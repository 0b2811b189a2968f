//! The unsafe fence: system calls that no safe library offers. Everything outside this folder is safe code.

pub mod backdoor;
pub mod devices;
pub mod kernel;
pub mod mount;
pub mod net;
pub mod process;
pub mod seccomp;
pub mod spawn;
pub mod terminal;
#[cfg(panic = "abort")]
mod unwinder;
pub mod xattr;
