//! What the body of a frame says.
//!
//! The first byte is the kind. Greetings are encoded by [`crate::codec`], since they are rare and will grow; the packets of a running link have fixed
//! little-endian fields, so that payload is copied once and never parsed. A confirm, and on a sealed link those from 10 on, travel only within a packet
//! of kind 20.
//!
//! | kind | packet | fields after the kind |
//! |---|---|---|
//! | 01 | hello | [`Hello`], then a message of [`crate::handshake`] that carries a [`Greeting`] |
//! | 02 | welcome | the answering message, which carries a [`Greeting`] |
//! | 03 | refuse | UTF-8 text: why |
//! | 04 | confirm | none; always sealed: the guest is alive and has the key |
//! | 05 | knock | none; always in the clear: a host asks for a hello |
//! | 10 | data | channel u32, offset u64, payload; without payload it asks for a credit |
//! | 11 | end | channel u32, offset u64: the stream has exactly so many bytes |
//! | 12 | credit | channel u32, received u64, taken u64, limit u64 |
//! | 13 | rewind | channel u32, from u64: send again from there |
//! | 14 | reset | channel u32, [`ResetReason`] u8 |
//! | 20 | sealed | number u64, a packet that [`crate::handshake::Sealer`] sealed |

use serde::{Deserialize, Serialize};

use crate::channel::LONGEST;
use crate::codec::{self, DecodeError};

/// The most channels that a link has at a time: all of their positions fit in one greeting.
pub const MAX_CHANNELS: usize = 1024;

/// The number of a channel. Zero carries messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelId(pub u32);

/// How far one end has received a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// The channel.
    pub channel: ChannelId,
    /// Bytes received in order since the channel began, and one more once the end has come.
    pub received: u64,
    /// Bytes that the application has dealt with: they will never be asked for again.
    pub taken: u64,
    /// The absolute offset up to which the peer may send.
    pub limit: u64,
}

/// Where one end is with a channel, in both directions: enough for a peer that knows nothing to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The channel.
    pub channel: ChannelId,
    /// Bytes received in order since the channel began, and one more once the end has come.
    pub received: u64,
    /// Bytes that the application has dealt with.
    pub taken: u64,
    /// The absolute offset up to which the peer may send.
    pub limit: u64,
    /// The oldest byte of its own sending that the speaker still has.
    pub kept: u64,
    /// `received` counts an end.
    pub ended: bool,
}

/// The guest opens, or takes up again, the conversation: what must be known before there are keys. It is in the clear, and bound by the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The lowest and the highest version that the guest speaks.
    pub versions: (u16, u16),
    /// The VM's id, from its spec.
    pub vm: String,
    /// Packets are to be sealed; otherwise only who speaks is proved.
    pub sealed: bool,
}

impl Hello {
    /// What the handshake binds.
    pub fn prologue(&self) -> Vec<u8> {
        let mut bytes = b"tether link".to_vec();
        codec::encode(self, &mut bytes);
        bytes
    }
}

/// What each end tells the other under the handshake's cover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The version that both speak from here on; a guest states its highest.
    pub version: u16,
    /// Drawn by the guest once a boot: offsets are of this life. The host repeats it.
    pub boot: [u8; 16],
    /// Bytes that the other may send on a channel of which nothing has been said.
    pub window: u32,
    /// What the speaker has.
    pub positions: Vec<Position>,
}

impl Greeting {
    /// What it says can be true.
    pub(crate) fn is_possible(&self) -> bool {
        self.positions.len() <= MAX_CHANNELS
            && self.positions.iter().all(|at| {
                at.received.max(at.limit).max(at.kept) <= LONGEST
                    && at.taken.saturating_add(at.ended.into()) <= at.received
            })
    }
}

/// Why a channel ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ResetReason {
    /// The receiver has no such channel.
    NoSuchChannel = 0x01,
    /// Nobody reads it any more, as when a process has closed its standard input.
    NotRead = 0x02,
    /// The sender went beyond its credit, or contradicted itself about the stream's length.
    Violation = 0x03,
    /// A reason of a later version.
    Other = 0xff,
}

