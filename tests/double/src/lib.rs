//! A VMware host that is none: what VMX answers to its guest, for tests.
//!
//! [`Vmx`] computes and touches nothing; fronts bring a guest's instructions and connections to it.

mod vmx;

pub use vmx::{Faults, Memory, Origin, Registers, Vmx};
