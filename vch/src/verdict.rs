//! What the end of a conversation means: an exit code, and a line for a person when it is not the container's own doing.

use std::io::Write;
use std::path::PathBuf;

use wire::status::{Ending, FailureKind};

use crate::console;
use crate::guest_link::{Outcome, Report};
use crate::state::{self, Container};

/// How a container ended, for the user.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    pub code: u8,
    pub ending: Option<Ending>,
    /// The kernel killed one of its processes for want of memory.
    pub oom: bool,
    pub error: Option<String>,
}

impl Verdict {
    /// vch could not run it.
    pub fn error(error: String) -> Verdict {
        Verdict { code: 125, ending: None, oom: false, error: Some(error) }
    }

    pub fn of(report: Report, container: &Container, start_timeout: u64) -> Verdict {
        let kept = keep_kernel_log(&report, container);
        let mut verdict = Verdict::from_report(report, start_timeout, || last_words(container));
        if let (Some(error), Some(path)) = (&mut verdict.error, kept) {
            error.push_str(&format!(" (its kernel's messages: {})", path.display()));
        }
        if verdict.code != 0 && state::is_full(container.dir()) {
            let full = format!(
                "no space left on the file system of {}: the container's writes failed",
                container.dir().display()
            );
            verdict.error = Some(verdict.error.map_or(full.clone(), |error| format!("{error}; {full}")));
        }
        verdict
    }

    /// Adds a way out to what went wrong.
    pub fn with_hint(self, hint: &str) -> Verdict {
        Verdict { error: self.error.map(|error| format!("{error} ({hint})")), ..self }
    }

    fn from_report(report: Report, start_timeout: u64, last_words: impl Fn() -> String) -> Verdict {
        match report.outcome {
            Outcome::Ended(exit) => {
                let lost = (!report.output_is_complete).then(|| "the end of its output was lost".to_owned());
                let unwritten = report.write_error.map(|error| format!("cannot write its output: {error}"));
                let error = unwritten.or(lost);
                let code = if error.is_some() { 125 } else { exit.ending.code() };
                Verdict { code, ending: Some(exit.ending), oom: exit.oom, error }
            }
            Outcome::Failed(failure) => {
                Verdict { code: failure.kind.code(), ending: None, oom: false, error: Some(failure.reason) }
            }
            Outcome::NotReady => Verdict::error(format!(
                "the virtual machine was not ready within {start_timeout} s (--start-timeout){}",
                last_words()
            )),
            Outcome::GivenUp => Verdict {
                code: 137,
                ending: None,
                oom: false,
                error: Some("told to end three times: the virtual machine was killed".into()),
            },
            Outcome::Lost => match report.complaint {
                Some(complaint) => Verdict::error(format!("the virtual machine was lost: {complaint}")),
                None => Verdict::error(format!("the virtual machine ended before its process did{}", last_words())),
            },
            Outcome::Closed(why) => Verdict::error(format!("cannot talk with the guest: {why}")),
        }
    }
}

/// Where the kernel's messages are, if they may say why the machine could not do what it was asked: not when the image lacks a program.
fn keep_kernel_log(report: &Report, container: &Container) -> Option<PathBuf> {
    let text = report.kernel_log.as_ref().filter(|_| !container.is_transient())?;
    let path = container.kernel_log();
    if let Err(error) = container.create_file(&path, |file| file.write_all(text.as_bytes())) {
        eprintln!("vch: {error:#}");
        return None;
    }
    let Outcome::Failed(failure) = &report.outcome else { return None };
    matches!(failure.kind, FailureKind::Disk | FailureKind::Machine).then_some(path)
}

/// The console's telling line, and where to find the rest if it stays.
fn last_words(container: &Container) -> String {
    let line = match console::telling_line(&container.console()) {
        Some(line) => format!(": its console says: {line}"),
        None => ": its console says nothing".into(),
    };
    match container.is_transient() {
        true => line,
        false => format!("{line} ({})", container.console().display()),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use wire::status::{Exit, Failure};

    use super::*;

    fn report(outcome: Outcome) -> Report {
        Report {
            outcome,
            ready: None,
            pipe_is_up: false,
            output_is_complete: true,
            write_error: None,
            kernel_log: None,
            complaint: None,
        }
    }

    fn ended(ending: Ending) -> Outcome {
        Outcome::Ended(Exit { ending, started_us: 1, ended_us: 2, oom: false })
    }

    #[test]
    fn codes_are_dockers() {
        let check = |report: Report, code: u8, error: Option<&str>| {
            let verdict = Verdict::from_report(report, 60, || ": its console says: boom".into());
            assert_eq!((verdict.code, verdict.error.as_deref()), (code, error));
        };
        let failed = |kind| report(Outcome::Failed(Failure { kind, reason: "no x".into() }));
        check(report(ended(Ending::Exited { code: 7 })), 7, None);
        check(report(ended(Ending::Signaled { signal: 15, core: false })), 143, None);
        check(failed(FailureKind::ProgramNotFound), 127, Some("no x"));
        check(failed(FailureKind::NotExecutable), 126, Some("no x"));
        check(failed(FailureKind::Disk), 125, Some("no x"));
        let late = "the virtual machine was not ready within 60 s (--start-timeout): its console says: boom";
        check(report(Outcome::NotReady), 125, Some(late));
        check(report(Outcome::GivenUp), 137, Some("told to end three times: the virtual machine was killed"));
        let lost = "the virtual machine ended before its process did: its console says: boom";
        check(report(Outcome::Lost), 125, Some(lost));
        let complaint = Report { complaint: Some("qemu: out of memory".into()), ..report(Outcome::Lost) };
        check(complaint, 125, Some("the virtual machine was lost: qemu: out of memory"));
        let full = Report {
            write_error: Some(io::Error::other("No space left on device")),
            ..report(ended(Ending::Exited { code: 0 }))
        };
        check(full, 125, Some("cannot write its output: No space left on device"));
        let short = Report { output_is_complete: false, ..report(ended(Ending::Exited { code: 0 })) };
        check(short, 125, Some("the end of its output was lost"));
    }
}
