//! `vch serve`: holds the host's ends of containerVMs' links, and lets clients use them.
//!
//! ```text
//! VMs ==pipes==> door: whose?  ==> vms: a hub for each <== operations: clients' requests <==control socket== vch exec, attach ...
//! ```
//!
//! It decides what is accepted at its doors, and when it ends. What it must not lose is on disk (crate::containers) or still with the guests.

mod door;
mod operations;
mod streams;
mod vms;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use crate::api::{self, Api};
use crate::cli::{CloneWish, Hypervisor, Network, ServeArgs};
use crate::containers::Containers;
use crate::execs::Execs;
use crate::listen::Listeners;
use crate::maker::Maker;
use crate::notify::Supervisor;
use crate::pipe::{Address, Listener, Pipe, VmwareNames};
use crate::signals::SIGHUP;
use crate::status_page::Page;
use crate::{assets, master_key, signals, state, status_page};

use self::vms::Vms;

/// Serves until it is told to end; the result is the exit code.
pub fn run(args: &ServeArgs) -> Result<u8> {
    // each connection of a network is a socket here, and systemd's soft limit of 1024 is for programs that use select(2); where it stays, fewer are carried
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).ok();
    if args.hypervisor == Hypervisor::None && args.link_listen.is_empty() {
        bail!("with --hypervisor none, machines are made elsewhere: say with --link-listen where they connect");
    }
    if args.hypervisor == Hypervisor::None && args.network == Network::Kernel {
        bail!(
            "--network kernel is about the networks of machines that serve makes: say --hypervisor qemu, or leave it out"
        );
    }
    if args.hypervisor == Hypervisor::None && args.clone == CloneWish::Always {
        bail!(
            "--clone always, or VCH_CLONE, is about machines that serve makes: say --hypervisor qemu, or leave it out"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let result = LocalSet::new().block_on(&runtime, serve(args));
    runtime.shutdown_background();
    result.map(|()| 0)
}

async fn serve(args: &ServeArgs) -> Result<()> {
    let mut caught = signals::catch().context("cannot catch signals")?;
    let key = master_key::at(&master_key::path(args.master_key.as_deref(), args.state.as_deref())?)?;
    let control = args.control.address();
    // first, so that a second serve takes nothing from the one that runs
    let clients = control.listen().await?;
    let state = match &args.state {
        Some(dir) => dir.clone(),
        None => state::state_dir()?,
    };
    let lost_after = Duration::from_secs(args.lost_after.into());
    let containers = Containers::open_with(&state.join(STATE), args.log_limit, lost_after)?;
    containers.expect_links();
    let maker = match args.hypervisor {
        Hypervisor::None => None,
        Hypervisor::Qemu => {
            let boot = assets::find(args.boot, args.assets.as_deref(), &std::env::current_exe()?)?;
            Some(Arc::new(Maker::open(containers.clone(), key.clone(), &state, boot, args.network, args.clone).await?))
        }
    };
    let vms = Arc::new(Vms::new(key, containers.clone()));
    let (execs, maker_of_api) = (Execs::default(), maker.clone());
    let app = api::router(Arc::new(Api { containers: containers.clone(), execs, maker: maker_of_api }));
    // what is wrong with the options is told before a VM connects
    let api = Listeners::open(&args.listen, &state)?;
    let browsers = api.open_status(&args.status)?;
    let mut doors = Vec::new();
    if let Some(maker) = &maker {
        let address = maker.links();
        spawn_local(accept_links(Listener::bind(&address)?, address, vms.clone()));
        maker.adopt().await?;
    }
    for address in &args.link_listen {
        let listener = Listener::bind(address)?;
        let shown = listener.shown(address);
        say(&format!("links connect at {shown}"));
        doors.push(shown.to_string());
        spawn_local(accept_links(listener, address.clone(), vms.clone()));
    }
    say(&format!("clients connect at {control}"));
    api.lines().iter().chain(&browsers.lines()).for_each(|line| say(line));
    let page = Page::new(containers, [("links", doors), ("docker", api.shown()), ("status", browsers.shown())]);
    let browsers = browsers.serve(&status_page::router(page));
    let api = api.serve(&app);
    let supervisor = Supervisor::from_environment();
    supervisor.ready("links and clients connect");
    let until_told = async {
        loop {
            let signal = signals::ending(&mut caught).await;
            match if signal == SIGHUP { api.reload() } else { Ok(false) } {
                Ok(false) => return signal,
                Ok(true) => say("the certificates were read again"),
                Err(error) => say(&format!("the certificates stay as they are: {error:#}")),
            }
        }
    };
    let signal = tokio::select! {
        never = accept_clients(&clients.listener, vms) => return never,
        () = supervisor.watch() => unreachable!("it watches for ever"),
        signal = until_told => signal,
    };
    say(&format!("ends, by signal {signal}; what runs goes on"));
    supervisor.stopping("lets clients end");
    tokio::join!(api.stop(), browsers.stop());
    match &maker {
        Some(maker) => maker.networks.finish().await,
        None => Ok(()),
    }
}

/// One line on standard error for each event.
pub(crate) fn say(text: &str) {
    eprintln!("vch: serve: {text}");
    status_page::said(text);
}

async fn accept_links(mut listener: Listener, address: Address, vms: Arc<Vms>) {
    let door = Rc::new(door::Door::new(address));
    let places = Arc::new(Semaphore::new(AT_THE_DOOR));
    loop {
        // who connects without end waits for his own
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok(pipe) => {
                let (door, vms) = (door.clone(), vms.clone());
                spawn_local(async move {
                    enter(&door, pipe, &vms).await;
                    drop(place);
                });
            }
            Err(error) => {
                say(&format!("cannot accept at {}: {error}", door.address()));
                sleep(RECOVER).await;
            }
        }
    }
}

async fn enter(door: &door::Door, pipe: Pipe, vms: &Arc<Vms>) {
    let names = pipe.vmware_names();
    let (reader, writer) = pipe.split();
    match door.ask(reader, writer).await {
        Ok(guest) => {
            if let Some(names) = names {
                spawn_local(tell_names(vms.clone(), guest.vm.clone(), names));
            }
            vms.arrive(guest, door.tuning()).await;
        }
        Err(reason) => {
            say(&format!("{}: closed a connection: {reason} ({} so far)", door.address(), door.turned_away()))
        }
    }
}

/// Who looks for a VM in vSphere's client knows it by its name there.
async fn tell_names(vms: Arc<Vms>, vm: String, mut names: watch::Receiver<VmwareNames>) {
    let told = names.wait_for(|names| names.name.is_some() && names.instance_uuid.is_some()).await;
    if let Ok(told) = told.map(|told| told.clone()) {
        let VmwareNames { name, instance_uuid, .. } = &told;
        let (name, uuid) = (name.as_deref().unwrap_or_default(), instance_uuid.as_deref().unwrap_or_default());
        say(&format!("{vm}: it says that vSphere knows it as {name:?}, {uuid}"));
        vms.names(&vm, told).await;
    }
}

async fn accept_clients(listener: &UnixListener, vms: Arc<Vms>) -> Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                spawn_local(operations::serve_client(stream, vms.clone()));
            }
            Err(error) => {
                say(&format!("cannot accept a client: {error}"));
                sleep(RECOVER).await;
            }
        }
    }
}

/// In the state directory: what containers leave.
const STATE: &str = "serve";
/// Connections that have not yet said whose they are, at one address.
const AT_THE_DOOR: usize = 128;
/// After a failure such as too many open files.
const RECOVER: Duration = Duration::from_millis(200);
