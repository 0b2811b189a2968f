//! Networks of machines with root: a bridge of the host's kernel for each, a tap for each machine's card, and the kernel's packet filter between them and everywhere.
//!
//! ```text
//! Bridge: one network ──> Kernel ── jobs, one after the other ──> devices: ip(8)
//!                                                                 rules:   nft(8), all of them at once
//! ```
//!
//! It decides when there is which device. What the kernel has outlives this program: frames, connections and published ports go on without it, and the next one takes
//! all of it up. Why it is made like this: docs/decisions/0017.

mod devices;
mod rules;

use std::collections::BTreeSet;
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
use crate::networks::Subnet;
use crate::serve::say;
use crate::switch::{Listening, Mac, Settings, in_the_way};
use crate::vm::CardEnd;

/// All networks that this host's kernel carries for us.
pub(crate) struct Kernel {
    owner: Owner,
    /// The user as whom a container's machine runs, by the container's id.
    user_of: Box<dyn Fn(&str) -> u32 + Send + Sync>,
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
}

/// One network.
#[derive(Debug)]
pub(crate) struct Bridge {
    kernel: Arc<Kernel>,
    settings: Arc<Settings>,
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
    pub(crate) fn open(sockets: &Path, user_of: impl Fn(&str) -> u32 + Send + Sync + 'static) -> Result<Arc<Kernel>> {
        if !may_administrate(&std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default()) {
            bail!("--network kernel needs root (CAP_NET_ADMIN): run vch serve as root, or use --network user");
        }
        if !Path::new("/dev/net/tun").exists() {
            bail!("--network kernel needs /dev/net/tun: load the module tun, or use --network user");
        }
        let name = UnixAddr::from_abstract_name(ONLY).context("a name of ours")?;
        let only = UnixListener::bind_addr(&name).context(
            "another vch serve has the networks of this host's kernel: end it, or use --network user with one of them",
        )?;
        let owner = Owner::of(sockets);
        owner.devices()?;
        let model = Model { closed: devices::is_closed(), ..Model::default() };
        let mut host = Host { owner: owner.clone(), model, is_settled: false };
        let (jobs, work) = mpsc::channel::<Job>();
        let worker = thread::Builder::new().name("networks".into());
        worker.spawn(move || work.iter().for_each(|job| job(&mut host))).context("cannot start a thread")?;
        Ok(Arc::new(Kernel { owner, user_of: Box::new(user_of), jobs: Mutex::new(jobs), _only: only }))
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

    /// The machines that an earlier program left on have what they had: what is of no machine and of none of these networks goes.
    pub(crate) async fn settle(&self, networks: &[String]) -> Result<()> {
        let stay: BTreeSet<String> = networks.iter().map(|name| self.owner.bridge(name)).collect();
        self.done(move |host| {
            for device in host.owner.devices()? {
                if !stay.contains(&device) && !host.model.cards.contains_key(&device) {
                    devices::remove(&device)?;
                }
            }
            host.is_settled = true;
            host.write()
        })
        .await
    }

    /// Removes a network that no machine is on.
    pub(crate) fn remove(&self, network: &str) {
        let device = self.owner.bridge(network);
        self.later(move |host| {
            host.model.networks.remove(&device);
            told(devices::remove(&device).and_then(|()| host.write()));
        });
    }
}

impl Host {
    fn write(&self) -> Result<()> {
        match self.is_settled {
            true => devices::nft(&self.model.text()).context("cannot change the host's packet filter"),
            false => Ok(()),
        }
    }

    fn start(&mut self, device: String, name: &str, network: Network, mtu: u16) -> Result<()> {
        if !network.internal && !devices::forward()? {
            self.model.closed = true;
            say("this host forwards packets from now on (net.ipv4.ip_forward), and only those of its machines");
        }
        self.owner
            .make_bridge(&device, name, &network, mtu)
            .with_context(|| format!("cannot make a bridge for {name}"))?;
        self.model.networks.insert(device, network);
        self.write()
    }

    fn plug(&mut self, tap: &str, card: Card) -> Result<()> {
        self.model.cards.insert(tap.to_owned(), card);
        self.write()
    }

    fn unplug(&mut self, tap: &str) -> Result<()> {
        self.model.cards.remove(tap);
        devices::remove(tap)?;
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
        let (bridge, name, mtu) = (device.clone(), settings.name.clone(), settings.mtu);
        kernel.done(move |host| host.start(bridge, &name, network, mtu)).await?;
        let settings = Arc::new(settings);
        let names = Listening::start(&settings, gateway).await?;
        Ok(Bridge { kernel: kernel.clone(), settings, device, _names: names })
    }

    /// A tap for a machine's card; only frames from this MAC address and these addresses are taken from it. The same id has the same tap after a restart.
    pub(crate) async fn plug(&self, id: &str, mac: Mac, addresses: &[IpAddr]) -> Result<CardEnd> {
        let tap = self.kernel.owner.tap(&self.settings.name, id);
        let card = Card { mac, addresses: rules::v4_only(addresses) };
        let (user, mtu, bridge) = ((self.kernel.user_of)(id), self.settings.mtu, self.device.clone());
        let (name, of) = (tap.clone(), id.chars().take(12).collect::<String>());
        let plugged = self.kernel.done(move |host| {
            // first, so that no frame passes that is not looked at
            host.plug(&name, card)?;
            let made = host.owner.make_tap(&name, &bridge, user, mtu, &of);
            made.inspect_err(|_| told(host.unplug(&name))).context("cannot make a tap for the machine's card")
        });
        plugged.await.map(|()| CardEnd::Tap(tap))
    }

    /// Nobody has this card any more.
    pub(crate) fn unplug(&self, id: &str) {
        let tap = self.kernel.owner.tap(&self.settings.name, id);
        self.kernel.later(move |host| told(host.unplug(&tap)));
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
