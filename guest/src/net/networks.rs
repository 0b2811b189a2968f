//! The machine's networks and names: set up while booting, kept while it runs. Which they are, what guards them and which files say who is who: the caller's
//! decisions.
//!
//! Cards are found and named first, and only then is one taken up, so that what guards them can be in its place. What DHCP gives changes later, through
//! [`Networks::handle`]; `/etc/hosts` and `/etc/resolv.conf` follow.

mod names;
mod placed;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use wire::spec::{Endpoint, Names};
use wire::status::EndpointStatus;

pub use self::names::HostName;
use self::placed::Placed;
use super::announce::announce;
use super::card;
use super::dhcp::{Asker, News};
use super::firewall::FirewallError;
use super::stack::{Link, Stack, Watch};
use crate::events::{Interest, Poller};
use crate::{clock, say};

/// How long a card may take to appear, while booting and when it is added.
const CARD_BOUND: Duration = Duration::from_secs(10);
/// How long a start waits for cables. A card without one is set up all the same.
const CABLE_BOUND: Duration = Duration::from_secs(1);
/// How long a start waits for DHCP: three questions' time.
const DHCP_BOUND: Duration = Duration::from_secs(15);
/// Addresses are announced twice, so far apart: RFC 5227, `ANNOUNCE_INTERVAL`.
const AGAIN: Duration = Duration::from_secs(2);
/// Of the watch for cards; askers have the places of their networks.
const CARDS: u64 = u64::MAX;

/// Why a network is not as it was to be.
#[derive(Debug, thiserror::Error)]
pub enum NetworksError {
    /// What was to be done, with the network's name, and what the machine has against it.
    #[error("{what}: {reason}")]
    Machine { what: String, reason: String },
    /// The same, of DHCP: everything is set up, and whoever is there is asked on.
    #[error("{what}: {reason}")]
    Unanswered { what: String, reason: String },
    #[error(transparent)]
    Firewall(#[from] FirewallError),
}

/// What keeps others off: it is given each network with its interface's name before one of them is taken up, and again when there is another.
pub type Guard = Box<dyn Fn(&[(&str, &Endpoint)]) -> Result<(), FirewallError>>;

/// The machine's networks.
pub struct Networks {
    guard: Guard,
    events: Poller,
    placed: Vec<Placed>,
    /// Networks that were added and whose cards are not there yet, and until when they are waited for.
    awaited: Vec<(Endpoint, Duration)>,
    watch: Option<Watch>,
    announce_at: Option<Duration>,
    /// How often it was announced that an address is ours: no less often than there is a new one.
    announced: u64,
    host: HostName,
    names: Names,
    /// Other names of networks, each with the one that it is a name of.
    aliases: Vec<(String, String)>,
    /// What `/etc/hosts` and `/etc/resolv.conf` held before.
    image: [String; 2],
    /// In whose place these are.
    files: Option<[File; 2]>,
}

impl Networks {
    /// None yet.
    pub fn new(guard: Guard) -> io::Result<Networks> {
        Ok(Networks {
            guard,
            events: Poller::new()?,
            placed: Vec::new(),
            awaited: Vec::new(),
            watch: None,
            announce_at: None,
            announced: 0,
            host: HostName::default(),
            names: Names::default(),
            aliases: Vec::new(),
            image: Default::default(),
            files: None,
        })
    }

    /// Names the machine and takes the interfaces up; waits for cards, cables and DHCP, each for its time. [`Networks::keep`] is next.
    pub fn set_up(&mut self, host: HostName, names: &Names, endpoints: &[Endpoint]) -> Result<(), NetworksError> {
        self.names = names.clone();
        host.set().map_err(|(what, error)| machine(&what, &error))?;
        self.host = host;
        let mut stack = open()?;
        stack.loopback_up().map_err(|error| machine("cannot take the loopback interface up", &error))?;
        let deadline = clock::now() + CARD_BOUND;
        for endpoint in endpoints {
            let link = card::wait_for(&mut stack, endpoint.nic, deadline, CARD_BOUND);
            let link = link.map_err(|error| machine(&format!("network {}", endpoint.name), &error))?;
            self.name(&mut stack, endpoint.clone(), link)?;
        }
        // a machine on no network has none to be guarded from: its cards stay down
        if !self.placed.is_empty() {
            self.guard()?;
        }
        self.placed.iter().try_for_each(|placed| placed.set_up(&mut stack))?;
        if !self.placed.is_empty() {
            let indices: Vec<u32> = self.placed.iter().map(|placed| placed.link.index).collect();
            // first: a cable that comes behind the last look is told of
            self.watch().map_err(|error| machine("cannot watch the network cards", &error))?;
            let waited = stack.wait_until_running(&indices, CABLE_BOUND);
            let links = waited.map_err(|error| machine("cannot look at the network cards", &error))?;
            self.note_cables(&links);
            self.announce();
            (0..self.placed.len()).try_for_each(|at| self.ask(at))?;
            self.wait_for_leases()?;
        }
        Ok(())
    }

