//! What the guest side costs: memory beside sessions, and the time that a machine takes to be off once it is asked.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rig::host::{Host, sh};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use wire::message::{Request, Work};
use wire::spec::LinkDevice;

use crate::{RUNS, median};

/// What vSphere Integrated Containers took: reference figures of its design, its toolbox waited so long for every process.
const VIC_STOP: Duration = Duration::from_secs(10);

pub(crate) fn bench() -> Result<()> {
    memory()?;
    stop()
}

/// Memory of PID 1 with sessions that run and say nothing.
fn memory() -> Result<()> {
    let (_dir, disk) = busybox_disk();
    let spec = script(LinkDevice::Virtio, "exec sleep 100000");
    let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    let resident = |host: &mut Host| -> Result<u64> {
        let text = host.shell("awk '/VmRSS/ { print $2 }' /proc/1/status");
        text.trim().parse().with_context(|| text.clone())
    };
    let mut began = 0;
    for sessions in [1, 50] {
        while began < sessions {
            host.create(Work::Exec(sh("exec sleep 100000")));
            began += 1;
        }
        let resident = resident(&mut host)?;
        println!("| tether, resident with {sessions} execs | {resident} KiB | | | |");
    }
    Ok(())
}

/// From the request to the end of QEMU, with a process that exits at once when it is asked.
fn stop() -> Result<()> {
    let (_dir, disk) = busybox_disk();
    let spec = script(LinkDevice::Virtio, "echo ready; exec sleep 100000");
    let time = median((0..RUNS).map(|_| {
        let mut host = Host::boot(Machine::new(&spec, Some(disk.clone())), &spec);
        host.expect(wire::message::MAIN, "ready");
        let asked = Instant::now();
        host.order(Request::PowerOff);
        host.wait_off();
        Ok(asked.elapsed())
    }))?;
    let ratio = time.as_secs_f64() / VIC_STOP.as_secs_f64();
    println!(
        "| stop request to power-off, a process that exits at once | {:.3} s | vSphere Integrated Containers | {:.0} s | {ratio:.3} |",
        time.as_secs_f64(),
        VIC_STOP.as_secs_f64()
    );
    Ok(())
}
