//! What is done for vCenter: an orderly stop, a clock that is right again, and processes that are started, listed and ended. Files are [`super::files`]'.
//!
//! A program that vCenter starts is a session like an exec of the host's, whose output nobody takes. How it ended can be asked for five minutes, as vSphere's API
//! promises. Only the container's processes can be ended.

use std::path::Path;
use std::time::Duration;

use guest::power::Ending;
use guest::sys::process;
use guest::toolbox::tools::Served;
use guest::toolbox::{Disk, Facts, Operation, Outcome, Power, Process, VixError};
use guest::{cgroup, clock, processes, say};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;
use wire::message::{Exec, MAIN, Reply, SessionId, SessionState, Work};
use wire::spec::SIGTERM;
use wire::status::FailureKind;
use wire::vitals::ProcessInfo;

use super::files::{self, Files};
use crate::agent::Agent;
use crate::session::SIGKILL;

/// The sessions of vCenter's programs are numbered downwards from here: hosts number theirs upwards, from 1 or from the highest that they find.
const FIRST: u32 = (1 << 27) - 1;
/// The most programs that are remembered, ended ones included.
const MOST_STARTED: usize = 32;
/// How long it can be asked how a program ended: vSphere's API, `GuestProcessInfo`.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// The most processes that are given time to end.
const MOST_DOOMED: usize = 32;
/// How much that is: vSphere's API, `TerminateProcessInGuest`.
const GRACE: Duration = Duration::from_secs(5);

/// What was begun for vCenter and is not over.
#[derive(Default)]
pub(crate) struct Operations {
    /// The oldest first.
    started: Vec<Started>,
    doomed: Vec<Doomed>,
    /// How many programs there have been.
    count: u32,
    files: Files,
}

struct Started {
    session: SessionId,
    pid: u32,
    command: Vec<String>,
}

/// A process that was asked to end.
struct Doomed {
    pid: u32,
    /// What tells it from a later one of the same number.
    started_us: u64,
    kill_at: Duration,
}

impl Operations {
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.doomed.iter().map(|doomed| doomed.kill_at).min()
    }
}

impl Served for Agent {
    fn facts(&self) -> Facts {
        let system = nix::sys::utsname::uname();
        let release = system.map(|system| system.release().to_string_lossy().into_owned());
        Facts {
            host_name: self.network.host_name(),
            release: release.unwrap_or_default(),
            uptime: clock::now(),
            networks: self.network.status().into_values().collect(),
            // of the container's root: what is mounted in it may be a server's, and let us wait
            disk: statvfs("/").ok().map(|room| {
                let bytes = |blocks: u64| blocks.saturating_mul(room.fragment_size());
                Disk { free: bytes(room.blocks_available()), total: bytes(room.blocks()) }
            }),
        }
    }

    fn changes(&self) -> u64 {
        self.network.changes()
    }

    fn power(&mut self, power: Power) {
        say!(Info, "vCenter says: {power:?}");
        match power {
            Power::Halt => self.stop(),
            Power::Reboot => {
                self.ending = Ending::Reboot;
                self.stop();
            }
            Power::On | Power::Suspend => {}
            Power::Resume => {
                if let Some(Err(error)) = self.hardware.set_clock() {
                    say!(Warn, "the clock may be behind after the suspension: {error}");
                }
                // switches have forgotten them, or know them at another port
                self.network.announce();
            }
        }
    }

    fn operate(&mut self, operation: Operation) -> Outcome {
        let number = |pid: u32| pid.to_string().into_bytes();
        match operation {
            Operation::Start(exec) => self.start_program(exec).map(number),
            Operation::Signal(signal) => {
                let pid = self.sessions.main().pid().ok_or(VixError::NoSuchProcess)?;
                self.send(MAIN, signal).map_err(refused)?;
                Ok(number(pid.as_raw().cast_unsigned()))
            }
            Operation::Reload => match self.reload(None, "") {
                Some(Err(reason)) => Err(refused(reason)),
                Some(Ok(())) | None => Ok(number(1)),
            },
            Operation::List(pids) => Ok(guest::toolbox::list(&self.list_processes(&pids))),
            Operation::Terminate(pid) => self.terminate(pid).map(|()| Vec::new()),
            Operation::Download(path) => files::download(Path::new("/"), &path),
            Operation::Upload { path, overwrite } => files::upload(Path::new("/"), &path, overwrite),
            Operation::Transfer(packet) => Ok(self.operations.files.answer(Path::new("/"), &packet, clock::now())),
        }
    }
}

