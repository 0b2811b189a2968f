//! Networks of machines with root: a bridge of the host's kernel for each, a tap for each machine's card, and the kernel's packet filter between them and everywhere.
//!
//! ```text
//! Bridge: one network ──> Kernel ── jobs, one after the other ──> devices: ip(8)
//!                                                                 rules:   nft(8), all of them at once
//! ```
//!
//! It decides when there is which device: a network's is there while a machine is on it, and with the last one all that this program has changed on the host goes.
//! What the kernel has outlives this program: frames, connections and published ports go on without it, and the next one takes all of it up. Why it is made like this: docs/decisions/0017.

mod devices;
mod rules;

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use anyhow::{Context, Result, bail};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;
use wire::spec::Protocol;

use self::devices::Owner;
use self::rules::{Card, Lead, Model, Network};
use crate::ids;
use crate::networks::Subnet;
use crate::serve::say;
use crate::switch::{Listening, Mac, Settings, in_the_way};
use crate::vm::CardEnd;

/// All networks that this host's kernel carries for us.
pub(crate) struct Kernel {
    owner: Owner,
    jobs: Mutex<mpsc::Sender<Job>>,
    /// One program at a time in a network namespace: what has no path is the namespace's.
    _only: UnixListener,
}

type Job = Box<dyn FnOnce(&mut Host) + Send>;

/// The host as it is to be. Only the thread that works has it.
struct Host {
    owner: Owner,
    model: Model,
    /// What an earlier program left is not all known yet: its rules stay.
    is_settled: bool,
    /// The user knows that the host forwards.
    has_told: bool,
}

/// One network.
#[derive(Debug)]
pub(crate) struct Bridge {
    kernel: Arc<Kernel>,
    settings: Arc<Settings>,
    network: Network,
    device: String,
    _names: Listening,
}

/// A port of the host that leads to a machine, until [`Published::close`]: it stays when this program ends.
#[derive(Debug)]
pub(crate) struct Published {
    kernel: Arc<Kernel>,
    lead: Lead,
    _held: Held,
}

/// Nobody else on this host has the port; what is sent there, the kernel has sent on before.
#[derive(Debug)]
#[expect(dead_code, reason = "held, and never used")]
enum Held {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Kernel {
    /// Whether this program may change the host's networks, and has the tools; `sockets` tells whose networks they are.
    pub(crate) fn open(sockets: &Path) -> Result<Arc<Kernel>> {
        if !may_administrate(&std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default()) {
            bail!("--network kernel needs root (CAP_NET_ADMIN): run vch serve as root, or use --network user");
        }
        if !Path::new("/dev/net/tun").exists() {
            bail!("--network kernel needs /dev/net/tun: load the module tun, or use --network user");
        }
        let owner = Owner::of(sockets);
        // each of them says whether its program is there
        let (others, closed) = (owner.devices()?, devices::is_closed()?);
        drop(others);
        let name = UnixAddr::from_abstract_name(ONLY).context("a name of ours")?;
        let only = UnixListener::bind_addr(&name).context(
            "another vch serve has the networks of this host's kernel: end it, or use --network user with one of them",
        )?;
        let model = Model { closed, ..Model::default() };
        let mut host = Host { owner: owner.clone(), model, is_settled: false, has_told: false };
        let (jobs, work) = mpsc::channel::<Job>();
        let worker = thread::Builder::new().name("networks".into());
        worker.spawn(move || work.iter().for_each(|job| job(&mut host))).context("cannot start a thread")?;
        Ok(Arc::new(Kernel { owner, jobs: Mutex::new(jobs), _only: only }))
    }

