//! An order, in the words of QMP.
//!
//! It decides what is plugged in where: disks at the controller that every machine has, each at an address of its own; cards at ports that were there at power-on.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::timeout;

use super::tap;
use crate::hypervisor::Order;
use crate::vm::orders::{Event, Orders};
use crate::vm::ports::{self, Forward};
use crate::vm::qemu::{MIB_OF_A_BLOCK, card_name, port_name};
use crate::vm::{Card, CardEnd, Disk, Format};

/// Has an order obeyed, but [`Order::PowerOff`], which needs more than words.
pub(super) async fn obey(orders: &Orders, order: Order) -> Result<()> {
    match order {
        Order::PressPowerButton => orders.press_power_button().await,
        Order::PowerOff => orders.execute("quit", json!({})).await.map(drop),
        Order::Reset => reset(orders).await,
        Order::Pause => orders.execute("stop", json!({})).await.map(drop),
        Order::Resume => orders.execute("cont", json!({})).await.map(drop),
        Order::PlugDisk(disk) => plug_disk(orders, &disk).await,
        Order::PlugCard(card) => plug_card(orders, &card).await,
        Order::PullCard(mac) => pull_card(orders, mac).await,
        Order::Memory(mib) => memory(orders, mib).await,
        Order::Processors(count) => processors(orders, count).await,
    }
}

/// Its processors stand still.
pub(super) async fn stands_still(orders: &Orders) -> Result<bool> {
    let status = orders.execute("query-status", json!({})).await?;
    Ok(status["status"] == "paused")
}

