//! Requests as hosts relay them, and as nobody should.

use super::*;
use crate::toolbox::hgfs::{Attributes, Call};
use crate::toolbox::{Output, Toolbox};

pub(in crate::toolbox) fn key() -> LinkKey {
    LinkKey::new(std::array::from_fn(|at| u8::try_from(at).unwrap()))
}

pub(in crate::toolbox) const ID: &str = "c1";

/// What a host relays.
#[derive(Clone)]
struct Relayed {
    operation: u32,
    flags: u8,
    body: Vec<u8>,
    kind: u32,
    credentials: Vec<u8>,
}

fn credentials(name: &str, password: &str) -> Vec<u8> {
    let lengths = [name.len(), password.len()].map(|len| u32::try_from(len).unwrap().to_le_bytes());
    let text = base64::encode(format!("{name}\0{password}\0").as_bytes());
    [&lengths.concat()[..], text.as_bytes(), &[0]].concat()
}

fn relayed(operation: u32, body: &[u8]) -> Relayed {
    Relayed { operation, flags: 0, body: body.into(), kind: 1, credentials: credentials(ID, &key().to_hex()) }
}

impl Relayed {
    fn bytes(&self) -> Vec<u8> {
        let len = |len: usize| u32::try_from(len).unwrap();
        let (body, credentials) = (self.body.len(), self.credentials.len());
        let mut bytes = b"Vix_1_Relayed_Command \"reloadState\"\0".to_vec();
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend([5, 0]);
        for word in [len(51 + body + credentials), 51, len(body), len(credentials)] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.push(self.flags);
        for word in [self.operation, 0, 0, 7, 0, 9, self.kind] {
            bytes.extend(word.to_le_bytes());
        }
        [&bytes[..], &self.body, &self.credentials].concat()
    }
}

fn start_body(program: &str, arguments: &str, dir: &str, env: &[&str]) -> Vec<u8> {
    let text = |text: &str| if text.is_empty() { Vec::new() } else { [text.as_bytes(), &[0]].concat() };
    let texts = [text(program), text(arguments), text(dir)];
    let env_bytes: Vec<u8> = env.iter().flat_map(|entry| text(entry)).collect();
    let mut body = vec![0];
    for len in [texts[0].len(), texts[1].len(), texts[2].len(), env.len(), env_bytes.len()] {
        body.extend(u32::try_from(len).unwrap().to_le_bytes());
    }
    [&body[..], &texts.concat(), &env_bytes].concat()
}

fn list_body(pids: &[u64]) -> Vec<u8> {
    let mut body = [0_u32, 0, u32::try_from(pids.len()).unwrap()].map(u32::to_le_bytes).concat();
    pids.iter().for_each(|pid| body.extend(pid.to_le_bytes()));
    body
}

fn download_body(path: &[u8]) -> Vec<u8> {
    let len = u32::try_from(path.len()).unwrap().to_le_bytes();
    [&[0; 4][..], &len, &[0; 20], path].concat()
}

fn upload_body(path: &[u8], overwrite: u8) -> Vec<u8> {
    let len = u32::try_from(path.len()).unwrap().to_le_bytes();
    [&[0; 4][..], &len, &[overwrite], path].concat()
}

fn packet_body(packet: &[u8]) -> Vec<u8> {
    [&u32::try_from(packet.len()).unwrap().to_le_bytes()[..], &[0xff; 4], packet].concat()
}

