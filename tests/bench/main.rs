//! Every benchmark, as a table: medians of [`RUNS`] runs, and ratios against a floor or a peer in the same run.
//!
//! `bench boot` is the boot alone, `bench appliance` that of the appliance, `bench clone` clones in place of boots, `bench link` the part that measures the link, `bench docker` what the Docker API adds to it, `bench host` docker's own runs, `bench serve` what serve holds in memory, `bench guest` the guest's own, and `bench images` the images, with a word behind it one kind of them. Runs of the two sides alternate, so that a machine that grows busier hurts both. Nothing here passes or fails.

mod appliance;
mod clone;
mod docker;
mod floor;
mod guest;
mod host;
mod images;
mod link;
mod raw;
mod serve;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rig::artifacts;
use rig::machine::{Machine, script};
use rig::vch;
use wire::link::Tuning;
use wire::spec::LinkDevice;

const RUNS: usize = 9;

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some(images::MEASURE) {
        return images::measure(std::env::args().skip(2));
    }
    let scratch = tempfile::tempdir()?;
    println!("| what | median | against | median | ratio |\n|---|---|---|---|---|");
    match std::env::args().nth(1).as_deref() {
        Some("appliance") => return appliance::bench(scratch.path()),
        Some("boot") => return boot(scratch.path()),
        Some("clone") => return clone::bench(),
        Some("docker") => return docker::bench(),
        Some("host") => return host::bench(),
        Some("guest") => return guest::bench(scratch.path()),
        Some("link") => return link::bench(scratch.path()),
        Some("serve") => return serve::bench(),
        Some("images") => return images::bench(scratch.path(), std::env::args().nth(2).as_deref()),
        Some(other) => {
            bail!(
                "no benchmark {other:?}: there are `appliance`, `boot`, `clone`, `docker`, `guest`, `host`, `images`, `link` and `serve`, and all without an argument"
            )
        }
        None => {}
    }
    boot(scratch.path())?;
    appliance::bench(scratch.path())?;
    sizes()?;
    throughput()?;
    disk(scratch.path())?;
    iso(scratch.path())?;
    guest::bench(scratch.path())?;
    link::bench(scratch.path())?;
    docker::bench()?;
    host::bench()?;
    clone::bench()?;
    serve::bench()?;
    images::bench(scratch.path(), None)
}

/// Power-on to the first byte of output.
fn boot(scratch: &Path) -> Result<()> {
    let disk = scratch.join("busybox.raw");
    run(Command::new(artifacts::program("iso-builder"))
        .arg("disk")
        .arg(artifacts::dist("busybox.tar"))
        .arg("-o")
        .arg(&disk))?;
    let floor_initramfs = floor::initramfs(scratch)?;
    let spec = script(LinkDevice::Virtio, "echo !");
    let floor = || {
        let mut machine = Machine::new(&spec, Some(disk.clone()));
        machine.initramfs.clone_from(&floor_initramfs);
        floor::first_byte(machine)
    };
    let tether = || {
        let seen = Machine::new(&spec, Some(disk.clone())).power_on().serve(Tuning::FAST);
        seen.first_byte.context("no output")
    };
    pair("power-on to first output, direct kernel, virtio", tether, "an init that prints one byte", floor)?;
    for (boot, link) in [("kernel", "virtio"), ("kernel", "serial"), ("iso", "virtio"), ("iso", "serial")] {
        let user = || {
            let output = vch::shell(&["--boot", boot, "--link", link], "echo !").output();
            output.first_byte.with_context(|| output.stderr.clone())
        };
        pair(
            &format!("`vch run --boot {boot} --link {link}` to first output"),
            user,
            "the same init, direct kernel",
            floor,
        )?;
    }
    Ok(())
}

fn sizes() -> Result<()> {
    let tether = fs::metadata(artifacts::program("tether"))?.len();
    println!("| tether, size on disk | {} KiB | limit | 1024 KiB | {:.2} |", tether / 1024, ratio(tether, 1 << 20));
    let rss = vch::shell(&[], "awk '/VmRSS/ { print $2 }' /proc/1/status").output().success();
    let rss: u64 = rss.trim().parse()?;
    println!("| tether, resident when idle | {rss} KiB | limit | 2048 KiB | {:.2} |", ratio(rss, 2048));
    Ok(())
}

