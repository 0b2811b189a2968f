//! One connection between a machine and the host: bytes both ways, each end's end of file, and resets.
//!
//! Neither end is read faster than the other takes it, and no byte that one end sent is lost when the other only stops sending.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use smoltcp::socket::tcp::State;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::stack::Stack;

/// The host's end of a connection.
pub(in crate::switch) trait Far: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the connection end by a reset, once it is dropped.
    fn reset(&self);
}

impl Far for TcpStream {
    fn reset(&self) {
        // it is closed otherwise
        self.set_zero_linger().ok();
    }
}

impl Far for DuplexStream {
    fn reset(&self) {}
}

pub(super) struct Flow<F> {
    stack: Stack,
    packets: mpsc::Receiver<Vec<u8>>,
    far: F,
    /// The far end sends no more.
    far_ended: bool,
    machine: Machine,
    /// Since when the machine owes an answer.
    owes: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    room: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// What comes from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Machine {
    Sends,
    /// It sends no more; what it sent is not carried yet.
    Ended,
    /// And the far end knows.
    Told,
}

impl<F: Far> Flow<F> {
    pub(super) fn new(stack: Stack, packets: mpsc::Receiver<Vec<u8>>, far: F) -> Flow<F> {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        Flow { stack, packets, far, far_ended: false, machine: Machine::Sends, owes: None, timer, room: None }
    }

    /// Carries the connection to its end.
    pub(super) async fn run(mut self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            while let Poll::Ready(packet) = self.packets.poll_recv(context) {
                let Some(packet) = packet else {
                    // the machine is gone
                    self.far.reset();
                    return Poll::Ready(());
                };
                self.stack.take(packet);
                self.owes = None;
            }
            self.stack.ingress();
            let carried = self.fetch(context).is_ready() | self.deliver(context).is_ready();
            self.stack.egress();
            if self.is_over() {
                return Poll::Ready(());
            }
            if !carried {
                ready!(self.wait(context));
            }
        }
    }

    /// Moves what the far end sent to the machine's side; ready if something changed.
    fn fetch(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let socket = self.stack.socket();
        if self.far_ended || !socket.can_send() {
            return Poll::Pending;
        }
        let far = &mut self.far;
        let read = socket.send(|room| {
            let mut buffer = ReadBuf::new(room);
            let read = Pin::new(far).poll_read(context, &mut buffer);
            (buffer.filled().len(), read.map_ok(|()| buffer.filled().len()))
        });
        match ready!(read.unwrap_or(Poll::Pending)) {
            Ok(0) => {
                self.far_ended = true;
                socket.close();
            }
            Ok(_) => (),
            Err(_) => socket.abort(),
        }
        Poll::Ready(())
    }

    /// Moves what the machine sent to the far end; ready if something changed.
    fn deliver(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let socket = self.stack.socket();
        if matches!(socket.state(), State::CloseWait | State::Closing | State::LastAck | State::TimeWait) {
            self.machine = self.machine.ended();
        }
        let far = &mut self.far;
        let written = if socket.can_recv() {
            let write = |bytes: &mut [u8]| {
                let written = Pin::new(far).poll_write(context, bytes);
                (if let Poll::Ready(Ok(length)) = written { length } else { 0 }, written)
            };
            ready!(socket.recv(write).unwrap_or(Poll::Pending)).and_then(|length| match length {
                0 => Err(io::ErrorKind::WriteZero.into()),
                _ => Ok(()),
            })
        } else if self.machine == Machine::Ended {
            ready!(Pin::new(far).poll_shutdown(context)).inspect(|()| self.machine = Machine::Told)
        } else {
            return Poll::Pending;
        };
        if written.is_err() {
            self.machine = Machine::Told;
            self.far_ended = true;
            self.far.reset();
            socket.abort();
        }
        Poll::Ready(())
    }

    /// Whether nothing is left to carry. Lost answers to what a machine said last are given by a reset, that it need not hear.
    fn is_over(&mut self) -> bool {
        let told = self.machine == Machine::Told;
        let socket = self.stack.socket();
        match socket.state() {
            State::TimeWait => told,
            State::Closed if socket.can_recv() => false,
            State::Closed => {
                // a reset, unless both have said that they are done
                if !(told && self.far_ended) {
                    self.far.reset();
                }
                true
            }
            _ => false,
        }
    }

    /// Waits for time or room; what comes from either end wakes as well.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let gives_up = self.gives_up(now);
        if gives_up.is_some_and(|at| at <= now) {
            self.stack.socket().abort();
            return Poll::Ready(());
        }
        if self.room.is_none() {
            self.room = self.stack.full().map(|port| Box::pin(async move { port.room().await }) as Pin<Box<_>>);
        }
        let due = match &mut self.room {
            Some(room) => {
                if room.as_mut().poll(context).is_ready() {
                    self.room = None;
                    return Poll::Ready(());
                }
                gives_up
            }
            None => self.stack.due().into_iter().chain(gives_up).min(),
        };
        let Some(due) = due else { return Poll::Pending };
        self.timer.as_mut().reset(due.max(now + TICK));
        self.timer.as_mut().poll(context)
    }

    /// When the machine has been silent for too long about what it was sent.
    fn gives_up(&mut self, now: Instant) -> Option<Instant> {
        let socket = self.stack.socket();
        let patience = match socket.state() {
            State::SynSent => CONNECTS_WITHIN,
            State::SynReceived | State::FinWait1 | State::Closing | State::LastAck => ANSWERS_WITHIN,
            _ if socket.send_queue() > 0 => ANSWERS_WITHIN,
            _ => {
                self.owes = None;
                return None;
            }
        };
        Some(*self.owes.get_or_insert(now) + patience)
    }
}

impl Machine {
    fn ended(self) -> Machine {
        if self == Machine::Sends { Machine::Ended } else { self }
    }
}

const CONNECTS_WITHIN: Duration = Duration::from_secs(10);
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);
/// What tokio's clock tells apart.
const TICK: Duration = Duration::from_millis(1);
