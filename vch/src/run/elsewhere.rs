//! A machine whose link leads to a VCH elsewhere: it is switched on, watched, and asked to switch itself off.
//!
//! What the container says and how it ends is told there; here it counts whether the machine went off in order.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::signals::{self, Caught};
use crate::verdict::Verdict;
use crate::vm::orders::{Off, Orders};
use crate::vm::{Machine, qemu};

/// Prints the id once the machine is on, and waits for its end. The first signal that ends a program presses its power button, and the second one pulls its plug.
pub(super) async fn attend(id: &str, qemu: &Path, machine: &Machine, caught: &mut Caught) -> Result<Verdict> {
    let Some(socket) = &machine.orders else { bail!("the machine takes no orders") };
    let mut process = qemu::Process::start(qemu, machine)?;
    let connected = tokio::select! {
        connected = Orders::connect(socket) => Some(connected?),
        _ = process.wait() => None,
    };
    let Some(orders) = connected else {
        let complaint = process.complaint().await;
        bail!("QEMU ended at once: {}", complaint.as_deref().unwrap_or("it did not say why"));
    };
    let mut out = std::io::stdout();
    writeln!(out, "{id}").and_then(|()| out.flush()).context("cannot print the container's id")?;
    let mut asked = false;
    let off = loop {
        tokio::select! {
            off = orders.off() => break off,
            _ = signals::ending(caught) => match asked {
                false => {
                    asked = true;
                    orders.press_power_button().await?;
                }
                true => {
                    process.kill().await;
                    return Ok(Verdict::error("told to end twice: the virtual machine was killed".into()));
                }
            }
        }
    };
    process.wait().await.context("cannot wait for QEMU")?;
    Ok(match off {
        Off::Guest => Verdict { code: 0, ending: None, oom: false, error: None },
        Off::Other(reason) => {
            let complaint = process.complaint().await.or(reason);
            let why = complaint.as_deref().unwrap_or("QEMU did not say why");
            Verdict::error(format!("the virtual machine did not power itself off: {why}"))
        }
    })
}
