//! What the link costs: bulk and keystrokes against the bare pipe, an exec against fork and exec in the guest.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rig::host::{Host, sh};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use rig::stream::{Feed, Pattern};
use wire::message::{Exec, SessionId, Work};
use wire::spec::LinkDevice;

use crate::raw::{self, BLOCK, Between};

/// Each figure is a median of so many.
const RUNS: usize = 3;
const KEYSTROKES: usize = 100;
const EXECS: usize = 50;

/// What bulk is made of: where the guest gets it, and the host.
#[derive(Clone, Copy, Debug)]
enum Bulk {
    Random,
    Zeros,
}

impl Bulk {
    fn of_the_guest(self) -> &'static str {
        match self {
            Bulk::Random => "/random",
            Bulk::Zeros => "/dev/zero",
        }
    }

    fn of_the_host(self, blocks: u64) -> Vec<u8> {
        let count = usize::try_from(blocks * BLOCK).expect("64 bits");
        match self {
            Bulk::Random => Pattern(1).bytes(0, count),
            Bulk::Zeros => vec![0; count],
        }
    }
}

pub(crate) fn bench(scratch: &Path) -> Result<()> {
    let initramfs = raw::initramfs(scratch)?;
    for (device, blocks) in [(LinkDevice::Virtio, 1000), (LinkDevice::Serial, 10)] {
        for bulk in [Bulk::Random, Bulk::Zeros] {
            throughput(device, blocks, bulk, &initramfs)?;
        }
        keystrokes(device, &initramfs)?;
    }
    execs()
}

/// A machine whose main process does nothing, with the bulk in a file.
fn boot(device: LinkDevice, sealed: bool, disk: &Path) -> Host {
    let mut spec = script(device, "exec sleep 100000");
    spec.link.sealed = sealed;
    let mut host = Host::boot(Machine::new(&spec, Some(disk.into())), &spec);
    host.shell("mkdir -p /dev/shm; head -c 4000000 /dev/urandom >/dev/shm/random; ln -s /dev/shm/random /random");
    host
}

/// Bulk in both directions, in the clear and sealed, against `dd` on the device.
fn throughput(device: LinkDevice, blocks: u64, bulk: Bulk, initramfs: &Path) -> Result<()> {
    let (_dir, disk) = busybox_disk();
    let bytes = bulk.of_the_host(blocks);
    let (mut out, mut input) = (Figures::default(), Figures::default());
    for _ in 0..RUNS {
        for (n, between) in [Between::Nobody, Between::Relay].into_iter().enumerate() {
            out.raw[n].push(raw::out(device, initramfs, between, bulk.of_the_guest(), blocks)?);
            input.raw[n].push(raw::input(device, initramfs, between, &bytes)?);
        }
        for (sealed, n) in [(false, 0), (true, 1)] {
            let mut host = boot(device, sealed, &disk);
            out.link[n].push(bulk_out(&mut host, bulk, blocks)?);
            input.link[n].push(bulk_in(&mut host, &bytes, blocks)?);
        }
    }
    out.print(&format!("{device:?}, {bulk:?}, out").to_lowercase());
    input.print(&format!("{device:?}, {bulk:?}, in").to_lowercase());
    Ok(())
}

/// Bytes a second: on the bare device, alone and behind a relay; over the link, in the clear and sealed.
#[derive(Default)]
struct Figures {
    raw: [Vec<f64>; 2],
    link: [Vec<f64>; 2],
}

impl Figures {
    fn print(mut self, what: &str) {
        let [alone, relayed] = self.raw.each_mut().map(|rates| middle(rates) / 1e6);
        for (rates, how) in self.link.iter_mut().zip(["in the clear", "sealed"]) {
            let rate = middle(rates) / 1e6;
            for (peer, than) in [("`dd` on the device", alone), ("`dd`, a pipe and `dd` on the device", relayed)] {
                println!("| bulk over {what}, {how} | {rate:.3} MB/s | {peer} | {than:.3} MB/s | {:.2} |", rate / than);
            }
        }
    }
}

