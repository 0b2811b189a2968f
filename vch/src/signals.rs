//! Signals that come to vch, as a stream: it catches them from the start, so that none is lost before the VM can take it.
//!
//! What becomes of them is decided in [`crate::run`] and [`crate::guest_link`].

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Linux signal numbers, in the order in which they came.
pub type Caught = mpsc::UnboundedReceiver<u8>;

pub const SIGHUP: u8 = 1;
pub const SIGINT: u8 = 2;
pub const SIGQUIT: u8 = 3;
pub const SIGKILL: u8 = 9;
pub const SIGTERM: u8 = 15;
pub const SIGWINCH: u8 = 28;

/// Starts to catch them. Must be called within the runtime.
pub fn catch() -> io::Result<Caught> {
    let (sender, caught) = mpsc::unbounded_channel();
    for number in FORWARDED.into_iter().chain([SIGWINCH]) {
        let stream = signal(SignalKind::from_raw(number.into()))?;
        tokio::spawn(pass_on(number, stream, sender.clone()));
    }
    Ok(caught)
}

/// Waits for a signal that ends a program.
pub async fn ending(caught: &mut Caught) -> u8 {
    loop {
        match caught.recv().await {
            Some(number) if ends(number) => return number,
            Some(_) => {}
            None => return std::future::pending().await,
        }
    }
}

/// Whether it is one by which a person, or the system, asks a program to end.
pub fn ends(number: u8) -> bool {
    matches!(number, SIGHUP | SIGINT | SIGQUIT | SIGTERM)
}

async fn pass_on(number: u8, mut stream: Signal, sender: mpsc::UnboundedSender<u8>) {
    while stream.recv().await.is_some() {
        if sender.send(number).is_err() {
            return;
        }
    }
}

/// What docker forwards, less those by which a shell stops and continues a job: these are for vch itself.
const FORWARDED: [u8; 7] = [SIGHUP, SIGINT, SIGQUIT, 10, 12, 14, SIGTERM];
