//! Every image that the project ships or creates: containers' disks, initramfs, ISOs, and the kernel in them.
//!
//! Inputs become a [`tree::Tree`], files in memory; writers turn a tree into bytes. Writers read no clock, no
//! environment and no randomness: the same input gives the same bytes on any machine.

mod ahead;
pub mod artifacts;
pub mod boot_assets;
pub mod content;
pub mod cpio;
pub mod digest;
pub mod ext4;
pub mod fat;
pub mod input;
pub mod iso9660;
pub mod kernel;
pub mod lookup;
pub mod oci;
pub mod output;
pub mod progress;
pub mod recipe;
pub mod registry;
pub mod scan;
pub mod tree;
pub mod uki;
pub mod verify;
pub mod view;
pub mod vmdk;
