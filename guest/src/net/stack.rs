//! The kernel's network stack: interfaces, addresses and routes, told and changed through rtnetlink(7).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use wire::spec::{Prefix, Route};

use super::netlink::{Answer, NetlinkError, REPLACE, Request, Socket};
use crate::clock;

/// Of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// Of `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// Kinds of attributes: include/uapi/linux/if_addr.h and rtnetlink.h.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
/// The address is used at once: nobody is asked whether it is free.
const IFA_F_NODAD: u8 = 0x02;
/// The gateway is on the network although no prefix says so.
const RTNH_F_ONLINK: u32 = 4;
/// Interfaces come, go and change: rtnetlink(7), `RTMGRP_LINK`.
const LINKS: u32 = 1;
/// It is up, and has a carrier: netdevice(7).
const RUNNING: u32 = 0x40 | 0x1_0000;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Zeros where it has none of six bytes.
    pub mac: [u8; 6],
    pub is_up: bool,
    /// Packets would leave.
    pub is_running: bool,
}

/// The stack, asked.
#[derive(Debug)]
pub struct Stack(Socket);

impl Stack {
    pub fn open() -> nix::Result<Stack> {
        Socket::open(SockProtocol::NetlinkRoute).map(Stack)
    }

    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let answers = self.0.dump(Request::new(libc::RTM_GETLINK, 0, &[0; LINK_HEADER]))?;
        Ok(answers.iter().filter_map(read_link).collect())
    }

    /// Gives a name to an interface that is not up.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), NetlinkError> {
        let mut request = Request::new(libc::RTM_NEWLINK, 0, &link_header(index, false));
        request.put_text(libc::IFLA_IFNAME, name);
        self.0.send(request)
    }

    /// Gives another hardware address to an interface that is not up.
    pub fn set_mac(&mut self, index: u32, mac: [u8; 6]) -> Result<(), NetlinkError> {
        let mut request = Request::new(libc::RTM_NEWLINK, 0, &link_header(index, false));
        request.put(libc::IFLA_ADDRESS, &mac);
        self.0.send(request)
    }

    /// Takes a name from an interface that is not up and happens to have it: the kernel counts cards in whatever order they come.
    pub fn free_name(&mut self, name: &str) -> Result<(), NetlinkError> {
        let holder = self.links()?.into_iter().find(|link| link.name == name && !link.is_up);
        holder.map_or(Ok(()), |link| self.rename(link.index, &format!("card{}", link.index)))
    }

    /// The largest packet, in bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let mut request = Request::new(libc::RTM_NEWLINK, 0, &link_header(index, false));
        request.put_u32(libc::IFLA_MTU, mtu);
        self.0.send(request)
    }

    pub fn up(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.0.send(Request::new(libc::RTM_NEWLINK, 0, &link_header(index, true)))
    }

    /// Takes `lo` up, as every process expects it.
    pub fn loopback_up(&mut self) -> Result<(), NetlinkError> {
        const LOOPBACK: u32 = 1;
        self.up(LOOPBACK)
    }

    /// Adds an address, which can be used when this returns. One that is there already stays.
    pub fn add_address(&mut self, index: u32, own: &Prefix) -> Result<(), NetlinkError> {
        self.0.send(address_request(libc::RTM_NEWADDR, REPLACE, index, own))
    }

    /// Removes an address. One that is not there is no error.
    pub fn remove_address(&mut self, index: u32, own: &Prefix) -> Result<(), NetlinkError> {
        gone(self.0.send(address_request(libc::RTM_DELADDR, 0, index, own)), Errno::EADDRNOTAVAIL)
    }

    /// Adds a route, or changes the one to the same destination.
    pub fn add_route(&mut self, index: u32, route: &Route) -> Result<(), NetlinkError> {
        self.0.send(route_request(libc::RTM_NEWROUTE, REPLACE, index, route))
    }

    /// Removes a route. One that is not there is no error.
    pub fn remove_route(&mut self, index: u32, route: &Route) -> Result<(), NetlinkError> {
        gone(self.0.send(route_request(libc::RTM_DELROUTE, 0, index, route)), Errno::ESRCH)
    }

    /// Waits until the interfaces of these numbers are all running, or `bound` has passed: a card may have no cable. All interfaces, as they are then.
    pub fn wait_until_running(&mut self, indices: &[u32], bound: Duration) -> Result<Vec<Link>, NetlinkError> {
        let watch = Watch::open()?;
        let deadline = clock::now() + bound;
        loop {
            let running = |link: &Link| link.is_running || !indices.contains(&link.index);
            let left = deadline.saturating_sub(clock::now());
            let links = self.links()?;
            if left.is_zero() || links.iter().all(running) {
                return Ok(links);
            }
            watch.wait(left);
        }
    }
}