    /// Adds a network to a machine that runs. Does not wait: a card that is not there yet is set up when it comes, and what DHCP gives when it answers.
    pub fn add(&mut self, endpoint: &Endpoint) -> Result<(), NetworksError> {
        let mut stack = open()?;
        let found = card::find(&mut stack, endpoint.nic);
        match found.map_err(|error| machine("cannot list network cards", &error))? {
            Some(link) => {
                self.name(&mut stack, endpoint.clone(), link)?;
                self.begin(&mut stack)
            }
            None => {
                self.wait_for_card(endpoint.clone()).map_err(|error| machine("cannot watch for network cards", &error))
            }
        }
    }

    /// Forgets a network of a machine that runs, where none asks DHCP: its card is pulled out, or about to be.
    pub fn remove(&mut self, name: &str) -> Result<(), NetworksError> {
        self.placed.retain(|placed| placed.endpoint.name != name);
        self.awaited.retain(|(endpoint, _)| endpoint.name != name);
        self.announced += 1;
        self.write();
        self.guard()
    }

    /// What each network gave.
    pub fn status(&self) -> BTreeMap<String, EndpointStatus> {
        self.placed.iter().map(|placed| (placed.endpoint.name.clone(), placed.status())).collect()
    }

    /// Another number than before, whenever [`Networks::status`] may be another.
    pub fn changes(&self) -> u64 {
        self.announced
    }

    /// The machine's name, with its domain.
    pub fn host_name(&self) -> String {
        self.host.whole()
    }

    /// When [`Networks::handle`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        let asked = self.placed.iter().filter_map(|placed| placed.asker.as_ref()?.deadline());
        asked.chain(self.awaited.iter().map(|&(_, until)| until)).chain(self.announce_at).min()
    }

    /// Hears what has come, and does what is due. Blocks nobody.
    pub fn handle(&mut self) {
        let heard = self.events.wait(Some(Duration::ZERO)).unwrap_or_default();
        for happened in heard {
            match usize::try_from(happened.token).ok().and_then(|at| self.placed.get_mut(at)) {
                Some(Placed { asker: Some(asker), .. }) => asker.handle_packets(clock::now()),
                _ => {
                    self.watch.iter().for_each(Watch::drain);
                    self.look_at_cables();
                }
            }
        }
        let now = clock::now();
        if self.announce_at.is_some_and(|at| at <= now) {
            self.announce();
            self.announce_at = None;
        }
        self.look_for_cards(now);
        for placed in &mut self.placed {
            if let Some(asker) = &mut placed.asker {
                asker.handle_time(now);
            }
        }
        if let Err(error) = self.take_news() {
            say!(Error, "{error}");
        }
    }

    /// Gives addresses back: nothing of this machine will be sent any more.
    pub fn release(&mut self) {
        for asker in self.placed.iter_mut().filter_map(|placed| placed.asker.as_mut()) {
            asker.release(clock::now());
        }
    }

    // -- cards

    fn name(&mut self, stack: &mut Stack, endpoint: Endpoint, mut link: Link) -> Result<(), NetworksError> {
        // networks on one card: the first has named it
        let is_named = self.placed.iter().any(|placed| placed.link.index == link.index);
        if let Some(name) = endpoint.interface.clone().filter(|name| *name != link.name && !is_named) {
            let what = format!("network {}: cannot name {} {name:?}", endpoint.name, link.name);
            let renamed = stack.free_name(&name).and_then(|()| stack.rename(link.index, &name));
            renamed.map_err(|error| machine(&what, &error))?;
            link.name = name;
        }
        self.placed.push(Placed::new(endpoint, link));
        Ok(())
    }