/// A parsed frame body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the table above says what each field is
pub enum Packet<'a> {
    Hello { hello: Hello, message: &'a [u8] },
    Welcome { message: &'a [u8] },
    Refuse(String),
    Confirm,
    Knock,
    Data { channel: ChannelId, offset: u64, payload: &'a [u8] },
    End { channel: ChannelId, offset: u64 },
    Credit(Credit),
    Rewind { channel: ChannelId, from: u64 },
    Reset { channel: ChannelId, reason: ResetReason },
    Sealed { number: u64, packet: &'a [u8] },
}

/// The bytes of a data packet before its payload.
pub const DATA_HEADER: usize = 1 + 4 + 8;

const HELLO: u8 = 0x01;
const WELCOME: u8 = 0x02;
const REFUSE: u8 = 0x03;
const CONFIRM: u8 = 0x04;
const KNOCK: u8 = 0x05;
const DATA: u8 = 0x10;
const END: u8 = 0x11;
const CREDIT: u8 = 0x12;
const REWIND: u8 = 0x13;
const RESET: u8 = 0x14;
const SEALED: u8 = 0x20;

impl<'a> Packet<'a> {
    /// The body of a data packet up to its payload, which follows as it is.
    pub fn data_header(channel: ChannelId, offset: u64) -> [u8; DATA_HEADER] {
        let mut header = [0; DATA_HEADER];
        header[0] = DATA;
        header[1..5].copy_from_slice(&channel.0.to_le_bytes());
        header[5..].copy_from_slice(&offset.to_le_bytes());
        header
    }

    /// Appends the body of a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let fields = |out: &mut Vec<u8>, kind: u8, channel: ChannelId, offsets: &[u64]| {
            out.push(kind);
            out.extend_from_slice(&channel.0.to_le_bytes());
            offsets.iter().for_each(|offset| out.extend_from_slice(&offset.to_le_bytes()));
        };
        match self {
            Packet::Hello { hello, message } => {
                out.push(HELLO);
                codec::encode(hello, out);
                out.extend_from_slice(message);
            }
            Packet::Welcome { message } => {
                out.push(WELCOME);
                out.extend_from_slice(message);
            }
            Packet::Confirm => out.push(CONFIRM),
            Packet::Knock => out.push(KNOCK),
            Packet::Sealed { number, packet } => {
                out.push(SEALED);
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(packet);
            }
            Packet::Refuse(reason) => {
                out.push(REFUSE);
                out.extend_from_slice(reason.as_bytes());
            }
            Packet::Data { channel, offset, payload } => {
                out.extend_from_slice(&Packet::data_header(*channel, *offset));
                out.extend_from_slice(payload);
            }
            Packet::End { channel, offset } => fields(out, END, *channel, &[*offset]),
            Packet::Credit(at) => fields(out, CREDIT, at.channel, &[at.received, at.taken, at.limit]),
            Packet::Rewind { channel, from } => fields(out, REWIND, *channel, &[*from]),
            Packet::Reset { channel, reason } => {
                fields(out, RESET, *channel, &[]);
                out.push(*reason as u8);
            }
        }
    }

    /// Parses the body of a frame.
    pub fn decode(body: &'a [u8]) -> Result<Packet<'a>, DecodeError> {
        let (&kind, rest) = body.split_first().ok_or(DecodeError::Truncated)?;
        let mut fields = Fields(rest);
        let packet = match kind {
            HELLO => return codec::decode(rest).map(|(hello, message)| Packet::Hello { hello, message }),
            WELCOME => return Ok(Packet::Welcome { message: rest }),
            CONFIRM => Packet::Confirm,
            KNOCK => Packet::Knock,
            SEALED => return Ok(Packet::Sealed { number: fields.offset()?, packet: fields.0 }),
            REFUSE => return Ok(Packet::Refuse(String::from_utf8_lossy(rest).into_owned())),
            DATA => {
                return Ok(Packet::Data { channel: fields.channel()?, offset: fields.offset()?, payload: fields.0 });
            }
            END => Packet::End { channel: fields.channel()?, offset: fields.offset()? },
            CREDIT => Packet::Credit(Credit {
                channel: fields.channel()?,
                received: fields.offset()?,
                taken: fields.offset()?,
                limit: fields.offset()?,
            }),
            REWIND => Packet::Rewind { channel: fields.channel()?, from: fields.offset()? },
            RESET => Packet::Reset { channel: fields.channel()?, reason: ResetReason::from_byte(fields.byte()?) },
            _ => return Err(DecodeError::UnknownKind),
        };
        match fields.0 {
            [] => Ok(packet),
            rest => Err(DecodeError::Malformed(format!("{} bytes follow it", rest.len()))),
        }
    }
}

impl ResetReason {
    fn from_byte(byte: u8) -> ResetReason {
        [ResetReason::NoSuchChannel, ResetReason::NotRead, ResetReason::Violation]
            .into_iter()
            .find(|&reason| reason as u8 == byte)
            .unwrap_or(ResetReason::Other)
    }
}

/// Fixed-size fields, front to back.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*field)
    }

    fn channel(&mut self) -> Result<ChannelId, DecodeError> {
        self.take().map(u32::from_le_bytes).map(ChannelId)
    }

    fn offset(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_le_bytes)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.take().map(u8::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind, with the bytes that `docs/protocol.md` shows.
    fn vectors() -> Vec<(Packet<'static>, &'static str)> {
        let at = Credit { channel: ChannelId(2), received: 5, taken: 4, limit: 300 };
        let hello = Hello { versions: (1, 1), vm: "c1".into(), sealed: true };
        vec![
            (Packet::Hello { hello, message: b"noise" }, "01 01 01 02 63 31 01 6e 6f 69 73 65"),
            (Packet::Welcome { message: b"noise" }, "02 6e 6f 69 73 65"),
            (Packet::Refuse("no".into()), "03 6e 6f"),
            (Packet::Confirm, "04"),
            (Packet::Knock, "05"),
            (
                Packet::Data { channel: ChannelId(2), offset: 258, payload: b"hi" },
                "10 02 00 00 00 02 01 00 00 00 00 00 00 68 69",
            ),
            (Packet::End { channel: ChannelId(2), offset: 260 }, "11 02 00 00 00 04 01 00 00 00 00 00 00"),
            (
                Packet::Credit(at),
                "12 02 00 00 00 05 00 00 00 00 00 00 00 04 00 00 00 00 00 00 00 2c 01 00 00 00 00 00 00",
            ),
            (Packet::Rewind { channel: ChannelId(2), from: 5 }, "13 02 00 00 00 05 00 00 00 00 00 00 00"),
            (Packet::Reset { channel: ChannelId(2), reason: ResetReason::NotRead }, "14 02 00 00 00 02"),
            (Packet::Sealed { number: 258, packet: b"hi" }, "20 02 01 00 00 00 00 00 00 68 69"),
        ]
    }

    #[test]
    fn golden_packets() {
        for (packet, golden) in vectors() {
            let mut bytes = Vec::new();
            packet.encode(&mut bytes);
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex.join(" "), golden, "{packet:?}");
            assert_eq!(Packet::decode(&bytes), Ok(packet));
        }
    }

    #[test]
    fn golden_greeting() {
        let at = Position { channel: ChannelId(2), received: 5, taken: 4, limit: 300, kept: 3, ended: true };
        let greeting = Greeting { version: 1, boot: *b"0123456789abcdef", window: 65536, positions: vec![at] };
        let mut bytes = Vec::new();
        codec::encode(&greeting, &mut bytes);
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = "01 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66 fc 00 00 01 00 01 02 05 04 fb 2c 01 03 01";
        assert_eq!(hex.join(" "), golden);
        assert!(include_str!("../../docs/protocol.md").contains(golden));
    }

    #[test]
    fn a_greeting_that_cannot_be_true_is_told() {
        let at = Position { channel: ChannelId(2), received: 5, taken: 4, limit: 300, kept: 3, ended: true };
        let greeting = |at| Greeting { version: 1, boot: [0; 16], window: 1, positions: vec![at] };
        assert!(greeting(at).is_possible());
        for lie in [
            Position { received: u64::MAX, ..at },
            Position { limit: u64::MAX, ..at },
            Position { kept: u64::MAX, ..at },
            Position { taken: 5, ..at },
            Position { received: 0, taken: 0, ..at },
        ] {
            assert!(!greeting(lie).is_possible(), "{lie:?}");
        }
    }

    #[test]
    fn the_protocol_document_shows_every_vector() {
        let document = include_str!("../../docs/protocol.md");
        for (packet, golden) in vectors() {
            assert!(document.contains(golden), "docs/protocol.md lacks {packet:?}: {golden}");
        }
    }

    #[test]
    fn cut_short_is_an_error_at_every_byte() {
        for (packet, _) in vectors() {
            let mut bytes = Vec::new();
            packet.encode(&mut bytes);
            let whole = match packet {
                Packet::Data { .. } => DATA_HEADER,
                Packet::Refuse(_) | Packet::Welcome { .. } => 1,
                Packet::Hello { .. } => 7,
                Packet::Sealed { .. } => 9,
                _ => bytes.len(),
            };
            for cut in 0..whole {
                assert!(Packet::decode(&bytes[..cut]).is_err(), "{packet:?} cut to {cut}");
            }
        }
    }

    #[test]
    fn an_unknown_kind_is_told_from_a_broken_one() {
        assert_eq!(Packet::decode(&[0x7f, 1, 2]), Err(DecodeError::UnknownKind));
        assert_eq!(Packet::decode(&[]), Err(DecodeError::Truncated));
    }
}