/// Bytes of output a second, boot taken off.
fn throughput() -> Result<()> {
    for (link, megabytes) in [("virtio", 200_u32), ("serial", 4)] {
        let time = |script: String| {
            median((0..3).map(|_| {
                let began = Instant::now();
                let output = vch::shell(&["--link", link], &script).output();
                ensure!(output.code == 0, "{}", output.stderr);
                Ok(began.elapsed())
            }))
        };
        let whole = time(format!("head -c {megabytes}000000 /dev/zero"))?;
        let empty = time("true".into())?;
        let rate = f64::from(megabytes) / whole.saturating_sub(empty).as_secs_f64();
        println!("| output over {link} | {rate:.2} MB/s | | | |");
    }
    Ok(())
}

/// A container's disk from a Debian image, against mke2fs on the same files.
fn disk(scratch: &Path) -> Result<()> {
    let (image, tree) = (artifacts::debian(), scratch.join("tree"));
    fs::create_dir(&tree)?;
    run(Command::new("tar").arg("-xf").arg(&image).arg("-C").arg(scratch).arg("layer.tar"))?;
    run(Command::new("tar").arg("-xf").arg(scratch.join("layer.tar")).arg("--exclude=./dev/*").arg("-C").arg(&tree))?;
    let out = scratch.join("debian.raw");
    let ours = || timed(Command::new(artifacts::program("iso-builder")).arg("disk").arg(&image).arg("-o").arg(&out));
    let peer = || {
        fs::remove_file(&out).ok();
        fs::File::create(&out)?.set_len(1 << 30)?;
        timed(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&tree).arg(&out))
    };
    pair("`iso-builder disk`, Debian with Python, unpacking included", ours, "`mke2fs -d`, unpacked", peer)
}

/// The boot medium, against xorriso on the same files.
fn iso(scratch: &Path) -> Result<()> {
    let (out, tree) = (scratch.join("out.iso"), scratch.join("iso"));
    run(Command::new("xorriso")
        .args(["-osirrox", "on", "-indev"])
        .arg(artifacts::dist("bootstrap.iso"))
        .args(["-extract", "/"])
        .arg(&tree))?;
    let (kernel, out_path) = (artifacts::dist("kernel"), out.as_path());
    let ours = || {
        timed(
            Command::new(artifacts::program("iso-builder"))
                .arg("bootstrap")
                .arg("--kernel")
                .arg(&kernel)
                .arg("-o")
                .arg(out_path),
        )
    };
    let loader = "-b boot/isolinux/isolinux.bin -no-emul-boot -boot-load-size 4 -boot-info-table";
    let peer = || {
        let mut command = Command::new("xorriso");
        command.args(["-as", "mkisofs", "-quiet", "-R", "-o"]).arg(out_path).args(loader.split(' ')).arg(&tree);
        timed(&mut command)
    };
    pair("`iso-builder bootstrap`", ours, "`xorriso -as mkisofs`", peer)
}

fn pair(
    what: &str,
    ours: impl Fn() -> Result<Duration>,
    against: &str,
    theirs: impl Fn() -> Result<Duration>,
) -> Result<()> {
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        other.push(theirs()?);
        one.push(ours()?);
    }
    let (one, other) = (median(one.into_iter().map(Ok))?, median(other.into_iter().map(Ok))?);
    let ratio = one.as_secs_f64() / other.as_secs_f64();
    println!("| {what} | {:.3} s | {against} | {:.3} s | {ratio:.2} |", one.as_secs_f64(), other.as_secs_f64());
    Ok(())
}

fn median(times: impl IntoIterator<Item = Result<Duration>>) -> Result<Duration> {
    let mut times: Vec<Duration> = times.into_iter().collect::<Result<_>>()?;
    times.sort();
    times.get(times.len() / 2).copied().context("no runs")
}

fn timed(command: &mut Command) -> Result<Duration> {
    let began = Instant::now();
    run(command)?;
    Ok(began.elapsed())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // sizes far below 2^52
fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / other as f64
}
