//! Frames between machines.

use super::super::Mac;
use super::{Machine, Switch, settings, switch};

const BROADCAST: Mac = [0xff; 6];

fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// A question by ARP who has `target`, or an answer.
fn arp(kind: u8, to: Mac, from: &Machine, mac: Mac, address: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let payload = [&[0, 1, 8, 0, 6, 4, 0, kind], &mac[..], &address, &[0; 6], &target].concat();
    ethernet(to, from.mac, 0x0806, &payload)
}

/// An IPv4 packet of no protocol.
fn ipv4(to: Mac, from: &Machine, source: [u8; 4], mark: u8) -> Vec<u8> {
    let header = [0x45, 0, 0, 21, 0, 0, 0, 0, 64, 253, 0, 0];
    ethernet(to, from.mac, 0x0800, &[&header, &source[..], &[10, 9, 0, 3], &[mark]].concat())
}

fn ipv6(from: &Machine, source: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let header = [0x60, 0, 0, 0, 0, 24, next, 255];
    ethernet(BROADCAST, from.mac, 0x86dd, &[&header, &source[..], &[0xff; 16], payload].concat())
}

/// Nothing but the last frame arrives: what came before it was dropped.
async fn only_the_last(frames: &[Vec<u8>], from: &Machine, to: &Machine) {
    for frame in frames {
        from.send(frame).await;
    }
    assert_eq!(to.receive().await, *frames.last().unwrap());
}

#[tokio::test]
async fn a_frame_reaches_whom_it_is_for() {
    let (switch, _dir) = switch().await;
    let [two, three, four] = [2, 3, 4].map(|number| Machine::plug(&switch, number));
    let question = arp(1, BROADCAST, &two, two.mac, [10, 9, 0, 2], [10, 9, 0, 3]);
    two.send(&question).await;
    assert_eq!(three.receive().await, question);
    assert_eq!(four.receive().await, question);
    let answer = arp(2, two.mac, &three, three.mac, [10, 9, 0, 3], [10, 9, 0, 2]);
    three.send(&answer).await;
    assert_eq!(two.receive().await, answer);
    // a stranger's frame, one's own, and one for a neighbour: only the last is for four
    let frames = [
        ipv4([2, 0, 0, 0, 0, 9], &two, [10, 9, 0, 2], 1),
        ipv4(two.mac, &two, [10, 9, 0, 2], 2),
        ipv4(three.mac, &two, [10, 9, 0, 2], 3),
        ipv4(four.mac, &two, [10, 9, 0, 2], 4),
    ];
    only_the_last(&frames, &two, &four).await;
    assert_eq!(three.receive().await, frames[2]);
}

#[tokio::test]
async fn nobody_sends_as_another() {
    let (switch, _dir) = switch().await;
    let [two, three] = [2, 3].map(|number| Machine::plug(&switch, number));
    let own = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x42, 10, 0xff, 0xfe, 9, 0, 2];
    let foreign = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x42, 10, 0xff, 0xfe, 9, 0, 3];
    let advertisement = |of: [u8; 16]| [&[136, 0, 0, 0, 0, 0, 0, 0], &of[..]].concat();
    let frames = [
        arp(2, three.mac, &two, two.mac, [10, 9, 0, 1], [10, 9, 0, 3]),
        arp(2, three.mac, &two, three.mac, [10, 9, 0, 2], [10, 9, 0, 3]),
        ipv4(three.mac, &two, [10, 9, 0, 1], 0),
        ethernet(three.mac, three.mac, 0x0800, &ipv4(three.mac, &two, [10, 9, 0, 2], 0)[14..]),
        // a tag of a VLAN, and a frame that is none
        ethernet(three.mac, two.mac, 0x8100, &[0; 40]),
        vec![0; 13],
        ipv6(&two, foreign, 59, &[0; 24]),
        ipv6(&two, own, 58, &advertisement(foreign)),
        // a router, that it is not
        ipv6(&two, own, 58, &[134; 24]),
        ipv6(&two, own, 58, &advertisement(own)),
    ];
    only_the_last(&frames, &two, &three).await;
}

#[tokio::test]
async fn a_machine_that_takes_nothing_holds_up_nobody() {
    let (switch, _dir) = switch().await;
    let [two, three, four] = [2, 3, 4].map(|number| Machine::plug(&switch, number));
    for _ in 0..1000 {
        two.send(&ipv4(BROADCAST, &two, [10, 9, 0, 2], 0)).await;
        three.receive().await;
    }
    // it has what fits, and is told again later
    four.receive().await;
    two.send(&ipv4(three.mac, &two, [10, 9, 0, 2], 1)).await;
    assert_eq!(three.receive().await.last(), Some(&1));
}

#[tokio::test]
async fn frames_wait_in_order_for_a_machine_that_is_slow() {
    let (switch, _dir) = switch().await;
    let [two, three] = [2, 3].map(|number| Machine::plug(&switch, number));
    for mark in 0..200 {
        two.send(&ipv4(three.mac, &two, [10, 9, 0, 2], mark)).await;
    }
    for mark in 0..200 {
        assert_eq!(three.receive().await.last(), Some(&mark));
    }
}

#[tokio::test]
async fn the_same_sockets_serve_after_a_restart() {
    let (switch, dir) = switch().await;
    let [two, three] = [2, 3].map(|number| Machine::plug(&switch, number));
    drop(switch);
    let switch = Switch::start(settings(&dir)).await.unwrap();
    for machine in [&two, &three] {
        let number = machine.address.octets()[3];
        switch.plug(&format!("machine {number}"), machine.mac, &[machine.address.into()]).unwrap();
    }
    only_the_last(&[ipv4(three.mac, &two, [10, 9, 0, 2], 0)], &two, &three).await;
    // and a machine that was started anew takes its frames by a new socket of the same path
    drop(three);
    let three = Machine::plug(&switch, 3);
    only_the_last(&[ipv4(three.mac, &two, [10, 9, 0, 2], 1)], &two, &three).await;
    switch.unplug("machine 3");
    assert!(two.socket.send_to(b"x", &three.switch).await.is_err());
}
