//! Lost packets, refusals, lies and the passing of days, against a client in a test's hands.

use std::net::IpAddr;

use super::super::message::{LEASE_TIME, MASK, ROUTERS, SERVER, T1, T2};
use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// A client, its time, and dice that always fall in the middle: waits are exact.
struct World {
    client: Client,
    now: Duration,
}

/// A question as the world sees it.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    kind: u8,
    xid: u32,
    own: Ipv4Addr,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    to: Option<(Ipv4Addr, Ipv4Addr)>,
    seconds: u64,
}

/// 1000 more than a multiple of 2001: no deviation.
fn dice(turn: u32) -> u32 {
    2001 * turn + 1000
}

impl World {
    fn new() -> World {
        let now = Duration::from_secs(100);
        World { client: Client::new(MAC, "web", now, dice(1)), now }
    }

    /// Lets time pass until the client does something by itself, and hears what it says.
    fn next(&mut self) -> Asked {
        loop {
            self.now = self.client.deadline().expect("it would never do anything").max(self.now);
            let turn = u32::try_from(self.now.as_millis() % 1000 + 7).unwrap();
            self.client.handle_time(self.now, dice(turn));
            if let Some(asked) = self.said() {
                return asked;
            }
        }
    }

    fn said(&mut self) -> Option<Asked> {
        let Transmit { message, between } = self.client.poll_transmit()?;
        assert_eq!((&message[..4], &message[28..34], message.len() >= 300), (&[1, 1, 6, 0][..], &MAC[..], true));
        let options = &message[240..];
        let find = |code: u8| {
            let mut at = 0;
            while options[at] != 255 {
                let length = usize::from(options[at + 1]);
                if options[at] == code {
                    return Some(options[at + 2..at + 2 + length].to_vec());
                }
                at += 2 + length;
            }
            None
        };
        let address = |code| find(code).map(|value| Ipv4Addr::from(<[u8; 4]>::try_from(value).unwrap()));
        let kind = find(53).unwrap()[0];
        assert_eq!(find(12).is_some(), kind != RELEASE, "the host name");
        Some(Asked {
            kind,
            xid: u32::from_be_bytes(message[4..8].try_into().unwrap()),
            own: Ipv4Addr::new(message[12], message[13], message[14], message[15]),
            requested: address(50),
            server: address(54),
            to: between,
            seconds: self.now.as_secs(),
        })
    }

    fn hear(&mut self, bytes: &[u8]) -> bool {
        self.client.handle_message(self.now, dice(5), bytes)
    }

    /// As far as a lease of an hour, renewed after `t1` and rebound after `t2` seconds.
    fn bound(t1: u32, t2: u32) -> World {
        let mut world = World::new();
        let asked = world.next();
        assert!(world.hear(&answer(&asked, OFFER, &[])));
        let asked = world.said().unwrap();
        assert!(world.hear(&answer(&asked, ACK, &[(T1, &t1.to_be_bytes()), (T2, &t2.to_be_bytes())])));
        assert!(matches!(world.client.poll_news(), Some(News::Bound(_))));
        world
    }
}

/// A sound answer to a question, with these options in place of its own.
fn answer(asked: &Asked, kind: u8, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![2, 1, 6, 0];
    bytes.extend(asked.xid.to_be_bytes());
    bytes.resize(16, 0);
    if kind != NAK {
        bytes.extend(OURS.octets());
    }
    bytes.resize(28, 0);
    bytes.extend(MAC);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99]);
    let own: [(u8, &[u8]); 5] = [
        (53, &[kind]),
        (SERVER, &THEIRS.octets()),
        (MASK, &[255, 255, 255, 0]),
        (LEASE_TIME, &3600u32.to_be_bytes()),
        (ROUTERS, &THEIRS.octets()),
    ];
    let own = own.iter().filter(|(code, _)| options.iter().all(|(other, _)| other != code));
    for (code, value) in own.chain(options) {
        bytes.extend([*code, u8::try_from(value.len()).unwrap()]);
        bytes.extend(*value);
    }
    bytes.push(255);
    bytes
}

