//! VMX's end of vsock: one thread a connection, on a socket of any kind. What is said is decided by [`Vmx`].
//!
//! A guest dials CID 0, port 976 for RPCI and 975 for TCLO; a source port below 1024 makes it privileged. A unix socket has no ports, so whoever connects to
//! [`Server`] says them first: three big-endian u32: CID, port, source port.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::datamap::{LENGTH, Packet, PacketError};
use crate::{Origin, Vmx};

/// What a guest dials.
pub const RPCI_PORT: u32 = 976;
pub const TCLO_PORT: u32 = 975;
/// Where: the hypervisor itself. On ESXi, CID 2 has daemons, and no VMX.
pub const HYPERVISOR: u32 = 0;

/// The bytes of what comes first on a unix socket.
pub const PREAMBLE: usize = 12;

/// What comes first on a unix socket.
pub fn preamble(cid: u32, port: u32, source_port: u32) -> [u8; PREAMBLE] {
    let mut bytes = [0; PREAMBLE];
    bytes.copy_from_slice([cid, port, source_port].map(u32::to_be_bytes).as_flattened());
    bytes
}

impl Origin {
    /// Only root binds ports below 1024.
    pub fn of(source_port: u32) -> Origin {
        if source_port < 1024 { Origin::Privileged } else { Origin::Unprivileged }
    }
}

/// Who listens at a unix socket. Its file goes with it; connections stay.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
}

impl Server {
    /// Listens at `path`, and serves each connection as its preamble says. Ports that nobody serves are closed.
    pub fn listen(path: &Path, vmx: Arc<Mutex<Vmx>>) -> io::Result<Server> {
        let listener = UnixListener::bind(path)?;
        thread::Builder::new().name("double vsock".to_owned()).spawn(move || {
            for connection in listener.incoming() {
                let Ok(mut connection) = connection else { break };
                let vmx = vmx.clone();
                thread::spawn(move || {
                    let mut bytes = [0; PREAMBLE];
                    if connection.read_exact(&mut bytes).is_ok() {
                        let [cid, port, source_port] =
                            [0, 4, 8].map(|at| bytes[at..].first_chunk().map_or(0, |word| u32::from_be_bytes(*word)));
                        if cid == HYPERVISOR {
                            serve(connection.into(), port, Origin::of(source_port), &vmx);
                        }
                    }
                });
            }
        })?;
        Ok(Server { path: path.to_owned() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nobody can come any more; the thread that waits for them costs nothing
        drop(fs::remove_file(&self.path));
    }
}

/// Serves one connection to that port until it ends. A guest that does not keep to the protocol is complained of in [`Vmx::complaints`], and hung up on.
pub fn serve(connection: OwnedFd, port: u32, origin: Origin, vmx: &Mutex<Vmx>) {
    let mut connection = File::from(connection);
    let end = match port {
        RPCI_PORT => serve_rpci(&mut connection, origin, vmx),
        TCLO_PORT => {
            let end = serve_tclo(&mut connection, vmx);
            lock(vmx).hang_up();
            end
        }
        _ => Ok(()),
    };
    if let Err(Fault::Guests(error)) = end {
        lock(vmx).complaints.push(error.to_string());
    }
}

/// Why a connection ended.
#[derive(Debug)]
enum Fault {
    Guests(PacketError),
    /// It is gone.
    Lost,
}

impl From<io::Error> for Fault {
    fn from(_: io::Error) -> Fault {
        Fault::Lost
    }
}

fn serve_rpci(connection: &mut File, origin: Origin, vmx: &Mutex<Vmx>) -> Result<(), Fault> {
    while let Some(packet) = receive(connection)? {
        let Packet::Message { bytes, is_last } = packet else { continue };
        if lock(vmx).faults.deaf {
            continue;
        }
        let reply = lock(vmx).rpci(origin, &bytes);
        if lock(vmx).faults.silent {
            continue;
        }
        send(connection, &reply, vmx)?;
        if is_last {
            break;
        }
    }
    Ok(())
}

/// How often questions are looked for that a test has added, in milliseconds.
const TICK: u16 = 5;

fn serve_tclo(connection: &mut File, vmx: &Mutex<Vmx>) -> Result<(), Fault> {
    loop {
        let question = {
            let mut vmx = lock(vmx);
            if vmx.faults.deaf { None } else { vmx.ask() }
        };
        if let Some(question) = question {
            connection.write_all(&Packet::message(&question).encode())?;
        }
        let mut watched = [PollFd::new(connection.as_fd(), PollFlags::POLLIN)];
        if poll(&mut watched, PollTimeout::from(TICK)).map_err(io::Error::from)? == 0 {
            continue;
        }
        match receive(connection)? {
            Some(Packet::Message { bytes, .. }) => lock(vmx).answer(&bytes),
            Some(Packet::SignOfLife) => lock(vmx).answer(b""),
            None => return Ok(()),
        }
    }
}

/// The next packet; none where the guest has hung up in order.
fn receive(connection: &mut File) -> Result<Option<Packet>, Fault> {
    let mut head = [0; LENGTH];
    let mut had = 0;
    while had < LENGTH {
        match connection.read(&mut head[had..]) {
            Ok(0) if had == 0 => return Ok(None),
            Ok(0) => return Err(Fault::Guests(PacketError::Truncated(0))),
            Ok(count) => had += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Fault::Lost),
        }
    }
    let length = Packet::length(head).map_err(Fault::Guests)?;
    let mut fields = Vec::new();
    connection.take(u64::from(length)).read_to_end(&mut fields)?;
    // where fields are missing, that is said of the field
    let is_whole = u32::try_from(fields.len()) == Ok(length);
    let packet = Packet::decode(&fields).map_err(Fault::Guests)?;
    if is_whole { Ok(Some(packet)) } else { Err(Fault::Guests(PacketError::Truncated(0))) }
}

/// Sends a reply, as long as it is said to be, or as much of it as there shall be.
fn send(connection: &mut File, reply: &[u8], vmx: &Mutex<Vmx>) -> Result<(), Fault> {
    let (said, cut) = {
        let vmx = lock(vmx);
        (vmx.said(reply.len()), vmx.faults.cut_at)
    };
    let mut packet = Packet::head_of(said);
    packet.extend(reply);
    if let Some(cut) = cut.filter(|cut| *cut < packet.len()) {
        connection.write_all(&packet[..cut])?;
        return Err(Fault::Lost);
    }
    connection.write_all(&packet)?;
    let missing = u64::from(said).saturating_sub(reply.len() as u64);
    io::copy(&mut io::repeat(b' ').take(missing), connection)?;
    Ok(())
}

fn lock(vmx: &Mutex<Vmx>) -> MutexGuard<'_, Vmx> {
    vmx.lock().unwrap_or_else(PoisonError::into_inner)
}
