//! The output of the spec's processes, line by line, for a syslog server that may be slow, away, or come back: none of this ever holds a process up.
//!
//! Lines wait for the server in a bounded queue, of which the oldest are dropped. How many were is told to the server, in their place, once it takes something
//! again. Over UDP, what is lost on the way is not known to anybody. What a message is: [`guest::syslog`].

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use guest::events::{Happened, Interest, Poller};
use guest::syslog::{Connection, Lines, Origin, Priority};
use guest::{clock, say};
use wire::message::SessionId;
use wire::spec::{self, Spec, Transport};

use crate::stream::Which;

/// The most bytes that wait for the server.
const OUTBOX: usize = 128 * 1024;
/// What a message takes besides its bytes.
const OVERHEAD: usize = 64;
/// How long a server may take to accept a connection.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two tries: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a machine that is done waits for a server that is there to take the last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// An end is told as well.
const CHANGES: Interest = Interest { writable: true, edge: true, ..Interest::READ };

/// What is on its way to a server.
pub(crate) struct Syslog {
    to: spec::Syslog,
    origin: Origin,
    contact: Contact,
    pause: Duration,
    /// It has been said that the server is away.
    away: bool,
    streams: BTreeMap<(SessionId, u8), Partial>,
    queue: VecDeque<Vec<u8>>,
    bytes: usize,
    /// How much of the first message has been taken.
    gone: usize,
    /// So many dropped lines the first message tells of; 0 if it is a line.
    told: u64,
    /// Lines that were there before the first message.
    dropped: u64,
    /// The machine is done, and waits no longer than this.
    until: Option<Duration>,
}

enum Contact {
    /// There is no connection. One is tried at this time, if there is something to send.
    None {
        retry_at: Duration,
    },
    Begun {
        connection: Connection,
        until: Duration,
    },
    Up {
        connection: Connection,
        since: Duration,
    },
}

/// The last line of a stream, as far as it has come.
#[derive(Default)]
struct Partial {
    pid: u32,
    lines: Lines,
}

impl Syslog {
    /// For the server that the spec names, if it names one.
    pub(crate) fn new(spec: &Spec) -> Option<Syslog> {
        let to = spec.diagnostics.syslog?;
        let short: String = spec.id.chars().take(12).collect();
        let mut host = spec.hostname.clone().unwrap_or_else(|| short.clone());
        if let Some(domain) = &spec.domain {
            host.push('.');
            host.push_str(domain);
        }
        Some(Syslog {
            to,
            origin: Origin::new(&host, &short),
            contact: Contact::None { retry_at: Duration::ZERO },
            pause: FIRST_PAUSE,
            away: false,
            streams: BTreeMap::new(),
            queue: VecDeque::new(),
            bytes: 0,
            gone: 0,
            told: 0,
            dropped: 0,
            until: None,
        })
    }

    // -- lines

    /// Takes a piece of what a session's process has written.
    pub(crate) fn write(&mut self, session: SessionId, pid: u32, which: Which, bytes: &[u8]) {
        let time = clock::wall_nanos();
        let mut partial = self.streams.remove(&(session, which as u8)).unwrap_or_default();
        if partial.pid != pid {
            self.finish(which, &mut partial, time);
            partial.pid = pid;
        }
        let longest = self.origin.room();
        partial.lines.feed(bytes, longest, |line| self.add(priority(which), pid, time, line));
        self.streams.insert((session, which as u8), partial);
    }

    /// The stream has ended: so has its last line.
    pub(crate) fn end(&mut self, session: SessionId, which: Which) {
        if let Some(mut partial) = self.streams.remove(&(session, which as u8)) {
            self.finish(which, &mut partial, clock::wall_nanos());
        }
    }

    /// The machine is done: whatever waits has little time left.
    pub(crate) fn end_all(&mut self, now: Duration) {
        let time = clock::wall_nanos();
        for ((_, which), mut partial) in std::mem::take(&mut self.streams) {
            let which = if which == Which::Stderr as u8 { Which::Stderr } else { Which::Stdout };
            self.finish(which, &mut partial, time);
        }
        self.until = Some(now + LAST_WORDS);
    }

    fn finish(&mut self, which: Which, partial: &mut Partial, time: u64) {
        if let Some(line) = partial.lines.finish() {
            self.add(priority(which), partial.pid, time, &line);
        }
    }

    fn add(&mut self, priority: Priority, pid: u32, time: u64, line: &[u8]) {
        let message = self.origin.message(self.to.transport, priority, pid, time, line);
        self.bytes += message.len() + OVERHEAD;
        self.queue.push_back(message);
        while self.bytes > OUTBOX {
            // of one that is half sent the rest must follow
            let at = usize::from(self.gone > 0);
            let Some(message) = self.queue.remove(at) else { break };
            self.bytes -= message.len() + OVERHEAD;
            let told = if at == 0 { std::mem::take(&mut self.told) } else { 0 };
            self.dropped += told.max(1);
        }
    }

