//! What a client says to a process: bytes, keys that leave, and the end.
//!
//! It decides what an end of input means. It does not know what output the client hears.

use tokio::io::AsyncReadExt;

use super::hijack::Reader;
use crate::detach::{Input, Keys, Watch};
use crate::hub::Client;

/// To whom the input goes.
#[derive(Debug)]
pub(super) struct Mouth {
    pub(super) client: Client,
    /// The end of this input is the end of the process's: moby's `StdinOnce`, and always so for an exec. A terminal's input has no end.
    pub(super) ends_with_client: bool,
    /// These leave a terminal.
    pub(super) keys: Option<Keys>,
}

/// Why there is nothing more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The process has its end of input. Output goes on.
    All,
    /// The client's end is not the process's: docker ends this client's output then.
    Left,
    /// The client has pressed the keys.
    Detached,
}

impl Mouth {
    /// Hands on what the client says, as fast as the process reads it.
    pub(super) async fn speak(self, reader: &mut Reader) -> Said {
        let Mouth { client, ends_with_client, keys } = self;
        let mut watch = keys.map(Watch::new);
        let mut buffer = vec![0; PIECE];
        loop {
            // who breaks off has ended
            let count = reader.read(&mut buffer).await.unwrap_or_default();
            if count == 0 {
                let held = watch.as_mut().map(Watch::end).unwrap_or_default();
                write(&client, held).await;
                if !ends_with_client {
                    return Said::Left;
                }
                client.end_stdin();
                return Said::All;
            }
            match watch.as_mut().map(|watch| watch.feed(&buffer[..count])) {
                None => write(&client, buffer[..count].to_vec()).await,
                Some(Input::Pass(bytes)) => write(&client, bytes).await,
                Some(Input::Detach(bytes)) => {
                    write(&client, bytes).await;
                    return Said::Detached;
                }
            }
        }
    }
}

/// A process that has closed its input misses nothing.
async fn write(client: &Client, bytes: Vec<u8>) {
    if !bytes.is_empty() {
        let _closed = client.write_stdin(bytes).await;
    }
}

/// The most that is under way to the hub.
const PIECE: usize = 32 * 1024;
