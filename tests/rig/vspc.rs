//! ESXi hosts with one VM that moves between them: a machine's socket on one side, telnet with VMware's extension to a concentrator on the other.
//!
//! Written from VMware's "Using a Proxy with vSphere Virtual Serial Ports" for itself, so that the program under test is not judged by its own reading of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;

use crate::host::PATIENCE;

const IAC: u8 = 255;
const WILL: u8 = 251;
const DO: u8 = 253;
const SB: u8 = 250;
const SE: u8 = 240;
const EXTENSION: u8 = 232;
/// Options that a VM's port uses: RFC 856, RFC 858, VMware's.
const OPTIONS: [u8; 3] = [0, 3, EXTENSION];
const BEGIN: u8 = 40;
const GOAHEAD: u8 = 41;
const PEER: u8 = 44;
const PEER_OK: u8 = 45;
const COMPLETE: u8 = 46;
const ABORT: u8 = 48;
const DO_PROXY: u8 = 70;
const WILL_PROXY: u8 = 71;
const VC_UUID: u8 = 80;
const GET_VC_UUID: u8 = 81;
const NAME: u8 = 82;
const GET_NAME: u8 = 83;
const KNOWN: [u8; 19] = [0, 1, 2, 3, 40, 41, 43, 44, 45, 46, 48, 70, 71, 73, 80, 81, 82, 83, 84];
/// It holds the byte that telnet doubles.
const SEQUENCE: &[u8] = b"move\xff1";
/// As vSphere writes it.
pub const UUID: &str = "50 11 5e 16 9b dc 49 d7-f1 71 53 c4 d7 f9 17 10";

/// The hosts. They end with their owner.
pub struct Esxi {
    dir: TempDir,
    orders: Sender<Order>,
    done: Receiver<()>,
    worker: Option<JoinHandle<()>>,
}

enum Order {
    Move,
    MoveAndAbort,
    End,
}

impl Esxi {
    /// Hosts of a VM with that name, whose serial port is to reach the concentrator.
    pub fn new(concentrator: SocketAddr, name: &str) -> Esxi {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let listener = UnixListener::bind(dir.path().join("port")).expect("a socket");
        let (orders, to_do) = mpsc::channel();
        let (did, done) = mpsc::channel();
        let name = name.to_owned();
        let worker = std::thread::spawn(move || {
            listener.set_nonblocking(true).expect("a socket");
            let vm = loop {
                match listener.accept() {
                    Ok((vm, _)) => break vm,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                if let Ok(Order::End) = to_do.try_recv() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            };
            Vm::new(vm, concentrator, name).run(&to_do, &did);
        });
        Esxi { dir, orders, done, worker: Some(worker) }
    }

    /// Where the machine connects.
    pub fn port(&self) -> PathBuf {
        self.dir.path().join("port")
    }

    /// The VM moves to another host.
    pub fn vmotion(&self) {
        self.order(Order::Move);
    }

    /// The VM is about to move, and stays.
    pub fn vmotion_that_fails(&self) {
        self.order(Order::MoveAndAbort);
    }

    fn order(&self, order: Order) {
        self.orders.send(order).expect("the hosts work");
        self.done.recv_timeout(PATIENCE).expect("the hosts are done in time");
    }
}

impl Drop for Esxi {
    fn drop(&mut self) {
        // one that has failed has ended
        self.orders.send(Order::End).ok();
        if let Some(Err(panic)) = self.worker.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// One host's connection to the concentrator.
struct Port {
    stream: TcpStream,
    out: Vec<u8>,
    /// What came of a command that is not whole.
    rest: Vec<u8>,
    /// Commands of the extension.
    heard: Vec<Vec<u8>>,
    /// Data for the VM.
    data: Vec<u8>,
    name: String,
}

impl Port {
    fn connect(at: SocketAddr, name: &str) -> Port {
        let stream = TcpStream::connect(at).expect("the concentrator listens");
        stream.set_nonblocking(true).expect("a socket");
        let mut port = Port {
            stream,
            out: Vec::new(),
            rest: Vec::new(),
            heard: Vec::new(),
            data: Vec::new(),
            name: name.to_owned(),
        };
        port.out.extend([IAC, WILL, EXTENSION]);
        port.say(0, &KNOWN);
        port
    }

    fn say(&mut self, command: u8, value: &[u8]) {
        self.out.extend([IAC, SB, EXTENSION, command]);
        escape(value, &mut self.out);
        self.out.extend([IAC, SE]);
    }

    /// What it can send and receive now.
    fn turn(&mut self) {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the concentrator has gone: {error}"),
            }
        }
        let mut buffer = [0; 1 << 14];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the concentrator has closed the connection"),
                Ok(count) => self.rest.extend(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the concentrator has gone: {error}"),
            }
        }
        self.decode();
    }

    fn decode(&mut self) {
        let bytes = std::mem::take(&mut self.rest);
        let mut at = 0;
        while at < bytes.len() {
            let left = &bytes[at..];
            at += match *left {
                [IAC, IAC, ..] => {
                    self.data.push(IAC);
                    2
                }
                [IAC, SB, ..] => {
                    let Some((value, length)) = sub(left) else { break };
                    if value[0] == EXTENSION {
                        self.hear(value[1..].to_vec());
                    }
                    length
                }
                [IAC, verb @ WILL..=254, option, ..] => {
                    // 251 WILL, 252 WONT, 253 DO, 254 DONT: offers are accepted where the port uses the option
                    match (verb, OPTIONS.contains(&option)) {
                        (WILL, true) => self.out.extend([IAC, DO, option]),
                        (DO, true) if option != EXTENSION => self.out.extend([IAC, WILL, option]),
                        (WILL, false) => self.out.extend([IAC, 254, option]),
                        (DO, false) => self.out.extend([IAC, 252, option]),
                        _ => {}
                    }
                    3
                }
                [IAC] | [IAC, _] => break,
                [IAC, ..] => 2,
                [byte, ..] => {
                    self.data.push(byte);
                    1
                }
                [] => break,
            };
        }
        self.rest = bytes[at..].to_vec();
    }

