//! What the registers hold after each access, as real tools saw it, and what happens to guests that do not keep to it.

use super::*;

/// A guest's memory of one page.
struct Page(Vec<u8>);

/// Where it is.
const PAGE: u64 = 0x7fff_0000_1000;

impl Page {
    fn of(bytes: &[u8]) -> Page {
        let mut page = vec![0; 4096];
        page[..bytes.len()].copy_from_slice(bytes);
        Page(page)
    }

    fn range(&mut self, address: u64, length: usize) -> Option<&mut [u8]> {
        let start = usize::try_from(address.checked_sub(PAGE)?).ok()?;
        self.0.get_mut(start..start.checked_add(length)?)
    }
}

impl Memory for Page {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        self.range(address, bytes.len()).map(|range| bytes.copy_from_slice(range)).is_some()
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        self.range(address, bytes.len()).map(|range| range.copy_from_slice(bytes)).is_some()
    }
}

fn hello() -> Vmx {
    Vmx::with(&[("guestinfo.foo", "hello")])
}

/// EBX, ECX, EDX, ESI, EDI.
type Five = [u32; 5];

/// One access of low bandwidth, there and back.
#[track_caller]
fn low(vmx: &mut Vmx, there: Five, back: Five) {
    let [ebx, ecx, edx, esi, edi] = there;
    let after = vmx.access(Registers { eax: MAGIC, ebx, ecx, edx, esi, edi, ebp: 0xbbbb, buffer: 0xff });
    assert_eq!(
        [after.ebx, after.ecx, after.edx, after.esi, after.edi].map(Hex),
        back.map(Hex),
        "after {:?}",
        there.map(Hex)
    );
    assert_eq!((after.eax, after.ebp, after.buffer), (MAGIC, 0xbbbb, 0xff), "what is not part of it stays");
}

#[derive(PartialEq, Eq)]
struct Hex(u32);

impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The cookies of the first channel.
const HIGH: u32 = 0x1c8f_220e;
const LOW: u32 = 0x9bbf_fa82;

const REQUEST: &[u8] = b"info-get guestinfo.foo";

#[test]
fn the_version_is_asked_as_tools_ask_it() {
    let after =
        hello().access(Registers { eax: MAGIC, ebx: !MAGIC, ecx: 0xffff_000a, edx: 0x5658, ..Registers::default() });
    assert_eq!((after.eax, after.ebx, after.ecx), (6, MAGIC, 2));
}

#[test]
fn the_time_is_told_in_seconds_and_microseconds() {
    let mut vmx = hello();
    let ask = Registers { eax: MAGIC, ebx: u32::MAX, ecx: 46, edx: 0x5658, ..Registers::default() };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let after = vmx.access(ask);
    assert!((now..now + 60).contains(&(u64::from(after.esi) << 32 | u64::from(after.edx))));
    vmx.time = Some(std::time::Duration::from_micros((5 << 32) * 1_000_000 + 7_000_123));
    let after = vmx.access(ask);
    assert_eq!([after.eax, after.esi, after.edx, after.ebx], [MAGIC, 5, 7, 123]);
}

/// vmware-rpctool 12.2 asked this, and understood this.
#[test]
fn a_value_crosses_at_high_bandwidth() {
    let mut vmx = hello();
    low(&mut vmx, [0xc943_5052, 0x1e, 0x5658, 0, 0], [0xc943_5052, 0x0001_0000, 0, HIGH, LOW]);
    low(&mut vmx, [0x16, 0x0001_001e, 0x5658, HIGH, LOW], [0x16, 0x0081_0000, 0x5658, HIGH, LOW]);

    let mut page = Page::of(REQUEST);
    let out =
        Registers { eax: MAGIC, ebx: 0x0001_0000, ecx: 0x16, edx: 0x5659, esi: 0, edi: LOW, ebp: HIGH, buffer: PAGE };
    let after = vmx.stream(Direction::Out, out, &mut page).unwrap();
    assert_eq!(after, Registers { ebx: 0x0001_0000, ecx: 0, buffer: PAGE + 0x16, ..out });

    low(&mut vmx, [0x1234, 0x0003_001e, 0x5658, HIGH, LOW], [7, 0x0083_0000, 0x0001_0000, HIGH, LOW]);

    let input = Registers { ecx: 7, esi: HIGH, edi: 0, ebp: LOW, ..out };
    let after = vmx.stream(Direction::In, input, &mut page).unwrap();
    assert_eq!(after, Registers { ebx: 0x0001_0000, ecx: 0, buffer: PAGE + 7, ..input });
    assert_eq!(&page.0[..8], b"1 hellot");

    low(&mut vmx, [1, 0x0005_001e, 0x5658, HIGH, LOW], [1, 0x0001_0000, 0x5658, HIGH, LOW]);
    low(&mut vmx, [0, 0x0006_001e, 0x5658, HIGH, LOW], [0, 0x0001_0000, 0x5658, HIGH, LOW]);
    assert_eq!(vmx.open_channels(), 0);
    assert_eq!(vmx.requests, [REQUEST]);
}

