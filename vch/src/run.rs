//! `vch run`: an image's disk, a machine over it, and the conversation with its guest, one after the other.
//!
//! It decides the order, what a signal means before the guest can have it, and the exit code. Nothing of a container that was to leave no trace is left,
//! whichever way this ends. Where the link leads to another VCH, there is no conversation: `elsewhere`.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use wire::handshake::LinkKey;
use wire::link::Tuning;
use wire::spec::{LinkDevice, Spec};

mod assemble;
mod cloned;
mod elsewhere;

use self::assemble::{Parts, RootDisks};
use crate::cli::{CloneWish, DiskForm, RunArgs};
use crate::guest_link::{self, Command, Ends, Outcome, Report};
use crate::hub::Identity;
use crate::images::{self, Unfinished};
use crate::inputs::Inputs;
use crate::pipe::{self, Address, Listener, Pipe};
use crate::plan::{Asked, Plan};
use crate::signals::{self, Caught, SIGWINCH};
use crate::state::{self, About, Container};
use crate::verdict::Verdict;
use crate::vm::fork::Unclonable;
use crate::vm::vsock::Vsock;
use crate::vm::{Accel, LinkEnd, Machine, accel, qemu};
use crate::{assets, master_key, plan, terminal, timestamp};

/// Runs a container; its exit code is the result.
pub fn run(args: &RunArgs) -> Result<u8> {
    if args.vch.is_none() && args.container.tty && args.container.interactive && !io::stdin().is_terminal() {
        bail!("the input device is not a TTY: leave out -t, or give a terminal on standard input");
    }
    if args.vch.is_some() && args.clone == CloneWish::Always {
        bail!("--clone always: a machine whose link leads to a VCH elsewhere is not cloned: leave out --clone");
    }
    // One thread drives everything: QEMU is told to die with the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let result = runtime.block_on(container(args));
    // a read of standard input may never come back
    runtime.shutdown_background();
    result
}

async fn container(args: &RunArgs) -> Result<u8> {
    let mut caught = signals::catch().context("cannot catch signals")?;
    let program = std::env::current_exe().context("cannot find out where vch lies")?;
    let boot = assets::find(args.boot, args.assets.as_deref(), &program)?;
    let qemu = qemu::find()?;
    let cache = state::cache_dir()?;
    let id = state::new_id()?;

    let unfinished = Unfinished::default();
    let prepared = tokio::select! {
        prepared = prepare(args, &id, &cache, unfinished.clone()) => prepared,
        signal = signals::ending(&mut caught) => {
            unfinished.abandon();
            return Ok(128 + signal);
        }
    };
    let Prepared { plan, root, about, told } = prepared?;
    let accel = tokio::select! {
        accel = accel::choose(&qemu, &boot, &cache) => accel?,
        signal = signals::ending(&mut caught) => return Ok(128 + signal),
    };

    let sockets = state::socket_dir()?;
    let link_socket = sockets.path().join("link");
    let (vsock, listener) = match (&args.vch, plan.spec.link.device) {
        (Some(_), _) => (None, None),
        (None, LinkDevice::Vsock) => {
            let (vsock, listener) = Vsock::choose(sockets.path())?;
            (Some(vsock), Some(listener))
        }
        (None, LinkDevice::Serial | LinkDevice::Virtio) => {
            (None, Some(Listener::bind(&Address::Unix(link_socket.clone()))?))
        }
    };
    let link_end = args.vch.clone().map_or(LinkEnd::Own(link_socket), LinkEnd::Elsewhere);
    let orders = args.vch.as_ref().map(|_| sockets.path().join("orders"));
    let container = Container::create(&id, args.rm)?;
    let parts = Parts { args, plan: &plan, root, about, boot, accel, vsock, link_end, orders, told };
    let assembled = parts.assemble(&container)?;
    if let Some(file) = &args.cidfile {
        write_id(file, &id)?;
    }

    let attended = match listener {
        Some(listener) => attend(args, &plan.spec, &qemu, &assembled.machine, listener, caught).await.map(Ok),
        None => elsewhere::attend(&id, &qemu, &assembled.machine, &mut caught).await.map(Err),
    };
    let verdict = match attended {
        Ok(Err(verdict)) => verdict,
        Ok(Ok(report)) => {
            if let Some(text) = report.kernel_log.as_ref().filter(|_| args.debug) {
                eprint!("{text}");
            }
            let lost = matches!(report.outcome, Outcome::Lost | Outcome::NotReady);
            let verdict = Verdict::of(report, &container, args.start_timeout);
            match accel == Accel::Kvm && lost {
                true => verdict.with_hint("VCH_ACCEL=tcg does without KVM, slower"),
                false => verdict,
            }
        }
        Err(error) => Verdict::error(format!("{error:#}")),
    };
    if let Some(error) = &verdict.error {
        eprintln!("vch: {error}");
    }
    if !container.is_transient()
        && let Err(error) = container.write_exit(verdict.code, verdict.ending, verdict.oom, verdict.error.as_deref())
    {
        eprintln!("vch: {error:#}");
    }
    Ok(verdict.code)
}

