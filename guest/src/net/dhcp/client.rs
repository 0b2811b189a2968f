//! Who says what when, from the first question to the release: RFC 2131, 4.4, as a state machine. Time, randomness and bytes are arguments.
//!
//! ```text
//!             OFFER            ACK          T1            T2
//! Selecting --------> Requesting --> Bound ----> Renewing ----> Rebinding
//!     ^                  | NAK         ^            | ACK | NAK    | ACK | NAK, end
//!     +------------------+             +------------+-----|--------+     |
//!     +---------------------------------------------------+--------------+
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use super::lease::{Lease, Times};
use super::message::{ACK, Answer, DISCOVER, NAK, OFFER, Question, RELEASE, REQUEST, TEXT};

/// How often an offer is asked for in vain before another is looked for.
const REQUESTS: u32 = 4;
/// The shortest time between two tries to keep a lease.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of a client's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// There is one, or another one than before.
    Bound(Lease),
    /// Its time is over, or its server took it back. Another is asked for.
    Lost,
}

/// A message to send. Without a server it goes to everyone, from no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transmit {
    pub(super) message: Vec<u8>,
    /// From which address to which server.
    pub(super) between: Option<(Ipv4Addr, Ipv4Addr)>,
}

/// A client of one card.
#[derive(Debug)]
pub(super) struct Client {
    mac: [u8; 6],
    host_name: String,
    state: State,
    xid: u32,
    began: Duration,
    refusals: u32,
    heard: String,
    out: Option<Transmit>,
    news: Option<News>,
}

/// Each holds what exists in it, and when it does something by itself.
#[derive(Debug)]
enum State {
    Selecting { tries: u32, next: Duration },
    Requesting { address: Ipv4Addr, server: Ipv4Addr, tries: u32, asked: Duration, next: Duration },
    Bound { lease: Lease, times: Times, since: Duration },
    Renewing { lease: Lease, times: Times, since: Duration, asked: Duration, next: Duration },
    Rebinding { lease: Lease, times: Times, since: Duration, asked: Duration, next: Duration },
    Released,
}

impl Client {
    /// One that asks at once.
    pub(super) fn new(mac: [u8; 6], host_name: &str, now: Duration, dice: u32) -> Client {
        let mut client = Client {
            mac,
            host_name: host_name.to_owned(),
            state: State::Released,
            xid: dice,
            began: now,
            refusals: 0,
            heard: "nobody has answered".into(),
            out: None,
            news: None,
        };
        client.select(now, dice);
        client
    }

