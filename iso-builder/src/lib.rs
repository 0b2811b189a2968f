//! Every image that the project ships or creates: containers' disks, initramfs, ISOs, and the kernel in them.
//!
//! Inputs become a [`tree::Tree`], files in memory; writers turn a tree into bytes. Writers read no clock, no
//! environment and no randomness: the same input gives the same bytes on any machine.

pub mod ext4;
pub mod oci;
pub mod output;
pub mod tree;
pub mod vmdk;