fn bulk_out(host: &mut Host, bulk: Bulk, blocks: u64) -> Result<f64> {
    let script = format!(
        "n={blocks}; while [ $n -gt 0 ]; do c=$((n > 125 ? 125 : n)); dd if={} bs=32000 count=$c 2>/dev/null; n=$((n - c)); done",
        bulk.of_the_guest()
    );
    let session = host.exec(sh(&script));
    host.stdout(session).counted_only = true;
    host.heard = None;
    host.exit(session);
    let began = host.heard.context("nothing came")?;
    let time = host.last_heard.context("nothing came")?.duration_since(began);
    ensure!(host.stdout(session).count == blocks * BLOCK, "{} bytes came", host.stdout(session).count);
    host.forget(session);
    raw::rate(blocks, time)
}

fn bulk_in(host: &mut Host, bytes: &[u8], blocks: u64) -> Result<f64> {
    let script = format!("dd bs=32000 iflag=fullblock count={blocks} of=/dev/null 2>/dev/null; echo done");
    let session = host.exec(Exec { stdin: true, ..sh(&script) });
    let began = Instant::now();
    host.feed(session, bytes);
    host.expect(session, "done\n");
    let time = began.elapsed();
    host.exit(session);
    host.forget(session);
    raw::rate(blocks, time)
}

/// One byte through `cat` in a session and back, idle and beside bulk, against `cat` on the device.
fn keystrokes(device: LinkDevice, initramfs: &Path) -> Result<()> {
    let (_dir, disk) = busybox_disk();
    let against = median(raw::echo(device, initramfs, KEYSTROKES)?)?;
    let mut host = boot(device, device == LinkDevice::Serial, &disk);
    let session = host.exec(Exec { stdin: true, ..sh("exec cat") });
    let idle = median(type_keys(&mut host, session))?;
    let bulk = host.exec(sh("exec cat /dev/zero"));
    host.stdout(bulk).counted_only = true;
    let count = |host: &mut Host| host.stdout(bulk).count;
    host.wait("bulk", |host| (count(host) > 100_000).then_some(()));
    let busy = median(type_keys(&mut host, session))?;
    let name = format!("{device:?}").to_lowercase();
    for (what, time, beside, than) in [
        (format!("keystroke over {name}, idle"), idle, "`cat` on the device", against),
        (format!("keystroke over {name}, beside bulk"), busy, "idle", idle),
    ] {
        let ratio = time.as_secs_f64() / than.as_secs_f64();
        println!("| {what} | {:.2} ms | {beside} | {:.2} ms | {ratio:.2} |", millis(time), millis(than));
    }
    Ok(())
}

fn type_keys(host: &mut Host, session: SessionId) -> Vec<Duration> {
    (0..KEYSTROKES)
        .map(|_| {
            let seen = host.stdout(session).count;
            let began = Instant::now();
            Feed::add(host.stdin(session), b"x");
            host.wait("the echo", |host| (host.stdout(session).count > seen).then_some(()));
            began.elapsed()
        })
        .collect()
}

/// `true` over the link, from the request to the end of its output, against a shell in the guest that runs it.
fn execs() -> Result<()> {
    let (_dir, disk) = busybox_disk();
    let mut host = boot(LinkDevice::Virtio, false, &disk);
    let exec = || Exec { argv: vec!["/bin/true".into()], ..sh("") };
    let times = (0..EXECS).map(|_| {
        let began = Instant::now();
        let session = host.create(Work::Exec(exec()));
        host.exit(session);
        let time = began.elapsed();
        host.forget(session);
        time
    });
    let ours = median(times.collect())?;
    let text = host.shell(
        "up() { read -r u rest </proc/uptime; echo $u; }; a=$(up); n=0; while [ $n -lt 200 ]; do /bin/true; n=$((n + 1)); done; echo $a $(up)",
    );
    let times: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [from, to] = times[..] else { anyhow::bail!("{text:?}") };
    let against = Duration::from_secs_f64((to - from) / 200.0);
    let ratio = ours.as_secs_f64() / against.as_secs_f64();
    let (ours, against) = (millis(ours), millis(against));
    println!(
        "| exec of `true` over virtio | {ours:.2} ms | fork and exec in the guest | {against:.2} ms | {ratio:.2} |"
    );
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median(times: Vec<Duration>) -> Result<Duration> {
    crate::median(times.into_iter().map(Ok))
}

fn middle(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
