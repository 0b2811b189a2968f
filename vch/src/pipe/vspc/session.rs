//! One telnet connection with an ESXi host, as a machine of bytes: options are settled, questions asked and answered; what concerns a move is left to the caller.
//!
//! Both ways are binary, nothing is echoed. A peer that does not speak VMware's extension, as QEMU's telnet, is served all the same.

use super::extension::{self, Said, Say};
use super::telnet::{Command, Decoder, Verb, write_data, write_verb};

/// RFC 856, 858.
const BINARY: u8 = 0;
const SUPPRESS_GO_AHEAD: u8 = 3;

/// What a host has told about its VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmwareNames {
    /// As vSphere's clients show it.
    pub name: Option<String>,
    /// vCenter's own.
    pub instance_uuid: Option<String>,
    /// The machine's, which it finds in its firmware.
    pub bios_uuid: Option<String>,
    /// What it is called by the place of its files.
    pub location_uuid: Option<String>,
}

/// What the caller has to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Begin(Vec<u8>),
    Peer(Vec<u8>),
    Complete,
    Abort,
    /// It has told more about the VM.
    Names,
}

/// Our end of one connection.
#[derive(Debug)]
pub(super) struct Session {
    decoder: Decoder,
    /// Bytes for the peer.
    pub(super) out: Vec<u8>,
    pub(super) names: VmwareNames,
    /// What each side does, of the two options that are asked for: see [`Side`].
    ours: [Side; 2],
    theirs: [Side; 2],
    extended: bool,
}

/// Whether a side uses an option (RFC 1143's states, less those of a change of mind).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    No,
    Asked,
    Yes,
}

const WANTED: [u8; 2] = [BINARY, SUPPRESS_GO_AHEAD];

impl Session {
    /// Asks for what it wants; the rest is up to the peer.
    pub(super) fn new() -> Session {
        let mut out = Vec::new();
        for option in WANTED {
            write_verb(Verb::Will, option, &mut out);
            write_verb(Verb::Do, option, &mut out);
        }
        let (ours, theirs) = ([Side::Asked; 2], [Side::Asked; 2]);
        let names = VmwareNames::default();
        Session { decoder: Decoder::default(), out, names, ours, theirs, extended: false }
    }

    /// Takes bytes of the peer's: data goes to the end of `data`.
    pub(super) fn feed(&mut self, bytes: &[u8], data: &mut Vec<u8>) -> Vec<Event> {
        let commands = self.decoder.feed(bytes, data);
        let mut events = Vec::new();
        for command in commands {
            match command {
                Command::Negotiate(verb, option) => self.negotiate(verb, option),
                Command::Subnegotiate(extension::OPTION, bytes) => {
                    events.extend(Said::parse(&bytes).and_then(|said| self.hear(said)));
                }
                Command::Subnegotiate(..) => {}
            }
        }
        events
    }

    /// Data for the peer.
    pub(super) fn send(&mut self, data: &[u8]) {
        write_data(data, &mut self.out);
    }

    pub(super) fn say(&mut self, say: Say<'_>) {
        say.write(&mut self.out);
    }

    fn negotiate(&mut self, verb: Verb, option: u8) {
        // an answer is owed to a change only: two that answer answers never come to an end
        let (side, yes, no) = match verb {
            Verb::Will | Verb::Wont => (&mut self.theirs, Verb::Do, Verb::Dont),
            Verb::Do | Verb::Dont => (&mut self.ours, Verb::Will, Verb::Wont),
        };
        let wants = matches!(verb, Verb::Will | Verb::Do);
        let answer = if option == extension::OPTION && matches!(verb, Verb::Will | Verb::Wont) {
            let changes = self.extended != wants;
            self.extended = wants;
            changes.then_some(if wants { yes } else { no })
        } else if let Some(place) = WANTED.iter().position(|&wanted| wanted == option) {
            let before = std::mem::replace(&mut side[place], if wants { Side::Yes } else { Side::No });
            match (before, wants) {
                (Side::No, true) => Some(yes),
                (Side::Yes, false) => Some(no),
                (Side::Asked | Side::Yes, true) | (Side::Asked | Side::No, false) => None,
            }
        } else {
            wants.then_some(no)
        };
        if let Some(answer) = answer {
            write_verb(answer, option, &mut self.out);
        }
    }