#[test]
fn a_lease_takes_four_messages() {
    let mut world = World::new();
    let asked = world.next();
    assert_eq!((asked.kind, asked.own, asked.to, asked.seconds), (DISCOVER, Ipv4Addr::UNSPECIFIED, None, 100));
    assert!(world.hear(&answer(&asked, OFFER, &[])));
    let request = world.said().unwrap();
    assert_eq!((request.kind, request.xid, request.requested), (REQUEST, asked.xid, Some(OURS)));
    assert_eq!((request.server, request.own, request.to), (Some(THEIRS), Ipv4Addr::UNSPECIFIED, None));
    assert!(world.hear(&answer(&request, ACK, &[])));
    let Some(News::Bound(lease)) = world.client.poll_news() else { panic!("no lease") };
    assert_eq!((lease.own.address, lease.own.length), (IpAddr::V4(OURS), 24));
    assert_eq!(world.client.deadline(), Some(Duration::from_secs(100 + 1800)));
    assert_eq!(world.client.heard(), "10.0.0.1 gave 10.0.0.5");
}

#[test]
fn unanswered_questions_are_asked_ever_less() {
    let mut world = World::new();
    let times: Vec<u64> = (0..8).map(|_| world.next().seconds - 100).collect();
    assert_eq!(times, [0, 4, 12, 28, 60, 124, 188, 252]);
    assert_eq!(world.client.heard(), "nobody has answered");
    // each wait is up to a second shorter or longer
    for dice in [0, 1, 1000, 2000, 2001, u32::MAX] {
        let wait = wait(0, dice).as_millis();
        assert!((3000..=5000).contains(&wait), "{wait}");
    }
}

#[test]
fn each_lost_message_is_made_up_for() {
    // the request, and then its answer
    let mut world = World::new();
    let asked = world.next();
    world.hear(&answer(&asked, OFFER, &[]));
    let first = world.said().unwrap();
    let again = world.next();
    assert_eq!((again.kind, again.xid, again.requested, again.seconds), (REQUEST, first.xid, Some(OURS), 104));
    assert!(world.hear(&answer(&again, ACK, &[])));
    assert_eq!(world.client.deadline(), Some(Duration::from_secs(104 + 1800)), "counted from the last request");
    // a server that has died after its offer is given up
    let mut world = World::new();
    let asked = world.next();
    world.hear(&answer(&asked, OFFER, &[]));
    assert_eq!(world.said().unwrap().kind, REQUEST);
    let later: Vec<(u8, u64)> = (0..4).map(|_| world.next()).map(|asked| (asked.kind, asked.seconds - 100)).collect();
    assert_eq!(later, [(REQUEST, 4), (REQUEST, 12), (REQUEST, 28), (DISCOVER, 60)]);
    assert_eq!(world.client.heard(), "10.0.0.1 offered 10.0.0.5 and has not confirmed it");
}

#[test]
fn a_refused_request_begins_anew_and_not_in_a_circle() {
    let mut world = World::new();
    let mut times = Vec::new();
    for _ in 0..5 {
        let asked = world.next();
        times.push(asked.seconds - 100);
        world.hear(&answer(&asked, OFFER, &[]));
        let asked = world.said().unwrap();
        assert!(world.hear(&answer(&asked, NAK, &[(TEXT, b"wrong\nnetwork")])));
    }
    assert_eq!(times, [0, 0, 4, 12, 28]);
    assert_eq!(world.client.heard(), "10.0.0.1 refused it: wrongnetwork");
    // another server's refusal is none
    let mut world = World::new();
    let asked = world.next();
    world.hear(&answer(&asked, OFFER, &[]));
    let asked = world.said().unwrap();
    assert!(!world.hear(&answer(&asked, NAK, &[(SERVER, &[10, 0, 0, 9])])));
    assert!(!world.hear(&answer(&asked, ACK, &[(SERVER, &[10, 0, 0, 9])])));
    assert!(world.hear(&answer(&asked, ACK, &[])));
}