#[test]
fn a_value_crosses_at_low_bandwidth() {
    let mut vmx = hello();
    vmx.faults.no_high_bandwidth = true;
    low(&mut vmx, [0xc943_5052, 0x1e, 0x5658, 0, 0], [0xc943_5052, 0x0001_0000, 0, HIGH, LOW]);
    low(&mut vmx, [0x16, 0x0001_001e, 0x5658, HIGH, LOW], [0x16, 0x0001_0000, 0x5658, HIGH, LOW]);
    for word in [0x6f66_6e69, 0x7465_672d, 0x6575_6720, 0x6e69_7473, 0x662e_6f66, 0x0000_6f6f] {
        low(&mut vmx, [word, 0x0002_001e, 0x5658, HIGH, LOW], [word, 0x0001_0000, 0x5658, HIGH, LOW]);
    }
    low(&mut vmx, [0x1234, 0x0003_001e, 0x5658, HIGH, LOW], [7, 0x0003_0000, 0x0001_0000, HIGH, LOW]);
    for word in [0x6568_2031, 0x006f_6c6c] {
        low(&mut vmx, [1, 0x0004_001e, 0x5658, HIGH, LOW], [word, 0x0001_0000, 0x0002_0000, HIGH, LOW]);
    }
    low(&mut vmx, [1, 0x0005_001e, 0x5658, HIGH, LOW], [1, 0x0001_0000, 0x5658, HIGH, LOW]);
    low(&mut vmx, [0, 0x0006_001e, 0x5658, HIGH, LOW], [0, 0x0001_0000, 0x5658, HIGH, LOW]);
    assert_eq!(vmx.requests, [REQUEST]);
}

/// A guest that does as it should: what tools do, in a few lines.
struct Guest {
    channel: u32,
    cookies: (u32, u32),
    is_high: bool,
}

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
struct Refused(u32);

impl Guest {
    fn open(vmx: &mut Vmx, service: u32, is_high: bool) -> Result<Guest, Refused> {
        let after =
            vmx.access(Registers { eax: MAGIC, ebx: service, ecx: MESSAGE, edx: 0x5658, ..Registers::default() });
        match after.ecx {
            0x0001_0000 => Ok(Guest { channel: after.edx, cookies: (after.esi, after.edi), is_high }),
            other => Err(Refused(other)),
        }
    }

    fn access(&self, vmx: &mut Vmx, kind: u32, ebx: u32) -> Registers {
        let (esi, edi) = self.cookies;
        let (ecx, edx) = (MESSAGE | kind << 16, self.channel | 0x5658);
        vmx.access(Registers { eax: MAGIC, ebx, ecx, edx, esi, edi, ..Registers::default() })
    }

    /// One access, which must end well.
    fn ask(&self, vmx: &mut Vmx, kind: u32, ebx: u32) -> Result<Registers, Refused> {
        let after = self.access(vmx, kind, ebx);
        if after.ecx >> 16 & SUCCESS == 0 { Err(Refused(after.ecx >> 16)) } else { Ok(after) }
    }