/// What the kernel announces of interfaces.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    pub fn open() -> nix::Result<Watch> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINKS))?;
        Ok(Watch(socket))
    }

    /// Waits for news, `bound` at most. What they are must be asked: an announcement may be lost, that there are some is not.
    pub fn wait(&self, bound: Duration) {
        let timeout = PollTimeout::try_from(bound).unwrap_or(PollTimeout::MAX);
        let _woken = poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout);
        self.drain();
    }

    /// Takes all announcements.
    pub fn drain(&self) {
        let mut bytes = [0; 4096];
        while matches!(recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT), Ok(_) | Err(Errno::ENOBUFS)) {}
    }
}

impl std::os::fd::AsFd for Watch {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<NetlinkError> for io::Error {
    fn from(error: NetlinkError) -> io::Error {
        error.errno.into()
    }
}

fn gone(result: Result<(), NetlinkError>, gone: Errno) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.errno == gone => Ok(()),
        other => other,
    }
}

fn read_link(answer: &Answer) -> Option<Link> {
    let number = |at: usize| Some(u32::from_ne_bytes(answer.body.get(at..at + 4)?.try_into().ok()?));
    let name = answer.attribute(LINK_HEADER, libc::IFLA_IFNAME)?;
    let mac = answer.attribute(LINK_HEADER, libc::IFLA_ADDRESS).and_then(|mac| mac.try_into().ok());
    Some(Link {
        index: number(4)?,
        name: String::from_utf8_lossy(name).trim_end_matches('\0').to_owned(),
        mac: mac.unwrap_or_default(),
        is_up: number(8)? & 1 != 0,
        is_running: number(8)? & RUNNING == RUNNING,
    })
}

/// `struct ifinfomsg`: family, kind, index, flags, and which of the flags change.
fn link_header(index: u32, up: bool) -> [u8; LINK_HEADER] {
    let flag = if up { libc::IFF_UP.cast_unsigned() } else { 0 };
    let mut bytes = [0; LINK_HEADER];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flag.to_ne_bytes());
    bytes[12..].copy_from_slice(&flag.to_ne_bytes());
    bytes
}

fn family(address: IpAddr) -> u8 {
    u8::try_from(if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }).unwrap_or_default()
}

fn put_address(request: &mut Request, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => request.put(kind, &address.octets()),
        IpAddr::V6(address) => request.put(kind, &address.octets()),
    }
}

/// `struct ifaddrmsg`: family, prefix, flags, scope, index.
fn address_request(kind: u16, flags: u16, index: u32, own: &Prefix) -> Request {
    let without_asking = if own.address.is_ipv6() { IFA_F_NODAD } else { 0 };
    let mut header = [family(own.address), own.length, without_asking, 0, 0, 0, 0, 0];
    header[4..ADDRESS_HEADER].copy_from_slice(&index.to_ne_bytes());
    let mut request = Request::new(kind, flags, &header);
    put_address(&mut request, IFA_LOCAL, own.address);
    put_address(&mut request, IFA_ADDRESS, own.address);
    if let IpAddr::V4(address) = own.address
        && own.length < 31
    {
        let host_bits = u32::MAX.checked_shr(own.length.into()).unwrap_or(0);
        request.put(IFA_BROADCAST, &(address.to_bits() | host_bits).to_be_bytes());
    }
    request
}

/// `struct rtmsg`: family, lengths of destination and source, service, table, who set it, scope, kind, flags.
fn route_request(kind: u16, flags: u16, index: u32, route: &Route) -> Request {
    let on_link = if route.gateway.is_some() { RTNH_F_ONLINK } else { 0 };
    let scope = match (route.gateway, route.destination.address) {
        (None, IpAddr::V4(_)) if kind != libc::RTM_DELROUTE => libc::RT_SCOPE_LINK,
        // for removal it stands for any
        _ if kind == libc::RTM_DELROUTE => libc::RT_SCOPE_NOWHERE,
        _ => libc::RT_SCOPE_UNIVERSE,
    };
    let destination = &route.destination;
    let [table, by, kind_of] = [libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, libc::RTN_UNICAST];
    let mut header = [family(destination.address), destination.length, 0, 0, table, by, scope, kind_of, 0, 0, 0, 0];
    header[8..].copy_from_slice(&on_link.to_ne_bytes());
    let mut request = Request::new(kind, flags, &header);
    if destination.length > 0 {
        put_address(&mut request, RTA_DST, destination.address);
    }
    if let Some(gateway) = route.gateway {
        put_address(&mut request, RTA_GATEWAY, gateway);
    }
    request.put_u32(RTA_OIF, index);
    request
}
