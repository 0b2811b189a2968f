//! The guest's own instructions, answered by a double of the host: each way that a message takes, and each thing that a host does wrong.
//!
//! A thread's ports lead to the host of its own test.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};

use double::vsock::RPCI_PORT;
use double::{Faults, Origin, Plugged, Vmx};
use wire::guestinfo::Generation;
use wire::handshake::LinkKey;
use wire::spec::{LinkDevice, LinkSpec, Process, SPEED, Spec};

use super::*;
use crate::guestinfo::{Store as _, VmwareStore};

/// A machine with that host.
struct Machine {
    vmx: Arc<Mutex<Vmx>>,
    is_encrypted: bool,
    _plugged: Plugged,
}

impl Machine {
    fn new(faults: Faults) -> Machine {
        let mut vmx = Vmx::with(&[("guestinfo.foo", "hello"), ("guestinfo.empty", "")]);
        vmx.faults = faults;
        let vmx = Arc::new(Mutex::new(vmx));
        Machine { _plugged: double::plug(vmx.clone()), is_encrypted: false, vmx }
    }

    fn host(&self) -> MutexGuard<'_, Vmx> {
        self.vmx.lock().unwrap()
    }

    fn wire(&self, service: Service) -> Wire {
        Wire::new(Box::new(Backdoor::of_a_double(self.is_encrypted)), service)
    }

    /// Without vsock.
    fn rpci(&self) -> Result<Ways, RpcError> {
        Ways::open(Box::new(Nobody), Some(Box::new(self.wire(Service::Rpci))))
    }

    /// With vsock first, from a port that has privilege or not.
    fn rpci_by_vsock(&self, origin: Origin) -> Ways {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let vmx = self.vmx.clone();
        thread::spawn(move || double::vsock::serve(far.into(), RPCI_PORT, origin, &vmx));
        let vsock = Vsock::over(File::from(OwnedFd::from(near)));
        Ways::open(Box::new(vsock), Some(Box::new(self.wire(Service::Rpci)))).unwrap()
    }
}

/// A transport that this machine has not.
#[derive(Debug)]
struct Nobody;

impl Exchange for Nobody {
    fn connect(&mut self) -> Result<(), RpcError> {
        Err(RpcError::Lost(io::ErrorKind::Unsupported.into()))
    }

    fn exchange(&mut self, _request: &[u8]) -> Result<Vec<u8>, RpcError> {
        Err(RpcError::Lost(io::ErrorKind::Unsupported.into()))
    }

    fn exchange_once(&mut self, _request: &[u8]) -> Option<Result<Vec<u8>, RpcError>> {
        None
    }

    fn forget(&mut self) {}
}

/// On a machine for each way that a message can take through the backdoor.
fn each_way(check: impl Fn(&Machine)) {
    for (no_high_bandwidth, no_cookies, is_encrypted) in
        [(false, false, false), (false, true, false), (true, false, false), (true, true, false), (false, false, true)]
    {
        let faults = Faults { no_high_bandwidth, no_cookies, ..Faults::default() };
        check(&Machine { is_encrypted, ..Machine::new(faults) });
    }
}

#[test]
fn values_are_had_set_and_missed() {
    each_way(|machine| {
        let mut rpci = machine.rpci().unwrap();
        assert_eq!(rpci.call(b"info-get guestinfo.foo").unwrap(), b"hello");
        assert_eq!(rpci.call(b"info-get guestinfo.empty").unwrap(), b"");
        assert!(matches!(rpci.call(b"info-get guestinfo.bar"), Err(RpcError::NoValue)));
        assert_eq!(rpci.call(b"info-set guestinfo.bar two  words").unwrap(), b"");
        assert_eq!(rpci.call(b"info-get guestinfo.bar").unwrap(), b"two  words");
        assert!(matches!(rpci.call(b"info-set guestinfo.a/b c"), Err(RpcError::Denied(_))));
        assert!(matches!(rpci.call(b"frobnicate"), Err(RpcError::Host(why)) if why == "Unknown command"));
        assert_eq!(machine.host().open_channels(), 1, "one channel serves all of them");
        drop(rpci);
        assert_eq!(machine.host().open_channels(), 0);
    });
}

