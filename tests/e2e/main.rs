//! End to end: real images, real kernels, real QEMU. One file for each promise to the user.

mod appliance;
mod appliance_services;
mod astray;
mod boot;
mod changes;
mod commands;
mod copies;
mod copy;
mod debian;
mod dhcp;
mod disk;
mod disks;
mod docker_logs;
mod exit_code;
mod ext4;
mod failure;
mod file_servers;
mod firewall;
mod guestinfo;
mod health;
mod hostile;
mod hotplug;
mod iso;
mod iso_boot;
mod judges;
mod layers;
mod limits;
mod link;
mod log;
mod machine;
mod memory;
mod names;
mod network;
mod options;
mod output;
mod ova;
mod ownlog;
mod pipes;
mod pods;
mod powercut;
mod process;
mod protection;
mod registry;
mod release;
mod reload;
mod reproducible;
mod restart;
mod resume;
mod rights;
mod run_vch;
mod serve;
mod services;
mod sessions;
mod signals;
mod spec;
mod stdin;
mod stop;
mod syslog;
mod terminal;
mod tidy;
mod tls;
mod toolbox;
mod user;
mod view;
mod vmdk;
mod vmware;
mod vmx;
mod volumes;
mod vspc;

/// Says that a test could not run here. `./dev test` counts these lines.
fn skip(name: &str, reason: &str) {
    use std::io::Write as _;
    // not eprintln: the harness would swallow it
    writeln!(std::io::stderr(), "SKIPPED {name}: {reason}").expect("stderr");
}