impl Agent {
    fn start_program(&mut self, exec: Exec) -> Result<u32, VixError> {
        self.forget_programs(MOST_STARTED - 1);
        if self.operations.started.len() >= MOST_STARTED {
            return Err(refused(format!("{MOST_STARTED} programs of its run already")));
        }
        let session = SessionId(FIRST - self.operations.count % FIRST);
        self.operations.count += 1;
        let command = exec.argv.clone();
        match self.create(session, Work::Exec(exec)) {
            Ok(Reply::Started { pid }) => {
                say!(Info, "vCenter starts a program"; number = session.0, pid = pid);
                self.operations.started.push(Started { session, pid, command });
                Ok(pid)
            }
            Ok(Reply::Failed(failure)) => {
                let kind = failure.kind;
                let error = refused(failure.reason);
                Err(match kind {
                    FailureKind::ProgramNotFound => VixError::FileNotFound,
                    FailureKind::NotExecutable => VixError::AccessDenied,
                    _ => error,
                })
            }
            Ok(_) => Err(VixError::Failed),
            Err(reason) => Err(refused(reason)),
        }
    }

    /// Forgets programs that ended long ago; and the oldest of the ended ones, where more than so many are remembered.
    fn forget_programs(&mut self, most: usize) {
        let now = clock::now();
        let mut surplus = self.operations.started.len().saturating_sub(most);
        let Agent { operations, sessions, outside, .. } = self;
        operations.started.retain(|program| {
            let Some(session) = sessions.get(program.session) else { return false };
            let SessionState::Ended(exit) = session.info().state else { return true };
            let is_old = Duration::from_micros(exit.ended_us) + REMEMBERED <= now;
            if !is_old && surplus == 0 {
                return true;
            }
            surplus = surplus.saturating_sub(1);
            // an error means that the host was quicker
            let _forgotten = sessions.forget(program.session, &mut outside.line.link);
            false
        });
    }

    /// All processes, or those of these numbers; the ended ones first, which have numbers that others may have by now.
    fn list_processes(&mut self, pids: &[u64]) -> Vec<Process> {
        self.forget_programs(MOST_STARTED);
        let running = processes::list();
        // when the machine was born, in microseconds since 1970, as its clock has it now
        let born = (clock::wall_nanos() / 1000).saturating_sub(clock::micros(clock::now()));
        let seconds = |us: u64| (born + us) / 1_000_000;
        let ended = self.operations.started.iter().filter_map(|program| {
            let Started { session, pid, command } = program;
            let (started, exit) = match self.sessions.get(*session)?.info().state {
                SessionState::Ended(exit) => (exit.started_us, Some((exit.ending.code(), seconds(exit.ended_us)))),
                // its last words are being read
                SessionState::Running { started_us, .. } if running.iter().all(|process| process.pid != *pid) => {
                    (started_us, None)
                }
                _ => return None,
            };
            // as whom it ran is not remembered
            let user = String::new();
            Some(Process { pid: *pid, command: command.clone(), user, started: seconds(started), exit })
        });
        let running = running.iter().map(|process| {
            let ProcessInfo { pid, uid, started_us, command, .. } = process;
            let started = seconds(*started_us);
            Process { pid: *pid, command: command.clone(), user: uid.to_string(), started, exit: None }
        });
        let is_wanted = |process: &Process| pids.is_empty() || pids.contains(&process.pid.into());
        ended.chain(running).filter(is_wanted).collect()
    }

    fn terminate(&mut self, pid: u64) -> Result<(), VixError> {
        let pid = u32::try_from(pid).map_err(|_| VixError::NoSuchProcess)?;
        let started_us = processes::find(pid).ok_or(VixError::NoSuchProcess)?.started_us;
        // who asks again gives no more time
        let is_known = self.operations.doomed.iter().any(|known| (known.pid, known.started_us) == (pid, started_us));
        if !is_known && self.operations.doomed.len() >= MOST_DOOMED {
            return Err(refused(format!("{MOST_DOOMED} processes are ending already")));
        }
        self.signal_process(pid, SIGTERM)?;
        if !is_known {
            self.operations.doomed.push(Doomed { pid, started_us, kill_at: clock::now() + GRACE });
        }
        Ok(())
    }

    /// Kills what was asked to end and has not.
    pub(crate) fn handle_doomed(&mut self, now: Duration) {
        let due = self.operations.doomed.extract_if(.., |doomed| doomed.kill_at <= now).collect::<Vec<_>>();
        for Doomed { pid, started_us, .. } in due {
            if processes::find(pid).is_some_and(|process| process.started_us == started_us) {
                // an error means that it has ended just now
                let _gone = self.signal_process(pid, SIGKILL);
            }
        }
    }

    /// Signals a process of the container's, and no other.
    fn signal_process(&mut self, pid: u32, signal: u8) -> Result<(), VixError> {
        let raw = Pid::from_raw(i32::try_from(pid).map_err(|_| VixError::NoSuchProcess)?);
        match self.sessions.of_process(raw) {
            // for some signals it is not started again
            Some(session) => self.send(session, signal).map_err(refused),
            None if cgroup::holds(pid) => process::kill(raw, signal).map_err(|error| VixError::from(&error)),
            None => Err(VixError::NoSuchProcess),
        }
    }
}

/// vCenter gets a number; the reason is in our log.
fn refused(reason: String) -> VixError {
    say!(Warn, "what vCenter asks is not done: {reason}");
    VixError::Failed
}