    fn hear(&mut self, value: Vec<u8>) {
        match value[0] {
            GET_NAME => self.say(NAME, &self.name.clone().into_bytes()),
            GET_VC_UUID => self.say(VC_UUID, UUID.as_bytes()),
            _ => self.heard.push(value),
        }
    }

    /// The value of a command that has come.
    fn take(&mut self, command: u8) -> Option<Vec<u8>> {
        let at = self.heard.iter().position(|value| value[0] == command)?;
        Some(self.heard.remove(at)[1..].to_vec())
    }
}

/// A whole subnegotiation's value, unescaped, and its length on the wire.
fn sub(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut value, mut at) = (Vec::new(), 2);
    loop {
        match *bytes.get(at..)? {
            [IAC, SE, ..] => return (!value.is_empty()).then_some((value, at + 2)),
            [IAC, IAC, ..] => {
                value.push(IAC);
                at += 2;
            }
            [IAC, ..] => return None,
            [byte, ..] => {
                value.push(byte);
                at += 1;
            }
            [] => return None,
        }
    }
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        out.push(byte);
        if byte == IAC {
            out.push(IAC);
        }
    }
}

struct Vm {
    machine: UnixStream,
    /// For the machine.
    input: Vec<u8>,
    concentrator: SocketAddr,
    port: Port,
    name: String,
}

/// What a host keeps before it lets the machine wait.
const MOST: usize = 1 << 16;

impl Vm {
    fn new(machine: UnixStream, concentrator: SocketAddr, name: String) -> Vm {
        machine.set_nonblocking(true).expect("a socket");
        let mut port = Port::connect(concentrator, &name);
        port.say(DO_PROXY, b"Ctcp://127.0.0.1:2379");
        Vm { machine, input: Vec::new(), concentrator, port, name }
    }

    fn run(mut self, orders: &Receiver<Order>, done: &Sender<()>) {
        self.until("WILL-PROXY", |vm| vm.port.take(WILL_PROXY));
        loop {
            let end = match orders.try_recv() {
                Ok(Order::Move) => self.vmotion(false),
                Ok(Order::MoveAndAbort) => self.vmotion(true),
                Ok(Order::End) | Err(mpsc::TryRecvError::Disconnected) => return,
                Err(mpsc::TryRecvError::Empty) => {
                    if !self.carry(true) {
                        return;
                    }
                    continue;
                }
            };
            if !end || done.send(()).is_err() {
                return;
            }
        }
    }

    /// The document's steps; the machine runs until it is stopped for its last part.
    fn vmotion(&mut self, abort: bool) -> bool {
        self.port.say(BEGIN, SEQUENCE);
        let answer = self.until("GOAHEAD", |vm| vm.port.take(GOAHEAD));
        assert!(answer.starts_with(SEQUENCE) && answer.len() > SEQUENCE.len(), "{answer:?}");
        // what came before it is the machine's; from here on nothing may come
        self.input.append(&mut self.port.data);
        let mut target = Port::connect(self.concentrator, &self.name);
        target.say(PEER, &answer);
        let began = Instant::now();
        while target.take(PEER_OK).is_none() {
            assert!(began.elapsed() < PATIENCE, "no PEER-OK");
            target.turn();
            self.carry(false);
            self.nothing_comes();
        }
        // the machine says more meanwhile
        for _ in 0..200 {
            self.carry(false);
            self.nothing_comes();
        }
        assert!(target.data.is_empty(), "the concentrator speaks to a VM that is not there yet");
        if abort {
            self.port.say(ABORT, b"");
            return true;
        }
        // it stands still: its last bytes leave the old host when the new one has said that it is there
        target.say(COMPLETE, SEQUENCE);
        while !target.out.is_empty() {
            target.turn();
        }
        let mut source = std::mem::replace(&mut self.port, target);
        while !source.out.is_empty() {
            source.turn();
        }
        assert!(source.data.is_empty(), "the concentrator speaks to the VM where it was");
        true
    }

    fn nothing_comes(&self) {
        assert!(self.port.data.is_empty(), "the concentrator speaks to a VM that is on its way");
    }

    fn until<T>(&mut self, what: &str, mut found: impl FnMut(&mut Vm) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "no {what}");
            self.carry(false);
        }
    }

    /// Waits a moment for bytes and carries them, to the machine if it is here to take them; false when it is off.
    fn carry(&mut self, delivers: bool) -> bool {
        let (in_, out) = (PollFlags::POLLIN, PollFlags::POLLOUT);
        let wanted = |reads: bool, writes: bool| {
            (if reads { in_ } else { PollFlags::empty() }) | (if writes { out } else { PollFlags::empty() })
        };
        let mut fds = [
            PollFd::new(self.machine.as_fd(), wanted(self.port.out.len() < MOST, !self.input.is_empty())),
            PollFd::new(self.port.stream.as_fd(), wanted(true, !self.port.out.is_empty())),
        ];
        poll(&mut fds, PollTimeout::from(1u8)).expect("sockets");
        if self.port.out.len() < MOST {
            let mut buffer = [0; 1 << 14];
            match self.machine.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => escape(&buffer[..count], &mut self.port.out),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
        self.port.turn();
        if delivers {
            self.input.append(&mut self.port.data);
        }
        match self.machine.write(&self.input) {
            Ok(count) => drop(self.input.drain(..count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        true
    }
}