/// What is known before there is a machine.
struct Prepared {
    plan: Plan,
    root: RootDisks,
    about: About,
    /// What a VCH is told.
    told: wire::spec::About,
}

/// Reads the image, plans, and makes the image's disk, on a thread of its own: it is work, and a signal may come.
async fn prepare(args: &RunArgs, id: &str, cache: &Path, unfinished: Unfinished) -> Result<Prepared> {
    let inputs = Inputs::read(&args.container)?;
    let key = match args.vch {
        None => LinkKey::new(state::random()?),
        Some(_) => master_key::at(&master_key::path(args.master_key.as_deref(), None)?)?.link_key(id),
    };
    let created_ns = i64::try_from(timestamp::now_ns()).unwrap_or(i64::MAX);
    let (args, id, cache, size) = (args.clone(), id.to_owned(), cache.to_owned(), terminal::size());
    let work = move || {
        let wishes = &args.container;
        let image = images::open(wishes.image(), wishes.pull, &cache, unfinished)?;
        let layers = match wishes.disks.form {
            DiskForm::Merged => Vec::new(),
            DiskForm::Layers => image.layers(),
        };
        let asked = Asked {
            id: &id,
            args: wishes,
            link: args.link(),
            transient: args.rm,
            variables: &inputs.variables,
            seccomp: inputs.seccomp.as_deref(),
            layers: &layers,
            size,
        };
        let config = image.config();
        let mut plan = plan::plan(key, asked, &config)?;
        plan.spec.hold = args.hold;
        let root = match layers.is_empty() {
            true => RootDisks::Merged(image.disk()?),
            false => RootDisks::Layers {
                disks: layers.into_iter().zip(image.layer_disks()?).collect(),
                top: image.top_disk()?,
            },
        };
        let labels = inputs.labels(config.labels.clone());
        let told = wire::spec::About {
            image_id: Some(image.digest().to_owned()),
            created_ns: Some(created_ns),
            labels: labels.clone(),
            ..plan::about(wishes, &config)
        };
        let about = About {
            id,
            name: wishes.name.clone(),
            image: wishes.image().to_owned(),
            command: plan.spec.main.argv.clone(),
            labels,
            ..About::default()
        };
        Ok(Prepared { plan, root, about, told })
    };
    tokio::task::spawn_blocking(work).await.context("reading the image went wrong")?
}

/// A file that is there tells of another container.
fn write_id(file: &Path, id: &str) -> Result<()> {
    let written = File::options().write(true).create_new(true).open(file).and_then(|mut out| write!(out, "{id}"));
    written.with_context(|| format!("cannot write the container's id to {} (--cidfile)", file.display()))
}

