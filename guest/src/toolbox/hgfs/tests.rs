//! Packets as the protocol lays them out, byte for byte, and as nobody should.

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A request as a host packs it.
fn packet(operation: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(52 + payload.len()).unwrap();
    let mut bytes = hex("01000000 ff000000 00000000 34000000 09000080 00000000 00000000 01000000 00000000");
    (bytes[8], bytes[20]) = (len, operation);
    bytes.extend(hex("5fcd723c19d43600 0000000000000000"));
    bytes.extend(payload);
    bytes
}

fn read(operation: u8, payload: &[u8]) -> Result<Call, Status> {
    let packet = Packet::read(&packet(operation, payload)).unwrap();
    assert_eq!((packet.id, packet.operation, packet.session), (0x8000_0009, operation.into(), 0x36_d419_3c72_cd5f));
    packet.call
}

fn call(operation: u8, payload: &str) -> Result<Call, Status> {
    read(operation, &hex(payload))
}

const OLD: &str = "00000080 0f000000";
/// `root 00 etc 00 hosts` with its length.
const HOSTS: &str = "0e000000 726f6f7400 65746300 686f737473";
const HOSTS_V3: &str = "0e000000 00000000 00000000 00000000 726f6f7400 65746300 686f737473";

fn hosts() -> Target {
    Target::Path("/etc/hosts".into())
}

#[test]
fn a_download_is_asked_for_in_six_packets() {
    assert_eq!(call(41, "00000000 00f80000 00000000 00000000 0000000000000000"), Ok(Call::CreateSession));
    let attributes = call(15, &format!("{OLD} 0000000000000000 00000080 {HOSTS} 00"));
    assert_eq!(attributes, Ok(Call::Attributes(hosts())));
    let open = Call::Open { path: "/etc/hosts".into(), how: How::Read };
    assert_eq!(call(0, &format!("{OLD} 00000000 00000000 06 {HOSTS} 73")), Ok(open));
    let read = Call::Read { handle: 7, offset: 0x1_0000, count: 0xf000 };
    assert_eq!(call(25, "07000000 0000010000000000 00f00000 0000000000000000"), Ok(read));
    assert_eq!(call(3, &format!("{OLD} 07000000")), Ok(Call::Close { handle: 7 }));
    assert_eq!(call(27, "07000000 0000000000000000"), Ok(Call::Close { handle: 7 }));
    assert_eq!(call(42, "0000000000000000"), Ok(Call::DestroySession));
    let of_open = format!("{OLD} 0400000000000000 07000000 00000000 00");
    assert_eq!(call(15, &of_open), Ok(Call::Attributes(Target::Handle(7))));
}

fn open_v3(mask: &str, access: u8, flags: u8, permissions: &str) -> Result<Call, Status> {
    let text = format!(
        "{mask}00000000 {access:02x}000000 {flags:02x}000000 {permissions} {} {} {HOSTS_V3} 00",
        "0000000000000000 0000000000000000 00000000", "00000000 00000000 0000000000000000 0000000000000000"
    );
    call(24, &text)
}

fn attributes(mask: &str) -> String {
    let times = "0000000000000000 0000000000000000 004a6d1fe5a5ad01 0000000000000000";
    let rest =
        "0000000000000000 0000000000000000 e8030000 e9030000 0000000000000000 00000000 00000000 0000000000000000";
    format!("{mask}00000000 00000000 0500000000000000 {times} 04070501 {rest}")
}