#[test]
fn a_lease_is_renewed_by_its_server() {
    let mut world = World::bound(600, 1200);
    let asked = world.next();
    assert_eq!((asked.kind, asked.own, asked.to, asked.seconds), (REQUEST, OURS, Some((OURS, THEIRS)), 700));
    assert_eq!((asked.requested, asked.server), (None, None), "RFC 2131, table 5");
    assert!(world.hear(&answer(&asked, ACK, &[])));
    assert_eq!(world.client.poll_news(), None, "nothing has changed");
    assert_eq!(world.client.deadline(), Some(Duration::from_secs(700 + 1800)));
    // a change is told
    let asked = world.next();
    assert!(world.hear(&answer(&asked, ACK, &[(ROUTERS, &[10, 0, 0, 9])])));
    let Some(News::Bound(lease)) = world.client.poll_news() else { panic!("no news") };
    assert_eq!(lease.gateway, Some(Ipv4Addr::new(10, 0, 0, 9)));
}

#[test]
fn a_silent_server_is_asked_then_everyone_then_the_lease_is_over() {
    let mut world = World::bound(600, 1200);
    let mut seen = Vec::new();
    loop {
        let asked = world.next();
        seen.push((asked.kind, asked.to.is_some(), asked.seconds - 100));
        if asked.kind == DISCOVER {
            break;
        }
        assert!(world.client.poll_news().is_none(), "the lease holds");
        assert_eq!(asked.own, OURS);
    }
    let expected: Vec<(u8, bool, u64)> = [600, 900, 1050, 1125, 1185]
        .map(|at| (REQUEST, true, at))
        .into_iter()
        .chain([1200, 2400, 3000, 3300, 3450, 3525, 3585].map(|at| (REQUEST, false, at)))
        .chain([(DISCOVER, false, 3600)])
        .collect();
    assert_eq!(seen, expected);
    assert_eq!(world.client.poll_news(), Some(News::Lost));
}

