//! What the two ends of a [`crate::world`] do with their link, and what they check.

use std::collections::{BTreeMap, BTreeSet};

use wire::link::{CONTROL, Event, Link};
use wire::packet::{ChannelId, ResetReason};

use crate::dice::Dice;
use crate::rig::{guest, host, security};
use crate::world::{Plan, Record};

#[derive(Clone, Copy, PartialEq, Debug)]
enum Word {
    Create = 1,
    Created,
    Forget,
    Forgotten,
    Chatter,
}

const WORDS: [Word; 5] = [Word::Create, Word::Created, Word::Forget, Word::Forgotten, Word::Chatter];

/// A message: a word, a session, whose life it is of, a number, and padding that follows from the number.
fn encode(word: Word, session: u32, life: u32, number: u32) -> Vec<u8> {
    let mut bytes = vec![word as u8];
    [session, life, number].iter().for_each(|field| bytes.extend(field.to_le_bytes()));
    let padding = if number % 50 == 49 { 9000 } else { (number as usize * 37) % 200 };
    bytes.resize(bytes.len() + padding, number as u8);
    bytes
}

fn decode(bytes: &[u8]) -> (Word, u32, u32, u32) {
    let field = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let word = WORDS.into_iter().find(|&word| word as u8 == bytes[0]).unwrap();
    let (session, life, number) = (field(1), field(5), field(9));
    assert!(bytes == encode(word, session, life, number), "a message was damaged");
    (word, session, life, number)
}

/// Standard input and output.
pub(crate) fn streams(session: u32) -> (ChannelId, ChannelId) {
    (ChannelId(2 * session + 1), ChannelId(2 * session + 2))
}

fn session(id: ChannelId) -> u32 {
    (id.0 - 1) / 2
}

fn sessions(link: &Link) -> BTreeSet<u32> {
    link.channels().filter(|&id| id != CONTROL).map(session).collect()
}

pub(crate) struct GuestSide {
    pub(crate) link: Link,
    pub(crate) outbox: Vec<u8>,
    pub(crate) forgotten: BTreeSet<u32>,
    forgetting: BTreeSet<u32>,
    /// The host's life, and the number of its message that comes next.
    expected: (u32, u32),
    said: u32,
}

impl GuestSide {
    pub(crate) fn new(plan: &Plan) -> GuestSide {
        GuestSide {
            link: guest(plan.tuning, security(1, plan.sealed, 2)),
            outbox: Vec::new(),
            forgotten: BTreeSet::new(),
            forgetting: BTreeSet::new(),
            expected: (0, 0),
            said: 0,
        }
    }

    /// An answer carries the life of the host that it is for.
    fn say(&mut self, word: Word, session: u32) {
        self.link.send_message(&encode(word, session, self.expected.0, self.said));
        self.said += 1;
    }

    fn hear(&mut self, bytes: &[u8]) {
        let (word, session, life, number) = decode(bytes);
        if life > self.expected.0 {
            self.expected = (life, 0);
        }
        assert_eq!((life, number), self.expected, "the host's messages");
        self.expected.1 += 1;
        match word {
            Word::Create if self.forgotten.contains(&session) => self.say(Word::Forgotten, session),
            Word::Create => {
                let (stdin, stdout) = streams(session);
                assert!(self.link.open(stdin) && self.link.open(stdout));
                self.say(Word::Created, session);
            }
            Word::Forget => {
                self.forgetting.insert(session);
            }
            Word::Chatter => {}
            Word::Created | Word::Forgotten => panic!("a guest hears {word:?}"),
        }
    }

    pub(crate) fn work(&mut self, plan: &Plan, dice: &mut Dice, read: &mut BTreeMap<ChannelId, usize>) {
        while let Some(event) = self.link.poll_event() {
            match event {
                Event::Message(bytes) => self.hear(&bytes),
                Event::Closed(why) => panic!("the guest's link is closed: {why}"),
                Event::Reset(id, why) => panic!("the host reset {id:?}: {why:?}"),
                _ => {}
            }
        }
        let link = &mut self.link;
        for session in sessions(link) {
            let ((input, output), (stdin, stdout)) = (&plan.sessions[session as usize], streams(session));
            let at = link.written(stdout) as usize;
            let some = dice.up_to(2000).min(output.len() - at);
            let taken = link.write(stdout, &output[at..at + some]);
            if at + taken == output.len() {
                link.finish(stdout);
            }
            let bytes = link.readable(stdin);
            let some = dice.up_to(1500).min(bytes.len());
            let at = link.consumed(stdin) as usize;
            assert!(bytes[..some] == input[at..at + some], "what the guest reads of {stdin:?} at {at}");
            link.consume(stdin, some);
            read.insert(stdin, at + some);
        }
        for session in std::mem::take(&mut self.forgetting) {
            let (stdin, stdout) = streams(session);
            if self.forgotten.contains(&session) {
                self.say(Word::Forgotten, session);
            } else if self.link.is_ended(stdin) {
                self.link.forget(stdin);
                self.link.forget(stdout);
                self.forgotten.insert(session);
                self.say(Word::Forgotten, session);
            } else {
                self.forgetting.insert(session);
            }
        }
        if !plan.quiet && dice.once_in(300) {
            self.say(Word::Chatter, 0);
        }
    }
}

