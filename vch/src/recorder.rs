//! The recorder: the one client of a main session that keeps its output. It appends what comes to the journal, and lets the guest forget only what lasts there.
//!
//! ```text
//! guest ══> hub ── next ──> append ──> the journal's readers, at once
//!                 taken <── sync, on another thread, while more is appended
//! ```
//!
//! So whatever ends between two of these steps, the next recorder goes on at the journal's last byte, and the guest still has what follows it. When the disk takes
//! nothing, it waits, and the guest's process with it, in the end.
//!
//! It decides when it is time to sync, and what to do when something goes wrong. It shows nothing to anybody: readers go to [`crate::journal`].

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use wire::message::MAIN;

use crate::hub::{AttachOptions, Attachment, Hub, HubError, Offsets, Output, Stream};
use crate::journal::{Journal, JournalError};
use crate::serve::say;
use crate::timestamp::now_ns;

/// Records one boot of a guest, until its process has ended or the hub is over. The journal is finished then.
pub(crate) async fn record(hub: Hub, journal: Journal, name: String) {
    let turn = journal.resume();
    let mut status = hub.watch();
    let proved = status.wait_for(|status| status.boot.is_some() || status.main.is_over()).await;
    let boot = proved.ok().and_then(|status| status.boot);
    if let Some(boot) = boot {
        Recorder { hub, journal: journal.clone(), name, boot, has_trouble: false }.run().await;
    }
    journal.finish_turn(turn);
}

struct Recorder {
    hub: Hub,
    journal: Journal,
    name: String,
    boot: [u8; 16],
    /// It was said that the disk takes nothing.
    has_trouble: bool,
}

/// Why an attachment brings nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// The process has ended, and all of it is here.
    Ended,
    /// Another one may bring more.
    Again,
    /// The hub, or the journal, is gone.
    Over,
}

impl Recorder {
    async fn run(&mut self) {
        let mut attachment = None;
        loop {
            let Some(mut next) = self.attach().await else { return };
            // not before: in between, the guest would hear that nobody wants its output
            drop(attachment.take());
            let last = match self.begin(next.offsets).await {
                Ok(()) => self.take(&mut next).await,
                Err(Gone) => Last::Over,
            };
            if last != Last::Again {
                return;
            }
            attachment = Some(next);
        }
    }

    /// Goes on where the journal ends; none if there is nobody to attach to.
    async fn attach(&self) -> Option<Attachment> {
        let mut from = self.journal.offsets(self.boot).unwrap_or_default();
        loop {
            let options = AttachOptions { stdin: false, stdout: true, stderr: true, from: Some(from) };
            match self.hub.attach(MAIN, options).await {
                Ok(attachment) => return Some(attachment),
                Err(HubError::Offset { stream, asked, first, .. }) => {
                    let (of, name) = match stream {
                        Stream::Stdout => (&mut from.stdout, "standard output"),
                        Stream::Stderr => (&mut from.stderr, "standard error"),
                    };
                    *of = first;
                    say(&match asked < first {
                        true => format!(
                            "{}: bytes {asked} to {first} of its {name} are not in its log: another client has taken them",
                            self.name
                        ),
                        false => format!(
                            "{}: its {name} goes on at byte {first}, and its log has {asked} of it: the machine was taken back to an earlier state",
                            self.name
                        ),
                    });
                }
                Err(_) => return None,
            }
        }
    }

    /// The journal is ready for what comes from these offsets on.
    async fn begin(&mut self, at: Offsets) -> Result<(), Gone> {
        loop {
            match self.journal.begin(self.boot, Offsets { stdin: 0, ..at }).await {
                Ok(()) => {
                    self.relieve();
                    return Ok(());
                }
                Err(error) => self.wait_out(error).await?,
            }
        }
    }

