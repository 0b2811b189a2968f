//! QEMU as a hypervisor: a process for each machine, which outlives this program and is found again by its command line and the socket at which it takes orders.
//!
//! It decides how a process is started, watched and ended. Its command line: [`crate::vm::qemu`]; what it is kept from: [`confine`]; what a clone needs: [`clone`]; what orders become: [`obey`].

mod clone;
mod confine;
mod obey;
mod process;
mod tap;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rustix::process::Pid;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use self::clone::Templates;
use self::confine::Confinement;
use self::process::{ENDING, Process, Unfinished};
use super::{Hypervisor, Off, Order, Powered, Reins};
use crate::ids;
use crate::lock::locked;
use crate::serve::say;
use crate::vm::fork::{self, Keys};
use crate::vm::orders::Orders;
use crate::vm::qemu::Files;
use crate::vm::{Accel, Begins, Boot, Machine, accel, qemu};
use crate::whole::if_there;

/// QEMU, as it is installed.
#[derive(Debug)]
pub(crate) struct Qemu {
    program: PathBuf,
    /// Where its machines take orders: the paths of sockets are short.
    sockets: PathBuf,
    confinement: Confinement,
    templates: Templates,
    /// How its machines compute. The first ones may have to wait until another has shown it.
    accel: Shared<BoxFuture<'static, Accel>>,
    /// The machines that were on when this program began, and are not asked for yet.
    left: Mutex<BTreeMap<String, Process>>,
    /// Held while this program looks after them: QEMU takes orders of one.
    _lock: File,
}

/// A machine's process, and what belongs to it.
#[derive(Debug)]
struct Running {
    process: Process,
    /// As long as this program itself has started it.
    child: Option<Child>,
    socket: PathBuf,
    /// What QEMU itself says.
    said: PathBuf,
    /// It did not do as it was told, and was killed.
    killed: AtomicBool,
}

impl Qemu {
    /// QEMU as it is installed; its machines boot so, and take orders in the directory `sockets`. Must be called within the runtime.
    pub(crate) fn find(sockets: PathBuf, boot: &Boot, cache: &Path) -> Result<Qemu> {
        let lock = lock(&sockets)?;
        let program = qemu::find()?;
        let accel = match accel::known(&program, cache)? {
            Some(accel) => std::future::ready(accel).boxed().shared(),
            None => {
                let chosen = choose(program.clone(), boot.clone(), cache.to_owned()).boxed().shared();
                // clients are served meanwhile
                tokio::spawn(chosen.clone());
                chosen
            }
        };
        let confinement = Confinement::find(&program, &sockets)?;
        let left = Mutex::new(process::running(&sockets)?);
        Ok(Qemu { program, sockets, confinement, templates: Templates::default(), accel, left, _lock: lock })
    }

    /// What its sockets are called by.
    fn name(dir: &Path) -> String {
        ids::short(&dir.file_name().unwrap_or_default().to_string_lossy()).to_owned()
    }

    /// Where the machine whose files are in `dir` takes orders.
    fn orders(&self, dir: &Path) -> PathBuf {
        self.sockets.join(Qemu::name(dir) + ENDING)
    }

    async fn start(&self, dir: &Path, machine: &Machine) -> Result<Powered> {
        // nobody is taken for the one that is started
        self.forget(dir)?;
        let accel = self.accel.clone().await;
        let machine = Machine { accel, orders: Some(self.orders(dir)), ..machine.clone() };
        self.confinement.prepare(&machine)?;
        match machine.begins {
            Begins::Clone => {
                let template = self.templates.have(&self.program, &machine).await?;
                let (clone, _keys) = fork::clone_of(&machine)?;
                let begun = self.launch(dir, &clone, template.files()?).await;
                begun.context("QEMU does not go on with the template")
            }
            Begins::Boot | Begins::Template => self.launch(dir, &machine, Files::default()).await,
        }
    }

