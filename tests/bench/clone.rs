//! `vch run --clone` against a boot: until the first output, what clones hold of the host's memory, when each is one of its own, and what a template costs.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rig::clones::{Clones, machine_of};
use rig::talk::Talk;
use rig::{artifacts, vch};

use crate::host::Held;
use crate::{RUNS, median, pair, ratio};

/// What was set out to be reached: the first output of a clone, against a boot's.
const AIM: f64 = 0.2;
const IDLE: usize = 20;
const IDLE_MIB: u64 = 256;
const HELD_LIMIT_KIB: u64 = 25 * 1024;
const SEEDED_LIMIT_US: u64 = 10_000;
/// How often a template is made.
const TEMPLATES: usize = 3;

pub(crate) fn bench() -> Result<()> {
    let clones = Clones::new();
    let image = artifacts::dist("busybox.tar");
    let first = |run: vch::Run| {
        let output = run.output();
        ensure!(output.code == 0 && output.stderr.is_empty(), "{}", output.stderr);
        output.first_byte.context("no output")
    };
    let run = |clones: &Clones, wish| clones.run(&["--rm", "--clone", wish], &image, &["echo", "!"]);
    // the template is made before
    first(run(&clones, "always"))?;
    let clone = || first(run(&clones, "always"));
    pair(&format!("`vch run --clone always` to first output (aim: {AIM})"), clone, "`vch run` of the same", || {
        first(run(&clones, "never"))
    })?;
    let made = || first(run(&Clones::new(), "always"));
    let made = median((0..TEMPLATES).map(|_| made()))?;
    println!("| the same when its template is made first | {:.3} s | | | |", made.as_secs_f64());
    seeded(&clones)?;
    idle(&clones)
}

/// From the first instruction that finds itself a clone's, to randomness of its own and a clock that is right.
fn seeded(clones: &Clones) -> Result<()> {
    let mut all = Vec::new();
    for _ in 0..RUNS {
        let clone = up(clones, &[]);
        let mut dirs = fs::read_dir(clone.state().join("tether/containers"))?.flatten();
        let console = dirs.next().context("it has a folder")?.path().join("console.log");
        let text = String::from_utf8_lossy(&fs::read(console)?).into_owned();
        let told = text.split("seeded_us=").nth(1).with_context(|| format!("it does not say when: {text}"))?;
        let digits: String = told.chars().take_while(char::is_ascii_digit).collect();
        all.push(digits.parse::<u64>()?);
        clone.finish();
    }
    all.sort_unstable();
    let (middle, most) = (all[all.len() / 2], all[all.len() - 1]);
    let limit = ratio(middle, SEEDED_LIMIT_US);
    println!("| a clone reseeds and sets its clock within | {middle} us | limit | {SEEDED_LIMIT_US} us | {limit:.2} |");
    println!(
        "| the same, the slowest of {RUNS} | {most} us | limit | {SEEDED_LIMIT_US} us | {:.2} |",
        ratio(most, SEEDED_LIMIT_US)
    );
    Ok(())
}

/// What clones hold that do nothing.
fn idle(clones: &Clones) -> Result<()> {
    let memory = format!("{IDLE_MIB}m");
    let all: Vec<Talk> = (0..IDLE).map(|_| up(clones, &["-m", &memory])).collect();
    let held: Vec<Held> =
        all.iter().map(|clone| Held::of(machine_of(clone.pid()), IDLE_MIB << 20)).collect::<Result<_>>()?;
    let middle = Held::middle(held)?;
    let limit = ratio(middle.sum(), HELD_LIMIT_KIB);
    println!(
        "| one of {IDLE} idle clones of {IDLE_MIB} MiB, its share of the host's memory (PSS) | {} MiB | limit | {} MiB | {limit:.2} |",
        middle.sum() / 1024,
        HELD_LIMIT_KIB / 1024
    );
    middle.print_parts();
    for clone in all {
        clone.finish();
    }
    Ok(())
}

/// A clone whose container waits for its input's end.
fn up(clones: &Clones, options: &[&str]) -> Talk {
    let options = [&["-i", "--clone", "always"], options].concat();
    let mut clone = clones.shell(&options, "echo up; read _").talk();
    assert_eq!(clone.line(), "up");
    clone
}
