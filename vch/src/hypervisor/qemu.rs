//! QEMU as a hypervisor: a process for each machine, which outlives this program and is found again by the socket at which it takes orders.
//!
//! It decides how a process is started, watched and ordered about. Its command line: [`crate::vm::qemu`].

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::{Hypervisor, Off, Order, Powered, Reins};
use crate::vm::orders::Orders;
use crate::vm::{Machine, qemu};

/// QEMU, as it is installed.
#[derive(Debug)]
pub(crate) struct Qemu {
    program: PathBuf,
    /// Where its machines take orders: the paths of sockets are short.
    sockets: PathBuf,
}

impl Qemu {
    /// QEMU as it is installed; its machines take orders in the directory `sockets`.
    pub(crate) fn find(sockets: PathBuf) -> Result<Qemu> {
        Ok(Qemu { program: qemu::find()?, sockets })
    }

    /// Where the machine whose files are in `dir` takes orders.
    fn orders(&self, dir: &Path) -> PathBuf {
        let id = dir.file_name().unwrap_or_default().to_string_lossy();
        self.sockets.join(format!("{}.qmp", &id[..id.len().min(12)]))
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    async fn start(&self, dir: &Path, machine: &Machine) -> Result<Powered> {
        let socket = self.orders(dir);
        let machine = Machine { orders: Some(socket.clone()), ..machine.clone() };
        let said = dir.join(SAID);
        let out = File::create(&said).with_context(|| format!("cannot write {}", said.display()))?;
        let mut command = Command::new(&self.program);
        command.args(qemu::arguments(&machine)).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let orders = tokio::select! {
            orders = Orders::connect(&socket) => orders?,
            ended = child.wait() => {
                ended.context("cannot wait for QEMU")?;
                let said = std::fs::read_to_string(&said).unwrap_or_default();
                bail!("QEMU ended at once: {}", said.lines().last().unwrap_or("it did not say why"));
            }
        };
        let (powered, reins) = Powered::new();
        tokio::spawn(drive(orders, Some(child), reins));
        Ok(powered)
    }
}

impl Hypervisor for Qemu {
    fn power_on<'a>(&'a self, dir: &'a Path, machine: &'a Machine) -> BoxFuture<'a, Result<Powered>> {
        self.start(dir, machine).boxed()
    }

    fn find<'a>(&'a self, dir: &'a Path) -> BoxFuture<'a, Result<Option<Powered>>> {
        async move {
            let socket = self.orders(dir);
            // nobody listens: it has ended
            if UnixStream::connect(&socket).await.is_err() {
                return Ok(None);
            }
            let (powered, reins) = Powered::new();
            tokio::spawn(drive(Orders::connect(&socket).await?, None, reins));
            Ok(Some(powered))
        }
        .boxed()
    }

    fn forget(&self, dir: &Path) -> Result<()> {
        let socket = self.orders(dir);
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", socket.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Hands on orders until QEMU has ended.
async fn drive(mut orders: Orders, child: Option<Child>, mut reins: Reins) {
    let off = loop {
        tokio::select! {
            off = orders.off() => break off.unwrap_or(Off::Other(None)),
            Some((order, answer)) = reins.orders.recv() => {
                let obeyed = match order {
                    Order::PressPowerButton => orders.press_power_button().await,
                    Order::PowerOff => orders.quit().await,
                    other => Err(anyhow::anyhow!("QEMU is not told {other:?} yet")),
                };
                // who asked may have gone
                drop(answer.send(obeyed));
            }
        }
    };
    if let Some(mut child) = child {
        // it has closed its socket: it ends
        let _status = child.wait().await;
    }
    reins.off.send_replace(Some(off));
}

/// What QEMU itself says.
const SAID: &str = "qemu.log";