    /// Starts a machine's process. Where that fails, it is gone, and what it had is free.
    async fn launch(&self, dir: &Path, machine: &Machine, mut files: Files) -> Result<Powered> {
        let (socket, said) = (self.orders(dir), dir.join(SAID));
        let out = File::create(&said).with_context(|| format!("cannot write {}", said.display()))?;
        let mut command = Command::new(&self.program);
        command.args(qemu::arguments(machine)).args(self.confinement.arguments(&Qemu::name(dir)));
        command.process_group(0).stdin(files.stdin()).stdout(files.stdout()).stderr(out);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("QEMU has ended already")?;
        let process = Process::hold(pid).context("cannot watch QEMU: pidfd_open needs Linux 5.3")?;
        process.limit();
        let unfinished = Unfinished::new(process);
        let begun = async {
            let orders = connect(&socket, pid).await;
            match machine.begins {
                Begins::Clone => fork::resume_by(&orders).await.map(|()| orders),
                Begins::Boot | Begins::Template => Ok(orders),
            }
        };
        let begun = tokio::select! {
            begun = timeout(START_TIME, begun) => begun.unwrap_or_else(|_| {
                bail!("QEMU has taken no orders for {} s, and was ended", START_TIME.as_secs())
            }),
            ended = child.wait() => {
                let how = process::ending(ended.ok());
                bail!("{}", complaint(&said).unwrap_or(how));
            }
        };
        let orders = match begun {
            Ok(orders) => orders,
            Err(error) => {
                drop(unfinished);
                let _ended = child.wait().await;
                return Err(match complaint(&said) {
                    Some(said) => error.context(said),
                    None => error,
                });
            }
        };
        let process = unfinished.finish().context("QEMU is gone")?;
        let (powered, reins) = Powered::new();
        tokio::spawn(drive(Running::new(process, Some(child), socket, said), Some(orders), reins));
        Ok(powered)
    }
}

impl Running {
    fn new(process: Process, child: Option<Child>, socket: PathBuf, said: PathBuf) -> Running {
        Running { process, child, socket, said, killed: AtomicBool::new(false) }
    }

    fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        self.process.kill();
    }
}

impl Hypervisor for Qemu {
    fn power_on<'a>(&'a self, dir: &'a Path, machine: &'a Machine) -> BoxFuture<'a, Result<Powered>> {
        self.start(dir, machine).boxed()
    }

    fn find<'a>(&'a self, dir: &'a Path) -> BoxFuture<'a, Result<Option<Powered>>> {
        let found = locked(&self.left).remove(&Qemu::name(dir)).map(|process| {
            let (powered, reins) = Powered::new();
            let running = Running::new(process, None, self.orders(dir), dir.join(SAID));
            tokio::spawn(drive(running, None, reins));
            powered
        });
        std::future::ready(Ok(found)).boxed()
    }

    fn end_others(&self) -> Vec<String> {
        let others = std::mem::take(&mut *locked(&self.left));
        others.values().for_each(Process::kill);
        others.into_keys().collect()
    }

    fn accel(&self) -> Option<Accel> {
        self.accel.clone().now_or_never()
    }

    fn admit(&self, socket: &Path) -> Result<()> {
        self.confinement.admit(socket)
    }

    fn forget(&self, dir: &Path) -> Result<()> {
        let socket = self.orders(dir);
        if_there(fs::remove_file(&socket)).with_context(|| format!("cannot remove {}", socket.display()))?;
        drop(Keys::of(dir));
        Ok(())
    }
}

async fn choose(program: PathBuf, boot: Boot, cache: PathBuf) -> Accel {
    accel::choose(&program, &boot, &cache).await.unwrap_or_else(|error| {
        say(&format!("cannot try KVM: {error:#}; machines do without it"));
        Accel::Tcg
    })
}

/// Of two programs that look after the same machines, the second one ends.
fn lock(sockets: &Path) -> Result<File> {
    let path = sockets.join(LOCK);
    let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another vch serve looks after the machines of this state directory: end it, or use --state with another directory"
            )
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Hands on orders until QEMU has ended, and tells why it has.
async fn drive(mut running: Running, orders: Option<Orders>, mut reins: Reins) {
    let orders = match orders {
        Some(orders) => Some(orders),
        None => {
            let reached = reach(&running, &mut reins).await;
            if let Some(orders) = &reached
                && let Ok(still) = obey::stands_still(orders).await
            {
                reins.stands.send_replace(Some(still));
            }
            reached
        }
    };
    if let Some(orders) = &orders {
        obey_all(&running, orders, &mut reins).await;
    }
    let said = match orders {
        Some(orders) => timeout(LAST_WORDS, orders.off()).await.unwrap_or(Off::Other(None)),
        None => Off::Other(None),
    };
    let status = match &mut running.child {
        Some(child) => child.wait().await.ok(),
        None => None,
    };
    let off = match said {
        Off::Guest => Off::Guest,
        Off::Other(why) => {
            let killed = running.killed.load(Ordering::Relaxed);
            let own = || if killed { UNHEARD.to_owned() } else { process::ending(status) };
            let why = why.unwrap_or_else(own);
            let said = tokio::task::spawn_blocking(move || complaint(&running.said)).await.ok().flatten();
            Off::Other(Some(said.map_or_else(|| why.clone(), |said| format!("{why}: {said}"))))
        }
    };
    reins.off.send_replace(Some(off));
}

