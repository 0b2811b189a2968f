//! What must hold for any bytes at all. The fuzz targets call these functions, and so does `wire/tests/seeds.rs` in every test run.

use std::time::Duration;

use wire::frame::{self, Decoder};
use wire::guestinfo;
use wire::handshake::{Entropy, LinkKey, Offer};
use wire::link::{Link, Role, Security, Tuning, VERSION};
use wire::log::{MAX_BYTES, Reader};
use wire::message::Message;
use wire::packet::{Hello, Packet};
use wire::vmx::Dictionary;

/// The frames in any bytes are the same however they arrive, and each comes back when it is framed again.
pub fn frame(bytes: &[u8]) {
    let mut found = Vec::new();
    Decoder::default().feed(bytes, |body| found.push(body.to_vec()));
    let (mut decoder, mut pieces) = (Decoder::default(), Vec::new());
    let step = usize::from(bytes.first().copied().unwrap_or(0)) + 1;
    bytes.chunks(step).for_each(|chunk| decoder.feed(chunk, |body| pieces.push(body.to_vec())));
    assert_eq!(found, pieces);
    let mut line = Vec::new();
    found.iter().for_each(|body| frame::encode(body, &[], &mut line));
    let mut again = Vec::new();
    Decoder::default().feed(&line, |body| again.push(body.to_vec()));
    assert_eq!(found, again);
}

/// A host hears any bytes: as they are, in a frame, and from somebody with the key who greets with them. It is never opened by them, nor closed, and the
/// next guest with the key gets in.
pub fn hello(bytes: &[u8]) {
    let key = LinkKey::new([1; 32]);
    let security = |seed| Security { key: key.clone(), sealed: true, seed: [seed; 32] };
    let mut host = Link::new(Role::Host { vm: "c1".into() }, Tuning::FAST, security(2));
    let ms = Duration::from_millis;
    host.pipe_up(ms(0));
    host.handle_bytes(ms(0), bytes);

    let mut line = vec![frame::DELIMITER];
    let body = &bytes[..bytes.len().min(frame::MAX_BODY)];
    frame::encode(body, &[], &mut line);
    host.handle_bytes(ms(100), &line);

    let payload = &bytes[..bytes.len().min(60_000)];
    let hello = Hello { versions: (VERSION, VERSION), vm: "c1".into(), sealed: true };
    let (_, message) = Offer::new(&key, &hello.prologue(), payload, &mut Entropy::new([3; 32]));
    let mut body = Vec::new();
    Packet::Hello { hello, message: &message }.encode(&mut body);
    line.clear();
    frame::encode(&body, &[], &mut line);
    host.handle_bytes(ms(200), &line);
    assert!(!host.is_open() && !host.is_closed());

    let mut guest = Link::new(Role::Guest { vm: "c1".into(), boot: [4; 16] }, Tuning::FAST, security(5));
    guest.pipe_up(ms(300));
    for _ in 0..3 {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while guest.poll_transmit(ms(300), &mut up) {}
        host.handle_bytes(ms(300), &up);
        while host.poll_transmit(ms(300), &mut down) {}
        guest.handle_bytes(ms(300), &down);
    }
    assert!(guest.is_open() && host.is_open());
}

/// A message that can be read is the same when it is written and read again.
pub fn message(bytes: &[u8]) {
    match Message::decode(bytes) {
        Ok(Message::UnknownRequest { .. } | Message::UnknownEvent) | Err(_) => {}
        Ok(message) => assert_eq!(Message::decode(&message.encode()), Ok(message)),
    }
}

/// Entries of a log are the same when they are written and read again, as far as one entry can hold them.
pub fn log(bytes: &[u8]) {
    let (mut line, mut count) = (Vec::new(), 0);
    Reader::default().feed(bytes, |entry| {
        if entry.bytes.len() <= MAX_BYTES {
            entry.encode(&mut line);
            count += 1;
        }
    });
    let mut reader = Reader::default();
    let mut again = Vec::new();
    reader.feed(&line, |entry| {
        entry.encode(&mut again);
        count -= 1;
    });
    assert!(line == again && count == 0 && reader.noise().runs == 0);
}

/// A spec that can be read is the same when it is written, as keys and as their text, and read again. Of VIC's keys and of ours alike.
pub fn spec(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(keys) = Dictionary::parse(text) else { return };
    assert_eq!(Dictionary::parse(&keys.to_string()), Ok(keys.clone()));
    let Ok(spec) = guestinfo::read(&keys) else { return };
    let written = guestinfo::write(&spec).to_string();
    let again = Dictionary::parse(&written).expect("what we write can be parsed");
    assert_eq!(guestinfo::read(&again), Ok(spec), "{written}");
}
