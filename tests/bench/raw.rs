//! The pipe without a link on it: a machine whose init is a shell script that does what it is told over the bare device.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rig::images::ImageDir;
use rig::machine::{Machine, Powered, script};
use wire::spec::LinkDevice;

/// Reads one command from the device: what to do, with what, and how many blocks of [`BLOCK`] bytes.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin
mkdir -p /dev /proc /sys
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
head -c 4000000 /dev/urandom >/random
for port in /sys/class/virtio-ports/*; do
    [ "$(cat $port/name 2>/dev/null)" = tether.link ] && device=/dev/${port##*/}
done
if [ -z "$device" ]; then
    device=/dev/ttyS0
    stty -F $device raw -echo 115200
fi
bulk() {
    while [ $blocks -gt 0 ]; do
        n=$((blocks > 125 ? 125 : blocks))
        dd if=$with bs=32000 count=$n 2>/dev/null
        blocks=$((blocks - n))
    done
}
exec 3<>$device
echo ready >&3
read -r what with blocks <&3
case $what in
out)
    bulk >&3
    ;;
relay-out)
    bulk | dd bs=32000 2>/dev/null >&3
    ;;
in)
    dd bs=32000 iflag=fullblock count=$blocks of=/dev/null 2>/dev/null <&3
    echo done >&3
    ;;
relay-in)
    dd bs=32000 iflag=fullblock count=$blocks 2>/dev/null <&3 | dd bs=32000 of=/dev/null 2>/dev/null
    echo done >&3
    ;;
echo) exec cat <&3 >&3 ;;
esac
exec sleep 100000
"#;

/// What is moved at once: as much as tether sends in a frame on a fast pipe.
pub(crate) const BLOCK: u64 = 32_000;

/// An initramfs with busybox and that script.
pub(crate) fn initramfs(dir: &Path) -> Result<PathBuf> {
    let image = ImageDir::with_busybox();
    let init = image.root().join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let path = dir.join("raw.initramfs");
    let mut find = Command::new("find").arg(".").current_dir(image.root()).stdout(Stdio::piped()).spawn()?;
    let names = find.stdout.take().context("piped")?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--quiet", "-o", "-H", "newc"]).current_dir(image.root()).stdin(names).stdout(fs::File::create(&path)?);
    ensure!(cpio.status()?.success() && find.wait()?.success(), "cpio failed");
    Ok(path)
}

/// A machine that waits for its command.
fn boot(device: LinkDevice, initramfs: &Path) -> Result<Powered> {
    let mut machine = Machine::new(&script(device, "true"), None);
    machine.initramfs = initramfs.into();
    machine.guestinfo = None;
    let mut powered = machine.power_on();
    powered.socket.set_read_timeout(Some(rig::host::PATIENCE))?;
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"ready\n") && !seen.ends_with(b"ready\r\n") {
        powered.socket.read_exact(&mut byte).with_context(|| powered.console())?;
        seen.push(byte[0]);
    }
    Ok(powered)
}

/// Who is between the process and the device.
#[derive(Clone, Copy)]
pub(crate) enum Between {
    Nobody,
    /// One more process and a pipe, as with anything that carries another's output.
    Relay,
}

impl Between {
    fn verb(self, direction: &str) -> String {
        match self {
            Between::Nobody => direction.into(),
            Between::Relay => format!("relay-{direction}"),
        }
    }
}

/// Bytes a second from the guest, `dd` writing to the device.
pub(crate) fn out(device: LinkDevice, initramfs: &Path, between: Between, with: &str, blocks: u64) -> Result<f64> {
    let mut powered = boot(device, initramfs)?;
    writeln!(powered.socket, "{} {with} {blocks}", between.verb("out"))?;
    let mut buffer = vec![0; 1 << 16];
    let mut left = blocks * BLOCK;
    let mut began = None;
    while left > 0 {
        let count = powered.socket.read(&mut buffer)?;
        ensure!(count > 0, "the machine is gone");
        began.get_or_insert_with(Instant::now);
        left = left.saturating_sub(count as u64);
    }
    rate(blocks, began.context("no bytes")?.elapsed())
}

/// Bytes a second to the guest, `dd` reading from the device.
pub(crate) fn input(device: LinkDevice, initramfs: &Path, between: Between, bytes: &[u8]) -> Result<f64> {
    let mut powered = boot(device, initramfs)?;
    let blocks = bytes.len() as u64 / BLOCK;
    writeln!(powered.socket, "{} - {blocks}", between.verb("in"))?;
    let began = Instant::now();
    powered.socket.write_all(bytes)?;
    let mut done = [0; 4];
    powered.socket.read_exact(&mut done)?;
    ensure!(&done == b"done", "the guest says {done:?}");
    rate(blocks, began.elapsed())
}

/// Round trips of one byte through `cat` on the device.
pub(crate) fn echo(device: LinkDevice, initramfs: &Path, times: usize) -> Result<Vec<Duration>> {
    let mut powered = boot(device, initramfs)?;
    writeln!(powered.socket, "echo - -")?;
    (0..times)
        .map(|_| {
            let began = Instant::now();
            powered.socket.write_all(b"x")?;
            powered.socket.read_exact(&mut [0])?;
            Ok(began.elapsed())
        })
        .collect()
}

#[allow(clippy::cast_precision_loss)] // sizes far below 2^52
pub(crate) fn rate(blocks: u64, time: Duration) -> Result<f64> {
    ensure!(!time.is_zero(), "no time");
    Ok((blocks * BLOCK) as f64 / time.as_secs_f64())
}