#[test]
fn messages_of_any_length_cross() {
    each_way(|machine| {
        let mut rpci = machine.rpci().unwrap();
        let bytes = |length| (0..=250).cycle().take(length).collect::<Vec<u8>>();
        for length in (1..9).chain([4095, 4096, 4097, MOST_SENT - 21]) {
            let request = [b"info-set guestinfo.k ", &bytes(length)[..], b"."].concat();
            let request = &request[..request.len().min(MOST_SENT)];
            rpci.call(request).unwrap();
            assert_eq!(rpci.call(b"info-get guestinfo.k").unwrap(), request[21..], "{length}");
        }
        // each word is a fault that the kernel delivers: a mebibyte of them takes seconds
        let is_in_words = machine.is_encrypted || machine.host().faults.no_high_bandwidth;
        let large = if is_in_words { 1 << 16 } else { 1 << 20 };
        machine.host().put("guestinfo.large", bytes(large));
        assert_eq!(rpci.call(b"info-get guestinfo.large").unwrap(), bytes(large));
        machine.host().put("guestinfo.large", bytes((1 << 20) + 1));
        assert!(matches!(rpci.call(b"info-get guestinfo.large"), Err(RpcError::TooLarge(_))));
        assert_eq!(rpci.call(b"info-get guestinfo.foo").unwrap(), b"hello", "and it goes on");
        assert!(matches!(rpci.call(&[b'x'; MOST_SENT + 1]), Err(RpcError::TooLarge(_))));
    });
}

#[test]
fn a_checkpoint_at_any_transfer_costs_nothing() {
    each_way(|machine| {
        let ask = |at| {
            machine.host().faults.checkpoint_at = at;
            machine.host().requests.clear();
            let reply = machine.rpci().unwrap().call(b"info-get guestinfo.foo");
            assert_eq!(reply.unwrap(), b"hello", "checkpoint {at:?}");
            assert_eq!(machine.host().requests.len(), 1, "it was asked once");
            machine.host().transfers()
        };
        let transfers = ask(None);
        assert!(transfers >= 3);
        for number in 1..=transfers {
            let start = machine.host().transfers();
            assert!(ask(Some(start + number)) > start + transfers, "it was hit");
        }
    });
}

#[test]
fn channels_that_are_lost_at_any_transfer_are_opened_again() {
    each_way(|machine| {
        let mut rpci = machine.rpci().unwrap();
        rpci.call(b"info-get guestinfo.foo").unwrap();
        let transfers = machine.host().transfers();
        for number in 1..=transfers {
            let start = machine.host().transfers();
            machine.host().faults.forgets_at = Some(start + number);
            assert_eq!(rpci.call(b"info-get guestinfo.foo").unwrap(), b"hello");
            assert_eq!(machine.host().transfers(), start + number + transfers);
            assert_eq!(machine.host().open_channels(), 1);
        }
    });
}

#[test]
fn checkpoints_without_end_are_told() {
    let machine = Machine::new(Faults { checkpoint_every: Some(1), ..Faults::default() });
    let error = machine.rpci().unwrap().call(b"info-get guestinfo.foo").unwrap_err();
    assert!(matches!(error, RpcError::Interrupted), "{error}");
    assert_eq!(machine.host().open_channels(), 0);
}

#[test]
fn hosts_that_do_not_serve_are_told_apart() {
    let machine = Machine::new(Faults { deaf: true, ..Faults::default() });
    assert!(
        matches!(machine.rpci(), Err(RpcError::Unreachable { backdoor, .. }) if matches!(*backdoor, RpcError::Open))
    );

    let machine = Machine::new(Faults::default());
    let mut rpci = machine.rpci().unwrap();
    let mut ask = || rpci.call(b"info-get guestinfo.foo");
    ask().unwrap();
    machine.host().faults.deaf = true;
    assert!(matches!(ask(), Err(RpcError::Open)));
    machine.host().faults = Faults { authenticate: true, ..Faults::default() };
    assert!(matches!(ask(), Err(RpcError::Denied(why)) if why == "Permission denied"));
    machine.host().faults = Faults { swollen: Some(u32::MAX), ..Faults::default() };
    assert!(matches!(ask(), Err(RpcError::TooLarge(0xffff_ffff))));
    machine.host().faults = Faults { silent: true, ..Faults::default() };
    assert!(matches!(ask(), Err(RpcError::Silent)));
    machine.host().faults = Faults::default();
    assert_eq!(ask().unwrap(), b"hello", "it comes back with its host");
}

