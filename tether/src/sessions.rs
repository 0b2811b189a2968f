//! Which sessions there are, from the spec's own to those that the host asks for, and how long each is remembered.
//!
//! The main session is always there. Another one is there from its start until the host forgets it: a host that comes back after a cut must be able to ask
//! how it ended. What a session does is [`crate::session`]'s business.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use guest::cgroup::Cgroup;
use guest::events::Poller;
use nix::unistd::Pid;
use wire::link::Link;
use wire::message::{FIRST_OTHER, MAIN, SessionId, SessionInfo};
use wire::packet::{ChannelId, MAX_CHANNELS};
use wire::status::{Ending, Exit};

use crate::members::Member;
use crate::session::{Io, Session};
use crate::stream::Which;

/// The most sessions beside the main one, ended ones included: as many as the link has channels for.
const MOST: usize = (MAX_CHANNELS - 1) / 3 - 1;
/// The highest number whose channels have numbers.
#[cfg(test)]
pub(crate) const LAST_NUMBER: u32 = (u32::MAX - 3) / 3;

/// Every session that has not been forgotten.
pub(crate) struct Sessions {
    table: BTreeMap<SessionId, Session>,
    /// Those that have ended and are not the spec's, the oldest first.
    ended: VecDeque<SessionId>,
}

impl Sessions {
    /// The spec's own; the main one is the first. The others begin detached: their channels are nobody's until a host knows their numbers.
    pub(crate) fn new(members: &[Member], link: &mut Link) -> Sessions {
        let mut sessions = Sessions { table: BTreeMap::new(), ended: VecDeque::new() };
        members.iter().for_each(|member| sessions.add_member(member, link));
        sessions
    }

    /// Adds one of the spec's own.
    pub(crate) fn add_member(&mut self, member: &Member, link: &mut Link) {
        open_channels(member.id, link);
        let attached = member.id == MAIN && member.process.attach;
        let session = Session::waiting(member.id, member.process.terminal, attached);
        self.add(session.restartable(member.may_restart()));
    }

    // -- the table

    pub(crate) fn main(&self) -> &Session {
        self.table.get(&MAIN).expect("made in new() and never forgotten")
    }

    pub(crate) fn find(&mut self, id: SessionId) -> Result<&mut Session, String> {
        self.table.get_mut(&id).ok_or_else(|| format!("there is no session {}", id.0))
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<&Session> {
        self.table.get(&id)
    }

    /// Whose process that is.
    pub(crate) fn of_process(&self, pid: Pid) -> Option<SessionId> {
        self.table.values().find(|session| session.pid() == Some(pid)).map(Session::id)
    }

    pub(crate) fn list(&self) -> Vec<SessionInfo> {
        self.table.values().map(Session::info).collect()
    }

    /// Whether a session of that number may be made.
    pub(crate) fn admit(&self, id: SessionId) -> Result<(), String> {
        if id >= FIRST_OTHER {
            return Err(format!("session {} cannot be: numbers from {} on are the spec's", id.0, FIRST_OTHER.0));
        }
        if self.table.contains_key(&id) {
            return Err(format!("there is a session {} already", id.0));
        }
        match self.table.len() - 1 - self.ended.len() >= MOST {
            true => Err(format!("{MOST} sessions run already: end one first")),
            false => Ok(()),
        }
    }

    /// Opens the channels of one that was admitted. For want of room the one that ended longest ago is forgotten.
    pub(crate) fn open(&mut self, id: SessionId, link: &mut Link) {
        if self.table.len() > MOST
            && let Some(&oldest) = self.ended.front()
        {
            self.remove(oldest, link);
        }
        open_channels(id, link);
    }

    /// Adds one that was admitted and whose channels are open.
    pub(crate) fn add(&mut self, session: Session) {
        self.table.insert(session.id(), session);
    }

    /// The host knows all that it wants to know of it.
    pub(crate) fn forget(&mut self, id: SessionId, link: &mut Link) -> Result<(), String> {
        let is_the_hosts = id < FIRST_OTHER || self.ended.contains(&id);
        if id == MAIN || !is_the_hosts && self.table.contains_key(&id) {
            return Err("a session of the spec cannot be forgotten: it ends with its machine".into());
        }
        if !self.find(id)?.is_ended() {
            return Err(format!("session {} still runs", id.0));
        }
        self.remove(id, link);
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: SessionId, link: &mut Link) {
        self.table.remove(&id);
        self.ended.retain(|&ended| ended != id);
        close_channels(id, link);
    }

    // -- what happens

    /// A stream can be read or written.
    pub(crate) fn handle(&mut self, token: u64, io: &mut Io<'_>) {
        // one that is gone may still have been in the same bunch of events
        if let Some((id, which)) = Which::of_token(token)
            && let Some(session) = self.table.get_mut(&id)
        {
            session.handle(which, io);
        }
    }

    /// The host does not want what comes on a channel.
    pub(crate) fn refuse(&mut self, channel: ChannelId, io: &Io<'_>) {
        if let Some((id, which)) = Which::of_channel(channel)
            && let Some(session) = self.table.get_mut(&id)
        {
            session.refuse(which, io);
        }
    }

    /// A child has ended; most are orphans of the container, and nobody's. True if it was a session's process.
    pub(crate) fn reaped(&mut self, pid: Pid, ending: Ending, cgroup: &Cgroup, now: Duration) -> bool {
        let session = self.table.values_mut().find(|session| session.pid() == Some(pid));
        let is_ours = session.is_some();
        if let Some(session) = session {
            session.exited(ending, cgroup.oom_kills(), now);
        }
        is_ours
    }

    pub(crate) fn settle(&mut self, io: &mut Io<'_>) -> io::Result<()> {
        self.table.values_mut().try_for_each(|session| session.settle(io))
    }

    /// When to call [`Sessions::poll_ends`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.table.values().filter_map(Session::deadline).min()
    }