    /// Sets up the network that was placed last. One that cannot be is none of the machine's.
    fn begin(&mut self, stack: &mut Stack) -> Result<(), NetworksError> {
        self.set_up_last(stack).inspect_err(|_| {
            self.placed.pop();
            if let Err(error) = self.guard() {
                say!(Error, "{error}");
            }
        })
    }

    fn set_up_last(&mut self, stack: &mut Stack) -> Result<(), NetworksError> {
        self.guard()?;
        self.watch().map_err(|error| machine("cannot watch the network cards", &error))?;
        let Some(last) = self.placed.last() else { return Ok(()) };
        last.set_up(stack)?;
        self.announce();
        self.ask(self.placed.len() - 1)?;
        self.write();
        Ok(())
    }

    /// Sets the firewall for all networks. One that cannot be set is a failed start, never an open machine.
    fn guard(&self) -> Result<(), NetworksError> {
        let networks: Vec<(&str, &Endpoint)> =
            self.placed.iter().map(|placed| (placed.link.name.as_str(), &placed.endpoint)).collect();
        Ok((self.guard)(&networks)?)
    }

    fn wait_for_card(&mut self, endpoint: Endpoint) -> io::Result<()> {
        self.watch()?;
        self.awaited.push((endpoint, clock::now() + CARD_BOUND));
        Ok(())
    }

    fn watch(&mut self) -> io::Result<()> {
        if self.watch.is_none() {
            let watch = Watch::open()?;
            self.events.add(&watch, CARDS, Interest::READ)?;
            self.watch = Some(watch);
        }
        Ok(())
    }

    /// A cable that was not there, or was away, leads nobody knows where: whoever is there is told of the addresses, and asked for one. A clone of vSphere's may get
    /// its cables at any time.
    fn look_at_cables(&mut self) {
        let Ok(links) = open().and_then(|mut stack| stack.links().map_err(|error| machine("cards", &error))) else {
            return;
        };
        if self.note_cables(&links) {
            self.announce();
        }
    }

    /// True if one has come.
    fn note_cables(&mut self, links: &[Link]) -> bool {
        let mut has_come = false;
        for placed in &mut self.placed {
            let is_running = links.iter().any(|link| link.index == placed.link.index && link.is_running);
            if is_running && !placed.link.is_running {
                has_come = true;
                placed.asker.iter_mut().for_each(|asker| asker.ask_again(clock::now()));
            }
            placed.link.is_running = is_running;
        }
        has_come
    }

    fn look_for_cards(&mut self, now: Duration) {
        for (endpoint, until) in std::mem::take(&mut self.awaited) {
            let come = open().and_then(|mut stack| match card::find(&mut stack, endpoint.nic) {
                Ok(Some(link)) => {
                    self.name(&mut stack, endpoint.clone(), link)?;
                    self.begin(&mut stack).map(|()| true)
                }
                Ok(None) => Ok(false),
                Err(error) => Err(machine("cannot list network cards", &error)),
            });
            match come {
                Ok(false) if now < until => self.awaited.push((endpoint, until)),
                Ok(false) => say!(Error, "network {}: its card has not come after 10 s", endpoint.name),
                Ok(true) => {}
                Err(error) => say!(Error, "{error}"),
            }
        }
        if self.awaited.is_empty() && self.placed.is_empty() {
            self.watch = None;
        }
    }

    // -- addresses

    /// Tells the neighbours that the addresses are here.
    pub fn announce(&mut self) {
        self.announced += 1;
        for placed in &self.placed {
            for own in placed.addresses() {
                // who misses it asks
                let _unheard = announce(placed.link.index, placed.link.mac, own.address);
            }
        }
        self.announce_at = Some(clock::now() + AGAIN);
    }

    fn ask(&mut self, at: usize) -> Result<(), NetworksError> {
        let Placed { endpoint, link, asker, .. } = &mut self.placed[at];
        if !endpoint.dhcp {
            return Ok(());
        }
        let what =
            |error| machine(&format!("network {}: cannot ask for an address on {}", endpoint.name, link.name), &error);
        let opened = Asker::open(link.index, link.mac, &self.host.name, clock::now()).map_err(what)?;
        self.events.add(&opened, at as u64, Interest::READ).map_err(what)?;
        *asker = Some(opened);
        Ok(())
    }