    fn stream(&self, vmx: &mut Vmx, way: Direction, bytes: &mut [u8]) -> Result<(), Refused> {
        let mut memory = Page(bytes.to_vec());
        let (high, low) = self.cookies;
        let base =
            Registers { eax: MAGIC, ebx: 0x1_0000, ecx: u32::try_from(bytes.len()).unwrap(), ..Registers::default() };
        let base = Registers { edx: self.channel | 0x5659, buffer: PAGE, ..base };
        let registers = match way {
            Direction::Out => Registers { ebp: high, edi: low, ..base },
            Direction::In => Registers { esi: high, ebp: low, ..base },
        };
        let after = vmx.stream(way, registers, &mut memory).unwrap();
        bytes.copy_from_slice(&memory.0);
        if after.ebx == 0x1_0000 { Ok(()) } else { Err(Refused(after.ebx >> 16)) }
    }

    fn send_once(&self, vmx: &mut Vmx, message: &[u8]) -> Result<(), Refused> {
        self.ask(vmx, SEND_SIZE, u32::try_from(message.len()).unwrap())?;
        if self.is_high && !message.is_empty() {
            return self.stream(vmx, Direction::Out, &mut message.to_vec());
        }
        message.chunks(4).try_for_each(|piece| {
            let mut word = [0; 4];
            word[..piece.len()].copy_from_slice(piece);
            self.ask(vmx, SEND_PAYLOAD, u32::from_le_bytes(word)).map(drop)
        })
    }

    fn receive_once(&self, vmx: &mut Vmx) -> Result<Option<Vec<u8>>, Refused> {
        let size = self.ask(vmx, RECEIVE_SIZE, 0)?;
        if size.ecx >> 16 & MESSAGE_WAITS == 0 {
            return Ok(None);
        }
        assert_eq!(size.edx, IS_SIZE);
        let mut message = vec![0; size.ebx as usize];
        if self.is_high {
            self.stream(vmx, Direction::In, &mut message)?;
        } else {
            for piece in message.chunks_mut(4) {
                let after = self.ask(vmx, RECEIVE_PAYLOAD, 1)?;
                assert_eq!(after.edx, IS_PAYLOAD);
                piece.copy_from_slice(&after.ebx.to_le_bytes()[..piece.len()]);
            }
        }
        self.ask(vmx, RECEIVE_STATUS, 1)?;
        Ok(Some(message))
    }

    /// Sends and receives; what a checkpoint interrupts begins again, a few times.
    fn call(&self, vmx: &mut Vmx, request: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
        again(|| self.send_once(vmx, request))?;
        again(|| self.receive_once(vmx))
    }
}

fn again<T>(mut attempt: impl FnMut() -> Result<T, Refused>) -> Result<T, Refused> {
    for _ in 0..8 {
        match attempt() {
            Err(Refused(CHECKPOINT)) => {}
            other => return other,
        }
    }
    Err(Refused(CHECKPOINT))
}

const WAYS: [bool; 2] = [true, false];
const RPCI_COOKIES: u32 = RPCI | WITH_COOKIES;

#[test]
fn any_checkpoint_costs_a_guest_that_begins_again_nothing() {
    for is_high in WAYS {
        // six words, two words and an acknowledgement; or one piece, one piece and an acknowledgement; and one that nothing meets
        let transfers = if is_high { 3 } else { 9 };
        for number in 1..=transfers + 1 {
            let mut vmx = hello();
            vmx.faults.checkpoint_at = Some(number);
            let guest = Guest::open(&mut vmx, RPCI_COOKIES, is_high).unwrap();
            assert_eq!(guest.call(&mut vmx, REQUEST), Ok(Some(b"1 hello".to_vec())), "checkpoint {number}");
            assert_eq!(vmx.requests.len(), 1);
            assert_eq!(vmx.transfers() == transfers, number > transfers);
        }
    }
}