    /// Has work done behind all that was asked for before, on a thread that may wait.
    async fn done<T: Send + 'static>(&self, work: impl FnOnce(&mut Host) -> Result<T> + Send + 'static) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        // who asked may have gone
        self.later(move |host| drop(answer.send(work(host))));
        answered.await.context("the thread of the kernel's networks has ended")?
    }

    /// The same, and nobody waits.
    fn later(&self, work: impl FnOnce(&mut Host) + Send + 'static) {
        // without its thread this program ends
        drop(crate::lock::locked(&self.jobs).send(Box::new(work)));
    }

    /// Returns once all that was asked for before is done.
    pub(crate) async fn finish(&self) -> Result<()> {
        self.done(|_| Ok(())).await
    }

    /// The machines that an earlier program left on have what they had: what is of none of them goes.
    pub(crate) async fn settle(&self) -> Result<()> {
        self.done(|host| {
            let Model { networks, cards, .. } = &mut host.model;
            networks.retain(|bridge, _| cards.values().any(|card| card.bridge == *bridge));
            for device in host.owner.devices()? {
                if !networks.contains_key(&device) && !cards.contains_key(&device) {
                    devices::remove(&device)?;
                }
            }
            host.is_settled = true;
            host.write()
        })
        .await
    }
}

impl Host {
    /// Has the rules follow from the model, and the host forward what they are about.
    fn write(&mut self) -> Result<()> {
        if !self.is_settled {
            return Ok(());
        }
        let model = &mut self.model;
        if !model.networks.is_empty() && !devices::forwards()? {
            model.closed = true;
        } else if model.closed && !devices::is_closed()? {
            // somebody has removed the chain: this host is to forward for others, too
            model.closed = false;
        }
        if model.closed && model.networks.is_empty() {
            // first, so that there is no moment in which it forwards for everybody
            devices::forward(false)?;
            model.closed = false;
        }
        devices::nft(&model.text()).context("cannot change the host's packet filter")?;
        if model.closed {
            devices::forward(true)?;
            if !std::mem::replace(&mut self.has_told, true) {
                say("this host forwards packets while it has machines (net.ipv4.ip_forward), and only theirs");
            }
        }
        Ok(())
    }

    /// Has a network's bridge, which may have gone with its last machine.
    fn make_bridge(&mut self, device: &str, name: &str, network: &Network, mtu: u16) -> Result<()> {
        if self.model.networks.contains_key(device) {
            return Ok(());
        }
        self.owner
            .make_bridge(device, name, network, mtu)
            .with_context(|| format!("cannot make a bridge for {name}"))?;
        self.model.networks.insert(device.to_owned(), network.clone());
        self.write().inspect_err(|_| told(self.clear(device)))
    }

    /// Removes it if no machine is on it.
    fn clear(&mut self, device: &str) -> Result<()> {
        if self.model.cards.values().any(|card| card.bridge == device) {
            return Ok(());
        }
        self.model.networks.remove(device);
        devices::remove(device)
    }

    fn plug(&mut self, tap: &str, card: Card) -> Result<()> {
        self.model.cards.insert(tap.to_owned(), card);
        self.write()
    }

    fn unplug(&mut self, tap: &str, bridge: &str) -> Result<()> {
        self.model.cards.remove(tap);
        devices::remove(tap)?;
        self.clear(bridge)?;
        self.write()
    }

    fn unpublish(&mut self, lead: Lead) -> Result<()> {
        self.model.leads.retain(|one| *one != lead);
        self.write()
    }
}

impl Bridge {
    pub(crate) async fn start(kernel: &Arc<Kernel>, settings: Settings) -> Result<Bridge> {
        let gateway = settings.gateway.context("a network of the kernel's has a gateway")?;
        let device = kernel.owner.bridge(&settings.name);
        let subnet = Subnet::new(gateway, settings.prefix).canonical();
        let network = Network { subnet, gateway, internal: settings.internal };
        let (bridge, name, mtu, made) = (device.clone(), settings.name.clone(), settings.mtu, network.clone());
        kernel.done(move |host| host.make_bridge(&bridge, &name, &made, mtu)).await?;
        let settings = Arc::new(settings);
        let names = Listening::start(&settings, gateway).await.inspect_err(|_| {
            let bridge = device.clone();
            kernel.later(move |host| told(host.clear(&bridge).and_then(|()| host.write())));
        })?;
        Ok(Bridge { kernel: kernel.clone(), settings, network, device, _names: names })
    }

