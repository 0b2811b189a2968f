//! `docker run` on a host that makes its own machines: against `vch run` of the same, ten at once against one, an exec in one of them, and what they hold in memory
//! and on disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
use rig::serve::Serve;
use rig::{artifacts, vch};

use crate::{docker, median, pair, ratio};

const AT_ONCE: usize = 10;
/// Rounds of ten at once, and of one.
const ROUNDS: usize = 3;
const RSS_LIMIT_KIB: u64 = 32 * 1024;
const DISK_LIMIT_KIB: u64 = 1024;
/// What a container gets that asks for nothing.
const GUEST_MEMORY: u64 = 512 << 20;

pub(crate) fn bench() -> Result<()> {
    let serve = Serve::with_qemu(&[]);
    let docker = || timed(&serve, &["run", "--rm", "busybox", "true"]);
    let archive = format!("docker-archive:{}", artifacts::dist("busybox.tar").display());
    let alone = || {
        let began = Instant::now();
        let output = vch::run(["--rm", &archive, "true"]).output();
        ensure!(output.code == 0, "{}", output.stderr);
        Ok(began.elapsed())
    };
    pair("`docker run --rm busybox true`", docker, "`vch run --rm` of the same", alone)?;
    several(&serve)?;
    serve.docker(&["run", "-d", "--name", "made1", "busybox", "sleep", "100000"]).output().success();
    docker::execs(&serve, "made1", ", in a container made here")?;
    serve.docker(&["rm", "-f", "made1"]).output().success();
    idle(&serve)
}

/// So many `docker run`s that end, started at once, against one.
fn several(serve: &Serve) -> Result<()> {
    let (mut ten, mut one) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        one.push(timed(serve, &["run", "--rm", "busybox", "true"]));
        let began = Instant::now();
        std::thread::scope(|scope| {
            let run = || timed(serve, &["run", "--rm", "busybox", "true"]);
            let clients: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(run)).collect();
            clients.into_iter().try_for_each(|client| client.join().expect("no panic").map(drop))
        })?;
        ten.push(Ok(began.elapsed()));
    }
    let (ten, one) = (median(ten)?.as_secs_f64(), median(one)?.as_secs_f64());
    println!("| {AT_ONCE} `docker run --rm busybox true` at once | {ten:.2} s | one | {one:.2} s | {:.2} |", ten / one);
    Ok(())
}

/// What ten idle containers hold.
fn idle(serve: &Serve) -> Result<()> {
    let sleeps = ["run", "-d", "busybox", "sleep", "100000"];
    let ids: Vec<String> = (0..AT_ONCE).map(|_| serve.docker(&sleeps).output().success().trim().to_owned()).collect();
    let rss = serve.resident_kib();
    let limit = ratio(rss, RSS_LIMIT_KIB);
    println!(
        "| `vch serve` with its own {AT_ONCE} machines, resident | {rss} KiB | limit | {RSS_LIMIT_KIB} KiB | {limit:.2} |"
    );
    let last = serve.state().join("serve").join(ids.last().context("there are some")?);
    let kib = stored(&last)? / 1024;
    let limit = ratio(kib, DISK_LIMIT_KIB);
    println!("| disk of one more container of an image | {kib} KiB | limit | {DISK_LIMIT_KIB} KiB | {limit:.2} |");
    let mut held: Vec<Held> = Vec::new();
    for machine in serve.machines() {
        held.push(Held::of(machine, GUEST_MEMORY)?);
    }
    let middle = Held::middle(held)?;
    println!(
        "| an idle container's QEMU of 512 MiB, its share of the host's memory (PSS) | {} MiB | | | |",
        middle.sum() / 1024
    );
    middle.print_parts();
    let remove: Vec<&str> = ["rm", "-f"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    serve.docker(&remove).output().success();
    Ok(())
}

/// KiB that a QEMU holds, its share of what it has in common with others.
#[derive(Default)]
pub(crate) struct Held {
    guest: u64,
    code: u64,
    rest: u64,
}

impl Held {
    /// From /proc/PID/smaps: proc(5). The guest's memory is one mapping of just its size, as its block says; what can be run and belongs to no file is TCG's.
    pub(crate) fn of(machine: Pid, guest_memory: u64) -> Result<Held> {
        let smaps = fs::read_to_string(format!("/proc/{machine}/smaps"))?;
        let (mut held, mut is_code, mut is_guest) = (Held::default(), false, false);
        for line in smaps.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["Pss:", kib, "kB"] => {
                    let kib: u64 = kib.parse().unwrap_or_default();
                    *(if is_guest {
                        &mut held.guest
                    } else if is_code {
                        &mut held.code
                    } else {
                        &mut held.rest
                    }) += kib;
                }
                [range, rights, _, _, inode, ..] if range.contains('-') => {
                    let ends: Vec<u64> = range.split('-').flat_map(|end| u64::from_str_radix(end, 16)).collect();
                    is_guest = matches!(ends[..], [from, to] if to - from == guest_memory);
                    is_code = rights.contains('x') && inode == "0";
                }
                _ => {}
            }
        }
        Ok(held)
    }

    /// That of a machine that half of them hold no more than.
    pub(crate) fn middle(mut all: Vec<Held>) -> Result<Held> {
        all.sort_unstable_by_key(Held::sum);
        let middle = all.len() / 2;
        all.into_iter().nth(middle).context("they run")
    }

    pub(crate) fn print_parts(&self) {
        let Held { guest, code, rest } = self;
        let parts = [("the guest's memory", guest), ("code that TCG has translated", code), ("QEMU itself", rest)];
        for (part, kib) in parts {
            println!("| of that, {part} | {} MiB | | | |", kib / 1024);
        }
    }

    pub(crate) fn sum(&self) -> u64 {
        self.guest + self.code + self.rest
    }
}

/// Bytes that a directory takes on its disk.
fn stored(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("{}", dir.display()))? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() { stored(&entry.path())? } else { meta.blocks() * 512 };
    }
    Ok(sum)
}

fn timed(serve: &Serve, args: &[&str]) -> Result<Duration> {
    let began = Instant::now();
    let output = serve.docker(args).output();
    ensure!(output.code == 0, "{args:?}: {}", output.stderr);
    Ok(began.elapsed())
}
