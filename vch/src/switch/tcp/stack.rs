//! The TCP of one connection, as the machine sees it: smoltcp with one socket, whose address is the far end's.
//!
//! One stack for each connection, and not one for all: a segment finds its connection by a hash, timers are those of one, and none waits for another.

use std::collections::VecDeque;
use std::sync::Arc;

use smoltcp::iface::{Config, Interface, PollIngressSingleResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::state;
use crate::switch::gateway::Gateway;
use crate::switch::guard::Mac;
use crate::switch::packet::{self, ETHERNET_HEADER, Pair};
use crate::switch::port::Port;

/// Bytes that wait in each direction.
const BUFFER: usize = 64 * 1024;

pub(super) struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    wire: Wire,
    began: tokio::time::Instant,
}

/// The way to the machine.
struct Wire {
    port: Arc<Port>,
    gateway: Mac,
    mtu: usize,
    taken: VecDeque<Vec<u8>>,
    frame: Vec<u8>,
    /// A packet was not sent for want of room.
    full: bool,
}

impl Stack {
    /// Answers the machine's first segment; `None` if it is gone.
    pub(super) fn accept(gateway: &Gateway, pair: Pair, first: Vec<u8>) -> Option<Stack> {
        let mut stack = Stack::new(gateway, pair)?;
        let listening = stack.socket().listen((*pair.far.ip(), pair.far.port()));
        stack.take(first);
        listening.is_ok().then_some(stack)
    }

    /// Connects to the machine; `None` if it is not there.
    pub(super) fn connect(gateway: &Gateway, pair: Pair) -> Option<Stack> {
        let mut stack = Stack::new(gateway, pair)?;
        let socket = stack.sockets.get_mut::<Socket<'_>>(stack.socket);
        let (machine, far) = (pair.machine, pair.far);
        let connecting =
            socket.connect(stack.interface.context(), (*machine.ip(), machine.port()), (*far.ip(), far.port()));
        connecting.is_ok().then_some(stack)
    }

    fn new(gateway: &Gateway, pair: Pair) -> Option<Stack> {
        let port = gateway.ports.at((*pair.machine.ip()).into())?;
        let mtu = usize::from(gateway.settings.mtu);
        let mut wire = Wire { port, gateway: gateway.mac, mtu, taken: VecDeque::new(), frame: Vec::new(), full: false };
        let mut config = Config::new(HardwareAddress::Ip);
        // sequence numbers that nobody foresees
        config.random_seed = state::random().ok()?.first_chunk().map(|seed| u64::from_ne_bytes(*seed))?;
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // there is room for the first
            addresses.push(IpCidr::new((*pair.far.ip()).into(), 32)).ok();
        });
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = Socket::new(buffer(), buffer());
        // the ends have their own ideas of when to wait for more
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        Some(Stack { interface, sockets, socket, wire, began: tokio::time::Instant::now() })
    }

    pub(super) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    /// A packet from the machine.
    pub(super) fn take(&mut self, packet: Vec<u8>) {
        self.wire.taken.push_back(packet);
    }

    /// Understands what has come.
    pub(super) fn ingress(&mut self) {
        let now = self.now();
        while self.interface.poll_ingress_single(now, &mut self.wire, &mut self.sockets)
            != PollIngressSingleResult::None
        {}
    }

    /// Sends what is to be sent, as far as there is room.
    pub(super) fn egress(&mut self) {
        let now = self.now();
        self.wire.full = false;
        self.interface.poll_egress(now, &mut self.wire, &mut self.sockets);
    }

    /// The port, if it has to have room before there is more to do.
    pub(super) fn full(&self) -> Option<Arc<Port>> {
        self.wire.full.then(|| self.wire.port.clone())
    }

    /// When there is something to do again, if nothing comes before.
    pub(super) fn due(&mut self) -> Option<tokio::time::Instant> {
        let now = self.now();
        let due = self.interface.poll_at(now, &self.sockets)?;
        let micros = u64::try_from(due.total_micros()).unwrap_or_default();
        Some(self.began + std::time::Duration::from_micros(micros))
    }

    fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX))
    }
}

impl phy::Device for Wire {
    type RxToken<'a> = Taken;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Taken, Sending<'_>)> {
        let taken = self.taken.pop_front()?;
        Some((Taken(taken), Sending(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        self.full = !self.port.has_room();
        (!self.full).then_some(Sending(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

struct Taken(Vec<u8>);

impl phy::RxToken for Taken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, understand: F) -> R {
        understand(&self.0)
    }
}

struct Sending<'a>(&'a mut Wire);

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let Wire { port, gateway, frame, .. } = self.0;
        packet::head(frame, port.guard.mac, *gateway);
        frame.resize(ETHERNET_HEADER + length, 0);
        let filled = fill(&mut frame[ETHERNET_HEADER..]);
        port.send(frame);
        filled
    }
}
