//! The log of a PID 1 of ours: entries as lines on the console. It never waits for the console, and it never grows.
//!
//! ```text
//! [    1.234567] tether: warn agent: the process has ended pid=42 by="signal 9"
//!  since boot             level target: text, then fields
//! ```
//!
//! The kernel writes to the same port, line by line, with the same clock. A line is handed over by one write, and nothing in an entry can end it or look
//! like the beginning of another: control characters are escaped. While nobody has said what is wanted ([`begin`]), and while the console takes nothing,
//! entries wait; of more than `OUTBOX` bytes the oldest are dropped, and their number is told in their place. What is worth an entry: the caller's decision, by [`crate::say`].

mod line;

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Mutex, OnceLock, TryLockError};
use std::time::Duration;

use nix::libc;
pub use wire::spec::Level;

use self::line::Line;
use crate::clock;
use crate::events::{Interest, Poller};
use crate::sys::terminal;

/// Adds an entry to the log: a level, a text as for `format!`, and, behind a `;`, fields.
///
/// ```
/// let pid = 42;
/// guest::say!(Warn, "it does not obey: {}", "no answer"; pid = pid);
/// ```
#[macro_export]
macro_rules! say {
    ($level:ident, $text:literal $(, $value:expr)* $(; $($field:ident = $of:expr),+)?) => {{
        use $crate::journal::{Level, wants, write};
        if wants(Level::$level) {
            let fields: &[(&str, &dyn std::fmt::Display)] = &[$($((stringify!($field), &$of)),+)?];
            write(Level::$level, module_path!(), format_args!($text $(, $value)*), fields);
        }
    }};
}

/// The most bytes that wait.
const OUTBOX: usize = 32 * 1024;
/// The longest that a machine which powers off waits for its console.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Where the lines go: the kernel's console, which its command line names.
const CONSOLE: &str = "/dev/console";

/// One for all: what is worth an entry happens anywhere. PID 1 has one thread, so nobody ever waits for it.
static JOURNAL: Mutex<Journal> = Mutex::new(Journal::new());

/// Who says it: the program's name at the beginning of every line.
static PROGRAM: OnceLock<&str> = OnceLock::new();

fn program() -> &'static str {
    PROGRAM.get().copied().unwrap_or("tether")
}

struct Journal {
    console: Option<File>,
    /// What is written; before anybody has said it, everything waits.
    level: Option<Level>,
    lines: VecDeque<(Level, String)>,
    bytes: usize,
    /// Of a line that the console has taken the beginning of.
    rest: Vec<u8>,
    /// Lines that were there before the first one.
    dropped: u64,
}

/// Opens the console, on which `program` speaks. Without one the entries wait, and the last ones are written to standard error in the end.
pub fn open(program: &'static str) {
    // a second name would be the same
    let _first = PROGRAM.set(program);
    let options = libc::O_NONBLOCK | libc::O_NOCTTY;
    // a machine need not have one
    let console = OpenOptions::new().write(true).custom_flags(options).open(CONSOLE).ok();
    with(|journal| journal.console = console);
}

/// From now on entries of that level, and those that weigh more, are written; of those that wait, the same.
pub fn begin(level: Level) {
    with(|journal| journal.begin(level));
}

/// From now on entries wait again, until the next [`begin`].
pub fn pause() {
    with(|journal| journal.level = None);
}

/// Whether an entry of that level would be kept: to spare its making.
pub fn wants(level: Level) -> bool {
    with(|journal| journal.wants(level)).unwrap_or(true)
}

/// Adds an entry. `place` is the path of the module that it comes from.
pub fn write(level: Level, place: &str, text: fmt::Arguments<'_>, fields: &[(&str, &dyn Display)]) {
    let mut line = Line::of(clock::now(), level, place, text, fields);
    let taken = with(|journal| {
        journal.add(level, std::mem::take(&mut line));
        journal.transmit();
    });
    if taken.is_none() {
        // there is nobody to tell
        let _told = io::stderr().write_all(line.as_bytes());
    }
}

/// Hands over what the console takes. An event of [`watch`] says that it takes more.
pub fn transmit() {
    with(Journal::transmit);
}

