//! The one place that waits: epoll over descriptors, and signals as events.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// A set of descriptors, each known by a number of the caller's.
#[derive(Debug)]
pub struct Poller(Epoll);

/// What to wait for on a descriptor. An end or error of it is always told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub readable: bool,
    pub writable: bool,
    /// An exceptional condition: what is exceptional is the descriptor's to define.
    pub priority: bool,
    /// Tell changes only. The owner must then read and write until it is told to wait.
    pub edge: bool,
}

/// What happened on a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
    /// The other end is gone.
    pub hangup: bool,
}

impl Poller {
    pub fn new() -> io::Result<Poller> {
        Ok(Poller(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(interest.flags(), token))?)
    }

    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.0.modify(fd, &mut EpollEvent::new(interest.flags(), token))?)
    }

    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.0.delete(fd)?)
    }

    /// Waits until something happens or `timeout` has passed; `None` waits for ever. An interruption is an empty answer.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Happened>> {
        // rounded up: waking a moment early would spin
        let timeout = timeout.map_or(EpollTimeout::NONE, |timeout| {
            let millis = timeout.as_nanos().div_ceil(1_000_000);
            EpollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::MAX)
        });
        let mut events = [EpollEvent::empty(); 16];
        match self.0.wait(&mut events, timeout) {
            Ok(count) => Ok(events[..count].iter().map(happened).collect()),
            Err(Errno::EINTR) => Ok(Vec::new()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// It is readable while something has happened that nobody has heard: a set can be watched by another set.
impl AsFd for Poller {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl Interest {
    pub const READ: Interest = Interest { readable: true, writable: false, priority: false, edge: false };

    fn flags(self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, self.readable);
        flags.set(EpollFlags::EPOLLOUT, self.writable);
        flags.set(EpollFlags::EPOLLPRI, self.priority);
        flags.set(EpollFlags::EPOLLET, self.edge);
        flags
    }
}

fn happened(event: &EpollEvent) -> Happened {
    let flags = event.events();
    Happened {
        token: event.data(),
        readable: flags.contains(EpollFlags::EPOLLIN),
        writable: flags.contains(EpollFlags::EPOLLOUT),
        hangup: flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR),
    }
}

/// Signals that come as events, not as interruptions.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks every signal from now on. The first thing that a PID 1 does: none is lost, none kills it.
    pub fn block_all() -> io::Result<Signals> {
        let all = SigSet::all();
        all.thread_block()?;
        Ok(Signals(SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The next pending signal.
    pub fn next(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok()??;
        i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
