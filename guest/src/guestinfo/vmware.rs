//! Guestinfo of VMware: keys that the host does not list, each asked for by name.
//!
//! A spec is read as whoever understands it asks for it, on one channel, and what came is kept as a dictionary. How a request travels: [`crate::vmware`].

use std::cell::{Cell, RefCell};
use std::thread;
use std::time::Duration;

use wire::guestinfo::Keys;
use wire::vmx::Dictionary;

use super::{Store, StoreError, Walk};
use crate::vmware::{self, RpcError, Rpci};

/// So many keys are asked for in one reading. A session takes some 60, and each key a few exits from the machine.
const MOST_KEYS: usize = 16_384;
/// So many bytes of values are taken in one reading. VMware's own limit is 1 MiB, unless the administrator sets another (`tools.setInfo.sizeLimit`).
const MOST_BYTES: usize = 4 << 20;

/// How long a template may run on after it has asked to be stopped.
const LOOKS: u32 = if cfg!(test) { 20 } else { 5000 };
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Keys behind RPCI.
#[derive(Debug)]
pub struct VmwareStore {
    rpci: RefCell<Box<dyn Rpci>>,
    walk: Walk,
}

impl VmwareStore {
    /// The store of this machine.
    pub(super) fn open(walk: Walk) -> Result<VmwareStore, StoreError> {
        vmware::rpci().map(|rpci| VmwareStore::new(rpci, walk)).map_err(StoreError::Unreachable)
    }

    pub fn new(rpci: Box<dyn Rpci>, walk: Walk) -> VmwareStore {
        VmwareStore { rpci: RefCell::new(rpci), walk }
    }

    /// Empty and missing are alike: vSphere deletes a key whose value is empty.
    fn ask(&self, key: &str) -> Result<Option<String>, StoreError> {
        let request = ["info-get ", key].concat();
        let failed = |source| StoreError::Unasked { key: key.into(), source };
        match self.rpci.borrow_mut().call(request.as_bytes()) {
            Ok(value) if value.is_empty() => Ok(None),
            Ok(value) => String::from_utf8(value).map(Some).map_err(|_| StoreError::NoText { key: key.into() }),
            Err(RpcError::NoValue) => Ok(None),
            Err(source) => Err(failed(source)),
        }
    }
}

impl Store for VmwareStore {
    fn read(&self) -> Result<Dictionary, StoreError> {
        let reading = Reading {
            store: self,
            found: RefCell::default(),
            asked: Cell::new(0),
            bytes: Cell::new(0),
            failed: Cell::new(None),
        };
        (self.walk)(&reading);
        if let Some(error) = reading.failed.take() {
            return Err(error);
        }
        let found = reading.found.into_inner();
        if found.has_prefix("") { Ok(found) } else { Err(StoreError::Empty) }
    }

    fn get(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.ask(key)
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        let request = ["info-set ", key, " ", value].concat();
        match self.rpci.get_mut().call(request.as_bytes()) {
            Ok(_) => Ok(()),
            Err(source) => Err(StoreError::Unset { key: key.into(), source }),
        }
    }

    /// vSphere's Instant Clone: whatever runs behind the request runs in a clone, whose keys are its own (Broadcom, "Freezing the Source Virtual Machine for an
    /// Instant Clone Operation"). What becomes of the reply no document says, so that it is not believed: whoever finds the template's own generation is not cloned
    /// yet, and looks again.
    fn freeze(&mut self) -> Result<Dictionary, StoreError> {
        let generation = || self.ask(&wire::guestinfo::generation_keys().next().unwrap_or_default());
        let before = generation()?;
        match self.rpci.borrow_mut().call_once(b"instantclone.freeze") {
            // it was said to the template, or is lost with its channel
            Ok(_) | Err(RpcError::Closed | RpcError::Silent | RpcError::Interrupted | RpcError::Protocol(_)) => {}
            Err(source) => return Err(StoreError::Unfrozen(source)),
        }
        for _ in 0..LOOKS {
            if generation()? != before {
                break;
            }
            thread::sleep(LOOK_AGAIN);
        }
        let mut keys = Dictionary::default();
        for key in wire::guestinfo::generation_keys() {
            if let Some(value) = self.ask(&key)? {
                keys.set(&key, value);
            }
        }
        Ok(keys)
    }
}

