//! What the appliance costs: the time from power-on to an API that answers, the memory of a machine that has the least that it needs, the medium.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use rig::appliance::Appliance;
use rig::artifacts;
use rig::machine::{Machine, script};
use wire::spec::LinkDevice;

use crate::{floor, pair, ratio};

/// The machine's memory, and the most that the medium may have, in MiB.
const MEMORY: u32 = 128;
const MEDIUM: u64 = 64;

pub(crate) fn bench(scratch: &Path) -> Result<()> {
    boot(scratch)?;
    medium()?;
    memory()
}

/// Power-on to the answer to `GET /_ping`, as a client of the host gets it through QEMU's network.
fn boot(scratch: &Path) -> Result<()> {
    let initramfs = floor::initramfs(scratch)?;
    let spec = script(LinkDevice::Virtio, "");
    let floor = || {
        let mut machine = Machine::new(&spec, None);
        machine.initramfs.clone_from(&initramfs);
        floor::first_byte(machine)
    };
    for (from_medium, how) in [(false, "direct kernel"), (true, "from the medium, by SeaBIOS")] {
        let ping = || Ok(Appliance::boot(|options| options.from_medium = from_medium).wait_for_ping());
        let what = format!("appliance, power-on to `_ping`, {how}");
        pair(&what, ping, "an init that prints one byte, direct kernel", floor)?;
    }
    Ok(())
}

fn medium() -> Result<()> {
    let size = fs::metadata(artifacts::dist("appliance.iso"))?.len();
    println!("| appliance.iso | {} KiB | limit | {MEDIUM} MiB | {:.2} |", size / 1024, ratio(size, MEDIUM << 20));
    Ok(())
}

/// What is not there for others, when all services are up and nobody has come.
fn memory() -> Result<()> {
    let mut vch = Appliance::boot(|options| {
        options.shell = true;
        options.memory_mib = MEMORY;
        options.key("debug/console", "true");
    });
    vch.wait_for_ping();
    vch.wait_for_console("shell has started");
    // short lines: the shell breaks up the echo of long ones
    for line in ["grep MemAvailable /proc/meminfo", "grep VmRSS /proc/$(pidof vch)/status", "echo d''one"] {
        vch.shell(line);
    }
    vch.wait_for_console("done");
    let console = vch.console();
    let number = |name: &str| -> Result<u64> {
        let digits = console.rsplit(name).find_map(|rest| {
            let word = rest.split_whitespace().next()?;
            word.parse::<u64>().ok()
        });
        digits.with_context(|| format!("no {name} in {console}"))
    };
    let used = u64::from(MEMORY) * 1024 - number("MemAvailable:")?;
    println!(
        "| appliance, memory in use | {used} KiB | of | {MEMORY} MiB | {:.2} |",
        ratio(used, u64::from(MEMORY) * 1024)
    );
    let rss = number("VmRSS:")?;
    println!("| vch serve in it, resident | {rss} KiB | | | |");
    Ok(())
}
