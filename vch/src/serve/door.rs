//! The door: a connection that nobody knows is asked whose it is, and turned away when it does not say so in time.
//!
//! A hello proves nothing yet. What is decided here is only which VM's hub is to check it, and that its packets are sealed where others can overhear them.

use std::cell::Cell;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use wire::link::{self, HELLO_INTERVAL, Tuning, knock_frame};
use wire::packet::Hello;

use crate::pipe::{Address, Reader, Writer};

/// The door at one address.
#[derive(Debug)]
pub(super) struct Door {
    address: Address,
    turned_away: Cell<u64>,
}

/// A connection that names its VM.
pub(super) struct Guest {
    pub(super) vm: String,
    pub(super) sealed: bool,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) already_read: Vec<u8>,
}

/// Why a connection was turned away.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TurnedAway {
    #[error("it did not say within {} s whose it is", PATIENCE.as_secs())]
    Late,
    #[error("it said {MOST} bytes, and not whose it is")]
    Noise,
    #[error("it closed before it said whose it is")]
    Closed,
    #[error("{0:?} is no VM's id")]
    Name(String),
    #[error("packets of {0} are not sealed, and others can overhear them here: set link/sealed in its spec")]
    Unsealed(String),
}

/// A guest says hello as soon as it is asked.
const PATIENCE: Duration = Duration::from_secs(10);
/// Noise before a hello, as of a firmware on a serial line, is less.
const MOST: usize = 1 << 20;
/// The longest id: one is 64 characters, and goes into messages.
const LONGEST_ID: usize = 128;

impl Door {
    pub(super) fn new(address: Address) -> Door {
        Door { address, turned_away: Cell::new(0) }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// How many were turned away.
    pub(super) fn turned_away(&self) -> u64 {
        self.turned_away.get()
    }

    /// How our end begins. The guest chooses for its own. A line with a baud rate can be at the other end of a unix socket or TCP too: its guest says so by its
    /// window, and the link then sends short packets, for a keystroke must not wait behind a long one.
    pub(super) fn tuning(&self) -> Tuning {
        match self.address {
            Address::Serial { .. } => Tuning::SERIAL,
            Address::Unix(_) | Address::Tcp(_) | Address::Vspc(_) | Address::Vsock { .. } => Tuning::FAST,
        }
    }

    /// Asks whose a connection is.
    pub(super) async fn ask(&self, reader: Reader, writer: Writer) -> Result<Guest, TurnedAway> {
        let answer = self.listen(reader, writer).await;
        if answer.is_err() {
            self.turned_away.set(self.turned_away.get() + 1);
        }
        answer
    }

    async fn listen(&self, mut reader: Reader, mut writer: Writer) -> Result<Guest, TurnedAway> {
        let until = Instant::now() + PATIENCE;
        let mut door = link::Door::default();
        let (mut buffer, mut count) = (vec![0; 16 * 1024], 0);
        let (knock, mut sent) = (knock_frame(), 0);
        let mut again = interval(HELLO_INTERVAL);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let Hello { vm, sealed, .. } = loop {
            let step = async {
                tokio::select! {
                    result = reader.read(&mut buffer) => Step::Read(result.unwrap_or(0)),
                    result = writer.write(&knock[sent..]), if sent < knock.len() => Step::Wrote(result.ok()),
                    _ = again.tick(), if sent == knock.len() => Step::Again,
                }
            };
            match timeout_at(until, step).await.map_err(|_| TurnedAway::Late)? {
                Step::Read(0) | Step::Wrote(None) => return Err(TurnedAway::Closed),
                Step::Read(length) => {
                    count += length;
                    if let Some(hello) = door.feed(&buffer[..length]) {
                        break hello;
                    }
                    if count > MOST {
                        return Err(TurnedAway::Noise);
                    }
                }
                Step::Wrote(Some(length)) => sent += length,
                Step::Again => sent = 0,
            }
        };
        let already_read = door.into_bytes();
        let plain = |char: char| char.is_ascii_alphanumeric() || "_.-".contains(char);
        if vm.is_empty() || vm.len() > LONGEST_ID || !vm.chars().all(plain) {
            return Err(TurnedAway::Name(vm.chars().take(LONGEST_ID).collect()));
        }
        if !sealed && matches!(self.address, Address::Tcp(_) | Address::Vspc(_) | Address::Serial { .. }) {
            return Err(TurnedAway::Unsealed(vm));
        }
        // a knock that was cut would spoil what the link says first: it begins with a delimiter
        Ok(Guest { vm, sealed, reader, writer, already_read })
    }
}

enum Step {
    Read(usize),
    Wrote(Option<usize>),
    Again,
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use wire::handshake::LinkKey;
    use wire::link::{Link, Role, Security};

    use super::*;

    fn hello(vm: &str, sealed: bool) -> Vec<u8> {
        let security = Security { key: LinkKey::new([7; 32]), sealed, seed: [1; 32] };
        let mut link = Link::new(Role::Guest { vm: vm.into(), boot: [2; 16] }, Tuning::FAST, security);
        let mut bytes = Vec::new();
        link.pipe_up(Duration::ZERO);
        while link.poll_transmit(Duration::ZERO, &mut bytes) {}
        bytes
    }

    async fn ask(address: &str, said: &[&[u8]], closes: bool) -> Result<(String, bool, Vec<u8>), TurnedAway> {
        let door = Door::new(address.parse().unwrap());
        let (ours, theirs) = duplex(4096);
        let (reader, writer) = tokio::io::split(ours);
        let (mut hears, mut says) = tokio::io::split(theirs);
        let said: Vec<Vec<u8>> = said.iter().map(|bytes| bytes.to_vec()).collect();
        let guest = tokio::spawn(async move {
            let mut knock = vec![0; knock_frame().len()];
            hears.read_exact(&mut knock).await.unwrap();
            assert_eq!(knock, knock_frame());
            for bytes in said {
                // the door may have closed
                if says.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            if closes {
                says.shutdown().await.unwrap();
            }
            while hears.read(&mut knock).await.unwrap_or(0) > 0 {}
        });
        let answer = door.ask(Box::new(reader), Box::new(writer)).await;
        assert_eq!(door.turned_away(), u64::from(answer.is_err()));
        guest.abort();
        answer.map(|guest| (guest.vm, guest.sealed, guest.already_read))
    }

    #[tokio::test(start_paused = true)]
    async fn who_knocks_is_told_apart() {
        let (open, sealed) = (hello("web", false), hello("web", true));
        let (vm, is_sealed, bytes) = ask("unix:///x", &[b"BIOS noise", &open], false).await.unwrap();
        assert_eq!((vm.as_str(), is_sealed), ("web", false));
        assert!(link::Door::default().feed(&bytes).is_some());
        assert!(ask("tcp://127.0.0.1:0", &[&sealed[..20], &sealed[20..]], false).await.unwrap().1);
        let check = async |address: &str, said: &[&[u8]], closes: bool, expected: TurnedAway| {
            assert_eq!(ask(address, said, closes).await.unwrap_err(), expected);
        };
        check("tcp://127.0.0.1:0", &[&open], false, TurnedAway::Unsealed("web".into())).await;
        check("vspc://127.0.0.1", &[&open], false, TurnedAway::Unsealed("web".into())).await;
        check("unix:///x", &[&hello("../x", true)], false, TurnedAway::Name("../x".into())).await;
        check("unix:///x", &[b"mumble"], true, TurnedAway::Closed).await;
        check("unix:///x", &[b"mumble"], false, TurnedAway::Late).await;
        check("unix:///x", &[&vec![1; MOST + 1]], false, TurnedAway::Noise).await;
    }
}