pub(crate) struct HostSide {
    pub(crate) link: Link,
    pub(crate) outbox: Vec<u8>,
    pub(crate) life: u32,
    opened: bool,
    /// It has heard a message.
    addressed: bool,
    /// Sessions that it has asked for; that there are; that it is done with; that are over.
    asked: BTreeSet<u32>,
    there: BTreeSet<u32>,
    done: BTreeSet<u32>,
    pub(crate) over: BTreeSet<u32>,
    said: u32,
}

impl HostSide {
    pub(crate) fn new(plan: &Plan, life: u32) -> HostSide {
        HostSide {
            link: host(plan.tuning, security(1, plan.sealed, 100_u8.wrapping_add(life as u8))),
            outbox: Vec::new(),
            life,
            opened: false,
            addressed: false,
            asked: BTreeSet::new(),
            there: BTreeSet::new(),
            done: BTreeSet::new(),
            over: BTreeSet::new(),
            said: 0,
        }
    }

    fn say(&mut self, word: Word, session: u32) {
        self.link.send_message(&encode(word, session, self.life, self.said));
        self.said += 1;
    }

    fn hear(&mut self, bytes: &[u8], record: &mut Record) {
        let (word, session, life, number) = decode(bytes);
        // what the host before had not yet told that it had comes again
        let again = number < record.expected && !self.addressed;
        assert!(number == record.expected || again, "message {number}, not {}", record.expected);
        self.addressed = true;
        record.expected = number + 1;
        match word {
            Word::Created if life == self.life => {
                self.there.insert(session);
            }
            Word::Created => {}
            Word::Forgotten => {
                let (stdin, stdout) = streams(session);
                self.link.forget(stdin);
                self.link.forget(stdout);
                self.there.remove(&session);
                self.over.insert(session);
            }
            Word::Chatter => {}
            Word::Create | Word::Forget => panic!("a host hears {word:?}"),
        }
    }

    pub(crate) fn work(&mut self, plan: &Plan, dice: &mut Dice, record: &mut Record, forgotten: &BTreeSet<u32>) {
        while let Some(event) = self.link.poll_event() {
            match event {
                Event::Opened { .. } if !self.opened => self.take_over(record),
                Event::Message(bytes) => self.hear(&bytes, record),
                Event::Closed(why) => panic!("the host's link is closed: {why}"),
                Event::Reset(id, why) => {
                    assert_eq!(why, ResetReason::NoSuchChannel);
                    assert!(forgotten.contains(&session(id)), "the guest has lost {id:?}");
                }
                _ => {}
            }
        }
        if !self.opened {
            return;
        }
        for session in 0..plan.sessions.len() as u32 {
            if !self.asked.contains(&session) && dice.once_in(5) {
                let (stdin, stdout) = streams(session);
                assert!(self.link.open(stdin) && self.link.open(stdout));
                self.say(Word::Create, session);
                self.asked.insert(session);
            }
        }
        for session in self.there.clone() {
            self.serve(session, plan, dice, record);
        }
        if !plan.quiet && dice.once_in(300) {
            self.say(Word::Chatter, 0);
        }
    }

    /// The first greeting of a host: what the guest has is now this one's.
    fn take_over(&mut self, record: &mut Record) {
        self.opened = true;
        for session in sessions(&self.link) {
            let (_, stdout) = streams(session);
            let (got, at) = (record.got.entry(stdout).or_default().len(), self.link.consumed(stdout) as usize);
            assert!(at <= got, "bytes {got}..{at} of {stdout:?} are lost");
            self.asked.insert(session);
            self.there.insert(session);
        }
    }

    fn serve(&mut self, session: u32, plan: &Plan, dice: &mut Dice, record: &mut Record) {
        let ((input, output), (stdin, stdout)) = (&plan.sessions[session as usize], streams(session));
        let link = &mut self.link;
        let at = link.written(stdin) as usize;
        let some = dice.up_to(1000).min(input.len() - at);
        let taken = link.write(stdin, &input[at..at + some]);
        if at + taken == input.len() {
            link.finish(stdin);
        }
        let bytes = link.readable(stdout);
        let some = dice.up_to(1500).min(bytes.len());
        let (got, at) = (record.got.entry(stdout).or_default(), link.consumed(stdout) as usize);
        assert!(bytes[..some] == output[at..at + some], "what the host reads of {stdout:?} at {at}");
        // what the host before had dealt with and not told comes again; what comes is known by its offset
        assert!(at <= got.len(), "where {stdout:?} is");
        let known = some.min(got.len() - at);
        got.extend_from_slice(&bytes[known..some]);
        link.consume(stdout, some);
        let all = link.is_ended(stdout) && got.len() == output.len();
        if all && link.is_finished(stdin) && self.done.insert(session) {
            self.say(Word::Forget, session);
        }
    }
}
