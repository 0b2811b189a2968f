//! A VMware host that is none: what VMX answers to its guest, for tests.
//!
//! [`Vmx`] computes and touches nothing; fronts bring a guest's instructions and connections to it.

mod vmx;

pub use vmx::{Direction, Faults, MAGIC, Memory, Origin, PORT_HIGH, PORT_LOW, Registers, Told, Vmx};