    /// A tap for a machine's card; only frames from this MAC address and these addresses are taken from it. The same id has the same tap after a restart.
    pub(crate) async fn plug(&self, id: &str, mac: Mac, addresses: &[IpAddr]) -> Result<CardEnd> {
        let tap = self.kernel.owner.tap(&self.settings.name, id);
        let bridge = self.device.clone();
        let card = Card { mac, addresses: rules::v4_only(addresses), bridge: bridge.clone() };
        let (network, called, mtu) = (self.network.clone(), self.settings.name.clone(), self.settings.mtu);
        let (name, of) = (tap.clone(), ids::short(id).to_owned());
        let plugged = self.kernel.done(move |host| {
            if !host.is_settled && !devices::exists(&name)? {
                bail!("the kernel has no card of its machine: was it started with --network user? docker restart gives it one");
            }
            host.make_bridge(&bridge, &called, &network, mtu)?;
            // first, so that no frame passes that is not looked at
            let made = host.plug(&name, card).and_then(|()| host.owner.make_tap(&name, &bridge, mtu, &of));
            made.inspect_err(|_| told(host.unplug(&name, &bridge))).context("cannot make a tap for the machine's card")
        });
        plugged.await.map(|()| CardEnd::Tap(tap))
    }

    /// Nobody has this card any more.
    pub(crate) fn unplug(&self, id: &str) {
        let tap = self.kernel.owner.tap(&self.settings.name, id);
        let bridge = self.device.clone();
        self.kernel.later(move |host| told(host.unplug(&tap, &bridge)));
    }

    /// A port of the host that leads to a machine. Port 0 picks one.
    pub(crate) async fn publish(&self, protocol: Protocol, at: SocketAddr, to: (IpAddr, u16)) -> Result<Published> {
        let (Some(_), Some(to)) = (rules::v4(at), rules::v4(to.into())) else {
            bail!(
                "cannot publish {at}: networks of the kernel lead from IPv4 addresses to such; leave it out, or use --network user"
            )
        };
        let (held, at) = Held::take(protocol, at).await.map_err(|error| in_the_way(at, protocol, &error))?;
        let lead = Lead { protocol, at, to };
        let added = self.kernel.done(move |host| {
            host.model.leads.push(lead);
            host.write().inspect_err(|_| host.model.leads.retain(|one| *one != lead))
        });
        added.await?;
        Ok(Published { kernel: self.kernel.clone(), lead, _held: held })
    }
}

impl Published {
    /// Where it is, with the port that was picked.
    pub(crate) fn at(&self) -> SocketAddr {
        self.lead.at.into()
    }

    /// It leads nowhere any more.
    pub(crate) fn close(self) {
        let lead = self.lead;
        self.kernel.later(move |host| told(host.unpublish(lead)));
    }
}

impl Held {
    async fn take(protocol: Protocol, at: SocketAddr) -> std::io::Result<(Held, SocketAddrV4)> {
        let (held, at) = match protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(at).await?;
                let at = listener.local_addr()?;
                (Held::Tcp(listener), at)
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(at).await?;
                let at = socket.local_addr()?;
                (Held::Udp(socket), at)
            }
        };
        let at = rules::v4(at).ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        Ok((held, at))
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Kernel").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// Whether switches of this program can carry networks: not while the kernel has them, for machines that are on are on those.
pub(crate) fn nothing_left(sockets: &Path) -> Result<()> {
    match devices::left(sockets) {
        None => Ok(()),
        Some(device) => bail!(
            "the host's kernel has networks of an earlier vch serve --network kernel ({device}), and machines that are on are on \
             those: say --network kernel, or once their machines have ended, ip link delete {device} and so on for all of them"
        ),
    }
}

/// For what nobody waits for.
fn told(done: Result<()>) {
    if let Err(error) = done {
        say(&format!("the kernel's networks: {error:#}"));
    }
}

/// `CAP_NET_ADMIN`: capabilities(7).
fn may_administrate(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).is_some_and(|bits| bits & 1 << 12 != 0)
}

/// A socket without a path.
const ONLY: &str = "vch-serve-network-kernel";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_to_change_networks_is_read() {
        assert!(may_administrate("CapEff:\t0000000000001000\n"));
        assert!(!may_administrate("CapEff:\t0000000000000fff\n"));
        assert!(!may_administrate(""));
    }
}
