//! End to end: real images, real kernels, real QEMU. One file for each promise to the user.

mod appliance;
mod boot;
mod copy;
mod debian;
mod disk;
mod exit_code;
mod failure;
mod hostile;
mod limits;
mod link;
mod log;
mod output;
mod pipes;
mod process;
mod resume;
mod rights;
mod serve;
mod sessions;
mod signals;
mod stdin;
mod terminal;
mod tidy;
mod user;

/// Says that a test could not run here. `./dev test` counts these lines.
fn skip(name: &str, reason: &str) {
    use std::io::Write as _;
    // not eprintln: the harness would swallow it
    writeln!(std::io::stderr(), "SKIPPED {name}: {reason}").expect("stderr");
}
