//! A VMware host that is none: what VMX answers to its guest, for tests.
//!
//! [`Vmx`] computes and touches nothing; fronts bring a guest's instructions and connections to it: [`plug`] those of a thread of this process,
//! [`trace`] those of any program, [`vsock`] those that come over a socket.

pub mod datamap;
pub mod port;
#[allow(unsafe_code)]
mod sys;
pub mod trace;
mod vmx;
pub mod vsock;

pub use sys::fault::{Plugged, plug};
pub use sys::memory::ProcessMemory;
pub use vmx::{Direction, Faults, MAGIC, Memory, Origin, PORT_HIGH, PORT_LOW, Registers, Told, Vmx, hold};
