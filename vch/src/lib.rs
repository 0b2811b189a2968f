//! The Virtual Container Host: runs containers as virtual machines.
//!
//! ```text
//! cli       what was typed            inputs      files and variables that it names
//! plan      what it means: a spec for the guest, a machine for QEMU
//! images    the image's disks         state       the files of one container
//! volumes   other disks               seccomp     docker's filters of system calls
//! vm        QEMU                      guest_link  the client that is `vch run`
//! pipe      what links run over        hub         the host's end of one link, which many clients share
//! terminal, signals, streams          the host's side of it
//! console                             what is left when it fails     verdict     the exit code
//!
//! run       `vch run`: all of the above, in order
//!
//! serve     `vch serve`: many links   hub         one link and its clients
//! control   how clients reach serve   client      ps, exec, attach, cp ...     detach    keys that leave a session
//! listen    where docker clients connect     certs    their certificates         notify    what serve's own keeper is told
//! status_page  what a browser is shown of it
//! logs      `vch logs`                timestamp   times as docker writes them
//!
//! maker     what docker create and start make of an image: a container with a machine of its own
//! hypervisor  who makes machines, QEMU for one       image_store  docker's images
//! networks  which networks there are, and who is on them      switch    what carries their frames, and out of them
//! bridge    the same with root, by the host's kernel
//!
//! template  what machines are forked from, and who keeps it
//!
//! vmx       `vch vmx`: a containerVM for ESXi      ova         `vch ova`: the appliance for ESXi
//! master_key  what the keys of links follow from      ids       ids and names of containers, volumes and networks
//! whole     files that are there whole or not at all
//! ```

#![forbid(unsafe_code)]

mod api;
pub mod assets;
mod bridge;
pub mod certs;
pub mod cli;
pub mod client;
pub mod console;
mod containers;
pub mod control;
pub mod detach;
mod execs;
pub mod guest_link;
pub mod hub;
mod hypervisor;
mod ids;
mod image_store;
pub mod images;
pub mod inputs;
mod journal;
pub mod listen;
mod lock;
pub mod logs;
mod maker;
pub mod master_key;
mod networks;
mod notify;
pub mod ova;
pub mod pipe;
pub mod plan;
mod recorder;
mod root_disk;
pub mod run;
pub mod seccomp;
pub mod serve;
pub mod signals;
pub mod size;
pub mod state;
mod status_page;
pub mod streams;
mod switch;
pub mod template;
pub mod terminal;
pub mod timestamp;
pub mod verdict;
pub mod vm;
pub mod vmx;
pub mod volumes;
mod whole;
