//! The unsafe fence: what no safe library offers. Everything outside this folder is safe code.

pub(crate) mod fault;
pub(crate) mod memory;
pub(crate) mod trace;
