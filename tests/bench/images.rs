//! What images cost: CPU time and memory of `iso-builder` and of the C tools that one would use without it.
//!
//! CPU time, because the machine has others; a figure of each side in turn, medians of [`RUNS`]. The material is made of
//! this machine's `/usr` and of the Debian image of the tests. One file below for each kind of image.

mod disk;
mod ext4;
mod iso;
mod material;
mod vmdk;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// Each figure is a median of so many.
const RUNS: usize = 3;

/// All of them, or the one of that name.
pub(crate) fn bench(scratch: &Path, only: Option<&str>) -> Result<()> {
    type Part = fn(&Path) -> Result<()>;
    let parts: [(&str, Part); 4] =
        [("ext4", ext4::bench), ("disk", disk::bench), ("iso", iso::bench), ("vmdk", vmdk::bench)];
    ensure!(only.is_none_or(|only| parts.iter().any(|(name, _)| *name == only)), "there are ext4, disk, iso and vmdk");
    for (name, part) in parts.into_iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        let own = scratch.join(name);
        fs::create_dir(&own)?;
        part(&own)?;
        fs::remove_dir_all(own)?;
    }
    Ok(())
}

/// What a program took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// User and system time of it and its children.
    pub(crate) cpu: Duration,
    /// The most that was resident, KiB.
    pub(crate) memory: u64,
}

/// Runs a program and says what it took. It runs below a process of its own, as the system tells the largest of all
/// children only: see [`measure`].
pub(crate) fn cost(command: &Command) -> Result<Cost> {
    let mut outer = Command::new(std::env::current_exe()?);
    outer.arg(MEASURE).arg(command.get_program()).args(command.get_args());
    command.get_envs().for_each(|(name, value)| {
        value.map(|value| outer.env(name, value));
    });
    let output = outer.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout)?;
    let (cpu, memory) = said.trim().split_once(' ').with_context(|| said.clone())?;
    Ok(Cost { cpu: Duration::from_micros(cpu.parse()?), memory: memory.parse()? })
}

/// The argument by which this program measures another instead of being a benchmark.
pub(crate) const MEASURE: &str = "--measure";

/// Runs the program that the arguments name, and prints its microseconds of CPU time and its KiB of memory.
pub(crate) fn measure(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut command = Command::new(arguments.next().context("no program")?);
    let output = command.args(arguments).process_group(0).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    println!("{cpu} {}", usage.max_rss());
    Ok(())
}

/// A line of the table: medians of CPU time, ours as a part of theirs; and the memory of both.
pub(crate) fn compare(
    what: &str,
    ours: impl Fn() -> Result<Cost>,
    against: &str,
    theirs: impl Fn() -> Result<Cost>,
) -> Result<()> {
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        other.push(theirs()?);
        one.push(ours()?);
    }
    let [one, other] = [one, other].map(|mut costs| {
        costs.sort_by_key(|cost| cost.cpu);
        costs[RUNS / 2]
    });
    let ratio = one.cpu.as_secs_f64() / other.cpu.as_secs_f64();
    let text = |cost: Cost| format!("{:.2} s CPU, {} MiB", cost.cpu.as_secs_f64(), cost.memory / 1024);
    println!("| {what} | {} | {against} | {} | {ratio:.3} |", text(one), text(other));
    Ok(())
}
