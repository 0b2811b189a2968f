//! What a guest's vsock finds at the other end.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use double::datamap::Packet;
use double::vsock::{HYPERVISOR, RPCI_PORT, Server, TCLO_PORT, preamble};
use double::{Faults, Vmx};
use tempfile::TempDir;

struct Host {
    vmx: Arc<Mutex<Vmx>>,
    place: TempDir,
    _server: Server,
}

impl Host {
    fn new(faults: Faults) -> Host {
        let mut vmx = Vmx::with(&[("guestinfo.foo", "hello")]);
        vmx.faults = faults;
        let vmx = Arc::new(Mutex::new(vmx));
        let place = tempfile::tempdir().unwrap();
        let _server = Server::listen(&place.path().join("vsock"), vmx.clone()).unwrap();
        Host { vmx, place, _server }
    }

    fn dial(&self, cid: u32, port: u32, source_port: u32) -> UnixStream {
        let mut connection = UnixStream::connect(self.place.path().join("vsock")).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        connection.write_all(&preamble(cid, port, source_port)).unwrap();
        connection
    }

    /// Waits until it is so, a minute at most.
    #[track_caller]
    fn until(&self, is_so: impl Fn(&Vmx) -> bool) {
        let start = Instant::now();
        while !is_so(&self.vmx.lock().unwrap()) {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", self.vmx);
            std::thread::yield_now();
        }
    }
}

fn receive(connection: &mut UnixStream) -> Option<Packet> {
    let mut head = [0; 4];
    connection.read_exact(&mut head).ok()?;
    let mut fields = vec![0; u32::from_be_bytes(head) as usize];
    connection.read_exact(&mut fields).ok()?;
    Some(Packet::decode(&fields).unwrap())
}

fn call(connection: &mut UnixStream, request: &str) -> String {
    connection.write_all(&Packet::message(request.as_bytes()).encode()).unwrap();
    match receive(connection) {
        Some(Packet::Message { bytes, .. }) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_answered_one_after_the_other() {
    let host = Host::new(Faults::default());
    let mut guest = host.dial(HYPERVISOR, RPCI_PORT, 1023);
    assert_eq!(call(&mut guest, "info-get guestinfo.foo"), "1 hello");
    assert_eq!(call(&mut guest, "info-get guestinfo.bar\0"), "0 No value found");
    let value = "x".repeat(65_000);
    assert_eq!(call(&mut guest, &format!("info-set guestinfo.x {value}")), "1 ");
    host.vmx.lock().unwrap().guestinfo.insert("guestinfo.large".to_owned(), vec![b'y'; 3_000_000]);
    assert_eq!(call(&mut guest, "info-get guestinfo.large").len(), 3_000_002);
}

#[test]
fn privilege_comes_with_the_source_port() {
    let host = Host::new(Faults { authenticate: true, ..Faults::default() });
    let ask = |port| call(&mut host.dial(HYPERVISOR, RPCI_PORT, port), "info-get guestinfo.foo");
    assert_eq!(ask(1023), "1 hello");
    assert_eq!(ask(1024), "0 Permission denied");
}

#[test]
fn who_asks_for_it_is_hung_up_on_after_the_reply() {
    let host = Host::new(Faults::default());
    let mut guest = host.dial(HYPERVISOR, RPCI_PORT, 1023);
    guest.write_all(&Packet::Message { bytes: b"log x".to_vec(), is_last: true }.encode()).unwrap();
    assert_eq!(receive(&mut guest), Some(Packet::message(b"1 ")));
    assert_eq!(guest.read(&mut [0]).unwrap(), 0);
}

#[test]
fn questions_come_when_there_are_any() {
    let host = Host::new(Faults::default());
    host.vmx.lock().unwrap().questions.push_back(b"reset".to_vec());
    let mut guest = host.dial(HYPERVISOR, TCLO_PORT, 1023);
    let mut answer = |answer: &[u8]| guest.write_all(&Packet::message(answer).encode()).unwrap();
    answer(b"");
    let mut reader = host.dial(HYPERVISOR, 1, 1);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "there is nobody at any other port");
    let mut other = host.dial(2, RPCI_PORT, 1023);
    assert_eq!(other.read(&mut [0]).unwrap_or(0), 0, "nor at any other CID");

    assert_eq!(receive(&mut guest), Some(Packet::message(b"reset")));
    host.vmx.lock().unwrap().questions.push_back(b"ping".to_vec());
    guest.write_all(&Packet::SignOfLife.encode()).unwrap();
    host.until(|vmx| vmx.signs_of_life == 2);
    guest.write_all(&Packet::message(b"OK ATR toolbox").encode()).unwrap();
    assert_eq!(receive(&mut guest), Some(Packet::message(b"ping")));
    guest.write_all(&Packet::message(b"OK ").encode()).unwrap();
    host.until(|vmx| vmx.answers.len() == 2);
    host.vmx.lock().unwrap().questions.extend([b"a".to_vec(), b"b".to_vec()]);
    assert_eq!(receive(&mut guest), Some(Packet::message(b"a")));
    drop(guest);
    host.until(|vmx| vmx.asked.is_none());
    let mut guest = host.dial(HYPERVISOR, TCLO_PORT, 1023);
    assert_eq!(receive(&mut guest), Some(Packet::message(b"b")), "a question to nobody is not asked again");
}

#[test]
fn who_sends_nonsense_is_hung_up_on() {
    let check = |bytes: &[u8], complaint: &str| {
        let host = Host::new(Faults::default());
        let mut guest = host.dial(HYPERVISOR, RPCI_PORT, 1023);
        guest.write_all(bytes).unwrap();
        guest.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(guest.read(&mut [0]).unwrap_or(0), 0);
        host.until(|vmx| vmx.complaints == [complaint]);
        assert!(host.vmx.lock().unwrap().requests.is_empty());
    };
    let good = Packet::message(b"log x").encode();
    check(&good[..2], "a packet ends in the middle of its field 0");
    check(&good[..24], "a packet ends in the middle of its field 2");
    check(&[0xff; 20], "a packet of 4294967295 bytes is longer than VMX takes");
    check(&[0, 0, 0, 0], "the field 1 is missing, or of the wrong type");
}

#[test]
fn replies_go_wrong_as_they_are_told_to() {
    let host = Host::new(Faults { swollen: Some(u32::MAX), ..Faults::default() });
    let mut guest = host.dial(HYPERVISOR, RPCI_PORT, 1023);
    guest.write_all(&Packet::message(b"info-get guestinfo.foo").encode()).unwrap();
    let mut start = [0; 40];
    guest.read_exact(&mut start).unwrap();
    assert_eq!(start[..4], [0xff; 4]);
    assert_eq!(start[28..], *b"\xff\xff\xff\xff1 hello ");
    drop(guest);

    let host = Host::new(Faults { cut_at: Some(30), ..Faults::default() });
    let mut guest = host.dial(HYPERVISOR, RPCI_PORT, 1023);
    guest.write_all(&Packet::message(b"info-get guestinfo.foo").encode()).unwrap();
    let mut all = Vec::new();
    guest.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 30);

    let host = Host::new(Faults { deaf: true, ..Faults::default() });
    let mut guest = host.dial(HYPERVISOR, RPCI_PORT, 1023);
    guest.write_all(&Packet::message(b"info-get guestinfo.foo").encode()).unwrap();
    guest.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert!(guest.read(&mut [0]).is_err(), "there is no answer, and no end");
}