#[test]
fn who_does_not_begin_again_after_a_checkpoint_gets_nowhere() {
    let mut vmx = hello();
    vmx.faults.checkpoint_at = Some(2);
    let guest = Guest::open(&mut vmx, RPCI_COOKIES, false).unwrap();
    guest.ask(&mut vmx, SEND_SIZE, 22).unwrap();
    let word = |vmx: &mut Vmx| guest.ask(vmx, SEND_PAYLOAD, 0x6f66_6e69).map(drop);
    assert_eq!(word(&mut vmx), Ok(()));
    assert_eq!(word(&mut vmx), Err(Refused(CHECKPOINT)));
    assert_eq!(word(&mut vmx), Err(Refused(FAILURE)));

    guest.send_once(&mut vmx, REQUEST).unwrap();
    guest.ask(&mut vmx, RECEIVE_SIZE, 0).unwrap();
    vmx.faults.checkpoint_at = Some(vmx.transfers() + 1);
    let word = |vmx: &mut Vmx| guest.ask(vmx, RECEIVE_PAYLOAD, 1).map(drop);
    assert_eq!(word(&mut vmx), Err(Refused(CHECKPOINT)));
    assert_eq!(word(&mut vmx), Err(Refused(FAILURE)));
    assert_eq!(guest.receive_once(&mut vmx), Ok(Some(b"1 hello".to_vec())));
}

#[test]
fn a_message_that_takes_longer_than_checkpoints_are_apart_never_crosses() {
    for (is_high, most) in [(true, 2), (false, 6)] {
        for every in 1..12 {
            let mut vmx = hello();
            vmx.faults.checkpoint_every = Some(every);
            let guest = Guest::open(&mut vmx, RPCI_COOKIES, is_high).unwrap();
            let reply = guest.call(&mut vmx, REQUEST);
            let expected = if every > most { Ok(Some(b"1 hello".to_vec())) } else { Err(Refused(CHECKPOINT)) };
            assert_eq!(reply, expected, "each {every}");
        }
    }
}

#[test]
fn long_messages_cross_up_to_the_limit() {
    for is_high in WAYS {
        let mut vmx = Vmx::default();
        vmx.guestinfo.insert("guestinfo.large".to_owned(), (0..=255).cycle().take(1 << 20).collect());
        let guest = Guest::open(&mut vmx, RPCI_COOKIES, is_high).unwrap();
        let reply = guest.call(&mut vmx, b"info-get guestinfo.large").unwrap().unwrap();
        assert_eq!(reply.len(), (1 << 20) + 2);
        assert_eq!(reply[2..], vmx.guestinfo["guestinfo.large"]);

        let mut request = b"info-set guestinfo.k ".to_vec();
        request.resize(64 * 1024, b'v');
        assert_eq!(guest.call(&mut vmx, &request), Ok(Some(b"1 ".to_vec())));
        request.push(b'v');
        assert_eq!(guest.call(&mut vmx, &request), Err(Refused(FAILURE)), "one byte more than VMX takes");
        assert_eq!(vmx.guestinfo["guestinfo.k"].len(), 64 * 1024 - 21);
    }
}

#[test]
fn a_channel_serves_one_message_after_the_other() {
    let mut vmx = hello();
    let guest = Guest::open(&mut vmx, RPCI_COOKIES, true).unwrap();
    for _ in 0..3 {
        assert_eq!(guest.call(&mut vmx, REQUEST), Ok(Some(b"1 hello".to_vec())));
    }
    assert_eq!(guest.call(&mut vmx, b""), Ok(Some(b"0 Unknown command".to_vec())));
    guest.send_once(&mut vmx, REQUEST).unwrap();
    assert_eq!(guest.call(&mut vmx, b"log x"), Ok(Some(b"1 ".to_vec())), "a reply that nobody fetched is gone");
    assert_eq!(guest.receive_once(&mut vmx), Ok(None));
}

#[test]
fn there_are_128_channels() {
    let mut vmx = Vmx::default();
    let guests: Vec<_> = (0..128).map(|_| Guest::open(&mut vmx, RPCI_COOKIES, true).unwrap()).collect();
    assert_eq!(guests[127].channel, 127 << 16);
    assert_eq!(Guest::open(&mut vmx, RPCI_COOKIES, true).err(), Some(Refused(FAILURE)));
    guests[5].ask(&mut vmx, CLOSE, 0).unwrap();
    assert_eq!(Guest::open(&mut vmx, RPCI_COOKIES, true).unwrap().channel, 5 << 16);
    assert_eq!(guests[5].ask(&mut vmx, SEND_SIZE, 4).err(), Some(Refused(CLOSED)), "its cookies are another's now");
}

