//! What the guest side costs: layers, memory beside sessions, orphans, and the time that a machine takes to be off once it is asked.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rig::host::{Host, sh};
use rig::images::busybox_disk;
use rig::layers::Layers;
use rig::machine::{Machine, script};
use rig::vch;
use wire::message::{Request, Work};
use wire::spec::LinkDevice;

use crate::{RUNS, median, pair};

/// What vSphere Integrated Containers took: reference figures of its design, its toolbox waited so long for every process.
const VIC_STOP: Duration = Duration::from_secs(10);

pub(crate) fn bench(scratch: &Path) -> Result<()> {
    layers(scratch)?;
    memory()?;
    orphans()?;
    stop()
}

/// `vch run` to the first byte of output, with the image's layers as disks of their own, against one merged disk.
fn layers(scratch: &Path) -> Result<()> {
    let mut layers = Layers::over_busybox();
    for count in [1, 10, 40] {
        while layers.count() < count {
            let number = layers.count();
            layers.add(|root| fs::write(root.join(format!("layer-{number}")), "x").expect("a file"));
        }
        let archive = layers.archive(&format!("{count}.tar"));
        let first_byte = |form: &str| {
            let words = ["--rm", "--network", "none", "--disk", form].map(OsStr::new);
            let command = ["echo", "!"].map(OsStr::new);
            // a cache of its own holds no decision about KVM
            let run = vch::run(words.into_iter().chain([archive.as_os_str()]).chain(command));
            let output = run.env("XDG_CACHE_HOME", scratch.join("cache")).env("VCH_ACCEL", "tcg").output();
            output.first_byte.with_context(|| output.stderr.clone())
        };
        // the disks are made once, and not counted
        for form in ["layers", "merged"] {
            first_byte(form)?;
        }
        let what = format!("`vch run --disk layers` to first output, {count} layers");
        pair(&what, || first_byte("layers"), "one merged disk", || first_byte("merged"))?;
    }
    Ok(())
}

/// Processes whose parents have ended before them: from the first to the last one's burial.
fn orphans() -> Result<()> {
    let (_dir, disk) = busybox_disk();
    let spec = script(LinkDevice::Virtio, "exec sleep 100000");
    let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    host.shell("true");
    let began = Instant::now();
    let text = host.shell(
        "i=0; while [ $i -lt 1000 ]; do (j=0; while [ $j -lt 100 ]; do : & j=$((j + 1)); done); i=$((i + 1)); done
        awk '/^processes/ { print $2 }' /proc/stat
        while grep -q ') Z ' /proc/[0-9]*/stat 2>/dev/null; do sleep 0.05; done; echo clean",
    );
    let time = began.elapsed();
    let (forks, clean) = text.split_once('\n').context("two lines")?;
    anyhow::ensure!(clean == "clean\n" && forks.parse::<u64>()? > 100_000, "{text}");
    println!("| 100,000 orphans, forked and buried, no zombie left | {:.1} s | | | |", time.as_secs_f64());
    Ok(())
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