    fn hear(&mut self, said: Said) -> Option<Event> {
        match said {
            Said::Known(commands) => {
                self.say(Say::Known);
                for (command, question) in Say::QUESTIONS {
                    if commands.contains(&command) {
                        self.say(question);
                    }
                }
                None
            }
            Said::DoProxy => {
                self.say(Say::WillProxy);
                None
            }
            Said::Begin(sequence) => Some(Event::Begin(sequence)),
            Said::Peer(key) => Some(Event::Peer(key)),
            Said::Complete => Some(Event::Complete),
            Said::Abort => Some(Event::Abort),
            Said::Name(name) => self.told(|names| &mut names.name, name),
            Said::VcUuid(uuid) => self.told(|names| &mut names.instance_uuid, uuid),
            Said::BiosUuid(uuid) => self.told(|names| &mut names.bios_uuid, uuid),
            Said::LocationUuid(uuid) => self.told(|names| &mut names.location_uuid, uuid),
            Said::NotKnown => None,
            Said::Other(command) => {
                self.say(Say::NotKnown(command));
                None
            }
        }
    }

    fn told(&mut self, which: impl Fn(&mut VmwareNames) -> &mut Option<String>, text: String) -> Option<Event> {
        *which(&mut self.names) = Some(text);
        Some(Event::Names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXT: u8 = extension::OPTION;

    fn feed(session: &mut Session, bytes: &[u8]) -> (Vec<u8>, Vec<Event>, Vec<u8>) {
        session.out.clear();
        let mut data = Vec::new();
        let events = session.feed(bytes, &mut data);
        (data, events, session.out.clone())
    }

    #[test]
    fn options_are_settled_without_end_to_end_talk() {
        let mut session = Session::new();
        assert_eq!(session.out, [255, 251, 0, 255, 253, 0, 255, 251, 3, 255, 253, 3]);
        // answers to what was asked are not answered
        let answers = [255, 253, 0, 255, 251, 0, 255, 253, 3, 255, 251, 3];
        assert_eq!(feed(&mut session, &answers).2, [0; 0]);
        // what nobody asked for: echo, terminal type
        assert_eq!(feed(&mut session, &[255, 253, 1, 255, 251, 24]).2, [255, 252, 1, 255, 254, 24]);
        assert_eq!(feed(&mut session, &[255, 252, 24, 255, 254, 1]).2, [0; 0]);
        // a change of mind is confirmed once
        assert_eq!(feed(&mut session, &[255, 252, 0, 255, 252, 0]).2, [255, 254, 0]);
        assert_eq!(feed(&mut session, &[255, 251, EXT, 255, 251, EXT]).2, [255, 253, EXT]);
        assert_eq!(feed(&mut session, &[255, 253, EXT]).2, [255, 252, EXT]);
    }

    #[test]
    fn a_host_is_asked_what_it_can_tell_and_its_data_is_clean() {
        let mut session = Session::new();
        let mut said = b"ab\xff\xff".to_vec();
        said.extend([255, 250, EXT, 0, 83, 81, 255, 240, 255, 250, EXT, 70, b'C', b'x', 255, 240, b'c']);
        let (data, events, out) = feed(&mut session, &said);
        assert_eq!((data.as_slice(), events), (&b"ab\xffc"[..], vec![]));
        let asked = |command: u8| out.windows(6).any(|window| window == [255, 250, EXT, command, 255, 240]);
        assert_eq!([83, 81, 85, 87, 71].map(asked), [true, true, false, false, true]);
        let (_, events, out) = feed(&mut session, &[255, 250, EXT, 82, b'w', 255, 240, 255, 250, EXT, 200, 255, 240]);
        assert_eq!((events, out), (vec![Event::Names], vec![255, 250, EXT, 3, 200, 255, 240]));
        assert_eq!(session.names.name.as_deref(), Some("w"));
    }
}