#[test]
fn an_upload_is_opened_given_attributes_and_written() {
    let open = |mode, fresh| Ok(Call::Open { path: "/etc/hosts".into(), how: How::Write { mode, fresh } });
    assert_eq!(open_v3("0b080000", 1, 4, "00060000"), open(0o644, false), "a host names the owner's alone");
    assert_eq!(open_v3("3f080000", 1, 3, "04070501"), open(0o4751, true));
    assert_eq!(open_v3("00000000", 1, 4, "00000000"), open(0o644, false));

    let set = |mask: &str| {
        let payload = format!("{OLD} 0000000000000000 {} 00000000 {HOSTS} 00", attributes(mask));
        match call(16, &payload) {
            Ok(Call::SetAttributes(target, changes)) if target == hosts() => changes,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(set("00000000"), Changes::default());
    let all = Changes { mode: 0o4751, mask: 0o7777, uid: Some(1000), gid: Some(1001), size: Some(5) };
    assert_eq!(set("c2330000"), all);
    assert_eq!(set("80010000"), Changes { mode: 0o750, mask: 0o770, ..Changes::default() });

    let write = |flags: &str| call(26, &format!("07000000 {flags} 0100000000000000 02000000 0000000000000000 6869"));
    let data = b"hi".to_vec();
    assert_eq!(write("00"), Ok(Call::Write { handle: 7, offset: Some(1), data: data.clone() }));
    assert_eq!(write("01"), Ok(Call::Write { handle: 7, offset: None, data }));
}

#[test]
fn ways_to_open_that_would_keep_a_part_of_a_file_are_not_served() {
    for (access, flags) in [(0, 4), (1, 0), (1, 1), (1, 2), (2, 4), (3, 0), (0, 5)] {
        assert_eq!(open_v3("03080000", access, flags, "00000000"), Err(Status::NotSupported), "{access} {flags}");
    }
}

#[test]
fn a_name_leads_nowhere_upwards() {
    let named = |name: &[u8]| {
        let len = u32::try_from(name.len()).unwrap().to_le_bytes();
        read(15, &[&hex(OLD)[..], &[0; 12], &len, name, &[0]].concat())
    };
    let is = |path: &str| Ok(Call::Attributes(Target::Path(path.into())));
    assert_eq!(named(b"root\0a"), is("/a"));
    assert_eq!(named("root\0ä\0..b\0c..".as_bytes()), is("/ä/..b/c.."));
    for name in [
        &b""[..],
        b"root",
        b"root\0",
        b"root\0a\0",
        b"root\0..\0etc\0passwd",
        b"root\0a\0..",
        b"root\0.\0a",
        b"root\0../etc/passwd",
        b"root\0a/b",
        b"rooted\0a",
        b"C\0a",
        b"\0a",
        b"root\0\xff",
    ] {
        assert_eq!(named(name), Err(Status::InvalidName), "{name:?}");
    }
}

#[test]
fn what_is_too_short_or_not_served_has_a_status() {
    let payloads = [
        (0, format!("{OLD} 00000000 00000000 06 {HOSTS}")),
        (3, format!("{OLD} 07000000")),
        (15, format!("{OLD} 0000000000000000 00000000 {HOSTS}")),
        (16, format!("{OLD} 0000000000000000 {} 00000000 {HOSTS}", attributes("00000000"))),
        (25, "07000000 0000000000000000 00f00000".into()),
        (26, "07000000 00 0000000000000000 02000000 0000000000000000 6869".into()),
        (27, "07000000".into()),
    ];
    for (operation, payload) in payloads {
        let payload = hex(&payload);
        assert!(read(operation, &payload).is_ok(), "{operation}");
        for len in 0..payload.len() {
            assert_eq!(read(operation, &payload[..len]), Err(Status::Protocol), "{operation} {len}");
        }
    }
    let lies = "07000000 00 0000000000000000 ffffffff 0000000000000000 6869";
    assert_eq!(call(26, lies), Err(Status::Protocol));
    for operation in [1, 2, 4, 14, 17, 23, 28, 43, 255] {
        assert_eq!(read(operation, &[0; 99]), Err(Status::NotSupported), "{operation}");
    }
}

#[test]
fn a_packet_whose_header_lies_is_none() {
    let good = packet(27, &hex("07000000 0000000000000000"));
    assert!(Packet::read(&good).is_some());
    for len in 0..good.len() {
        assert_eq!(Packet::read(&good[..len]), None, "{len} bytes");
    }
    // the mark, the whole length, the header's
    for (at, value) in [(4, 0_u32), (8, 51), (8, 65), (8, u32::MAX), (12, 0), (12, 51), (12, u32::MAX)] {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        assert_eq!(Packet::read(&bytes), None, "{at} {value}");
    }
}

/// The payload of an answer whose header is as it must be.
fn answered(operation: u8, outcome: Result<Answer, Status>, status: u8) -> Vec<u8> {
    let answer = Packet::read(&packet(operation, &[])).unwrap().answer(&outcome);
    let mut header = hex("01000000 ff000000 00000000 34000000 09000080 00000000 00000000 02000000 00000000");
    header[8..12].copy_from_slice(&u32::try_from(answer.len()).unwrap().to_le_bytes());
    (header[20], header[24]) = (operation, status);
    assert_eq!(answer[..36], header);
    assert_eq!(answer[44..52], [0; 8]);
    let session = if let Ok(Answer::Session(session)) = outcome { session } else { 0x36_d419_3c72_cd5f };
    assert_eq!(answer[36..44], session.to_le_bytes());
    answer[52..].to_vec()
}

#[test]
fn each_answer_has_its_shape() {
    let session = answered(41, Ok(Answer::Session(9)), 0);
    assert_eq!(session[..28], hex("0900000000000000 0a000000 00f80000 00000000 01000000 00000000"));
    assert_eq!((session.len(), &session[28..44]), (28 + 8 * 10, &hex("00000000 01000000 03000000 01000000")[..]));
    assert_eq!(answered(42, Ok(Answer::Done), 0), [0; 8]);
    assert_eq!(answered(0, Ok(Answer::Opened(7)), 0), hex("0000000000000000 07000000"));
    assert_eq!(answered(24, Ok(Answer::Opened(7)), 0), hex("07000000 00000000 00000000 00000000"));
    assert_eq!(answered(25, Ok(Answer::Read(b"hi".to_vec())), 0), hex("02000000 0000000000000000 6869"));
    assert_eq!(answered(26, Ok(Answer::Written(2)), 0), hex("02000000 0000000000000000"));
    assert_eq!([3, 16, 27].map(|operation| answered(operation, Ok(Answer::Done), 0)), [[0; 8]; 3]);
    let of = Attributes { size: 198, mode: 0o104_644, uid: 1000, gid: 5, modified: 0, accessed: 0 };
    let expected = "0000000000000000 c333000000000000 00000000 c600000000000000
        0000000000000000 0000000000000000 0000000000000000 0000000000000000 04060404
        0000000000000000 0000000000000000 e8030000 05000000 0000000000000000 00000000 00000000 0000000000000000
        00000000 00";
    assert_eq!(answered(15, Ok(Answer::Attributes(of)), 0), hex(expected));
    assert_eq!(answered(25, Err(Status::StaleSession), 17), [0_u8; 0]);
}

#[test]
fn the_longest_read_fits_into_an_answer() {
    let Ok(Call::Read { count, .. }) = call(25, "07000000 0000000000000000 ffffffff 0000000000000000") else {
        panic!()
    };
    let packet = Packet::read(&packet(25, &[])).unwrap();
    assert_eq!(packet.answer(&Ok(Answer::Read(vec![0; count]))).len(), 0xf800);
}
