//! KVM or TCG: `/dev/kvm` may exist and still run no kernel, so a machine has to show once that it can.
//!
//! The probe boots the real kernel without a spec and waits for tether's word on the console. Its result is kept until QEMU changes or the host reboots.

use std::fs::{self, File};
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};
use wire::spec::LinkDevice;

use super::{Accel, Begins, Boot, LinkEnd, Machine, qemu};
use crate::console;

/// What can be told at once; none if a machine has to show it first.
pub fn known(program: &Path, cache: &Path) -> Result<Option<Accel>> {
    let asked = std::env::var("VCH_ACCEL").unwrap_or_default();
    match asked.as_str() {
        "tcg" => return Ok(Some(Accel::Tcg)),
        "kvm" => {
            return open_kvm()
                .map(|()| Some(Accel::Kvm))
                .context("VCH_ACCEL=kvm: /dev/kvm cannot be used (VCH_ACCEL=tcg works everywhere, slower)");
        }
        "" => {}
        other => bail!("VCH_ACCEL={other}: it is `kvm` or `tcg`"),
    }
    if open_kvm().is_err() {
        return Ok(Some(Accel::Tcg));
    }
    let known = fs::read_to_string(cache.join(REMEMBERED)).unwrap_or_default();
    Ok(match known.strip_prefix(&key(program)?).map(str::trim) {
        Some("kvm") => Some(Accel::Kvm),
        Some("tcg") => Some(Accel::Tcg),
        _ => None,
    })
}

/// Decides, and boots a probe if nobody has done so before.
pub async fn choose(program: &Path, boot: &Boot, cache: &Path) -> Result<Accel> {
    if let Some(accel) = known(program, cache)? {
        return Ok(accel);
    }
    let remembered = cache.join(REMEMBERED);
    let key = key(program)?;
    let accel = if probe(program, boot).await? { Accel::Kvm } else { Accel::Tcg };
    // stderr is the container's unless a person looks at it
    if accel == Accel::Tcg && std::io::stderr().is_terminal() {
        eprintln!("vch: KVM does not run the kernel here: falling back to TCG, about ten times slower");
    }
    let line = format!("{key} {}\n", if accel == Accel::Kvm { "kvm" } else { "tcg" });
    if let Err(error) = fs::write(&remembered, line) {
        eprintln!("vch: cannot write {}: {error}: the next run tries KVM again", remembered.display());
    }
    Ok(accel)
}

fn open_kvm() -> std::io::Result<()> {
    File::options().read(true).write(true).open("/dev/kvm").map(drop)
}

/// What the result depends on: the host since it booted, and QEMU.
fn key(program: &Path) -> Result<String> {
    let meta = fs::metadata(program).with_context(|| format!("cannot read {}", program.display()))?;
    let host = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Ok(format!("{} {} {}.{:09}", host.trim(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

async fn probe(program: &Path, boot: &Boot) -> Result<bool> {
    let dir = tempfile::tempdir().context("cannot make a directory for a trial of KVM")?;
    let console_file = dir.path().join("console");
    let nothing = dir.path().join("nothing");
    fs::write(&nothing, "")?;
    let _socket = tokio::net::UnixListener::bind(dir.path().join("link"))?;
    let machine = Machine {
        boot: boot.clone(),
        firmware: qemu::quick_firmware(),
        accel: Accel::Kvm,
        memory_mib: 256,
        cpus: 1,
        link: LinkDevice::Serial,
        link_end: LinkEnd::Own(dir.path().join("link")),
        vsock: None,
        console: console_file.clone(),
        log: None,
        guestinfo: nothing,
        root: None,
        disks: Vec::new(),
        cards: Vec::new(),
        orders: None,
        begins: Begins::Boot,
    };
    let mut process = qemu::Process::start(program, &machine)?;
    let give_up = Instant::now() + PROBE_TIME;
    let works = loop {
        if console::holds(&console_file, NAME) {
            break true;
        }
        tokio::select! {
            _ = process.wait() => break console::holds(&console_file, NAME),
            () = sleep(PROBE_INTERVAL) => {}
        }
        if Instant::now() >= give_up {
            break false;
        }
    };
    process.kill().await;
    Ok(works)
}

/// In the cache: what the last probe showed.
const REMEMBERED: &str = "accel";
/// What tether's lines on the console begin with.
const NAME: &[u8] = b"tether";
/// Under KVM a boot takes a tenth of it.
const PROBE_TIME: Duration = Duration::from_secs(4);
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