    /// When it does something by itself.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Selecting { next, .. } | State::Requesting { next, .. } => Some(*next),
            State::Bound { times, since, .. } => Some(*since + times.renew),
            State::Renewing { next, .. } | State::Rebinding { next, .. } => Some(*next),
            State::Released => None,
        }
    }

    /// What there is to send.
    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.take()
    }

    /// What has become of the lease.
    pub(super) fn poll_news(&mut self) -> Option<News> {
        self.news.take()
    }

    /// What it has heard last, for a person who asks why there is no address.
    pub(super) fn heard(&self) -> &str {
        &self.heard
    }

    /// Does what is due, one thing at a time.
    pub(super) fn handle_time(&mut self, now: Duration, dice: u32) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match std::mem::replace(&mut self.state, State::Released) {
            State::Selecting { tries, .. } => {
                self.xid = dice;
                self.say(DISCOVER, now, None, None, Ipv4Addr::UNSPECIFIED);
                self.state = State::Selecting { tries: tries + 1, next: now + wait(tries, dice) };
            }
            State::Requesting { tries: REQUESTS.., .. } => self.select(now, dice),
            State::Requesting { address, server, tries, .. } => self.request(address, server, tries, now, dice),
            State::Bound { lease, times, since } if now < since + times.rebind => {
                self.xid = dice;
                self.renew(lease, times, since, now);
            }
            State::Renewing { lease, times, since, .. } if now < since + times.rebind => {
                self.renew(lease, times, since, now);
            }
            State::Bound { lease, times, since }
            | State::Renewing { lease, times, since, .. }
            | State::Rebinding { lease, times, since, .. }
                if now < since + times.end =>
            {
                self.rebind(lease, times, since, now, dice);
            }
            State::Bound { .. } | State::Renewing { .. } | State::Rebinding { .. } => {
                self.heard = "the address's time was over, and nobody gave it more".into();
                self.lose(now, dice);
            }
            State::Released => {}
        }
    }

    /// Takes a message; what is none to this client changes nothing. True if it was an answer that counted.
    pub(super) fn handle_message(&mut self, now: Duration, dice: u32, bytes: &[u8]) -> bool {
        let Some(answer) = Answer::parse(bytes, self.mac).filter(|answer| answer.xid == self.xid) else { return false };
        let server = answer.address(super::message::SERVER);
        match (&self.state, answer.kind) {
            (State::Selecting { tries: 1.., .. }, OFFER) => {
                let Some(lease) = self.judge(&answer) else { return false };
                self.heard = format!("{} offered {} and has not confirmed it", lease.server, answer.address);
                self.request(answer.address, lease.server, 0, now, dice);
            }
            (State::Requesting { address: offered, server: chosen, asked, .. }, ACK)
                if server == Some(*chosen) && answer.address == *offered =>
            {
                let asked = *asked;
                return self.bind(&answer, asked, None);
            }
            (State::Renewing { lease, asked, .. } | State::Rebinding { lease, asked, .. }, ACK)
                if address(lease) == answer.address =>
            {
                let (asked, before) = (*asked, lease.clone());
                return self.bind(&answer, asked, Some(before));
            }
            (State::Requesting { server: chosen, .. }, NAK) if server == Some(*chosen) => {
                self.refused(&answer);
                // the first at once: the server has just changed its mind; a server that goes on so is asked ever less
                self.refusals += 1;
                self.select(now, dice);
                if self.refusals > 1
                    && let State::Selecting { next, .. } = &mut self.state
                {
                    *next = now + wait(self.refusals - 2, dice);
                }
            }
            (State::Renewing { .. } | State::Rebinding { .. }, NAK) => {
                self.refused(&answer);
                self.lose(now, dice);
            }
            _ => return false,
        }
        true
    }

    /// The cable was away, and may lead elsewhere now: an address is asked for at once, and one that there is goes before everyone who may know better (RFC 2131,
    /// section 3.7).
    pub(super) fn ask_again(&mut self, now: Duration, dice: u32) {
        match std::mem::replace(&mut self.state, State::Released) {
            State::Selecting { .. } | State::Requesting { .. } => self.select(now, dice),
            State::Bound { lease, times, since }
            | State::Renewing { lease, times, since, .. }
            | State::Rebinding { lease, times, since, .. } => self.rebind(lease, times, since, now, dice),
            State::Released => {}
        }
    }

    /// Gives the lease back; nothing happens any more.
    pub(super) fn release(&mut self, now: Duration, dice: u32) {
        let (State::Bound { lease, .. } | State::Renewing { lease, .. } | State::Rebinding { lease, .. }) =
            std::mem::replace(&mut self.state, State::Released)
        else {
            return;
        };
        self.xid = dice;
        self.say(RELEASE, now, None, Some(lease.server), address(&lease));
    }

    // -- the steps

    fn select(&mut self, now: Duration, dice: u32) {
        self.began = now;
        self.xid = dice;
        self.state = State::Selecting { tries: 0, next: now };
    }

    fn request(&mut self, address: Ipv4Addr, server: Ipv4Addr, tries: u32, now: Duration, dice: u32) {
        self.say(REQUEST, now, Some(address), Some(server), Ipv4Addr::UNSPECIFIED);
        self.state = State::Requesting { address, server, tries: tries + 1, asked: now, next: now + wait(tries, dice) };
    }

    fn bind(&mut self, answer: &Answer, asked: Duration, before: Option<Lease>) -> bool {
        let Some(lease) = self.judge(answer) else { return false };
        self.refusals = 0;
        self.heard = format!("{} gave {}", lease.server, answer.address);
        if before.as_ref() != Some(&lease) {
            self.news = Some(News::Bound(lease.clone()));
        }
        self.state = State::Bound { lease, times: Times::read(answer), since: asked };
        true
    }

    fn renew(&mut self, lease: Lease, times: Times, since: Duration, now: Duration) {
        self.say(REQUEST, now, None, None, address(&lease));
        if let Some(out) = &mut self.out {
            out.between = Some((address(&lease), lease.server));
        }
        let rebind = since + times.rebind;
        self.state = State::Renewing { lease, times, since, asked: now, next: half_way(now, rebind) };
    }

    fn rebind(&mut self, lease: Lease, times: Times, since: Duration, now: Duration, dice: u32) {
        self.xid = dice;
        let end = since + times.end;
        self.say(REQUEST, now, None, None, address(&lease));
        self.state = State::Rebinding { lease, times, since, asked: now, next: half_way(now, end) };
    }

    fn lose(&mut self, now: Duration, dice: u32) {
        self.news = Some(News::Lost);
        self.select(now, dice);
    }

    fn judge(&mut self, answer: &Answer) -> Option<Lease> {
        let from = answer.address(super::message::SERVER).unwrap_or(Ipv4Addr::UNSPECIFIED);
        Lease::read(answer)
            .inspect_err(|lie| self.heard = format!("an answer of {from} cannot be used: it has {lie}"))
            .ok()
    }

    fn refused(&mut self, answer: &Answer) {
        let text = answer.options.get(&TEXT).map(|text| String::from_utf8_lossy(text).into_owned());
        let text: String = text.unwrap_or_default().chars().filter(|char| !char.is_control()).take(100).collect();
        let from = answer.address(super::message::SERVER).unwrap_or(Ipv4Addr::UNSPECIFIED);
        self.heard = format!("{from} refused it{}{text}", if text.is_empty() { "" } else { ": " });
    }

    fn say(&mut self, kind: u8, now: Duration, requested: Option<Ipv4Addr>, server: Option<Ipv4Addr>, own: Ipv4Addr) {
        let seconds = u16::try_from(now.saturating_sub(self.began).as_secs()).unwrap_or(u16::MAX);
        let question = Question {
            kind,
            xid: self.xid,
            seconds,
            mac: self.mac,
            own,
            requested,
            server,
            host_name: &self.host_name,
        };
        let between = server.filter(|_| kind == RELEASE).map(|server| (own, server));
        self.out = Some(Transmit { message: question.encode(), between });
    }
}

fn address(lease: &Lease) -> Ipv4Addr {
    match lease.own.address {
        std::net::IpAddr::V4(address) => address,
        std::net::IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

/// RFC 2131, 4.1: 4 s, doubled up to 64 s, each up to a second more or less, so that many machines that start together do not ask together.
fn wait(tries: u32, dice: u32) -> Duration {
    Duration::from_millis(u64::from((4000u32 << tries.min(4)) + dice % 2001 - 1000))
}

/// RFC 2131, 4.4.5: again after half of what is left, but not within a minute.
fn half_way(now: Duration, end: Duration) -> Duration {
    (now + (end.saturating_sub(now) / 2).max(PATIENCE)).min(end)
}

#[cfg(test)]
mod tests;
