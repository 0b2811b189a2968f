//! The concentrator, and hosts on real sockets: bytes are the same at both ends, also when the VM moves, stays, or is not whose it says.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::session::Session;
use super::telnet::{Command, Decoder, write_data, write_sub};
use super::*;

const DEADLINE: Duration = Duration::from_secs(20);
const EXT: u8 = extension::OPTION;

/// A host's end of one VM's port.
struct Esxi {
    stream: TcpStream,
    decoder: Decoder,
    data: Vec<u8>,
    heard: Vec<Vec<u8>>,
}

impl Esxi {
    async fn connect(at: SocketAddr) -> Esxi {
        let stream = TcpStream::connect(at).await.unwrap();
        Esxi { stream, decoder: Decoder::default(), data: Vec::new(), heard: Vec::new() }
    }

    async fn say(&mut self, command: &[u8]) {
        let mut out = Vec::new();
        write_sub(EXT, &[command], &mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    async fn send(&mut self, data: &[u8]) {
        let mut out = Vec::new();
        write_data(data, &mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    /// False at the end.
    async fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let count = timeout(DEADLINE, self.stream.read(&mut buffer)).await.expect("in time").unwrap_or(0);
        for command in self.decoder.feed(&buffer[..count], &mut self.data) {
            if let Command::Subnegotiate(EXT, bytes) = command {
                self.heard.push(bytes);
            }
        }
        count > 0
    }

    /// What the host hears with that command, without it.
    async fn hear(&mut self, command: u8) -> Vec<u8> {
        loop {
            if let Some(at) = self.heard.iter().position(|bytes| bytes[0] == command) {
                return self.heard.remove(at)[1..].to_vec();
            }
            assert!(self.read().await, "closed before {command}");
        }
    }

    async fn receive(&mut self, count: usize) -> Vec<u8> {
        while self.data.len() < count {
            assert!(self.read().await, "closed");
        }
        std::mem::take(&mut self.data)
    }
}

async fn concentrator() -> (Concentrator, SocketAddr) {
    let concentrator = Concentrator::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let at = concentrator.address().unwrap();
    (concentrator, at)
}

async fn port(concentrator: &mut Concentrator) -> Port {
    timeout(DEADLINE, concentrator.accept()).await.expect("a port in time").unwrap()
}

async fn read(port: &mut Port, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(DEADLINE, port.bytes.read_exact(&mut bytes)).await.expect("bytes in time").unwrap();
    bytes
}

/// A VM whose port works, and what its host was given for a move.
async fn about_to_move(at: SocketAddr, concentrator: &mut Concentrator) -> (Esxi, Port, Vec<u8>) {
    let mut source = Esxi::connect(at).await;
    let mut port = port(concentrator).await;
    source.send(b"here").await;
    assert_eq!(read(&mut port, 4).await, b"here");
    port.bytes.write_all(b"to you").await.unwrap();
    assert_eq!(source.receive(6).await, b"to you");
    source.say(b"\x28seq\xff").await;
    let key = source.hear(41).await;
    assert!(key.starts_with(b"seq\xff") && key.len() == 4 + extension::SECRET);
    (source, port, key)
}

#[tokio::test]
async fn bytes_of_every_kind_go_both_ways_and_names_are_learnt() {
    let (mut concentrator, at) = concentrator().await;
    let mut host = Esxi::connect(at).await;
    let mut port = port(&mut concentrator).await;
    host.say(&[0, 80, 81, 82, 83]).await;
    host.hear(81).await;
    host.say(b"\x52web 1").await;
    port.names.wait_for(|names| names.name.as_deref() == Some("web 1")).await.unwrap();
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let (sending, receiving) = (host.send(&all), read(&mut port, all.len()));
    assert!(tokio::join!(sending, receiving).1 == all);
    let (near, bytes) = (&mut port.bytes, &all);
    let (sent, received) = tokio::join!(near.write_all(bytes), host.receive(all.len()));
    sent.unwrap();
    assert!(received == all);
    drop(host);
    assert_eq!(port.bytes.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_vm_moves_in_the_middle_of_what_it_says_and_hears() {
    let (mut concentrator, at) = concentrator().await;
    let (mut source, mut port, key) = about_to_move(at, &mut concentrator).await;
    // for the VM, while it is on its way; and its own words, which go on
    port.bytes.write_all(b"held").await.unwrap();
    source.send(b"still ").await;
    assert_eq!(read(&mut port, 6).await, b"still ");
    let mut target = Esxi::connect(at).await;
    target.say(&[&[44], &key[..]].concat()).await;
    assert_eq!(target.hear(45).await, key);
    assert!(source.data.is_empty() && target.data.is_empty());
    // the new host's words are faster than the old one's last
    target.say(b"\x2eseq\xff").await;
    target.send(b"there").await;
    source.send(b"and then ").await;
    source.stream.shutdown().await.unwrap();
    assert_eq!(read(&mut port, 14).await, b"and then there");
    assert_eq!(target.receive(4).await, b"held");
    assert!(!source.read().await && source.data.is_empty(), "the old host was told nothing more");
    // and on to the next one
    target.say(b"\x28again").await;
    let key = target.hear(41).await;
    let mut third = Esxi::connect(at).await;
    third.say(&[&[44], &key[..]].concat()).await;
    third.hear(45).await;
    third.say(b"\x2eagain").await;
    drop(target);
    third.send(b"third").await;
    assert_eq!(read(&mut port, 5).await, b"third");
}

#[tokio::test]
async fn a_move_that_comes_to_nothing_leaves_the_vm_where_it_is() {
    let (mut concentrator, at) = concentrator().await;
    let (mut source, mut port, key) = about_to_move(at, &mut concentrator).await;
    port.bytes.write_all(b"held").await.unwrap();
    let mut target = Esxi::connect(at).await;
    target.say(&[&[44], &key[..]].concat()).await;
    target.hear(45).await;
    // one move at a time
    source.say(b"\x28other").await;
    assert_eq!(source.hear(43).await, b"other");
    source.say(b"\x30seq\xff").await;
    assert_eq!(source.receive(4).await, b"held");
    assert!(!target.read().await, "the other connection is closed");
    source.send(b"stays").await;
    assert_eq!(read(&mut port, 5).await, b"stays");
    // its key is worth nothing any more
    let mut late = Esxi::connect(at).await;
    late.say(&[&[44], &key[..]].concat()).await;
    while late.read().await {}
    assert!(late.heard.iter().all(|bytes| bytes[0] != 45));
}

#[tokio::test]
async fn who_has_not_the_key_takes_nobodys_place_and_others_come_in_meanwhile() {
    let (mut concentrator, at) = concentrator().await;
    let (mut source, mut moving, key) = about_to_move(at, &mut concentrator).await;
    let mut liar = Esxi::connect(at).await;
    liar.say(b"\x2cseq\xff0123456789abcdef").await;
    while liar.read().await {}
    assert!(liar.heard.iter().all(|bytes| bytes[0] != 45));
    let mut other = Esxi::connect(at).await;
    other.send(b"hello").await;
    let mut others = port(&mut concentrator).await;
    assert_eq!(read(&mut others, 5).await, b"hello");
    // the old host's connection may end before the new one's begins
    source.send(b"bye").await;
    drop(source);
    assert_eq!(read(&mut moving, 3).await, b"bye");
    let mut target = Esxi::connect(at).await;
    target.say(&[&[44], &key[..]].concat()).await;
    target.hear(45).await;
    target.say(b"\x2eseq\xff").await;
    target.send(b"back").await;
    assert_eq!(read(&mut moving, 4).await, b"back");
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_never_arrives_is_given_up() {
    let (mut concentrator, at) = concentrator().await;
    let (source, mut port, _key) = about_to_move(at, &mut concentrator).await;
    drop(source);
    // paused time goes on as soon as nothing else does
    assert_eq!(timeout(Duration::from_secs(60), port.bytes.read(&mut [0])).await.expect("an end").unwrap(), 0);
}

#[test]
fn nonsense_is_survived_and_takes_little() {
    let mut random = 1u64;
    for _ in 0..200 {
        let mut session = Session::new();
        let mut data = Vec::new();
        for _ in 0..50 {
            let bytes: Vec<u8> = (0..100)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    // mostly what means something
                    let choice =
                        [255, 255, 250, 240, 232, 251, 252, 253, 254, 0, 40, 44, 46, 48, 82, random.to_be_bytes()[2]];
                    choice[(random >> 33) as usize % choice.len()]
                })
                .collect();
            session.feed(&bytes, &mut data);
        }
        assert!(session.out.len() < 100_000 && data.len() <= 5000);
    }
}
