//! How messages are framed over vsock: one map of numbered fields a packet. Pure.
//!
//! Source: open-vm-tools, `lib/dataMap/dataMap.c` and `lib/include/guestrpc/` (fields). All numbers are big-endian, but that the low half of a 64-bit one comes first.
//!
//! ```text
//! u32 bytes that follow, then fields: u32 type, u32 id, value
//! type 1: u32 low half, u32 high half        type 2: u32 length, bytes
//! id 1: what it is (1 a message, 2 a sign of life)    id 2: the message    id 3: 1 when the host shall close after its reply
//! ```

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A message. Over RPCI, `is_last` asks the host to close the connection when it has replied.
    Message { bytes: Vec<u8>, is_last: bool },
    /// Somebody is there.
    SignOfLife,
}

/// What is wrong with a packet of the guest's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    #[error("a packet of {0} bytes is longer than VMX takes")]
    TooLong(u32),
    #[error("a packet ends in the middle of its field {0}")]
    Truncated(usize),
    #[error("a field has the type {0}, which nobody knows")]
    UnknownType(u32),
    #[error("the field {0} is there twice")]
    Twice(u32),
    #[error("the field {0} is missing, or of the wrong type")]
    Missing(u32),
    #[error("nobody knows packets of the kind {0}")]
    UnknownKind(u64),
}

const NUMBER: u32 = 1;
const STRING: u32 = 2;

const KIND: u32 = 1;
const MESSAGE: u32 = 2;
const FAST_CLOSE: u32 = 3;

const IS_MESSAGE: u64 = 1;
const IS_SIGN_OF_LIFE: u64 = 2;

/// The bytes of a packet before its fields.
pub const LENGTH: usize = 4;
/// The most that a guest may send behind [`LENGTH`]: `GUESTMSG_MAX_IN_SIZE`, in bytes, and its fields' heads.
pub const LONGEST: u32 = 64 * 1024 + 44;

impl Packet {
    /// A message, and no more.
    pub fn message(bytes: &[u8]) -> Packet {
        Packet::Message { bytes: bytes.to_vec(), is_last: false }
    }

    /// How many bytes follow. The length is bounded for what guests send, not for what they get.
    pub fn length(head: [u8; LENGTH]) -> Result<u32, PacketError> {
        let length = u32::from_be_bytes(head);
        if length > LONGEST { Err(PacketError::TooLong(length)) } else { Ok(length) }
    }

    /// What follows the length.
    pub fn decode(fields: &[u8]) -> Result<Packet, PacketError> {
        let (mut kind, mut message, mut fast_close) = (None, None, None);
        let mut rest = Rest { bytes: fields, field: 0 };
        while !rest.bytes.is_empty() {
            rest.field += 1;
            let (kind_of_field, id) = (rest.word()?, rest.word()?);
            let was_there = match kind_of_field {
                NUMBER => {
                    let number = u64::from(rest.word()?) | u64::from(rest.word()?) << 32;
                    match id {
                        KIND => kind.replace(number).is_some(),
                        FAST_CLOSE => fast_close.replace(number).is_some(),
                        _ => false,
                    }
                }
                STRING => {
                    let length = rest.word()?;
                    let string = rest.take(usize::try_from(length).unwrap_or(usize::MAX))?;
                    id == MESSAGE && message.replace(string).is_some()
                }
                other => return Err(PacketError::UnknownType(other)),
            };
            if was_there {
                return Err(PacketError::Twice(id));
            }
        }
        match kind.ok_or(PacketError::Missing(KIND))? {
            IS_MESSAGE => {
                let bytes = message.ok_or(PacketError::Missing(MESSAGE))?.to_vec();
                Ok(Packet::Message { bytes, is_last: fast_close == Some(1) })
            }
            IS_SIGN_OF_LIFE => Ok(Packet::SignOfLife),
            other => Err(PacketError::UnknownKind(other)),
        }
    }

