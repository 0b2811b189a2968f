//! VMs that are about to move: who comes with the key of a move is the same VM on another host.
//!
//! A key is what the first host calls the move and a secret of ours behind it, so that nobody else's connection can take a VM's place.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::extension::SECRET;
use super::line::Line;

/// All moves at one address.
#[derive(Debug, Default)]
pub(super) struct Moves(Mutex<HashMap<Vec<u8>, mpsc::Sender<Box<Line>>>>);

/// One VM's move. Dropped, nobody can come by it any more.
#[derive(Debug)]
pub(super) struct Move {
    key: Vec<u8>,
    moves: Arc<Moves>,
    arrivals: mpsc::Receiver<Box<Line>>,
}

impl Moves {
    /// A move begins; the host is to be told its secret.
    pub(super) fn begin(self: &Arc<Moves>, sequence: &[u8]) -> io::Result<(Move, [u8; SECRET])> {
        let secret = secret()?;
        let key = [sequence, &secret].concat();
        let (sender, arrivals) = mpsc::channel(1);
        self.lock().insert(key.clone(), sender);
        Ok((Move { key, moves: self.clone(), arrivals }, secret))
    }

    /// Somebody may be about to come.
    pub(super) fn are_pending(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Hands a connection to the VM whose move has that key; it is closed if there is none.
    pub(super) fn arrive(&self, key: &[u8], mut line: Line) -> bool {
        let Some(mover) = self.lock().get(key).cloned() else { return false };
        line.welcome(key);
        // one that waits already is the same VM's
        mover.try_send(Box::new(line)).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, mpsc::Sender<Box<Line>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Move {
    /// The connection from the other host. It may be dropped while it waits.
    pub(super) async fn arrival(&mut self) -> Box<Line> {
        match self.arrivals.recv().await {
            Some(line) => line,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Move {
    fn drop(&mut self) {
        self.moves.lock().remove(&self.key);
    }
}

/// Hexadecimal digits: hosts were seen that do not come back with every byte.
fn secret() -> io::Result<[u8; SECRET]> {
    let mut random = [0; SECRET];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random.map(|byte| b"0123456789abcdef"[usize::from(byte & 15)]))
}