/// Tells a poller's owner when the console takes something again.
pub fn watch(poller: &Poller, token: u64) -> io::Result<()> {
    let interest = Interest { writable: true, edge: true, ..Interest::default() };
    let watched = with(|journal| journal.console.as_ref().map(|console| poller.add(console, token, interest)));
    watched.flatten().unwrap_or(Ok(()))
}

/// The machine ends: waits, for a bounded time, until everything has left it. Where there is no console, standard error is the last chance.
pub fn end() {
    let deadline = clock::now() + LAST_WORDS;
    while with(Journal::end).is_some_and(|ended| !ended) && clock::now() < deadline {
        // nothing else is left to do, and the line does not tell when it has sent what it took
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A child of PID 1 that goes on in our own code has no part in it.
pub(crate) fn leave() {
    with(|journal| journal.console = None);
}

/// `None` if this is called out of the middle of it, which only a panic's hook can do.
fn with<T>(work: impl FnOnce(&mut Journal) -> T) -> Option<T> {
    match JOURNAL.try_lock() {
        Ok(mut journal) => Some(work(&mut journal)),
        Err(TryLockError::Poisoned(poisoned)) => Some(work(&mut poisoned.into_inner())),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Journal {
    const fn new() -> Journal {
        Journal { console: None, level: None, lines: VecDeque::new(), bytes: 0, rest: Vec::new(), dropped: 0 }
    }

    fn wants(&self, level: Level) -> bool {
        self.level.is_none_or(|wanted| level <= wanted)
    }

    fn begin(&mut self, wanted: Level) {
        self.level = Some(wanted);
        self.lines.retain(|(level, _)| *level <= wanted);
        self.bytes = self.lines.iter().map(|(_, line)| line.len()).sum();
        self.transmit();
    }

    /// True when everything has left the machine, or nothing ever will.
    fn end(&mut self) -> bool {
        self.begin(self.level.unwrap_or_default());
        if let Some(console) = &self.console {
            return self.is_sent() && terminal::unsent(console) == 0;
        }
        for (_, line) in self.lines.drain(..) {
            // there is nobody to tell
            let _told = io::stderr().write_all(line.as_bytes());
        }
        true
    }

    fn add(&mut self, level: Level, line: String) {
        self.bytes += line.len();
        self.lines.push_back((level, line));
        while self.bytes > OUTBOX {
            let Some((_, line)) = self.lines.pop_front() else { break };
            self.bytes -= line.len();
            self.dropped += 1;
        }
    }

    /// Everything is with the console.
    fn is_sent(&self) -> bool {
        self.rest.is_empty() && self.lines.is_empty() && self.dropped == 0
    }

    fn transmit(&mut self) {
        if self.level.is_none() {
            return;
        }
        while self.console.is_some() && !self.is_sent() {
            if !self.step() {
                return;
            }
        }
        // an idle machine keeps nothing
        if self.lines.is_empty() {
            self.lines = VecDeque::new();
        }
    }

    /// Hands over one line, or what is left of it. False when the console takes no more for now.
    fn step(&mut self) -> bool {
        let Some(console) = &mut self.console else { return false };
        let told = (self.rest.is_empty() && self.dropped > 0).then(|| {
            let text = format_args!("entries were dropped: the console did not take them");
            Line::of(clock::now(), Level::Warn, module_path!(), text, &[("count", &self.dropped)])
        });
        let bytes = match (&told, self.lines.front()) {
            _ if !self.rest.is_empty() => &self.rest[..],
            (Some(told), _) => told.as_bytes(),
            (None, Some((_, line))) => line.as_bytes(),
            (None, None) => return false,
        };
        let count = match console.write(bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.console = None;
                return false;
            }
        };
        if count == 0 {
            return false;
        }
        let mut line = match told {
            _ if !self.rest.is_empty() => std::mem::take(&mut self.rest),
            Some(told) => {
                self.dropped = 0;
                told.into_bytes()
            }
            None => {
                let (_, line) = self.lines.pop_front().unwrap_or_default();
                self.bytes -= line.len();
                line.into_bytes()
            }
        };
        line.drain(..count);
        self.rest = line;
        true
    }
}

#[cfg(test)]
mod tests;