    /// All of it, from its length on.
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        let mut number =
            |id: u32, low: u8| fields.extend([NUMBER, id, u32::from(low), 0].map(u32::to_be_bytes).as_flattened());
        match self {
            Packet::Message { bytes, is_last } => {
                number(KIND, 1);
                if *is_last {
                    number(FAST_CLOSE, 1);
                }
                fields.extend(head(MESSAGE, bytes.len()));
                fields.extend(bytes);
            }
            Packet::SignOfLife => number(KIND, 2),
        }
        [&u32::try_from(fields.len()).unwrap_or(u32::MAX).to_be_bytes()[..], &fields].concat()
    }

    /// What comes before a message that is said to have so many bytes, however many it has.
    pub fn head_of(length: u32) -> Vec<u8> {
        let mut packet = Packet::message(b"").encode();
        let empty = u32::try_from(packet.len() - LENGTH).unwrap_or(u32::MAX);
        packet[..LENGTH].copy_from_slice(&empty.saturating_add(length).to_be_bytes());
        let at = packet.len() - LENGTH;
        packet[at..].copy_from_slice(&length.to_be_bytes());
        packet
    }
}

fn head(id: u32, length: usize) -> Vec<u8> {
    [STRING, id, u32::try_from(length).unwrap_or(u32::MAX)].map(u32::to_be_bytes).as_flattened().to_vec()
}

/// The fields that are not yet read.
struct Rest<'b> {
    bytes: &'b [u8],
    /// Which field is being read, counted from one.
    field: usize,
}

impl<'b> Rest<'b> {
    fn take(&mut self, length: usize) -> Result<&'b [u8], PacketError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(PacketError::Truncated(self.field))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn word(&mut self) -> Result<u32, PacketError> {
        let (word, rest) = self.bytes.split_first_chunk().ok_or(PacketError::Truncated(self.field))?;
        self.bytes = rest;
        Ok(u32::from_be_bytes(*word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const PING: [u8; 36] = [
        0, 0, 0, 32,
        0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0,
        0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 4, b'p', b'i', b'n', b'g',
    ];

    #[test]
    fn a_message_has_these_bytes() {
        assert_eq!(Packet::message(b"ping").encode(), PING);
        assert_eq!(Packet::decode(&PING[4..]), Ok(Packet::message(b"ping")));
        assert_eq!(Packet::head_of(4), PING[..32]);
        let sign = Packet::SignOfLife.encode();
        assert_eq!(sign, [0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0]);
        let last = Packet::Message { bytes: b"log x".to_vec(), is_last: true };
        for packet in [last, Packet::SignOfLife, Packet::message(b"")] {
            let bytes = packet.encode();
            let head = *bytes.first_chunk().unwrap();
            assert_eq!(Packet::length(head), Ok(u32::try_from(bytes.len() - 4).unwrap()));
            assert_eq!(Packet::decode(&bytes[4..]), Ok(packet));
        }
    }

    #[test]
    fn what_is_malformed_is_named() {
        let check = |fields: &[u8], error: &str| assert_eq!(Packet::decode(fields).unwrap_err().to_string(), error);
        for length in 1..PING.len() - 4 {
            let error = Packet::decode(&PING[4..4 + length]).unwrap_err();
            let expected = match length {
                16 => PacketError::Missing(2),
                ..16 => PacketError::Truncated(1),
                _ => PacketError::Truncated(2),
            };
            assert_eq!(error, expected, "cut at {length}");
        }
        check(b"", "the field 1 is missing, or of the wrong type");
        let mut lies = PING[4..].to_vec();
        lies[24..28].fill(0xff);
        check(&lies, "a packet ends in the middle of its field 2");
        lies[3] = 9;
        check(&lies, "a field has the type 9, which nobody knows");
        check(&[&PING[4..], &PING[4..20]].concat(), "the field 1 is there twice");
        let mut kind = PING[4..].to_vec();
        kind[15] = 1;
        check(&kind, &format!("nobody knows packets of the kind {}", 1 | 1_u64 << 32));
        let length = Packet::length([0, 2, 0, 0]).unwrap_err();
        assert_eq!(length.to_string(), "a packet of 131072 bytes is longer than VMX takes");
    }
}