#[test]
fn what_is_denied_through_the_backdoor_is_had_by_vsock() {
    let machine = Machine::new(Faults { authenticate: true, ..Faults::default() });
    let mut rpci = machine.rpci_by_vsock(Origin::Privileged);
    assert_eq!(rpci.call(b"info-get guestinfo.foo").unwrap(), b"hello");
    assert_eq!(rpci.call(b"info-set guestinfo.a b").unwrap(), b"");
    assert_eq!(machine.host().open_channels(), 0, "nobody has knocked at the backdoor");
    let mut rpci = machine.rpci_by_vsock(Origin::Unprivileged);
    assert!(matches!(rpci.call(b"info-get guestinfo.foo"), Err(RpcError::Denied(_))));
}

#[test]
fn vsock_carries_what_the_backdoor_does() {
    let machine = Machine::new(Faults::default());
    let mut rpci = machine.rpci_by_vsock(Origin::Privileged);
    let large = "x".repeat(1 << 20);
    machine.host().put("guestinfo.large", large.as_str());
    assert_eq!(rpci.call(b"info-get guestinfo.large").unwrap(), large.as_bytes());
    let request = [&b"info-set guestinfo.k "[..], &[b'v'; MOST_SENT - 21]].concat();
    assert_eq!(rpci.call(&request).unwrap(), b"");
    assert!(matches!(rpci.call(b"info-get guestinfo.bar"), Err(RpcError::NoValue)));
    assert_eq!(machine.host().complaints, [""; 0]);
    machine.host().faults.swollen = Some(u32::MAX);
    assert!(matches!(rpci.call(b"info-get guestinfo.foo"), Err(RpcError::TooLarge(_))));
}

#[test]
fn a_host_has_its_questions_answered() {
    each_way(|machine| {
        machine.host().questions = [b"reset".to_vec(), b"ping".to_vec()].into();
        let mut wire = machine.wire(Service::Tclo);
        let tclo: &mut dyn Tclo = &mut wire;
        let mut asked = Vec::new();
        let mut answer = Vec::new();
        for _ in 0..4 {
            tclo.send(&answer).unwrap();
            let question = tclo.receive().unwrap();
            answer = question.as_deref().map_or(Vec::new(), |question| [b"OK ", question].concat());
            asked.extend(question);
        }
        let host = machine.host();
        assert_eq!(asked, [b"reset".to_vec(), b"ping".to_vec()]);
        assert_eq!(host.answers, [b"OK reset".to_vec(), b"OK ping".to_vec()]);
        assert_eq!(host.signs_of_life, 2);
    });
}

#[test]
fn a_spec_crosses_on_one_channel() {
    let key = LinkKey::new([0x5a; 32]);
    let link = LinkSpec { device: LinkDevice::Serial, key, sealed: true, speed: SPEED };
    let spec = Spec::new("3f0c", link, Process::new(vec!["true".into(), "an argument with | and ?".into()]));
    each_way(|machine| {
        let keys = wire::guestinfo::write(&spec);
        for line in keys.to_string().lines() {
            // the one character of these names that a VMX file escapes
            let key = line.split(" = ").next().unwrap().replace("|7C", "|");
            machine.host().put(&key, keys.get(&key).unwrap());
        }
        let mut store = VmwareStore::new(Box::new(machine.rpci().unwrap()), |keys| drop(wire::guestinfo::read(keys)));
        assert_eq!(wire::guestinfo::read(&store.read().unwrap()).unwrap(), spec);
        store.set("guestinfo.vice..status", "{\"generation\": 1}").unwrap();
        let host = machine.host();
        assert_eq!(host.guestinfo["guestinfo.vice..status"], b"{\"generation\": 1}");
        assert_eq!(host.open_channels(), 1);
    });
}