/// HGFS: close file 7 of session 5.
fn close_packet() -> Vec<u8> {
    let words = [1, 0xff, 64, 52, 9, 27, 0, 1, 0, 5, 0, 0, 0, 7, 0, 0_u32];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The one thing that comes of a message.
fn handle(bytes: &[u8]) -> Output {
    let mut outputs = Toolbox::new(ID, &key(), "tether 1").handle(bytes);
    assert_eq!(outputs.len(), 1);
    outputs.remove(0)
}

fn operation(relayed: &Relayed) -> Operation {
    match handle(&relayed.bytes()) {
        Output::Operate(operation, _) => operation,
        other => panic!("{other:?}"),
    }
}

/// What is answered to a request for which nothing is done.
fn answered(bytes: &[u8]) -> String {
    match handle(bytes) {
        Output::Answer(answer) => String::from_utf8(answer).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_program_is_started_as_it_is_asked_for() {
    let body = start_body("/bin/sh", "-c 'echo a b'", "/tmp", &["A=1", "B="]);
    let exec = Exec {
        argv: ["/bin/sh", "-c", "echo a b"].map(String::from).to_vec(),
        env: Environment(vec!["A=1".into(), "B=".into()]),
        dir: "/tmp".into(),
        user: String::new(),
        terminal: None,
        stdin: false,
        attach: false,
    };
    assert_eq!(operation(&relayed(185, &body)), Operation::Start(exec.clone()));
    let bare = Exec { argv: vec!["/x".into()], env: Environment::default(), dir: String::new(), ..exec };
    assert_eq!(operation(&relayed(185, &start_body("/x", "", "", &[]))), Operation::Start(bare));
}

#[test]
fn vics_own_programs_are_no_programs() {
    let check = |program, arguments, expected: Operation| {
        assert_eq!(operation(&relayed(185, &start_body(program, arguments, "", &[]))), expected);
    };
    check("kill", "", Operation::Signal(15));
    check("kill", "USR1", Operation::Signal(10));
    check("kill", "9", Operation::Signal(9));
    check("reload", "", Operation::Reload);
    for arguments in ["NONE", "65", "TERM 1"] {
        assert_eq!(answered(&relayed(185, &start_body("kill", arguments, "", &[])).bytes()), "OK 3 0 \0");
    }
}

#[test]
fn processes_are_listed_and_ended_by_number() {
    assert_eq!(operation(&relayed(186, &list_body(&[]))), Operation::List(vec![]));
    assert_eq!(operation(&relayed(186, &list_body(&[7, u64::MAX]))), Operation::List(vec![7, u64::MAX]));
    let kill = [&300_u64.to_le_bytes()[..], &[0; 4]].concat();
    assert_eq!(operation(&relayed(193, &kill)), Operation::Terminate(300));
}

#[test]
fn files_are_asked_for_by_their_path_and_their_bytes_in_packets() {
    for path in [&b"/etc/hosts"[..], b"/etc/hosts\0"] {
        assert_eq!(operation(&relayed(188, &download_body(path))), Operation::Download("/etc/hosts".into()));
        for overwrite in [false, true] {
            let body = [&upload_body(path, overwrite.into())[..], &[0]].concat();
            let expected = Operation::Upload { path: "/etc/hosts".into(), overwrite };
            assert_eq!(operation(&relayed(189, &body)), expected);
        }
    }
    let Operation::Transfer(packet) = operation(&relayed(84, &packet_body(&close_packet()))) else { panic!() };
    assert_eq!((packet.session, packet.call), (5, Ok(Call::Close { handle: 7 })));
    for path in [&b""[..], b"\0", b"/", b"etc/hosts", b"/etc/", b"/../x", b"/a/..", b"/a/./b", b"/a\0b", b"/\xff"] {
        for (operation, body) in [(188, download_body(path)), (189, upload_body(path, 1))] {
            assert_eq!(answered(&relayed(operation, &body).bytes()), "OK 3 0 \0", "{operation} {path:?}");
        }
    }
}

#[test]
fn a_file_is_told_with_its_attributes() {
    let of = Attributes { size: 9, mode: 0o100_644, uid: 1, gid: 2, modified: 3, accessed: -4 };
    let expected = "<fxi><Name>/a%3C</Name><ft>0</ft><fs>9</fs><mt>3</mt><at>-4</at><uid>1</uid><gid>2</gid>\
        <perm>33188</perm><slt></slt></fxi>";
    assert_eq!(String::from_utf8(file("/a<", &of)).unwrap(), expected);
}

#[test]
fn who_does_not_know_the_key_gets_nothing_done() {
    let right = key().to_hex();
    let wrong = right.replace('0', "1");
    let cut = |credentials: Vec<u8>, len: usize| credentials[..credentials.len() - len].to_vec();
    let mut lying = credentials(ID, &right);
    lying[0] = 200;
    let mut longer = credentials(ID, &right);
    longer[4] -= 1;
    let no_base64 = [&[2, 0, 0, 0, 64, 0, 0, 0][..], b"***\0"].concat();
    let text = base64::encode(format!("{ID}\0{right}\0and more\0").as_bytes());
    let and_more = [&[2, 0, 0, 0, 64, 0, 0, 0][..], text.as_bytes(), &[0]].concat();
    for (what, kind, credentials) in [
        ("none", 1, vec![]),
        ("a NUL", 1, vec![0]),
        ("another key", 1, credentials(ID, &wrong)),
        ("no key", 1, credentials(ID, "")),
        ("another name", 1, credentials("c2", &right)),
        ("no name", 1, credentials("", &right)),
        ("the name for the key", 1, credentials(ID, ID)),
        ("a part of the key", 1, credentials(ID, &right[..32])),
        ("more than the key", 1, credentials(ID, &format!("{right}00"))),
        ("another kind", 2, credentials(ID, &right)),
        ("no NUL", 1, cut(credentials(ID, &right), 1)),
        ("truncated", 1, cut(credentials(ID, &right), 9)),
        ("lengths that lie", 1, lying),
        ("a length that hides a digit", 1, longer),
        ("no base64", 1, no_base64),
        ("more behind them", 1, and_more),
    ] {
        for (operation, body) in [
            (185, start_body("/bin/true", "", "", &[])),
            (186, list_body(&[])),
            (193, vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (188, download_body(b"/etc/hosts\0")),
            (189, upload_body(b"/etc/hosts\0", 1)),
            (84, packet_body(&close_packet())),
        ] {
            let relayed = Relayed { kind, credentials: credentials.clone(), ..relayed(operation, &body) };
            assert_eq!(answered(&relayed.bytes()), "OK 35 0 \0", "{what} {operation}");
        }
    }
}

#[test]
fn what_is_not_served_is_unknown_to_anybody() {
    for operation in [0, 61, 83, 177, 184, 187, 192, 194, u32::MAX] {
        let known = relayed(operation, b"");
        assert_eq!(answered(&known.bytes()), "OK 3025 0 \0");
        assert_eq!(answered(&Relayed { credentials: vec![], ..known }.bytes()), "OK 3025 0 \0");
    }
}

#[test]
fn a_header_that_lies_is_refused() {
    let good = relayed(185, &start_body("/bin/true", "", "", &[])).bytes();
    let header = b"Vix_1_Relayed_Command \"reloadState\"\0".len();
    // magic, total length, header's, body's, credentials'
    for at in [0, 6, 10, 14, 18] {
        for value in [0, 1, 50, 52, 0x7fff_ffff, u32::MAX] {
            let mut bytes = good.clone();
            bytes[header + at..header + at + 4].copy_from_slice(&value.to_le_bytes());
            assert_eq!(answered(&bytes), "OK 10000 0 \0", "{at} {value}");
        }
    }
    for len in b"Vix_1_Relayed_Command".len()..good.len() {
        assert_eq!(answered(&good[..len]), "OK 10000 0 \0", "{len} bytes");
    }
    for bytes in [&b"Vix_1_Relayed_Command"[..], b"Vix_1_Relayed_Command  ", b"Vix_1_Relayed_Command \"x\"y"] {
        assert_eq!(answered(bytes), "OK 10000 0 \0");
    }
}

#[test]
fn a_body_that_lies_is_refused() {
    let check = |operation, body: &[u8], code| {
        assert_eq!(answered(&relayed(operation, body).bytes()), format!("OK {code} 0 \0"), "{operation} {body:?}");
    };
    let start = start_body("/bin/true", "-x", "/tmp", &["A=1"]);
    for len in 0..start.len() {
        check(185, &start[..len], 10_001);
    }
    for at in [1, 5, 9, 13, 17] {
        for value in [0, 2, 40, u32::MAX] {
            let mut body = start.clone();
            body[at..at + 4].copy_from_slice(&value.to_le_bytes());
            check(185, &body, 10_001);
        }
    }
    check(185, &start_body("/bin/\u{0}true", "", "", &[]), 10_001);
    check(185, &start_body("", "", "", &[]), 3);
    check(185, &start_body("/bin/true", "'", "", &[]), 3);
    check(185, &start_body("/bin/true", "", "", &["A"]), 3);
    let mut no_text = start_body("/bin/true", "", "", &[]);
    no_text[22] = 0xff;
    check(185, &no_text, 10_001);
    let mut list = list_body(&[1]);
    check(186, &list[..19], 10_001);
    list[8..12].copy_from_slice(&0x2000_0001_u32.to_le_bytes());
    check(186, &list, 10_001);
    check(186, b"", 10_001);
    check(193, &[0; 11], 10_001);
    for (operation, body) in
        [(188, download_body(b"/a\0")), (189, upload_body(b"/a\0", 0)), (84, packet_body(&close_packet()))]
    {
        for len in 0..body.len() {
            check(operation, &body[..len], 10_001);
        }
    }
    check(84, &packet_body(&close_packet()[..63]), 10_001);
}

#[test]
fn anybody_may_ask_for_the_state() {
    let mut toolbox = Toolbox::new(ID, &key(), "tether 1");
    toolbox.learn(crate::toolbox::Facts { host_name: "h".into(), release: "6.12.1".into(), ..Default::default() });
    let asked = Relayed { credentials: vec![], kind: 0, ..relayed(62, b"") };
    let [Output::Answer(answer)] = &toolbox.handle(&asked.bytes())[..] else { panic!() };
    let text = answer.strip_prefix(b"OK 0 0 ").unwrap().strip_suffix(&[0]).unwrap();
    let list = base64::decode(std::str::from_utf8(text).unwrap()).unwrap();
    let mut rest = Reader(&list);
    let mut properties = Vec::new();
    while !rest.0.is_empty() {
        let (number, kind, len) = (rest.u32().unwrap(), rest.u32().unwrap(), rest.len().unwrap());
        properties.push((number, kind, rest.take(len).unwrap()));
    }
    assert_eq!(properties[0], (4503, 2, &b"Linux 6.12.1 (tether 1)\0"[..]));
    assert_eq!(properties[1], (4520, 2, &b"other6xlinux-64\0"[..]));
    assert_eq!(properties[4..6], [(4505, 2, &b"h\0"[..]), (4501, 1, &[1, 0, 0, 0])]);
    let served: Vec<u32> =
        properties.iter().filter(|property| property.1 == 3 && property.2 == [1]).map(|it| it.0).collect();
    assert_eq!((served, properties.len()), (vec![4540, 4541, 4542, 4556, 4557], 7 + 18));
}

#[test]
fn an_answer_is_put_as_it_is_asked_for() {
    let of = |flags| match handle(&Relayed { flags, ..relayed(186, &list_body(&[])) }.bytes()) {
        Output::Operate(_, reply) => reply,
        other => panic!("{other:?}"),
    };
    assert_eq!(of(0).answer(&Ok(b"12".to_vec())), b"OK 0 0 12\0");
    assert_eq!(of(0x81).answer(&Ok(b"12".to_vec())), b"OK 0 0 #12");
    assert_eq!(of(0).answer(&Err(VixError::NoSuchProcess)), b"OK 20003 0 \0");
}

#[test]
fn a_list_of_processes_cannot_be_broken_out_of() {
    let process = Process {
        pid: 7,
        command: ["/bin/s<h", "100%", "</name>\n\0"].map(String::from).to_vec(),
        user: "0".into(),
        started: 1_600_000_000,
        exit: None,
    };
    let ended = Process { pid: 8, command: vec![], exit: Some((137, 1_600_000_009)), ..process.clone() };
    let expected = "<proc><cmd>s%3Ch</cmd><name>/bin/s%3Ch 100%25 %3C/name%3E%0A%00</name><pid>7</pid><user>0</user>\
        <start>1600000000</start><eCode>0</eCode><eTime>0</eTime></proc>\
        <proc><cmd></cmd><name></name><pid>8</pid><user>0</user>\
        <start>1600000000</start><eCode>137</eCode><eTime>1600000009</eTime></proc>";
    assert_eq!(String::from_utf8(list(&[process.clone(), ended])).unwrap(), expected);
    let many = vec![process; 10_000];
    let text = String::from_utf8(list(&many)).unwrap();
    assert!(text.len() < crate::vmware::MOST_SENT && text.len() > 60_000 && text.ends_with("</proc>"));
}

#[test]
fn no_secret_is_shown() {
    let toolbox = Toolbox::new(ID, &key(), "tether 1");
    let body = start_body("/bin/true", "", "", &["TOKEN=secret"]);
    let shown = format!("{toolbox:?} {:?}", operation(&relayed(185, &body)));
    assert!(!shown.contains("secret") && !shown.contains(&key().to_hex()), "{shown}");
}