    // -- the server

    /// Something happened on the connection.
    pub(crate) fn handle(&mut self, happened: Happened, now: Duration) {
        let (Contact::Begun { connection, .. } | Contact::Up { connection, .. }) = &self.contact else { return };
        if let Some(error) = connection.failure() {
            return self.lose(&error, now);
        }
        if connection.is_ended() {
            return self.lose(&io::ErrorKind::ConnectionAborted.into(), now);
        }
        if happened.writable
            && let Contact::Begun { connection, .. } =
                std::mem::replace(&mut self.contact, Contact::None { retry_at: now })
        {
            self.contact = Contact::Up { connection, since: now };
        }
    }

    /// When [`Syslog::handle_time`] has something to do. With nothing to send, that is never.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match self.contact {
            Contact::None { retry_at } => (!self.is_empty()).then_some(retry_at),
            Contact::Begun { until, .. } => Some(until),
            Contact::Up { .. } => None,
        }
    }

    pub(crate) fn handle_time(&mut self, now: Duration, poller: &Poller, token: u64) {
        match self.contact {
            Contact::None { retry_at } if retry_at <= now && !self.is_empty() => {
                let begun = Connection::begin(self.to)
                    .and_then(|connection| poller.add(&connection, token, CHANGES).map(|()| connection));
                match begun {
                    Ok(connection) => self.contact = Contact::Begun { connection, until: now + ANSWER },
                    Err(error) => self.lose(&error, now),
                }
            }
            Contact::Begun { until, .. } if until <= now => self.lose(&io::ErrorKind::TimedOut.into(), now),
            _ => {}
        }
    }

    /// Sends what the connection takes. An event tells when it takes more.
    pub(crate) fn transmit(&mut self, now: Duration) {
        while let Contact::Up { connection, .. } = &self.contact {
            if self.gone == 0 && self.dropped > 0 && self.told == 0 {
                let text = format!("tether: {} lines were dropped: the server did not take them", self.dropped);
                let time = clock::wall_nanos();
                let notice = self.origin.message(self.to.transport, Priority::Warning, 0, time, text.as_bytes());
                self.bytes += notice.len() + OVERHEAD;
                self.told = std::mem::take(&mut self.dropped);
                self.queue.push_front(notice);
            }
            let Some(message) = self.queue.front() else {
                // an idle machine keeps nothing
                self.queue = VecDeque::new();
                return;
            };
            match connection.send(&message[self.gone..]) {
                Ok(0) => return,
                Ok(count) => self.gone += count,
                Err(error) => return self.lose(&error, now),
            }
            if self.gone == message.len() {
                self.bytes -= message.len() + OVERHEAD;
                self.queue.pop_front();
                (self.gone, self.told) = (0, 0);
                self.is_back();
            }
        }
    }

    /// Nothing is left to do, or to wait for.
    pub(crate) fn is_done(&self, now: Duration) -> bool {
        match &self.contact {
            _ if self.until.is_some_and(|until| until <= now) => true,
            // one that has not been seen to be away may be there
            Contact::None { .. } => self.is_empty() || self.away,
            Contact::Begun { .. } => self.is_empty(),
            Contact::Up { connection, .. } => self.is_empty() && connection.is_flushed(),
        }
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.dropped == 0
    }

    /// The connection is over. A message of which a part has left begins again: a server takes no half of one.
    fn lose(&mut self, error: &io::Error, now: Duration) {
        if self.to.transport == Transport::Udp && error.kind() == io::ErrorKind::ConnectionRefused {
            // of a datagram that has left: there was nobody to take it
            self.dropped += 1;
        }
        if !self.away {
            say!(Warn, "the syslog server is away: {error}"; server = self.to.server);
            self.away = true;
        }
        if let Contact::Up { since, .. } = self.contact
            && now >= since + LONGEST_PAUSE
        {
            self.pause = FIRST_PAUSE;
        }
        self.contact = Contact::None { retry_at: now + self.pause };
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
        self.gone = 0;
    }

    fn is_back(&mut self) {
        if self.away {
            say!(Info, "the syslog server takes lines again"; server = self.to.server);
            self.away = false;
        }
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        let lost = self.dropped + self.told + self.queue.len() as u64 - u64::from(self.told > 0);
        if lost > 0 {
            say!(Warn, "lines have not reached the syslog server"; count = lost, server = self.to.server);
        }
    }
}

fn priority(which: Which) -> Priority {
    match which {
        Which::Stderr => Priority::Error,
        Which::Stdin | Which::Stdout => Priority::Output,
    }
}

#[cfg(test)]
mod tests;
