//! VMDKs before their judges: QEMU's tools read what we write, we read what they write, and what nobody should have written is refused.

mod bent;
mod forms;
mod reader;
mod samples;
mod writers;