/// Starts the machine, talks with its guest, and sees the machine end.
async fn attend(
    args: &RunArgs,
    spec: &Spec,
    qemu: &Path,
    machine: &Machine,
    mut listener: Listener,
    caught: Caught,
) -> Result<Report> {
    let start_by = Instant::now() + Duration::from_secs(args.start_timeout);
    let companion = match &machine.vsock {
        Some(vsock) => vsock.start().await?,
        None => None,
    };
    let (machine_is_on, off) = oneshot::channel::<()>();
    let (mut process, pipe) = match &machine.vsock {
        // the guest connects, once it has booted
        Some(vsock) => {
            cloned::boots(args.clone, Unclonable::Vsock)?;
            let process = qemu::Process::start(qemu, machine)?;
            (process, pipe::awaited(guest(listener, vsock.clone(), off)))
        }
        None => match cloned::start(args.clone, qemu, machine, &mut listener, start_by).await? {
            (process, Some(pipe)) => (process, pipe.split()),
            (process, None) => {
                let complaint = process.complaint().await;
                bail!("QEMU ended at once: {}", complaint.as_deref().unwrap_or("it did not say why"));
            }
        },
    };

    let (sender, mut commands) = mpsc::unbounded_channel();
    tokio::spawn(forward(caught, args.container.tty, sender));
    let restore = terminal::Restore;
    let tuning = match machine.link {
        LinkDevice::Virtio | LinkDevice::Vsock => Tuning::FAST,
        LinkDevice::Serial => Tuning::SERIAL,
    };
    let identity = Identity::new(spec.id.clone(), spec.link.key.clone(), spec.link.sealed, tuning)?;
    let ends = own_ends(args)?;
    let mut talk = pin!(guest_link::converse(pipe, identity, ends, &mut commands, start_by));
    let mut carrier_ends = Box::pin(async move {
        match companion {
            Some(mut companion) => companion.ended().await,
            None => std::future::pending().await,
        }
    });
    let report = tokio::select! {
        report = &mut talk => {
            if report.outcome == Outcome::Lost {
                // a broken pipe may be the first sign that what carries it, or the machine, ends
                tokio::select! {
                    error = &mut carrier_ends => return Err(error),
                    _ = process.wait() => {}
                    () = sleep(EXIT_TIME) => {}
                }
            }
            report
        }
        // QEMU is killed as this returns
        error = &mut carrier_ends => return Err(error),
        _ = process.wait() => {
            // what carries a vsock outlives QEMU; the pipe is still read to its end
            drop((carrier_ends, machine_is_on));
            talk.await
        }
    };
    drop(restore);

    if report.machine_stays() {
        process.kill().await;
    } else if timeout(EXIT_TIME, process.wait()).await.is_err() {
        eprintln!("vch: QEMU did not end by itself, and was killed");
        process.kill().await;
    }
    Ok(report.with_complaint(process.complaint().await))
}

/// QEMU's end of the link; `None` when it ends instead.
async fn connected(listener: &mut Listener, process: &mut qemu::Process, start_by: Instant) -> Result<Option<Pipe>> {
    tokio::select! {
        accepted = timeout_at(start_by, listener.accept()) => {
            Ok(Some(accepted.map_err(|_| anyhow!("QEMU did not connect to its link in time"))??))
        }
        ended = process.wait() => ended.map(|_| None).context("cannot wait for QEMU"),
    }
}

/// The guest's connection by vsock; `None` when the machine ends instead, which drops the other end of `off`.
async fn guest(mut listener: Listener, vsock: Vsock, off: oneshot::Receiver<()>) -> Option<Pipe> {
    let connects = async {
        loop {
            let pipe = listener.accept().await.ok()?;
            // every machine of the host can reach this port of its kernel
            match vsock {
                Vsock::Kernel { cid } if pipe.peer_cid() != Some(cid) => {}
                Vsock::Kernel { .. } | Vsock::Program { .. } => return Some(pipe),
            }
        }
    };
    tokio::select! {
        pipe = connects => pipe,
        _ = off => None,
    }
}

/// Signals become requests to the guest.
async fn forward(mut caught: Caught, tty: bool, commands: mpsc::UnboundedSender<Command>) {
    while let Some(signal) = caught.recv().await {
        let command = match signal {
            SIGWINCH if !tty => continue,
            SIGWINCH => match terminal::size() {
                Some(size) => Command::Resize(size),
                None => continue,
            },
            signal => Command::Signal(signal),
        };
        if commands.send(command).is_err() {
            return;
        }
    }
}

/// Our own streams, without std's buffers and locks.
fn own_ends(args: &RunArgs) -> Result<Ends> {
    let own = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().map(File::from).context("cannot use a standard stream");
    let stdin = own(&io::stdin())?;
    let raw = args.container.tty;
    let open = move || -> Box<dyn io::Read + Send> {
        if raw && let Err(error) = terminal::make_raw() {
            eprintln!("vch: cannot make the terminal raw: {error}");
        }
        Box::new(stdin)
    };
    Ok(Ends {
        stdin: args.container.interactive.then(|| Box::new(open) as Box<dyn FnOnce() -> _ + Send>),
        stdout: Box::new(own(&io::stdout())?),
        stderr: Box::new(own(&io::stderr())?),
    })
}

/// From the end of the link to the end of QEMU's process.
const EXIT_TIME: Duration = Duration::from_secs(10);
