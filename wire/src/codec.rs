//! The bytes of structured values: bincode 2, `config::standard()`.
//!
//! Only this file names the encoder, so that any equal one can take its place; golden vectors pin the bytes
//! (docs/decisions/0002). Bulk bytes never pass through here: a data packet's payload is copied as it is.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest encoded value that is read, in bytes. It bounds what a peer can make us allocate.
pub const MAX_ENCODED: usize = 1024 * 1024;

/// Bytes that are not the value that they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("the value ends early")]
    Truncated,
    /// An enum's number is one that this version does not know.
    #[error("the value has a kind that this version does not know")]
    UnknownKind,
    /// Anything else.
    #[error("the value is malformed: {0}")]
    Malformed(String),
}

/// Appends `value` to `out`.
pub fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let bytes =
        bincode::serde::encode_to_vec(value, CONFIG).expect("our types have no map, no untagged enum, no float");
    out.extend_from_slice(&bytes);
}

/// Reads one value from the front of `bytes`; what follows it is returned too.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    use bincode::error::DecodeError as Cause;
    match bincode::serde::decode_from_slice(bytes, CONFIG) {
        Ok((value, used)) => Ok((value, &bytes[used..])),
        Err(Cause::UnexpectedEnd { .. }) => Err(DecodeError::Truncated),
        Err(Cause::UnexpectedVariant { .. }) => Err(DecodeError::UnknownKind),
        // serde's derive says it in words, from the generated visitor
        Err(Cause::OtherString(text)) if text.starts_with("invalid value: integer") => Err(DecodeError::UnknownKind),
        Err(cause) => Err(DecodeError::Malformed(cause.to_string())),
    }
}

/// Reads a value that is all of `bytes`.
pub fn decode_all<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match decode(bytes)? {
        (value, []) => Ok(value),
        (_, rest) => Err(DecodeError::Malformed(format!("{} bytes follow it", rest.len()))),
    }
}

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<MAX_ENCODED>,
> = bincode::config::standard().with_limit::<MAX_ENCODED>();

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    enum Old {
        First,
        Second(u16),
    }

    #[derive(Serialize)]
    enum New {
        First,
        Second(u16),
        Third,
    }

    #[test]
    fn what_both_versions_know_is_read_by_both() {
        for (new, old) in [(New::First, Old::First), (New::Second(500), Old::Second(500))] {
            let mut bytes = Vec::new();
            encode(&new, &mut bytes);
            assert_eq!(decode_all(&bytes), Ok(old));
        }
    }

    #[test]
    fn errors_tell_unknown_from_broken() {
        let mut bytes = Vec::new();
        encode(&New::Third, &mut bytes);
        assert_eq!(decode::<Old>(&bytes).unwrap_err(), DecodeError::UnknownKind);
        assert_eq!(decode::<Old>(&[]).unwrap_err(), DecodeError::Truncated);
        assert_eq!(decode::<Old>(&[1, 251]).unwrap_err(), DecodeError::Truncated);
        assert!(matches!(decode_all::<Old>(&[0, 0]).unwrap_err(), DecodeError::Malformed(_)));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let huge = [253, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(decode::<String>(&huge).is_err());
        assert!(decode::<Vec<u64>>(&huge).is_err());
    }
}