/// The keys of one reading.
struct Reading<'a> {
    store: &'a VmwareStore,
    found: RefCell<Dictionary>,
    asked: Cell<usize>,
    bytes: Cell<usize>,
    /// What went wrong first. Nothing is asked after it.
    failed: Cell<Option<StoreError>>,
}

impl Reading<'_> {
    fn ask(&self, key: &str) -> Result<Option<String>, StoreError> {
        let asked = self.asked.get() + 1;
        self.asked.set(asked);
        if asked > MOST_KEYS {
            return Err(StoreError::Endless);
        }
        let value = self.store.ask(key)?;
        if let Some(value) = &value {
            self.bytes.set(self.bytes.get() + value.len());
            if self.bytes.get() > MOST_BYTES {
                return Err(StoreError::Endless);
            }
            self.found.borrow_mut().set(key, value.as_str());
        }
        Ok(value)
    }
}

impl Keys for Reading<'_> {
    fn value(&self, key: &str) -> Option<String> {
        let failed = self.failed.take();
        if failed.is_some() {
            self.failed.set(failed);
            return None;
        }
        // some are asked for twice
        let known = self.found.borrow().get(key).map(str::to_owned);
        known.or_else(|| match self.ask(key) {
            Ok(value) => value,
            Err(error) => {
                self.failed.set(Some(error));
                None
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use wire::guestinfo::Generation;
    use wire::handshake::LinkKey;
    use wire::spec::{LinkDevice, LinkSpec, Process, SPEED, Spec};

    use super::*;

    #[derive(Debug, Default)]
    struct Inner {
        keys: Dictionary,
        requests: Vec<String>,
        /// Each further key has this value.
        any: Option<Vec<u8>>,
        /// From this request on nothing is answered.
        dies_at: Option<usize>,
        /// What a clone has in place of the keys, and how many requests the template still makes before it is stopped.
        clone: Option<(Dictionary, usize)>,
        /// What becomes of the request to freeze.
        freezes: Option<RpcError>,
    }

    #[derive(Clone, Debug, Default)]
    struct Host(Rc<RefCell<Inner>>);

    impl Rpci for Host {
        fn call(&mut self, request: &[u8]) -> Result<Vec<u8>, RpcError> {
            let mut host = self.0.borrow_mut();
            let request = std::str::from_utf8(request).unwrap();
            host.requests.push(request.into());
            if host.requests.iter().any(|request| request == FREEZE) {
                host.clone = match host.clone.take() {
                    Some((keys, 0)) => {
                        host.keys = keys;
                        None
                    }
                    other => other.map(|(keys, left)| (keys, left - 1)),
                };
            }
            if host.dies_at.is_some_and(|at| host.requests.len() >= at) {
                return Err(RpcError::Silent);
            }
            if let Some((key, value)) = request.strip_prefix("info-set ").and_then(|rest| rest.split_once(' ')) {
                host.keys.set(key, value);
                return Ok(Vec::new());
            }
            let key = request.strip_prefix("info-get ").unwrap();
            let value = host.keys.get(key).map(|value| value.as_bytes().to_vec());
            value.or(host.any.clone()).ok_or(RpcError::NoValue)
        }

        fn call_once(&mut self, request: &[u8]) -> Result<Vec<u8>, RpcError> {
            let mut host = self.0.borrow_mut();
            host.requests.push(String::from_utf8(request.to_vec()).unwrap());
            host.freezes.take().map_or(Ok(Vec::new()), Err)
        }
    }

    const FREEZE: &str = "instantclone.freeze";

    fn spec() -> Spec {
        let key = LinkKey::new([0x5a; 32]);
        let link = LinkSpec { device: LinkDevice::Serial, key, sealed: true, speed: SPEED };
        Spec::new("3f0c", link, Process::new(vec!["true".into()]))
    }

    fn store(keys: Dictionary) -> (VmwareStore, Host) {
        let host = Host::default();
        host.0.borrow_mut().keys = keys;
        (VmwareStore::new(Box::new(host.clone()), |keys| drop(wire::guestinfo::read(keys))), host)
    }

    #[test]
    fn a_spec_is_read_by_asking_for_what_it_needs() {
        let mut keys = wire::guestinfo::write(&spec());
        keys.set("guestinfo.vice./unheard.of", "1");
        let (store, host) = store(keys);
        let found = store.read().unwrap();
        assert_eq!(wire::guestinfo::read(&found).unwrap(), spec());
        assert_eq!(found.get("guestinfo.vice./unheard.of"), None);
        let asked = &host.0.borrow().requests;
        assert!(asked.iter().all(|request| request.starts_with("info-get guestinfo.")), "{asked:?}");
        assert!(asked.len() < 150, "{}", asked.len());
    }

    #[test]
    fn a_spec_in_one_value_takes_two_requests() {
        let mut keys = Dictionary::default();
        keys.set("guestinfo.vice./spec", wire::guestinfo::write(&spec()).to_string());
        let (store, host) = store(keys);
        assert_eq!(wire::guestinfo::read(&store.read().unwrap()).unwrap(), spec());
        assert_eq!(host.0.borrow().requests.len(), 2);
    }

    #[test]
    fn a_machine_without_a_spec_says_what_to_set() {
        let (store, _) = store(Dictionary::default());
        let error = store.read().unwrap_err().to_string();
        assert!(error.contains("guestinfo.vice./common/id"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_spec_is_found_by_its_reader() {
        let mut keys = wire::guestinfo::write(&spec());
        keys.set("guestinfo.vice./link/device", "usb");
        let expected = wire::guestinfo::read(&keys).unwrap_err();
        let (store, _) = store(keys);
        assert_eq!(wire::guestinfo::read(&store.read().unwrap()), Err(expected));
    }

    #[test]
    fn a_host_that_stops_answering_is_not_asked_again() {
        let (store, host) = store(wire::guestinfo::write(&spec()));
        for dies_at in [1, 2, 20] {
            *host.0.borrow_mut() =
                Inner { keys: wire::guestinfo::write(&spec()), dies_at: Some(dies_at), ..Inner::default() };
            assert!(matches!(store.read(), Err(StoreError::Unasked { source: RpcError::Silent, .. })));
            assert_eq!(host.0.borrow().requests.len(), dies_at);
        }
    }

    #[test]
    fn a_host_that_has_every_key_is_left() {
        let (store, host) = store(wire::guestinfo::write(&spec()));
        // 1,024 sessions are within the list's bound, and too much for the host
        let names: Vec<String> = (0..1024).map(|name| name.to_string()).collect();
        host.0.borrow_mut().keys.set("guestinfo.vice./sessions", names.join("|"));
        let session = ["cmd/Path", "cmd/Dir"].map(str::to_owned);
        for name in names {
            for key in &session {
                host.0.borrow_mut().keys.set(&format!("guestinfo.vice./sessions|{name}/{key}"), "/x");
            }
        }
        assert!(matches!(store.read(), Err(StoreError::Endless)));
        assert_eq!(host.0.borrow().requests.len(), MOST_KEYS);
        host.0.borrow_mut().any = Some(vec![b'1'; 1 << 20]);
        host.0.borrow_mut().keys = Dictionary::default();
        host.0.borrow_mut().keys.set("guestinfo.vice./spec", "");
        assert!(matches!(store.read(), Err(StoreError::Endless)));
        assert_eq!(host.0.borrow().requests.len(), MOST_KEYS + 1 + MOST_BYTES / (1 << 20) + 1);
    }

    fn template() -> Dictionary {
        wire::guestinfo::write_generation(&Generation::Template { number: [1; 16] })
    }

    fn clone() -> Dictionary {
        let clone = Generation::Clone { number: [2; 16], entropy: Box::new([3; 64]), unix_ns: None };
        let mut keys = wire::guestinfo::write(&spec());
        wire::guestinfo::write_generation(&clone).iter().for_each(|(key, value)| keys.set(key, value));
        keys
    }

    /// Which keys were asked for, without their common beginning.
    fn asked(host: &Host) -> Vec<String> {
        let keys = host.0.take().requests;
        keys.into_iter().map(|request| request.replace("info-get guestinfo.vice./", "")).collect()
    }

    #[test]
    fn a_template_is_asked_for_nothing_but_what_makes_it_one() {
        let (mut store, host) = store(template());
        store.walk = super::super::walk;
        let keys = store.read().unwrap();
        assert_eq!(wire::guestinfo::generation(&keys), Ok(Some(Generation::Template { number: [1; 16] })));
        assert_eq!(asked(&host), ["clone/wait", "clone/generation"]);
        // one that says nothing of itself is looked at no further
        host.0.borrow_mut().keys.set("guestinfo.vice./clone/wait", "true");
        store.read().unwrap();
        assert_eq!(asked(&host), ["clone/wait", "clone/generation"]);
    }

    #[test]
    fn a_clone_is_asked_for_its_devices_and_its_spec() {
        let (mut store, host) = store(clone());
        store.walk = super::super::walk;
        assert_eq!(wire::guestinfo::read(&store.read().unwrap()).unwrap(), spec());
        let asked = asked(&host);
        assert_eq!(asked[..4], ["clone/wait", "clone/generation", "clone/entropy", "clone/time"]);
        assert!(["clone/cards", "clone/disks"].iter().all(|key| asked.iter().any(|asked| asked == key)), "{asked:?}");
    }

    #[test]
    fn a_machine_that_is_neither_pays_two_requests_for_it() {
        let (mut store, host) = store(wire::guestinfo::write(&spec()));
        store.read().unwrap();
        let keys = host.0.take();
        host.0.borrow_mut().keys = keys.keys;
        store.walk = super::super::walk;
        store.read().unwrap();
        assert_eq!(host.0.borrow().requests.len(), keys.requests.len() + 2);
    }

    #[test]
    fn who_asks_to_be_frozen_goes_on_with_the_keys_of_a_clone_whatever_the_answer_was() {
        let interrupted = || Some(RpcError::Interrupted);
        for (freezes, late) in [
            (None, 0),
            (Some(RpcError::Closed), 0),
            (Some(RpcError::Silent), 0),
            (interrupted(), 0),
            // it is stopped while it goes on already
            (None, 3),
        ] {
            let (mut store, host) = store(template());
            let inner = Inner { keys: template(), clone: Some((clone(), late)), freezes, ..Inner::default() };
            *host.0.borrow_mut() = inner;
            let keys = store.freeze().unwrap();
            assert!(matches!(wire::guestinfo::generation(&keys), Ok(Some(Generation::Clone { .. }))));
            let requests = &host.0.borrow().requests;
            assert_eq!(requests.iter().filter(|request| *request == FREEZE).count(), 1, "{requests:?}");
            assert!(requests.len() <= 2 + late + 5, "{requests:?}");
        }
    }

    #[test]
    fn who_is_not_frozen_is_told() {
        let (mut store, host) = store(template());
        host.0.borrow_mut().freezes = Some(RpcError::Host("Unknown command".into()));
        let error = store.freeze().unwrap_err().to_string();
        assert_eq!(error, "VMware cannot have this machine wait for being cloned");
        // nothing happens at all: the keys are the template's, as the caller will see
        assert_eq!(store.freeze().unwrap(), template());
    }

    #[test]
    fn values_are_text() {
        let (mut store, host) = store(Dictionary::default());
        host.0.borrow_mut().any = Some(vec![b'a', 0xff]);
        let expected = "guestinfo guestinfo.a is not text in UTF-8";
        assert_eq!(store.get("guestinfo.a").unwrap_err().to_string(), expected);
        host.0.borrow_mut().any = Some(Vec::new());
        assert_eq!(store.get("guestinfo.a").unwrap(), None);
        host.0.borrow_mut().any = None;
        assert_eq!(store.get("guestinfo.a").unwrap(), None);
        store.set("guestinfo.a", "two words").unwrap();
        assert_eq!(store.get("guestinfo.a").unwrap().as_deref(), Some("two words"));
    }
}