/// Waits for the next thing that its user is to know. None: nothing is told any more.
pub(super) async fn next_trouble(events: &mut broadcast::Receiver<Event>) -> Option<String> {
    loop {
        match events.recv().await {
            Ok(event) => {
                if let Some(trouble) = trouble(&event) {
                    return Some(trouble);
                }
            }
            // a guest tries again and again, and each attempt tells the same
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

/// A disk that cannot be written or read, in the words of the host's kernel. The guest has the error.
fn trouble(event: &Event) -> Option<String> {
    let said = |name: &str| event.data[name].as_str().filter(|_| event.name == "BLOCK_IO_ERROR");
    let (what, why) = (said("operation")?, said("reason")?);
    let done = if what == "read" { "read" } else { "written" };
    Some(format!("one of its disks could not be {done}: {why}: its guest has I/O errors until it is started again"))
}

/// A machine of ours ends when its guest wants to boot again; this once it is to.
async fn reset(orders: &Orders) -> Result<()> {
    let mut events = orders.events();
    orders.execute("set-action", json!({ "reboot": "reset" })).await?;
    let reset = orders.execute("system_reset", json!({})).await;
    if reset.is_ok() {
        wait_for(&mut events, |event| event.name == "RESET").await.context("QEMU does not reset the machine")?;
    }
    orders.execute("set-action", json!({ "reboot": "shutdown" })).await?;
    reset.map(drop)
}

/// QEMU may not be allowed to open the file: it is handed the open one.
async fn plug_disk(orders: &Orders, disk: &Disk) -> Result<()> {
    let serial = disk.serial.as_deref().context("a disk that is plugged in needs a serial number")?;
    let opened = open(&disk.file, !disk.read_only).await?;
    let file = orders.execute_with("add-fd", json!({}), Some(opened.into())).await?;
    let set = file["fdset-id"].as_u64().context("QEMU does not say how it calls a file")?;
    let name = disk_name(serial);
    let added = orders.execute("blockdev-add", block(disk, &name, set)).await;
    // the disk has its own copy of it
    let forgotten = orders.execute("remove-fd", json!({ "fdset-id": set })).await;
    added?;
    forgotten?;
    let device = json!({
        "driver": "scsi-hd", "bus": "scsi.0", "lun": 0, "id": name, "drive": name, "serial": serial,
        "rerror": "report", "werror": "report",
    });
    if let Err(error) = orders.execute("device_add", device).await {
        orders.execute("blockdev-del", json!({ "node-name": name })).await?;
        return Err(error);
    }
    Ok(())
}

async fn open(file: &Path, write: bool) -> Result<File> {
    let path = file.to_owned();
    let opened = tokio::task::spawn_blocking(move || File::options().read(true).write(write).open(path)).await?;
    opened.with_context(|| format!("cannot open the disk {}", file.display()))
}

/// The host's side of a disk: as on the command line, in [`crate::vm::qemu`].
fn block(disk: &Disk, name: &str, set: u64) -> Value {
    let driver = match disk.format {
        Format::Raw => "raw",
        Format::Qcow2 => "qcow2",
        Format::Vmdk => "vmdk",
    };
    let mut block = json!({
        "driver": driver, "node-name": name, "read-only": disk.read_only,
        "cache": { "direct": false, "no-flush": disk.transient },
        "file": { "driver": "file", "filename": format!("/dev/fdset/{set}") },
    });
    if !disk.read_only {
        block["discard"] = "unmap".into();
        block["detect-zeroes"] = "unmap".into();
    }
    block
}

/// A name of QEMU's begins with a letter and has few kinds of characters.
fn disk_name(serial: &str) -> String {
    let plain = |char: char| if char.is_ascii_alphanumeric() { char } else { '-' };
    format!("disk-{}", serial.chars().map(plain).collect::<String>())
}

async fn plug_card(orders: &Orders, card: &Card) -> Result<()> {
    let name = card_name(card.mac);
    let mac = card.mac.map(|byte| format!("{byte:02x}")).join(":");
    if let CardEnd::Tap(device) = &card.end {
        orders.execute_with("getfd", json!({ "fdname": name }), Some(tap::open(device)?)).await?;
    }
    orders.execute("netdev_add", network(&card.end, &name)).await?;
    let mut port = 0;
    // of a port, a guest looks at the first address alone; QEMU offers others
    let error = loop {
        let device = json!({
            "driver": "virtio-net-pci", "bus": port_name(port), "addr": "0", "id": name, "netdev": name, "mac": mac,
            "romfile": "",
        });
        match orders.execute("device_add", device).await {
            Ok(_) => return Ok(()),
            Err(error) if is_about(&error, "in use") => port += 1,
            Err(error) if is_about(&error, "not found") && port > 0 => {
                break error.context(format!(
                    "each of the {port} ports of the machine has a network card: stop the container and start it \
                     again, and it has more of them"
                ));
            }
            Err(error) => break error,
        }
    };
    orders.execute("netdev_del", json!({ "id": name })).await?;
    Err(error)
}

fn is_about(error: &anyhow::Error, words: &str) -> bool {
    error.to_string().contains(words)
}

fn network(end: &CardEnd, name: &str) -> Value {
    match end {
        CardEnd::User(forwards) => {
            let forward = |Forward { protocol, address, host, guest }: &Forward| json!({ "str": format!("{}:{address}:{host}-:{guest}", ports::name(*protocol)) });
            let forwards: Vec<Value> = forwards.iter().map(forward).collect();
            json!({ "type": "user", "id": name, "ipv6": false, "hostfwd": forwards })
        }
        CardEnd::Switch { switch, machine } => json!({
            "type": "dgram", "id": name,
            "remote": { "type": "unix", "path": switch }, "local": { "type": "unix", "path": machine },
        }),
        // QEMU was handed the open one
        CardEnd::Tap(_) => json!({ "type": "tap", "id": name, "fd": name }),
        CardEnd::Nowhere => json!({ "type": "hubport", "id": name, "hubid": 0 }),
    }
}

/// The guest lets go of it first.
async fn pull_card(orders: &Orders, mac: [u8; 6]) -> Result<()> {
    let name = card_name(mac);
    let mut events = orders.events();
    orders.execute("device_del", json!({ "id": name })).await?;
    let gone = |event: &Event| event.name == "DEVICE_DELETED" && event.data["device"] == *name;
    wait_for(&mut events, gone).await.context("its guest does not let go of the card")?;
    orders.execute("netdev_del", json!({ "id": name })).await.map(drop)
}

/// More memory is plugged in, in blocks as its guest takes them; what is too much then, or was before, the guest gives back to the balloon.
async fn memory(orders: &Orders, mib: u64) -> Result<()> {
    let has = orders.execute("query-memory-size-summary", json!({})).await?;
    let bytes = |name: &str| has[name].as_u64().unwrap_or_default();
    let (plugged, total) = (bytes("plugged-memory"), bytes("base-memory") + bytes("plugged-memory"));
    let wanted = mib.checked_mul(MIB).context("no machine has so much memory")?;
    if let Some(missing) = wanted.checked_sub(total).filter(|&missing| missing > 0) {
        let size = missing.next_multiple_of(MIB_OF_A_BLOCK * MIB);
        // each has a name of its own, also when another program looks after the machine by then
        let name = format!("memory-{}", plugged / MIB);
        let (backend, device) = (format!("{name}-backend"), format!("{name}-device"));
        let object = json!({ "qom-type": "memory-backend-ram", "id": backend, "size": size, "reserve": false });
        orders.execute("object-add", object).await?;
        let plug = json!({ "driver": "pc-dimm", "id": device, "memdev": backend });
        if let Err(error) = orders.execute("device_add", plug).await {
            orders.execute("object-del", json!({ "id": backend })).await?;
            return Err(error.context(format!("the machine cannot have {mib} MiB while it runs")));
        }
    }
    orders.execute("balloon", json!({ "value": wanted })).await.map(drop)
}

async fn processors(orders: &Orders, count: u8) -> Result<()> {
    let all = orders.execute("query-hotpluggable-cpus", json!({})).await?;
    let mut all = all.as_array().cloned().unwrap_or_default();
    // QEMU lists the last one first
    all.reverse();
    let (present, absent): (Vec<_>, Vec<_>) = all.iter().partition(|place| place["qom-path"].is_string());
    let (has, most) = (present.len(), all.len());
    let Some(missing) = usize::from(count).checked_sub(has) else {
        bail!("the machine has {has} processors, and keeps them until it is off");
    };
    if missing > absent.len() {
        bail!(
            "the machine has {has} processors, and takes up to {most} while it runs: stop the container and start it again"
        );
    }
    for place in absent.into_iter().take(missing) {
        let mut device = json!({ "driver": place["type"], "id": processor_name(&place["props"]) });
        for (key, value) in place["props"].as_object().into_iter().flatten() {
            device[key] = value.clone();
        }
        orders.execute("device_add", device).await?;
    }
    Ok(())
}

/// By its place.
fn processor_name(place: &Value) -> String {
    let numbers = place.as_object().into_iter().flatten().map(|(_, number)| format!("-{number}"));
    format!("cpu{}", numbers.collect::<String>())
}

/// Waits until QEMU tells this, but not for ever: a guest may do nothing.
async fn wait_for(events: &mut broadcast::Receiver<Event>, is: impl Fn(&Event) -> bool) -> Result<()> {
    let told = async {
        loop {
            match events.recv().await {
                Ok(event) if is(&event) => return Ok(()),
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => bail!("the machine is off"),
            }
        }
    };
    timeout(GUEST_TIME, told).await.unwrap_or_else(|_| bail!("nothing came of it for {} s", GUEST_TIME.as_secs()))
}

const MIB: u64 = 1 << 20;
/// Its processors may be busy, and the host's.
const GUEST_TIME: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
