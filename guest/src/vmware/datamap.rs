//! What RPCI over vsock puts around a request and its reply: a length, and fields with types and numbers.
//!
//! ```text
//! u32 length of the rest   { u32 type   u32 number   value } …        all big-endian
//! ```
//!
//! A value of type 1 is an integer, its low half first; one of type 2 is text, a length and bytes. Source: open-vm-tools, lib/dataMap/dataMap.c.

/// More than any frame that is taken: a reply has two fields and [`super::MOST_RECEIVED`] bytes.
pub(super) const OVERHEAD: usize = 256;

const INTEGER: u32 = 1;
const TEXT: u32 = 2;

/// The number of the field that says what a frame is, and its value here: 1, as two halves.
const KIND: u32 = 1;
const DATA: [u32; 2] = [1, 0];
const PAYLOAD: u32 = 2;

/// The frame of a request.
pub(super) fn encode(request: &[u8]) -> Vec<u8> {
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let kind = [INTEGER, KIND, DATA[0], DATA[1]];
    let payload = [TEXT, PAYLOAD, length(request.len())];
    let rest = (kind.len() + payload.len()) * 4 + request.len();
    let mut frame = Vec::with_capacity(4 + rest);
    for word in [length(rest)].into_iter().chain(kind).chain(payload) {
        frame.extend(word.to_be_bytes());
    }
    frame.extend(request);
    frame
}

/// The reply in a frame, whose length has been read and taken off.
pub(super) fn decode(mut frame: &[u8]) -> Result<&[u8], &'static str> {
    let (mut is_data, mut payload) = (false, None);
    while !frame.is_empty() {
        let kind = word(&mut frame)?;
        let number = word(&mut frame)?;
        match kind {
            INTEGER => {
                let value = [word(&mut frame)?, word(&mut frame)?];
                is_data |= number == KIND && value == DATA;
            }
            TEXT => {
                let length = word(&mut frame)? as usize;
                let (text, rest) = frame.split_at_checked(length).ok_or("a text is longer than its frame")?;
                frame = rest;
                if number == PAYLOAD {
                    payload = Some(text);
                }
            }
            _ => return Err("a field of a frame has an unknown type"),
        }
    }
    if !is_data {
        return Err("a frame does not say that it is a reply");
    }
    payload.ok_or("a reply's frame has no reply")
}

fn word(frame: &mut &[u8]) -> Result<u32, &'static str> {
    let (bytes, rest) = frame.split_first_chunk().ok_or("a frame ends within a field")?;
    *frame = rest;
    Ok(u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_s_bytes() {
        #[rustfmt::skip]
        let expected = [
            0, 0, 0, 33,
            0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0,
            0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 5, b'l', b'o', b'g', b' ', b'a',
        ];
        assert_eq!(encode(b"log a"), expected);
        assert_eq!(decode(&expected[4..]), Ok(&b"log a"[..]));
    }

    /// A frame without its length.
    fn frame(words: &[u32], text: &[u8]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).chain(text.iter().copied()).collect()
    }

    #[test]
    fn fields_come_in_any_order_and_unknown_numbers_are_passed_over() {
        let order = frame(&[1, 9, 5, 5, 1, 1, 1, 0, 2, 7, 0, 2, 2, 3], b"1 a");
        assert_eq!(decode(&order), Ok(&b"1 a"[..]));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = encode(b"1 value");
        for end in 4..whole.len() {
            assert!(decode(&whole[4..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn lies_are_named() {
        let check = |words: &[u32], text: &[u8], expected| assert_eq!(decode(&frame(words, text)), Err(expected));
        check(&[1, 1, 1, 0, 2, 2, 4], b"1 a", "a text is longer than its frame");
        check(&[1, 1, 1, 0, 2, 2, u32::MAX], b"1 a", "a text is longer than its frame");
        check(&[1, 1, 1, 0, 2, 2, 2], b"1 a", "a frame ends within a field");
        check(&[3, 1, 1, 0], b"", "a field of a frame has an unknown type");
        check(&[1, 1, 2, 0, 2, 2, 0], b"", "a frame does not say that it is a reply");
        // the halves of a number are in VMware's order
        check(&[1, 1, 0, 1, 2, 2, 0], b"", "a frame does not say that it is a reply");
        check(&[1, 1, 1, 0], b"", "a reply's frame has no reply");
        check(&[], b"", "a frame does not say that it is a reply");
    }
}
