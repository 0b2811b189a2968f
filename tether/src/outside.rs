//! What bytes go through on their way out and in: the link's line, the log, a server of logs. Each takes what it takes, and holds none of the others up.

use guest::events::Poller;
use guest::log::Log;
use guest::{clock, journal, say};

use crate::line::Line;
use crate::session::Io;
use crate::syslog::Syslog;

/// What bytes of sessions go through on their way out and in.
pub(crate) struct Outside {
    pub(crate) line: Line,
    pub(crate) poller: Poller,
    pub(crate) log: Option<Log>,
    /// None where none is asked for.
    pub(crate) syslog: Option<Syslog>,
    pub(crate) buffer: Box<[u8]>,
}

impl Outside {
    pub(crate) fn io(&mut self) -> Io<'_> {
        let Outside { line, poller, log, syslog, buffer } = self;
        Io { link: &mut line.link, poller, log: log.as_mut(), syslog: syslog.as_mut(), buffer, now: clock::now() }
    }

    /// Sends what the devices take, for a while; true if the link has more that could go at once.
    pub(crate) fn transmit(&mut self) -> bool {
        journal::transmit();
        if let Some(syslog) = &mut self.syslog {
            syslog.transmit(clock::now());
        }
        let more = self.line.transmit();
        let Some(log) = &mut self.log else { return more };
        if let Err(error) = log.transmit() {
            say!(Error, "the log's device is gone, and nothing more is logged: {error}");
            // an error means that it is not watched
            let _unwatched = self.poller.remove(&*log);
            self.log = None;
        }
        more
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.line.link.is_flushed()
            && self.log.as_ref().is_none_or(Log::is_flushed)
            && self.syslog.as_ref().is_none_or(|syslog| syslog.is_done(clock::now()))
    }
}
