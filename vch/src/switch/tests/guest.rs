//! A machine with a TCP stack of its own.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::{GATEWAY, Machine, Switch};

pub(super) struct Guest {
    machine: Machine,
    interface: Interface,
    sockets: SocketSet<'static>,
    card: Card,
    began: tokio::time::Instant,
}

#[derive(Default)]
struct Card {
    taken: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

impl Guest {
    pub(super) fn new(switch: &Switch, number: u8) -> Guest {
        let machine = Machine::plug(switch, number);
        let mut card = Card::default();
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(machine.mac)));
        let mut interface = Interface::new(config, &mut card, Instant::ZERO);
        interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(machine.address.into(), 24)).unwrap());
        interface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        Guest { machine, interface, sockets: SocketSet::new(Vec::new()), card, began: tokio::time::Instant::now() }
    }

    pub(super) fn connect(&mut self, to: (Ipv4Addr, u16)) -> SocketHandle {
        let handle = self.add();
        let from = 50000 + u16::try_from(self.sockets.iter().count()).unwrap();
        self.sockets.get_mut::<Socket<'_>>(handle).connect(self.interface.context(), to, from).unwrap();
        handle
    }

    pub(super) fn listen(&mut self, port: u16) -> SocketHandle {
        let handle = self.add();
        self.sockets.get_mut::<Socket<'_>>(handle).listen(port).unwrap();
        handle
    }

    fn add(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 32 * 1024]);
        self.sockets.add(Socket::new(buffer(), buffer()))
    }

    /// Goes on until a socket is as it should be.
    pub(super) async fn until<T>(
        &mut self,
        handle: SocketHandle,
        mut done: impl FnMut(&mut Socket<'_>) -> Option<T>,
    ) -> T {
        let mut buffer = vec![0; 65536];
        loop {
            let now = Instant::from_micros(i64::try_from(self.began.elapsed().as_micros()).unwrap());
            self.interface.poll(now, &mut self.card, &mut self.sockets);
            let done = done(self.sockets.get_mut(handle));
            // what has been asked of the socket
            self.interface.poll(now, &mut self.card, &mut self.sockets);
            while let Some(frame) = self.card.sent.pop_front() {
                self.machine.send(&frame).await;
            }
            if let Some(done) = done {
                return done;
            }
            let delay = self.interface.poll_delay(now, &self.sockets).unwrap_or(Duration::from_secs(60));
            tokio::select! {
                received = self.machine.socket.recv(&mut buffer) => {
                    self.card.taken.push_back(buffer[..received.unwrap()].to_vec());
                    while let Ok(length) = self.machine.socket.try_recv(&mut buffer) {
                        self.card.taken.push_back(buffer[..length].to_vec());
                    }
                }
                () = tokio::time::sleep(delay.into()) => (),
            }
        }
    }

    /// Sends all of it, and then its end; answers what came until the end of that.
    pub(super) async fn exchange(&mut self, handle: SocketHandle, bytes: &[u8]) -> Vec<u8> {
        let (mut sent, mut got) = (0, Vec::new());
        self.until(handle, |socket| {
            if sent < bytes.len() && socket.can_send() {
                sent += socket.send_slice(&bytes[sent..]).unwrap();
                if sent == bytes.len() {
                    socket.close();
                }
            }
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
            }
            let began = sent > 0 || !got.is_empty();
            (began && sent == bytes.len() && !socket.may_recv()).then_some(())
        })
        .await;
        got
    }
}

/// Where a machine finds a port of the host.
pub(super) fn through_gateway(at: SocketAddr) -> (Ipv4Addr, u16) {
    (GATEWAY, at.port())
}

impl Device for Card {
    type RxToken<'a> = Taken;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Taken, Sending<'_>)> {
        self.taken.pop_front().map(|frame| (Taken(frame), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

pub(super) struct Taken(Vec<u8>);

impl RxToken for Taken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, understand: F) -> R {
        understand(&self.0)
    }
}

pub(super) struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut frame = vec![0; length];
        let filled = fill(&mut frame);
        self.0.push_back(frame);
        filled
    }
}