#[test]
fn only_who_opened_a_channel_with_cookies_uses_it() {
    let mut vmx = hello();
    let guest = Guest::open(&mut vmx, RPCI_COOKIES, true).unwrap();
    let stranger = Guest { cookies: (0, 0), ..guest };
    assert_eq!(stranger.call(&mut vmx, REQUEST), Err(Refused(CLOSED)));
    assert_eq!(stranger.stream(&mut vmx, Direction::In, &mut [0; 4]), Err(Refused(CLOSED)));
    vmx.faults.no_cookies = true;
    assert!(Guest::open(&mut vmx, RPCI_COOKIES, true).is_err());
    let without = Guest::open(&mut vmx, RPCI, true).unwrap();
    assert_eq!(without.cookies, (0, 0));
    assert_eq!(without.call(&mut vmx, REQUEST), Ok(Some(b"1 hello".to_vec())));
}

#[test]
fn where_high_bandwidth_is_not_offered_it_does_nothing() {
    let mut vmx = hello();
    vmx.faults.no_high_bandwidth = true;
    let guest = Guest::open(&mut vmx, RPCI_COOKIES, true).unwrap();
    assert_eq!(guest.call(&mut vmx, REQUEST), Err(Refused(FAILURE)));
    assert!(vmx.requests.is_empty());
}

#[test]
fn who_is_deaf_still_has_a_version() {
    let mut vmx = hello();
    let guest = Guest::open(&mut vmx, RPCI_COOKIES, true).unwrap();
    vmx.faults.deaf = true;
    assert!(Guest::open(&mut vmx, RPCI_COOKIES, true).is_err());
    assert!(guest.call(&mut vmx, REQUEST).is_err());
    assert_eq!(vmx.access(Registers { eax: MAGIC, ecx: GETVERSION, ..Registers::default() }).eax, 6);
}

#[test]
fn a_host_may_serve_and_never_say_so() {
    let mut vmx = hello();
    vmx.faults.silent = true;
    let guest = Guest::open(&mut vmx, RPCI_COOKIES, true).unwrap();
    assert_eq!(guest.call(&mut vmx, b"info-set guestinfo.a b"), Ok(None));
    assert_eq!(vmx.guestinfo["guestinfo.a"], b"b");
}

#[test]
fn a_host_may_forget_its_channels_in_any_transfer() {
    for number in 1..=3 {
        let mut vmx = hello();
        vmx.faults.forgets_at = Some(number);
        let guest = Guest::open(&mut vmx, RPCI_COOKIES, true).unwrap();
        assert_eq!(guest.call(&mut vmx, REQUEST), Err(Refused(CLOSED)));
        assert_eq!(vmx.open_channels(), 0);
        let guest = Guest::open(&mut vmx, RPCI_COOKIES, true).unwrap();
        assert_eq!(guest.call(&mut vmx, REQUEST), Ok(Some(b"1 hello".to_vec())));
    }
}

#[test]
fn a_reply_may_claim_any_size() {
    let mut vmx = hello();
    vmx.faults.swollen = Some(u32::MAX);
    let guest = Guest::open(&mut vmx, RPCI_COOKIES, true).unwrap();
    guest.send_once(&mut vmx, REQUEST).unwrap();
    assert_eq!(guest.ask(&mut vmx, RECEIVE_SIZE, 0).unwrap().ebx, u32::MAX);
    let mut start = [0; 9];
    guest.stream(&mut vmx, Direction::In, &mut start).unwrap();
    assert_eq!(&start, b"1 hello  ");
    assert_eq!(guest.ask(&mut vmx, RECEIVE_STATUS, 1).err(), Some(Refused(FAILURE)), "it has not fetched all");
}

