//! The rig: what end-to-end tests and benchmarks stand on. It hides processes, machines and terminals, and decides no expectation.
//!
//! Programs are black boxes, found where cargo leaves them; every wait has a deadline, and no test sleeps to be right.

pub mod appliance;
pub mod artifacts;
pub mod cable;
pub mod clones;
pub mod dhcp;
pub mod disks;
pub mod engine;
pub mod host;
pub mod images;
pub mod keeper;
pub mod layers;
pub mod line;
pub mod machine;
pub mod nfs;
pub mod qmp;
pub mod registry;
pub mod serve;
pub mod stream;
pub mod talk;
pub mod terminal;
pub mod vch;
pub mod vmware;
pub mod vsock;
pub mod vspc;
pub mod wire;