/// Two clones of one template in turn: each goes on behind the request, and on channels of its own, whatever its VMX knows of the old one.
#[test]
fn a_clone_goes_on_behind_the_request_that_froze_its_template() {
    let keys = |vmx: &mut Vmx, generation: &Generation| {
        vmx.put("guestinfo.vice./clone/wait", "");
        wire::guestinfo::write_generation(generation).iter().for_each(|(key, value)| vmx.put(key, value));
    };
    each_way(|machine| {
        for keeps_channels in [false, true] {
            machine.host().faults.keeps_channels = keeps_channels;
            keys(&mut machine.host(), &Generation::Template { number: [1; 16] });
            machine.host().requests.clear();
            let mut store = VmwareStore::new(Box::new(machine.rpci().unwrap()), |_| {});
            let clone = Generation::Clone { number: [2; 16], entropy: Box::new([3; 64]), unix_ns: Some(4) };
            let vmx = &machine.vmx;
            let cloned = thread::scope(|scope| {
                scope.spawn(|| {
                    while !vmx.lock().unwrap().is_frozen() {
                        thread::sleep(Duration::from_millis(1));
                    }
                    keys(&mut vmx.lock().unwrap(), &clone);
                    vmx.lock().unwrap().clone_guest();
                });
                store.freeze().unwrap()
            });
            assert_eq!(wire::guestinfo::generation(&cloned), Ok(Some(clone)));
            let host = machine.host();
            let frozen = host.requests.iter().filter(|request| request.starts_with(b"instantclone")).count();
            assert_eq!(frozen, 1, "it has not frozen itself again");
            assert!(!host.is_frozen());
        }
    });
}

#[test]
fn a_host_tells_the_time() {
    let machine = Machine::new(Faults::default());
    machine.host().time = Some(Duration::from_micros(1_900_000_000_000_042));
    assert_eq!(Backdoor::of_a_double(false).time(), Some(1_900_000_000_000_042_000));
    machine.host().time = Some(Duration::ZERO);
    assert_eq!(Backdoor::of_a_double(false).time(), None, "a clock that was never set is none");
}

/// Bytes in one piece, there and back, and one acknowledgement: with the two sizes, five accesses. The times are the double's: `--nocapture` shows them.
#[test]
fn two_hundred_keys_take_three_transfers_each() {
    let value = "v".repeat(60);
    let names: Vec<String> = (0..200).map(|number| format!("guestinfo.vice./sessions|3f0c/key{number}")).collect();
    let read = |machine: &Machine, mut rpci: Ways| {
        let start = std::time::Instant::now();
        for name in &names {
            assert_eq!(rpci.call(["info-get ", name].concat().as_bytes()).unwrap(), value.as_bytes());
        }
        let time = start.elapsed();
        let host = machine.host();
        (time, host.transfers(), host.requests.len())
    };
    let machine = |faults| {
        let machine = Machine::new(faults);
        names.iter().for_each(|name| machine.host().put(name, value.as_str()));
        machine
    };
    let high = machine(Faults::default());
    let (time, transfers, requests) = read(&high, high.rpci().unwrap());
    eprintln!("200 keys, high bandwidth: {time:?}");
    assert_eq!((transfers, requests), (600, 200));
    let low = machine(Faults { no_high_bandwidth: true, ..Faults::default() });
    let (time, transfers, _) = read(&low, low.rpci().unwrap());
    eprintln!("200 keys, low bandwidth: {time:?}, {transfers} transfers");
    let vsock = machine(Faults::default());
    let (time, transfers, requests) = read(&vsock, vsock.rpci_by_vsock(Origin::Privileged));
    eprintln!("200 keys, vsock: {time:?}");
    assert_eq!((transfers, requests), (0, 200));
}