    /// Those whose process has ended since the last call, its output complete; the main one last, since it ends everything. Each is then to rest or to be concluded.
    pub(crate) fn poll_ends(&mut self, io: &mut Io<'_>) -> Vec<(SessionId, Exit)> {
        let ends = self.table.iter_mut().rev().filter_map(|(&id, session)| Some((id, session.poll_end(io)?)));
        ends.collect()
    }

    /// Another process is to follow in a session.
    pub(crate) fn rest(&mut self, id: SessionId, poller: &Poller) {
        if let Some(session) = self.table.get_mut(&id) {
            session.rest(poller);
        }
    }

    /// That was the end of a session.
    pub(crate) fn conclude(&mut self, id: SessionId, io: &mut Io<'_>) {
        let Some(session) = self.table.get_mut(&id) else { return };
        session.conclude(io);
        if id < FIRST_OTHER && id != MAIN {
            self.ended.push_back(id);
        }
    }

    /// The spec does not name it any more, and it has ended: it is as if the host had made it.
    pub(crate) fn release(&mut self, id: SessionId) {
        self.ended.push_back(id);
    }

    /// Sends a signal to the process of every session that the host has made. Whose has ended misses nothing.
    pub(crate) fn signal_guests(&self, signal: u8) {
        for session in self.table.values().filter(|session| session.id() != MAIN && session.id() < FIRST_OTHER) {
            let _gone = session.signal(signal);
        }
    }

    /// The machine ends: nothing more moves in any session.
    pub(crate) fn abandon(&mut self, io: &mut Io<'_>) {
        for session in self.table.values_mut() {
            session.abandon(io);
        }
    }
}

/// Both ends open a session's channels before its bytes flow.
fn open_channels(id: SessionId, link: &mut Link) {
    for channel in channels(id) {
        let opened = link.open(channel);
        debug_assert!(opened, "there are channels for MOST sessions");
    }
}

/// Nothing is kept of them.
pub(crate) fn close_channels(id: SessionId, link: &mut Link) {
    channels(id).into_iter().for_each(|channel| link.forget(channel));
}

