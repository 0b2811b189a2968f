//! What moves between a session's descriptors, its channels and the log: as much as can at this moment. When to call it: [`super`]'s business.

use guest::events::Poller;
use nix::errno::Errno;
use wire::log::member;
use wire::message::SessionId;

use super::{Io, Phase, Session};
use crate::stream::{Stream, Which};

impl Session {
    /// Host to process.
    pub(super) fn feed(&mut self, io: &mut Io<'_>) {
        let Some(input) = &self.input else { return };
        loop {
            let bytes = io.link.readable(input.channel);
            if bytes.is_empty() {
                break;
            }
            match nix::unistd::write(&input.fd, bytes) {
                Ok(count) => io.link.consume(input.channel, count),
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                // the process has closed it, or is gone
                Err(_) => {
                    if !self.may_rest {
                        io.link.discard(input.channel);
                    }
                    return self.end_input(io.poller);
                }
            }
        }
        // a terminal has no end of input of its own: only who types there can end it
        if io.link.is_ended(input.channel) && self.terminal.is_none() {
            self.end_input(io.poller);
        }
    }

    fn end_input(&mut self, poller: &Poller) {
        if let Some(input) = self.input.take() {
            input.close(poller);
        }
    }

    /// Process to host.
    pub(super) fn drain(&mut self, which: Which, io: &mut Io<'_>) {
        let Some(at) = self.outputs.iter().position(|output| output.which == which) else { return };
        let number = self.number();
        let output = &mut self.outputs[at];
        let room = room(self.id, self.attached, output, io);
        if room == 0 {
            return;
        }
        match nix::unistd::read(&output.fd, &mut io.buffer[..room]) {
            // a terminal ends with EIO when its last user is gone
            Ok(0) | Err(Errno::EIO) => {
                if !self.may_rest {
                    io.link.finish(output.channel);
                }
                self.outputs.remove(at).close(io.poller);
                if let Some(syslog) = &mut io.syslog {
                    syslog.end(self.id, which);
                }
            }
            Ok(count) => {
                if self.attached {
                    io.link.write(output.channel, &io.buffer[..count]);
                }
                if let (Some(member), Some(log)) = (member(self.id), &mut io.log) {
                    log.write(member, output.which.in_log(), &io.buffer[..count]);
                }
                if member(self.id).is_some()
                    && let Some(syslog) = &mut io.syslog
                {
                    syslog.write(self.id, number, which, &io.buffer[..count]);
                }
                if let Phase::Draining(drain) = &mut self.phase {
                    drain.quiet_since = io.now;
                    if output.left > 0 {
                        drain.since = io.now;
                    }
                    // a pipe gives all that is asked for, if it has it
                    let emptied = count < room && self.terminal.is_none();
                    output.left = if emptied { 0 } else { output.left.saturating_sub(count) };
                }
            }
            Err(_) => {}
        }
    }
}

/// How much of an output may be read now: as much as each of those who want it takes. A syslog server has no say.
pub(super) fn room(id: SessionId, attached: bool, output: &Stream, io: &Io<'_>) -> usize {
    let link = (attached && !output.unwanted).then(|| io.link.room(output.channel));
    let log = io.log.as_ref().filter(|_| member(id).is_some()).map(|log| log.room());
    let most = io.buffer.len().min(io.link.pace(io.now).max(SHORTEST));
    [link, log].into_iter().flatten().fold(most, usize::min)
}

/// However short frames are just now, a page is read at a time.
const SHORTEST: usize = 4096;
