//! Telnet's bytes (RFC 854, 855): what is data, what is a command, and how data is written so that none of it is taken for a command.
//!
//! It knows no option and answers nothing. Bytes may be cut anywhere; what a peer says without end takes no more than [`MOST`].

/// Interpret as command.
const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const SE: u8 = 240;

/// The longest subnegotiation that is kept: a VM's name or a URI is much shorter. A longer one is read to its end and forgotten.
pub(super) const MOST: usize = 4096;

/// What a peer says about an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Will,
    Wont,
    Do,
    Dont,
}

/// A command of the peer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Negotiate(Verb, u8),
    Subnegotiate(u8, Vec<u8>),
}

/// Takes a stream apart.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    state: State,
    /// Of the subnegotiation that is under way.
    kept: Vec<u8>,
    too_long: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Data,
    Command,
    Option(Verb),
    SubOption,
    Sub(u8),
    SubCommand(u8),
}

impl Decoder {
    /// Takes the next bytes: data goes to the end of `data`, commands are the result. Data and commands between it are told apart, and not in which order they came.
    pub(super) fn feed(&mut self, mut bytes: &[u8], data: &mut Vec<u8>) -> Vec<Command> {
        let mut commands = Vec::new();
        while let Some((&first, rest)) = bytes.split_first() {
            if let State::Data = self.state {
                let plain = bytes.iter().position(|&byte| byte == IAC).unwrap_or(bytes.len());
                data.extend_from_slice(&bytes[..plain]);
                bytes = &bytes[plain..];
                if !bytes.is_empty() {
                    self.state = State::Command;
                    bytes = &bytes[1..];
                }
                continue;
            }
            self.state = self.step(first, data, &mut commands);
            bytes = rest;
        }
        commands
    }

    fn step(&mut self, byte: u8, data: &mut Vec<u8>, commands: &mut Vec<Command>) -> State {
        match self.state {
            State::Data | State::Command => match byte {
                IAC => {
                    data.push(IAC);
                    State::Data
                }
                WILL => State::Option(Verb::Will),
                WONT => State::Option(Verb::Wont),
                DO => State::Option(Verb::Do),
                DONT => State::Option(Verb::Dont),
                SB => State::SubOption,
                // NOP, break and their like mean nothing to a stream of bytes
                _ => State::Data,
            },
            State::Option(verb) => {
                commands.push(Command::Negotiate(verb, byte));
                State::Data
            }
            State::SubOption => {
                (self.kept, self.too_long) = (Vec::new(), false);
                State::Sub(byte)
            }
            State::Sub(option) if byte == IAC => State::SubCommand(option),
            State::Sub(option) => self.keep(option, byte),
            State::SubCommand(option) => match byte {
                IAC => self.keep(option, byte),
                SE => {
                    let kept = std::mem::take(&mut self.kept);
                    if !self.too_long {
                        commands.push(Command::Subnegotiate(option, kept));
                    }
                    State::Data
                }
                // it was not ended: what begins here is a command of its own
                _ => {
                    self.kept = Vec::new();
                    self.state = State::Command;
                    self.step(byte, data, commands)
                }
            },
        }
    }

    fn keep(&mut self, option: u8, byte: u8) -> State {
        match self.kept.len() < MOST {
            true => self.kept.push(byte),
            false => self.too_long = true,
        }
        State::Sub(option)
    }
}

/// Writes data.
pub(super) fn write_data(mut data: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = data.iter().position(|&byte| byte == IAC) {
        out.extend_from_slice(&data[..=at]);
        out.push(IAC);
        data = &data[at + 1..];
    }
    out.extend_from_slice(data);
}

/// Writes what we say about an option.
pub(super) fn write_verb(verb: Verb, option: u8, out: &mut Vec<u8>) {
    let verb = match verb {
        Verb::Will => WILL,
        Verb::Wont => WONT,
        Verb::Do => DO,
        Verb::Dont => DONT,
    };
    out.extend_from_slice(&[IAC, verb, option]);
}

/// Writes a subnegotiation.
pub(super) fn write_sub(option: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(&[IAC, SB, option]);
    parts.iter().for_each(|part| write_data(part, out));
    out.extend_from_slice(&[IAC, SE]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fed in pieces of that size.
    fn taken(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<Command>) {
        let (mut decoder, mut data) = (Decoder::default(), Vec::new());
        let commands = bytes.chunks(piece).flat_map(|piece| decoder.feed(piece, &mut data)).collect();
        (data, commands)
    }

    #[test]
    fn a_stream_is_the_same_wherever_it_is_cut() {
        let said: Vec<u8> = (0..=255).chain([IAC, IAC, IAC, 0, SE, SB]).collect();
        let mut bytes = Vec::new();
        write_data(&said, &mut bytes);
        write_verb(Verb::Will, 232, &mut bytes);
        write_sub(232, &[&[82], b"web\xff1"], &mut bytes);
        // NOP, and data behind it
        bytes.extend([IAC, 241, b'x']);
        write_verb(Verb::Dont, IAC, &mut bytes);
        let data: Vec<u8> = said.into_iter().chain([b'x']).collect();
        let commands = [
            Command::Negotiate(Verb::Will, 232),
            Command::Subnegotiate(232, b"\x52web\xff1".to_vec()),
            Command::Negotiate(Verb::Dont, IAC),
        ];
        for piece in 1..=bytes.len() {
            assert_eq!(taken(&bytes, piece), (data.clone(), commands.to_vec()), "in pieces of {piece}");
        }
    }

    #[test]
    fn what_does_not_end_takes_little_and_what_comes_behind_it_counts() {
        let mut bytes = vec![IAC, SB, 232];
        bytes.extend(vec![b'a'; 1_000_000]);
        let (mut decoder, mut data) = (Decoder::default(), Vec::new());
        assert_eq!(decoder.feed(&bytes, &mut data), []);
        assert!(decoder.kept.capacity() <= 2 * MOST && data.is_empty());
        assert_eq!(decoder.feed(&[IAC, SE, b'b'], &mut data), []);
        assert_eq!(data, b"b");
        // one that is broken off by another command
        let bytes = [IAC, SB, 232, 82, b'a', IAC, WILL, 3, IAC, SB, 232, 83, IAC, SE, IAC, SE, b'c'];
        let commands = vec![Command::Negotiate(Verb::Will, 3), Command::Subnegotiate(232, vec![83])];
        assert_eq!(taken(&bytes, 1), (b"c".to_vec(), commands));
    }
}