/// Speaks to a process as soon as it listens, which it does before its machine runs. A socket of another process is not its.
async fn connect(socket: &Path, pid: Pid) -> Orders {
    let own = async || {
        let stream = UnixStream::connect(socket).await?;
        if stream.peer_cred()?.pid() != Some(pid.as_raw_pid()) {
            bail!("{} is another process's", socket.display());
        }
        Orders::over(stream).await
    };
    loop {
        match own().await {
            Ok(orders) => return orders,
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// Speaks to a machine that somebody else has started, as soon as it takes orders; none if it ends before.
async fn reach(running: &Running, reins: &mut Reins) -> Option<Orders> {
    let mut connecting = std::pin::pin!(async {
        let orders = connect(&running.socket, running.process.pid).await;
        // the program that started it may have ended before the machine ran
        if let Err(error) = fork::finish_resume(&orders).await {
            let machine = running.socket.file_stem().unwrap_or_default().display();
            say(&format!("{machine}: QEMU does not go on with the template: {error:#}"));
            running.kill();
        }
        orders
    });
    loop {
        tokio::select! {
            orders = &mut connecting => return Some(orders),
            () = running.process.ended() => return None,
            Some((order, answer)) = reins.orders.recv() => {
                let obeyed = match order {
                    Order::PowerOff => {
                        running.kill();
                        Ok(())
                    }
                    other => Err(anyhow::anyhow!("QEMU takes no orders yet: {other:?}")),
                };
                // who asked may have gone
                let _told = answer.send(obeyed);
            }
        }
    }
}

/// Orders are obeyed one beside the other: a guest takes its time, and the machine is to be powered off all the same.
async fn obey_all(running: &Running, orders: &Orders, reins: &mut Reins) {
    let mut work = FuturesUnordered::new();
    let mut ends = Vec::new();
    let mut events = orders.events();
    loop {
        tokio::select! {
            () = running.process.ended() => break,
            Some(trouble) = obey::next_trouble(&mut events) => {
                reins.trouble.send_replace(Some(trouble));
            }
            Some(()) = work.next(), if !work.is_empty() => {}
            Some((order, answer)) = reins.orders.recv() => {
                let answer = match order {
                    // answered when it is off
                    Order::PowerOff => {
                        ends.push(answer);
                        None
                    }
                    _ => Some(answer),
                };
                work.push(async {
                    match answer {
                        None => power_off(running, orders).await,
                        // who asked may have gone
                        Some(answer) => drop(answer.send(obey::obey(orders, order).await)),
                    }
                });
            }
        }
    }
    for answer in ends {
        let _told = answer.send(Ok(()));
    }
}

/// Ends QEMU: by its own word, and by force if it does not.
async fn power_off(running: &Running, orders: &Orders) {
    let asked = tokio::select! {
        asked = obey::obey(orders, Order::PowerOff) => asked.is_ok(),
        () = sleep(QUIT_TIME) => false,
    };
    if !asked || !running.process.has_ended_within(QUIT_TIME).await {
        running.kill();
    }
}

/// What QEMU said last.
fn complaint(said: &Path) -> Option<String> {
    let text = fs::read(said).ok()?;
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rfind(|line| !line.trim().is_empty() && !line.contains(KEPT))?;
    // its own name tells nobody anything
    Some(last.split_once(": ").filter(|(name, _)| name.contains("qemu")).map_or(last, |(_, rest)| rest).to_owned())
}

/// Why one ended that was killed by this program.
const UNHEARD: &str = "QEMU did not do as it was told, and was killed";
/// What QEMU itself says: in the container's directory.
const SAID: &str = "qemu.log";
/// It says so for each page that the balloon of a clone takes: the template's memory stays as it is.
const KEPT: &str = "ram_block_discard_range: Failed to fallocate";
/// In the directory of sockets.
const LOCK: &str = "lock";
/// From its start until QEMU takes orders; a busy host takes some seconds.
const START_TIME: Duration = Duration::from_secs(60);
/// From the order to end, to its end. Then it is killed: a guest's disks are as after a power cut, which they stand.
const QUIT_TIME: Duration = Duration::from_secs(5);
/// A process that has ended has said all; it only has to be read.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Between two looks whether QEMU takes orders by now.
const RETRY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests;
