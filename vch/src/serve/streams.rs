//! A client's part in a session: frames of its connection, and the hub's attachment.
//!
//! Three things go on at once, and none waits for another: what the client says is read, its input is given to the hub, and what the hub tells is written.
//! Were they one, a client that sends without reading could keep its own acknowledgements from getting through.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use wire::message::{MAIN, Request, SessionId};

use super::vms::{Known, Use};
use crate::control::{Decoder, Frame, MAX_STDIN, Problem, ProblemKind, Started};
use crate::hub::{self, Attachment, Client, Events};

/// An attachment to be served.
pub(super) struct Attached {
    pub(super) known: Arc<Known>,
    pub(super) started: Started,
    pub(super) attachment: Attachment,
    pub(super) _used: Use,
}

/// Why it is over.
enum End {
    /// The client has all that there is.
    Finished,
    /// It is gone, or was told to go.
    Left,
}

/// Serves a client until it goes. One that has heard the last word may still have to say what it has taken.
pub(super) async fn carry(stream: BufReader<UnixStream>, attached: Attached) {
    let Attached { known, started, attachment, _used } = attached;
    let Attachment { events, client, .. } = attachment;
    // what the client has sent with its request
    let early = stream.buffer().to_vec();
    let (reader, writer) = stream.into_inner().into_split();
    let (input, pieces) = mpsc::unbounded_channel();
    let (complain, complaint) = oneshot::channel();
    let guest_has = Cell::new(started.offsets.stdin);
    let session = started.session;
    let hearing = Hearing {
        known: &known,
        session,
        client: client.clone(),
        input,
        sent: started.offsets.stdin,
        guest_has: &guest_has,
    };
    let end = tokio::select! {
        end = hearing.listen(reader, early, complain) => end,
        end = tell(writer, started, events, complaint, &guest_has) => end,
        never = feed(pieces, client) => match never {},
    };
    match end {
        End::Finished if session != MAIN => known.forget_session(session).await,
        End::Finished | End::Left => {}
    }
}

/// What a client says.
struct Hearing<'a> {
    known: &'a Known,
    session: SessionId,
    client: Client,
    input: mpsc::UnboundedSender<Input>,
    /// Where standard input is, by what the client has sent.
    sent: u64,
    guest_has: &'a Cell<u64>,
}

enum Input {
    Piece(Vec<u8>),
    End,
}

impl Hearing<'_> {
    async fn listen(mut self, mut reader: OwnedReadHalf, early: Vec<u8>, complain: oneshot::Sender<Problem>) -> End {
        let mut decoder = Decoder::default();
        decoder.feed(&early);
        let mut buffer = vec![0; 64 * 1024];
        let problem = loop {
            match decoder.next_frame() {
                Ok(Some(Frame::Finished)) => return End::Finished,
                Ok(Some(frame)) => match self.hear(frame) {
                    Ok(()) => {}
                    Err(problem) => break problem,
                },
                Ok(None) => match reader.read(&mut buffer).await {
                    Ok(count) if count > 0 => decoder.feed(&buffer[..count]),
                    _ => return End::Left,
                },
                Err(broken) => break broken.into(),
            }
        };
        // told in its turn, so that it falls into no other frame
        let _told = complain.send(problem);
        std::future::pending().await
    }

    fn hear(&mut self, frame: Frame) -> Result<(), Problem> {
        match frame {
            Frame::Stdin(bytes) => {
                self.sent += bytes.len() as u64;
                if self.sent.saturating_sub(self.guest_has.get()) > MAX_STDIN as u64 {
                    let message = format!("more than {MAX_STDIN} bytes of input are under way");
                    return Err(Problem::new(ProblemKind::Malformed, message));
                }
                let _read_to_the_end = self.input.send(Input::Piece(bytes));
            }
            Frame::StdinEnds => {
                let _read_to_the_end = self.input.send(Input::End);
            }
            Frame::Taken { stream, offset } => self.client.taken(stream, offset),
            Frame::GiveUp(stream) => self.client.give_up(stream),
            Frame::Resize(size) => self.request(Request::Resize { session: self.session, size }),
            Frame::Signal(signal) => self.request(Request::Signal { session: self.session, signal }),
            // what serve says, and what a later client says
            _ => {}
        }
        Ok(())
    }

    /// A process that has ended meanwhile needs no size and no signal.
    fn request(&self, request: Request) {
        let hub = self.known.hub.clone();
        spawn_local(async move { hub.request(request).await.ok() });
    }
}

/// Gives input to the hub, as fast as the guest takes it.
async fn feed(mut pieces: mpsc::UnboundedReceiver<Input>, client: Client) -> Infallible {
    while let Some(piece) = pieces.recv().await {
        match piece {
            // a process that has closed its input misses nothing
            Input::Piece(bytes) => drop(client.write_stdin(bytes).await),
            Input::End => client.end_stdin(),
        }
    }
    std::future::pending().await
}

/// Tells the client what the hub tells.
async fn tell(
    mut writer: OwnedWriteHalf,
    started: Started,
    mut events: Events,
    mut complaint: oneshot::Receiver<Problem>,
    guest_has: &Cell<u64>,
) -> End {
    let mut frame = Frame::Started(started);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        frame.encode(&mut bytes);
        let last = matches!(frame, Frame::Ended(_) | Frame::Detached(_) | Frame::Error(_));
        if writer.write_all(&bytes).await.is_err() {
            return End::Left;
        }
        match frame {
            Frame::Error(_) => return End::Left,
            _ if last => return std::future::pending().await,
            _ => {}
        }
        frame = tokio::select! {
            output = events.next() => match output {
                Some(output) => as_frame(output, guest_has),
                None => Frame::Detached("the connection to the guest was given up".into()),
            },
            Ok(problem) = &mut complaint => Frame::Error(problem),
        };
    }
}

fn as_frame(output: hub::Output, guest_has: &Cell<u64>) -> Frame {
    use crate::control::Stream;
    match output {
        hub::Output::Stdout { offset, bytes } => Frame::Output { stream: Stream::Stdout, offset, bytes },
        hub::Output::Stderr { offset, bytes } => Frame::Output { stream: Stream::Stderr, offset, bytes },
        hub::Output::StdinTaken(offset) => {
            guest_has.set(offset);
            Frame::StdinTaken(offset)
        }
        hub::Output::Ended(exit) => Frame::Ended(exit),
        hub::Output::Detached(reason) => Frame::Detached(reason),
    }
}