    /// Records what comes. All of it is synced and taken when this returns, except for what the next attachment brings again.
    async fn take(&mut self, attachment: &mut Attachment) -> Last {
        let mut last = None;
        let mut has_heard = false;
        // bytes that no sync has been asked for, and since when
        let (mut waiting, mut since) = (0, Instant::now());
        let mut sync: Option<Pin<Box<dyn Future<Output = _> + Send>>> = None;
        loop {
            if sync.is_none() && waiting > 0 && (waiting >= BATCH || since + DELAY <= Instant::now() || last.is_some())
            {
                waiting = 0;
                let journal = self.journal.clone();
                sync = Some(Box::pin(async move { journal.sync().await }));
            }
            let is_syncing = sync.is_some();
            match last {
                Some(last) if !is_syncing => return last,
                _ => {}
            }
            // a segment that is long enough rests for a moment, so that the next one can begin
            let listens = last.is_none() && !(is_syncing && self.journal.is_long());
            let output = tokio::select! {
                Some(result) = async { Some(sync.as_mut()?.await) }, if is_syncing => {
                    sync = None;
                    match result {
                        Ok(at) => {
                            attachment.taken(Stream::Stdout, at.stdout);
                            attachment.taken(Stream::Stderr, at.stderr);
                        }
                        Err(error) => {
                            return match self.wait_out(error).await {
                                Ok(()) => Last::Again,
                                Err(Gone) => Last::Over,
                            };
                        }
                    }
                    continue;
                }
                () = sleep_until(since + DELAY), if !is_syncing && waiting > 0 => continue,
                output = attachment.next(), if listens => output,
            };
            let (stream, bytes) = match output {
                Some(Output::Stdout { bytes, .. }) => (Stream::Stdout, bytes),
                Some(Output::Stderr { bytes, .. }) => (Stream::Stderr, bytes),
                Some(Output::StdinTaken(_)) => continue,
                Some(Output::Ended(_)) => {
                    last = Some(Last::Ended);
                    continue;
                }
                Some(Output::Detached(reason)) => {
                    last = Some(self.detached(&reason, has_heard));
                    continue;
                }
                None => {
                    last = Some(Last::Over);
                    continue;
                }
            };
            has_heard = true;
            if waiting == 0 {
                since = Instant::now();
            }
            waiting += bytes.len();
            if self.append(stream, &bytes).await.is_err() {
                return Last::Over;
            }
        }
    }

    /// It was sent away, or the guest is gone.
    fn detached(&self, reason: &str, has_heard: bool) -> Last {
        let is_over = self.hub.watch().borrow().main.is_over();
        // one that was too slow finds the rest when it comes again
        match is_over && !has_heard {
            true => Last::Over,
            false => {
                if !is_over {
                    say(&format!("{}: its output was not recorded for a moment: {reason}", self.name));
                }
                Last::Again
            }
        }
    }

    /// Appends it, however long that takes.
    async fn append(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Gone> {
        let time_ns = now_ns();
        loop {
            match self.journal.append(stream, time_ns, bytes) {
                Ok(()) => {
                    self.relieve();
                    return Ok(());
                }
                Err(error) => self.wait_out(error).await?,
            }
        }
    }

    /// Says once what is wrong with the disk, and waits a little for it to get better.
    async fn wait_out(&mut self, error: JournalError) -> Result<(), Gone> {
        if matches!(error, JournalError::Removed) {
            return Err(Gone);
        }
        if !std::mem::replace(&mut self.has_trouble, true) {
            say(&format!("{}: its output waits: {error}", self.name));
        }
        sleep(AGAIN).await;
        Ok(())
    }

    fn relieve(&mut self) {
        if std::mem::take(&mut self.has_trouble) {
            say(&format!("{}: its output is recorded again", self.name));
        }
    }
}

/// The journal was removed: nothing has to be kept.
struct Gone;

/// So much is synced at once, if more comes. A quarter of a fast link's window: the guest goes on while it is written.
const BATCH: usize = 256 * 1024;
/// How long a few bytes wait for others before they are synced: a disk is not to be kept busy by a process that prints dots.
const DELAY: Duration = Duration::from_millis(50);
/// From one try to write to a disk that takes nothing to the next.
const AGAIN: Duration = Duration::from_secs(1);
