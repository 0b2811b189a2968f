//! The hub against a guest of a few lines, over pipes in memory and in virtual time.

mod attach;
mod exec;
pub(crate) mod guest;
mod pipe;
mod record;
mod restart;

use std::time::Duration;

use wire::handshake::LinkKey;
use wire::link::Tuning;
use wire::message::{MAIN, SessionId};
use wire::status::Exit;

use self::guest::Guest;
use super::*;

pub(crate) const VM: &str = "c1";
const TUNING: Tuning = Tuning { window: 64 * 1024, payload: 4096 };
const WINDOW: usize = TUNING.window as usize;

const OUTPUT: AttachOptions = AttachOptions { stdin: false, stdout: true, stderr: true, from: None };
const ALL: AttachOptions = AttachOptions { stdin: true, ..OUTPUT };

/// A hub for the guest of these tests; each has its own `number`.
pub(crate) fn hub(number: u8) -> Hub {
    Hub::start(Identity {
        vm: VM.into(),
        key: LinkKey::new([1; 32]),
        sealed: true,
        tuning: TUNING,
        seed: [number; 32],
        first_request: 1000 * u64::from(number),
    })
}

/// A hub and a guest that are connected.
async fn connected() -> (Hub, Guest) {
    let (hub, guest) = (hub(1), Guest::new());
    guest.connect(&hub).await;
    (hub, guest)
}

/// Bytes that differ wherever they are cut.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251).to_le_bytes()[0] ^ (at >> 13).to_le_bytes()[0]).collect()
}

/// Fails instead of waiting for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(600), future).await.unwrap_or_else(|_| panic!("stuck: {what}"))
}

/// What a client has heard.
#[derive(Debug, Default)]
struct Heard {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    last: Option<Output>,
}

impl Heard {
    fn exit(&self) -> &Exit {
        match &self.last {
            Some(Output::Ended(exit)) => exit,
            other => panic!("{other:?}"),
        }
    }

    /// Takes one output; each goes on where the one before ended.
    fn take(&mut self, output: Output, attachment: &Attachment) {
        match output {
            Output::Stdout { offset, bytes } => {
                assert_eq!(offset, attachment.offsets.stdout + self.stdout.len() as u64);
                self.stdout.extend_from_slice(&bytes);
                attachment.taken(Stream::Stdout, offset + bytes.len() as u64);
            }
            Output::Stderr { offset, bytes } => {
                assert_eq!(offset, attachment.offsets.stderr + self.stderr.len() as u64);
                self.stderr.extend_from_slice(&bytes);
                attachment.taken(Stream::Stderr, offset + bytes.len() as u64);
            }
            Output::StdinTaken(_) => {}
            last => self.last = Some(last),
        }
    }
}

/// Hears everything, up to the last word.
async fn listen(mut attachment: Attachment) -> Heard {
    let mut heard = Heard::default();
    while heard.last.is_none()
        && let Some(output) = attachment.next().await
    {
        heard.take(output, &attachment);
    }
    heard
}

/// Hears until `done`.
async fn listen_until(attachment: &mut Attachment, heard: &mut Heard, done: impl Fn(&Heard) -> bool) {
    soon("a client waits for output", async {
        while !done(heard) {
            let output = attachment.next().await.expect("the hub is there");
            heard.take(output, attachment);
        }
    })
    .await;
}