fn channels(id: SessionId) -> [ChannelId; 3] {
    let streams = id.streams();
    [streams.stdin, streams.stdout, streams.stderr]
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::OwnedFd;

    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;
    use wire::handshake::LinkKey;
    use wire::link::{Role, Security, Tuning};
    use wire::message::SessionState;

    use super::*;
    use crate::launch::Launched;
    use crate::pipes::Streams;

    /// A link that nobody answers, and processes that are numbers.
    pub(crate) struct Rig {
        pub(crate) link: Link,
        pub(crate) poller: Poller,
        buffer: Vec<u8>,
    }

    /// The process's ends of its streams.
    pub(crate) struct Process {
        _stdin: OwnedFd,
        pub(crate) stdout: OwnedFd,
        _stderr: OwnedFd,
    }

    pub(crate) fn exited(code: u8) -> Ending {
        Ending::Exited { code }
    }

    fn pid(id: SessionId) -> Pid {
        Pid::from_raw(1000 + i32::try_from(id.0).unwrap())
    }

    impl Rig {
        pub(crate) fn new() -> Rig {
            let security = Security { key: LinkKey::new([1; 32]), sealed: false, seed: [2; 32] };
            let link = Link::new(Role::Guest { vm: "vm".into(), boot: [3; 16] }, Tuning::FAST, security);
            Rig { link, poller: Poller::new().unwrap(), buffer: vec![0; 4096] }
        }

        pub(crate) fn io(&mut self, now: Duration) -> Io<'_> {
            Io { link: &mut self.link, poller: &self.poller, log: None, syslog: None, buffer: &mut self.buffer, now }
        }

        pub(crate) fn running(&mut self, id: SessionId, attached: bool) -> (Session, Process) {
            let pipe = || pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
            let ((stdin_theirs, stdin), (stdout, stdout_theirs), (stderr, stderr_theirs)) = (pipe(), pipe(), pipe());
            open_channels(id, &mut self.link);
            let mut session = Session::waiting(id, None, attached);
            let streams = Streams::Pipes { stdin: Some(stdin), stdout, stderr };
            session.begin(Launched { pid: pid(id), streams, oom_kills: 0 }, &mut self.io(Duration::ZERO)).unwrap();
            (session, Process { _stdin: stdin_theirs, stdout: stdout_theirs, _stderr: stderr_theirs })
        }

        /// A table in which a session of that number has run and ended.
        fn end(&mut self, sessions: &mut Sessions, id: SessionId) -> Vec<(SessionId, Exit)> {
            sessions.open(id, &mut self.link);
            let (session, process) = self.running(id, true);
            sessions.add(session);
            drop(process);
            for which in [Which::Stdout, Which::Stderr] {
                sessions.handle(which.token(id), &mut self.io(Duration::ZERO));
            }
            sessions.reaped(pid(id), exited(5), &Cgroup::default(), Duration::ZERO);
            let ends = sessions.poll_ends(&mut self.io(Duration::ZERO));
            for (id, _) in &ends {
                sessions.conclude(*id, &mut self.io(Duration::ZERO));
            }
            ends
        }
    }

    fn table(rig: &mut Rig) -> Sessions {
        let main = Member::new("main", MAIN, &wire::spec::Process::new(vec!["true".into()]), &Cgroup::default());
        Sessions::new(&[main], &mut rig.link)
    }

    fn numbers(sessions: &Sessions) -> Vec<u32> {
        sessions.list().iter().map(|info| info.session.0).collect()
    }

    #[test]
    fn a_session_is_known_until_it_is_forgotten() {
        let mut rig = Rig::new();
        let mut sessions = table(&mut rig);
        let id = SessionId(4);
        assert_eq!(sessions.admit(MAIN), Err("there is a session 0 already".into()));
        assert_eq!(sessions.forget(id, &mut rig.link), Err("there is no session 4".into()));
        let (session, _process) = rig.running(id, false);
        sessions.add(session);
        assert_eq!(sessions.admit(id), Err("there is a session 4 already".into()));
        assert_eq!(sessions.forget(id, &mut rig.link), Err("session 4 still runs".into()));
        sessions.reaped(Pid::from_raw(4321), exited(1), &Cgroup::default(), Duration::ZERO);
        assert!(matches!(sessions.list()[1].state, SessionState::Running { pid: 1004, .. }), "an orphan is nobody's");

        let ends = rig.end(&mut sessions, SessionId(7));
        assert_eq!(ends.iter().map(|(id, exit)| (id.0, exit.ending)).collect::<Vec<_>>(), [(7, exited(5))]);
        assert_eq!(numbers(&sessions), [0, 4, 7]);
        assert_eq!(sessions.forget(SessionId(7), &mut rig.link), Ok(()));
        assert_eq!(rig.link.room(Which::Stdout.channel(SessionId(7))), 0, "its channels are gone");
        assert_eq!((numbers(&sessions), sessions.admit(SessionId(7))), (vec![0, 4], Ok(())));
        let main = sessions.forget(MAIN, &mut rig.link).unwrap_err();
        assert_eq!(main, "a session of the spec cannot be forgotten: it ends with its machine");
    }

    #[test]
    fn there_is_a_bound_for_those_that_run() {
        let mut rig = Rig::new();
        let mut sessions = table(&mut rig);
        assert_eq!(sessions.admit(SessionId(FIRST_OTHER.0 - 1)), Ok(()));
        for number in [FIRST_OTHER.0, LAST_NUMBER, u32::MAX] {
            let refused = format!("session {number} cannot be: numbers from 268435456 on are the spec's");
            assert_eq!(sessions.admit(SessionId(number)), Err(refused));
        }
        for number in 1..=340 {
            sessions.admit(SessionId(number)).unwrap();
            sessions.add(Session::waiting(SessionId(number), None, false));
        }
        let refused = sessions.admit(SessionId(341)).unwrap_err();
        assert_eq!(refused, "340 sessions run already: end one first");
    }

    #[test]
    fn the_oldest_end_is_forgotten_first() {
        let mut rig = Rig::new();
        let mut sessions = table(&mut rig);
        for number in (1..=340).rev() {
            assert_eq!(rig.end(&mut sessions, SessionId(number)).len(), 1);
        }
        assert_eq!(sessions.list().len(), 341);
        sessions.admit(SessionId(2000)).unwrap();
        rig.end(&mut sessions, SessionId(2000));
        let left = numbers(&sessions);
        assert_eq!((left.len(), left.contains(&340), left.contains(&2000)), (341, false, true));
    }

    #[test]
    fn the_main_session_ends_last_and_stays() {
        let mut rig = Rig::new();
        let mut sessions = table(&mut rig);
        let (main, _process) = rig.running(MAIN, true);
        sessions.add(main);
        let (other, _other) = rig.running(SessionId(1), true);
        sessions.add(other);
        for id in [MAIN, SessionId(1)] {
            sessions.reaped(pid(id), exited(0), &Cgroup::default(), Duration::ZERO);
        }
        let ends = sessions.poll_ends(&mut rig.io(Duration::from_secs(1)));
        assert_eq!(ends.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(numbers(&sessions), [0, 1]);
        assert!(sessions.main().is_ended());
    }
}