#[test]
fn another_server_may_take_over_when_the_first_is_silent() {
    let mut world = World::bound(600, 1200);
    let rebinding = loop {
        let asked = world.next();
        if asked.to.is_none() {
            break asked;
        }
    };
    assert!(world.hear(&answer(&rebinding, ACK, &[(SERVER, &[10, 0, 0, 2])])));
    let Some(News::Bound(lease)) = world.client.poll_news() else { panic!("no news") };
    assert_eq!(lease.server, Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(world.next().to, Some((OURS, Ipv4Addr::new(10, 0, 0, 2))));
}

#[test]
fn a_lease_that_is_taken_back_is_lost_at_once() {
    for rebinding in [false, true] {
        let mut world = World::bound(600, 1200);
        let asked = loop {
            let asked = world.next();
            if asked.to.is_none() == rebinding {
                break asked;
            }
        };
        assert!(world.hear(&answer(&asked, NAK, &[])));
        assert_eq!(world.client.poll_news(), Some(News::Lost));
        let again = world.next();
        assert_eq!((again.kind, again.seconds), (DISCOVER, asked.seconds));
    }
}

#[test]
fn a_cable_that_comes_has_the_client_ask_at_once() {
    // who has nothing begins anew, and not where it has waited longest
    let mut world = World::new();
    let last = (0..6).map(|_| world.next()).last().unwrap();
    world.client.ask_again(world.now, dice(9));
    let asked = world.next();
    assert_eq!((asked.kind, asked.seconds), (DISCOVER, last.seconds));
    // who has an address keeps it, and asks everyone: of the two answers one lets it go on, and the other ends it
    for kind in [ACK, NAK] {
        let mut world = World::bound(600, 1200);
        world.client.ask_again(world.now, dice(9));
        let asked = world.said().unwrap();
        assert_eq!((asked.kind, asked.own, asked.to), (REQUEST, OURS, None));
        assert!(world.hear(&answer(&asked, kind, &[])));
        assert_eq!(world.client.poll_news(), (kind == NAK).then_some(News::Lost));
    }
    // nobody who has given it back wants it again
    let mut world = World::bound(600, 1200);
    world.client.release(world.now, dice(9));
    world.said();
    world.client.ask_again(world.now, dice(9));
    assert!(world.said().is_none());
}

#[test]
fn a_lease_is_given_back_and_then_there_is_silence() {
    let mut world = World::bound(600, 1200);
    world.client.release(world.now, dice(9));
    let asked = world.said().unwrap();
    assert_eq!((asked.kind, asked.own, asked.server), (RELEASE, OURS, Some(THEIRS)));
    assert_eq!((asked.to, asked.requested), (Some((OURS, THEIRS)), None));
    assert_eq!(world.client.deadline(), None);
    assert!(!world.hear(&answer(&asked, ACK, &[])));
    // who has none gives none back
    let mut world = World::new();
    world.next();
    world.client.release(world.now, dice(9));
    assert_eq!((world.said(), world.client.deadline()), (None, None));
}

#[test]
fn an_endless_lease_is_never_renewed() {
    let mut world = World::new();
    let asked = world.next();
    world.hear(&answer(&asked, OFFER, &[]));
    let asked = world.said().unwrap();
    world.hear(&answer(&asked, ACK, &[(LEASE_TIME, &[0xff; 4])]));
    assert!(world.client.deadline().unwrap() > Duration::from_secs(100 * 365 * 86400));
}

#[test]
fn lies_and_what_belongs_to_others_change_nothing() {
    let mut world = World::new();
    let asked = world.next();
    let deadline = world.client.deadline();
    let mut strange = answer(&asked, OFFER, &[]);
    strange[4] ^= 1;
    assert!(!world.hear(&strange), "another's number");
    strange[4] ^= 1;
    strange[33] ^= 1;
    assert!(!world.hear(&strange), "another's card");
    assert!(!world.hear(&answer(&asked, ACK, &[])), "nobody has asked for that");
    assert!(!world.hear(&answer(&asked, NAK, &[])), "nor for that");
    assert!(!world.hear(&answer(&asked, OFFER, &[(MASK, &[0; 4])])));
    assert_eq!(world.client.heard(), "an answer of 10.0.0.1 cannot be used: it has a mask that is none");
    assert_eq!((world.client.deadline(), world.said()), (deadline, None));
    // in place of what was offered, another address
    assert!(world.hear(&answer(&asked, OFFER, &[])));
    let request = world.said().unwrap();
    let mut other = answer(&request, ACK, &[]);
    other[19] = 6;
    assert!(!world.hear(&other));
    assert!(world.hear(&answer(&request, ACK, &[])));
    assert!(!world.hear(&answer(&request, ACK, &[])), "twice");
}

/// Any bytes, in any state, and any time: no panic, and always something left to do.
#[test]
fn garbage_never_ends_a_client() {
    let mut dice = 1u32;
    let mut roll = || {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        dice >> 8
    };
    let mut world = World::new();
    let mut last = world.next();
    for _ in 0..20_000 {
        let kind = [OFFER, ACK, NAK, 99][roll() as usize % 4];
        let mut bytes =
            answer(&last, kind, &[(T1, &roll().to_be_bytes()[..roll() as usize % 5]), (121, &[8, 11, 10, 0, 0, 2])]);
        for _ in 0..roll() % 4 {
            let at = roll() as usize % bytes.len();
            bytes[at] = roll().to_le_bytes()[0];
        }
        bytes.truncate(bytes.len() - [0, 0, 0, roll() as usize % 60][roll() as usize % 4]);
        world.hear(&bytes);
        if roll() % 3 == 0 {
            world.now += Duration::from_millis(u64::from(roll() % 3_000_000));
            world.client.handle_time(world.now, roll());
        }
        if let Some(asked) = world.said() {
            last = asked;
        }
        world.client.poll_news();
        assert!(world.client.deadline().is_some());
    }
}
