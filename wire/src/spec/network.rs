//! How the container reaches others, and who reaches it.

use core::net::IpAddr;

/// One network that the container is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The network's name among those of the spec.
    pub name: String,
    /// The card.
    pub nic: Nic,
    /// The name that the interface gets; none leaves the kernel's.
    pub interface: Option<String>,
    /// Addresses that are set as they are, of both versions.
    pub addresses: Vec<Prefix>,
    /// Ask for an IPv4 address: RFC 2131.
    pub dhcp: bool,
    /// Who carries packets to other networks. One that is set counts before one that DHCP names.
    pub gateways: Vec<IpAddr>,
    /// This network's gateways are the way to everywhere.
    pub default: bool,
    /// What else is reached through this network.
    pub routes: Vec<Route>,
    /// The largest packet, in bytes; none leaves the card's.
    pub mtu: Option<u32>,
    /// Name servers. Those that are set count before those that DHCP names.
    pub dns: Vec<IpAddr>,
    /// Whose packets come in and go out.
    pub trust: Trust,
    /// Addresses of the network's members: the peers of [`Trust::Peers`].
    pub pools: Vec<(IpAddr, IpAddr)>,
    /// What others may reach.
    pub ports: Vec<Port>,
}

impl Endpoint {
    /// A network of that name on that card, and nothing said about it: nobody is asked for an address, and its trust is `Published`.
    pub fn new(name: impl Into<String>, nic: Nic) -> Endpoint {
        Endpoint {
            name: name.into(),
            nic,
            interface: None,
            addresses: Vec::new(),
            dhcp: false,
            gateways: Vec::new(),
            default: false,
            routes: Vec::new(),
            mtu: None,
            dns: Vec::new(),
            trust: Trust::default(),
            pools: Vec::new(),
            ports: Vec::new(),
        }
    }
}

/// How a network card is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// vSphere's PCI slot number: device in bits 0-4, bus in bits 5-9, function in bits 10-12.
    Slot(u32),
    /// Its hardware address.
    Mac([u8; 6]),
}

/// An address and how many of its leading bits are the network's; as a destination, the rest is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

/// The way to some addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which addresses.
    pub destination: Prefix,
    /// Through whom; none means that they are on the network itself.
    pub gateway: Option<IpAddr>,
}

/// Whose packets pass: vSphere Integrated Containers' levels, whose numbers they keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Trust {
    /// Everything goes out; answers, pings and the published ports come in.
    #[default]
    Published = 1,
    /// Everything passes.
    Open = 2,
    /// Nothing passes.
    Closed = 3,
    /// Everything goes out; answers come in.
    Outbound = 4,
    /// As `Outbound`, and everything from the network's members.
    Peers = 5,
}

/// A published port, or a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// First and last as others see them, inclusive.
    pub ports: (u16, u16),
    /// Where the first is redirected to; none leaves them. Only a single port can be redirected.
    pub to: Option<u16>,
}

/// What a port is a port of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Names that are known without asking, and who is asked for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Lines of `/etc/hosts`: an address and a name.
    pub hosts: Vec<(IpAddr, String)>,
    /// `search` of resolv.conf(5).
    pub search: Vec<String>,
    /// `options` of resolv.conf(5).
    pub options: Vec<String>,
}