#[test]
fn questions_and_answers_cross_on_a_channel_of_theirs() {
    for is_high in WAYS {
        let mut vmx = Vmx { questions: [b"reset".to_vec(), b"ping".to_vec()].into(), ..Vmx::default() };
        let guest = Guest::open(&mut vmx, TCLO | WITH_COOKIES, is_high).unwrap();
        assert_eq!(guest.call(&mut vmx, b""), Ok(Some(b"reset".to_vec())));
        assert_eq!(guest.call(&mut vmx, b""), Ok(None), "it waits for the answer");
        assert_eq!(guest.call(&mut vmx, b"OK ATR toolbox"), Ok(Some(b"ping".to_vec())));
        assert_eq!(guest.call(&mut vmx, b"OK "), Ok(None));
        assert_eq!(vmx.answers, [b"OK ATR toolbox".to_vec(), b"OK ".to_vec()]);
        assert_eq!(vmx.signs_of_life, 2);
        assert!(vmx.requests.is_empty());
    }
}

#[test]
fn a_question_that_was_not_acknowledged_is_asked_again() {
    let mut vmx = Vmx { questions: [b"ping".to_vec()].into(), ..Vmx::default() };
    let guest = Guest::open(&mut vmx, TCLO | WITH_COOKIES, true).unwrap();
    vmx.faults.checkpoint_every = Some(2);
    assert_eq!(guest.receive_once(&mut vmx), Err(Refused(CHECKPOINT)), "at the acknowledgement");
    assert_eq!(vmx.asked, None);
    vmx.faults.checkpoint_every = None;
    assert_eq!(guest.receive_once(&mut vmx), Ok(Some(b"ping".to_vec())));
    guest.ask(&mut vmx, CLOSE, 0).unwrap();
    assert_eq!(vmx.asked, None, "who hangs up owes no answer");
}

#[test]
fn memory_that_is_not_there_is_the_processors_business() {
    let mut vmx = hello();
    let guest = Guest::open(&mut vmx, RPCI_COOKIES, true).unwrap();
    guest.ask(&mut vmx, SEND_SIZE, 4).unwrap();
    let (high, low) = guest.cookies;
    let registers =
        Registers { eax: MAGIC, ebx: 0x1_0000, ecx: 4, edi: low, ebp: high, buffer: 8, ..Registers::default() };
    assert_eq!(vmx.stream(Direction::Out, registers, &mut Page::of(b"")), None);
    let registers = Registers { buffer: PAGE, ..registers };
    assert!(vmx.stream(Direction::Out, registers, &mut Page::of(b"log ")).is_some(), "and nothing has happened");
    assert_eq!(vmx.told.log, [""]);
}

/// Guests that do anything at all, from a seed: VMX must bear it, and never has more channels than it says.
#[test]
fn no_order_of_accesses_is_too_much() {
    let mut seed: u32 = 0x5eed;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed
    };
    let mut requests = 0;
    for run in 0..4_000 {
        let mut vmx = hello();
        vmx.questions.extend((0..10).map(|_| b"ping".to_vec()));
        vmx.faults.checkpoint_every = (run % 2 == 1).then_some(3);
        let (mut number, mut cookies) = (0, (0, 0));
        for _ in 0..100 {
            let service = [RPCI, RPCI | WITH_COOKIES, TCLO, TCLO | WITH_COOKIES][next() as usize % 4];
            let ebx = [service, 1, 0, next() % 64, next()][next() as usize % 5];
            let edx = if next() % 4 == 0 { next() << 16 } else { number };
            let base = Registers {
                eax: MAGIC,
                ebx,
                edx,
                esi: cookies.0,
                edi: cookies.1,
                buffer: PAGE,
                ..Registers::default()
            };
            let kind = next() % 8;
            let after = vmx.access(Registers { ecx: MESSAGE | kind << 16, ..base });
            if kind == OPEN && after.ecx != FAILURE {
                (number, cookies) = (after.edx, (after.esi, after.edi));
            }
            let (way, ebp) = if next() % 2 == 0 { (Direction::Out, cookies.0) } else { (Direction::In, cookies.1) };
            let stream = Registers { ebx: 0x1_0000, ecx: next() % 32, ebp, ..base };
            vmx.stream(way, stream, &mut Page::of(REQUEST));
            assert!(vmx.open_channels() <= 128);
        }
        requests += vmx.requests.len();
    }
    assert!(requests > 500, "it came to {requests} requests");
}