    /// Waits until each network that asks has an address.
    fn wait_for_leases(&mut self) -> Result<(), NetworksError> {
        let until = clock::now() + DHCP_BOUND;
        loop {
            self.handle();
            let is_waiting = |placed: &&Placed| placed.asker.is_some() && placed.lease.is_none();
            let Some(Placed { endpoint, link, asker: Some(asker), .. }) = self.placed.iter().find(is_waiting) else {
                return Ok(());
            };
            let now = clock::now();
            if now >= until {
                let what = format!("network {}: no address by DHCP on {} within 15 s", endpoint.name, link.name);
                return Err(NetworksError::Unanswered { what, reason: asker.heard().to_string() });
            }
            let next = self.deadline().unwrap_or(until).min(until);
            // level-triggered: what has come is still there for `handle`
            let waited = self.events.wait(Some(next.saturating_sub(now)));
            waited.map_err(|error| machine("cannot wait for DHCP", &error))?;
        }
    }

    fn take_news(&mut self) -> Result<(), NetworksError> {
        let mut changed = false;
        let mut outcome = Ok(());
        for placed in &mut self.placed {
            let Some(news) = placed.asker.as_mut().and_then(Asker::poll_news) else { continue };
            changed = true;
            outcome = outcome.and(open().and_then(|mut stack| match news {
                News::Bound(lease) => placed.bind(&mut stack, lease),
                News::Lost => {
                    say!(Warn, "network {}: its address is lost", placed.endpoint.name);
                    placed.lose(&mut stack)
                }
            }));
        }
        if changed {
            self.announce();
            self.write();
        }
        outcome
    }

    // -- names

    /// Keeps `/etc/hosts` and `/etc/resolv.conf`, which hold [`Networks::texts`] now, as they should be: they are written anew, in their places, when DHCP gives
    /// something else. `image` is what was there before.
    pub fn keep(&mut self, files: [File; 2], image: [String; 2]) {
        (self.files, self.image) = (Some(files), image);
    }

    /// Has a network known by another name as well: `alias.localhost` is where `network.localhost` is.
    pub fn alias(&mut self, alias: &str, network: &str) {
        self.aliases.push((alias.to_owned(), network.to_owned()));
    }

    /// Writes the files anew, in their places.
    fn write(&self) {
        let Some(files) = &self.files else { return };
        for (file, text) in files.iter().zip(self.texts(&self.image)) {
            let written = file.write_all_at(text.as_bytes(), 0).and_then(|()| file.set_len(text.len() as u64));
            if let Err(error) = written {
                say!(Warn, "cannot write who is who: {error}");
            }
        }
    }

    /// Of `/etc/hosts` and `/etc/resolv.conf`, over what an image has there.
    pub fn texts(&self, image: &[String; 2]) -> [String; 2] {
        let own: Vec<(IpAddr, &str)> = self
            .placed
            .iter()
            .flat_map(|placed| {
                let name = placed.endpoint.name.as_str();
                let others = self.aliases.iter().filter(move |(_, of)| of == name).map(|(alias, _)| alias.as_str());
                let names = move || std::iter::once(name).chain(others.clone());
                placed.addresses().flat_map(move |own| names().map(move |name| (own.address, name)))
            })
            .collect();
        let leases = || self.placed.iter().filter_map(|placed| placed.lease.as_ref());
        let set = self.placed.iter().flat_map(|placed| &placed.endpoint.dns);
        let dns: Vec<IpAddr> = set.chain(leases().flat_map(|lease| &lease.dns)).copied().collect();
        let search: Vec<&String> = self.names.search.iter().chain(leases().flat_map(|lease| &lease.search)).collect();
        [
            names::hosts(&self.host, &own, &self.names.hosts, &image[0]),
            names::resolv(&dns, &search, &self.names.options, &image[1]),
        ]
    }
}

/// Readable while there is something to hear.
impl AsFd for Networks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

fn open() -> Result<Stack, NetworksError> {
    Stack::open().map_err(|errno| machine("cannot speak to the kernel about networks", &errno))
}

fn machine(what: &str, error: &dyn std::fmt::Display) -> NetworksError {
    NetworksError::Machine { what: what.to_owned(), reason: error.to_string() }
}
