//! Rules as messages to nf_tables. What the rules are is decided in [`super::rules`].
//!
//! Source: Linux, include/uapi/linux/netfilter/nf_tables.h. Numbers in messages are in network byte order; what packets are compared with is as it lies in a
//! register: ports and addresses as they come, the kernel's own numbers in the machine's order.

use wire::spec::Protocol;

use super::rules::{Chain, Match, Rule, Verdict};
use crate::net::netlink::{APPEND, Request};

/// `NFNL_SUBSYS_NFTABLES`.
pub(super) const SUBSYSTEM: u8 = 10;

const TABLE: &str = "tether";
/// `NLM_F_CREATE`: what is there already is no error.
const MAKE: u16 = 0x400;

const NEW_TABLE: u8 = 0;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
const DELETE_RULE: u8 = 8;

/// The register that every comparison uses, `NFT_REG_1`, and the one that takes a verdict.
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;

// enum nft_cmp_ops
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;

// enum nft_meta_keys, enum nft_ct_keys, enum nft_payload_bases
const META_FROM: u32 = 6;
const META_TO: u32 = 7;
const META_VERSION: u32 = 15;
const META_PROTOCOL: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// `NF_CT_STATE_BIT` of established and related.
const ANSWER: u32 = 2 | 4;
/// `IPS_DST_NAT`: include/uapi/linux/netfilter/nf_conntrack_common.h.
const REDIRECTED: u32 = 32;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`: include/uapi/linux/netfilter/nf_nat.h.
const TO_PORT: u32 = 2;

/// `NFPROTO_IPV4`, `NFPROTO_IPV6`: the version of IP as netfilter counts it.
const V4: u8 = 2;
const V6: u8 = 10;

/// Everything that takes whatever rules there are away and puts these in their place.
///
/// The table and its chains stay where they are: a chain that was taken away and made anew would let everything pass for a moment, because its policy
/// counts only from the end of the transaction, while rules change from one packet to the next.
pub(super) fn replacement(rules: &[Rule<'_>]) -> Vec<Request> {
    let mut requests = vec![request(NEW_TABLE, MAKE)];
    for chain in [Chain::Redirects, Chain::Input, Chain::Forward, Chain::Output, Chain::Translations] {
        // the mere presence of these makes the kernel look every connection up
        if !matches!(chain, Chain::Redirects | Chain::Translations) || rules.iter().any(|rule| rule.chain == chain) {
            requests.push(new_chain(chain));
        }
    }
    requests.push(request(DELETE_RULE, 0));
    requests.extend(rules.iter().map(new_rule));
    requests
}

/// `struct nfgenmsg` and the table's name, which is the first attribute of every kind of request here.
fn request(kind: u8, flags: u16) -> Request {
    let mut request = Request::new(u16::from_be_bytes([SUBSYSTEM, kind]), flags, &[NFPROTO_INET, 0, 0, 0]);
    request.put_text(1, TABLE);
    request
}

const NFPROTO_INET: u8 = 1;

/// Name, type, hook (enum nf_inet_hooks), priority (enum nf_ip_hook_priorities) and policy.
fn new_chain(chain: Chain) -> Request {
    const ACCEPT: u32 = 1;
    const DROP: u32 = 0;
    let (kind, hook, priority, policy) = match chain {
        Chain::Redirects => ("nat", 0, -100, ACCEPT),
        Chain::Input => ("filter", 1, 0, DROP),
        Chain::Forward => ("filter", 2, 0, DROP),
        Chain::Output => ("filter", 3, 0, DROP),
        Chain::Translations => ("nat", 4, 100, ACCEPT),
    };
    let mut request = request(NEW_CHAIN, MAKE);
    request.put_text(3, name(chain));
    request.nest(4, |at| {
        number(at, 1, hook);
        at.put(2, &i32::to_be_bytes(priority));
    });
    number(&mut request, 5, policy);
    request.put_text(7, kind);
    request
}

pub(super) fn name(chain: Chain) -> &'static str {
    match chain {
        Chain::Redirects => "prerouting",
        Chain::Input => "input",
        Chain::Forward => "forward",
        Chain::Output => "output",
        Chain::Translations => "postrouting",
    }
}

fn new_rule(rule: &Rule<'_>) -> Request {
    let mut request = request(NEW_RULE, APPEND);
    request.put_text(2, name(rule.chain));
    request.nest(4, |list| {
        for &each in &rule.matches {
            put_match(list, each);
        }
        put_verdict(list, rule.verdict);
    });
    request
}

fn put_match(list: &mut Request, each: Match<'_>) {
    match each {
        Match::From(interface) => put_interface(list, META_FROM, interface),
        Match::To(interface) => put_interface(list, META_TO, interface),
        Match::Answer => put_any_of(list, CT_STATE, ANSWER),
        Match::Redirected => put_any_of(list, CT_STATUS, REDIRECTED),
        Match::Sender4(first, last) => {
            put_meta(list, META_VERSION, &[V4]);
            put_between(list, NETWORK, 12, &first.octets(), &last.octets());
        }
        Match::Sender6(first, last) => {
            put_meta(list, META_VERSION, &[V6]);
            put_between(list, NETWORK, 8, &first.octets(), &last.octets());
        }
        Match::Icmp(kind) => {
            put_meta(list, META_VERSION, &[V4]);
            put_transport(list, libc::IPPROTO_ICMP, 0, &[kind], &[kind]);
        }
        Match::Icmp6(first, last) => {
            put_meta(list, META_VERSION, &[V6]);
            put_transport(list, libc::IPPROTO_ICMPV6, 0, &[first], &[last]);
        }
        Match::Port(protocol, first, last) => {
            let number = match protocol {
                Protocol::Tcp => libc::IPPROTO_TCP,
                Protocol::Udp => libc::IPPROTO_UDP,
            };
            put_transport(list, number, 2, &first.to_be_bytes(), &last.to_be_bytes());
        }
        Match::Dhcp(from, to) => {
            let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
            put_transport(list, libc::IPPROTO_UDP, 0, &ports, &ports);
        }
    }
}

fn put_verdict(list: &mut Request, verdict: Verdict) {
    // include/uapi/linux/netfilter.h
    const NF_DROP: u32 = 0;
    const NF_ACCEPT: u32 = 1;
    let code = match verdict {
        Verdict::Accept => NF_ACCEPT,
        Verdict::Drop => NF_DROP,
        Verdict::Redirect(port) => {
            put(list, "immediate", &[(1, REGISTER)], &[(2, &port.to_be_bytes())]);
            return put(list, "redir", &[(1, REGISTER), (3, TO_PORT)], &[]);
        }
        Verdict::Masquerade => return put(list, "masq", &[], &[]),
    };
    list.nest(1, |element| {
        element.put_text(1, "immediate");
        element.nest(2, |of| {
            number(of, 1, VERDICT);
            of.nest(2, |data| data.nest(2, |verdict| number(verdict, 1, code)));
        });
    });
}

/// A name is compared whole, with the zeros behind it. One that is too long for an interface is refused by the kernel or is nobody's.
fn put_interface(list: &mut Request, key: u32, name: &str) {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(bytes.len().max(libc::IFNAMSIZ), 0);
    put_meta(list, key, &bytes);
}

fn put_meta(list: &mut Request, key: u32, value: &[u8]) {
    put(list, "meta", &[(2, key), (1, REGISTER)], &[]);
    put_compare(list, EQUAL, value);
}

fn put_transport(list: &mut Request, protocol: libc::c_int, offset: u32, first: &[u8], last: &[u8]) {
    put_meta(list, META_PROTOCOL, &protocol.to_ne_bytes()[..1]);
    put_between(list, TRANSPORT, offset, first, last);
}

/// What lies at an offset of a header of the packet is at least `first` and at most `last`, which is as long.
fn put_between(list: &mut Request, base: u32, offset: u32, first: &[u8], last: &[u8]) {
    let length = u32::try_from(first.len()).unwrap_or_default();
    put(list, "payload", &[(1, REGISTER), (2, base), (3, offset), (4, length)], &[]);
    if first == last {
        return put_compare(list, EQUAL, first);
    }
    put_compare(list, AT_LEAST, first);
    put_compare(list, AT_MOST, last);
}

/// One of these bits is set in what is known about the packet's connection.
fn put_any_of(list: &mut Request, key: u32, bits: u32) {
    put(list, "ct", &[(2, key), (1, REGISTER)], &[]);
    // mask, and what is xored
    let values: [(u16, &[u8]); 2] = [(4, &bits.to_ne_bytes()), (5, &[0; 4])];
    put(list, "bitwise", &[(1, REGISTER), (2, REGISTER), (3, 4)], &values);
    put_compare(list, NOT_EQUAL, &[0; 4]);
}

fn put_compare(list: &mut Request, operator: u32, value: &[u8]) {
    put(list, "cmp", &[(1, REGISTER), (2, operator)], &[(3, value)]);
}

/// An element of the list of a rule's expressions: its name, and its own numbers and values.
fn put(list: &mut Request, name: &str, numbers: &[(u16, u32)], values: &[(u16, &[u8])]) {
    list.nest(1, |element| {
        element.put_text(1, name);
        element.nest(2, |of| {
            for &(kind, value) in numbers {
                number(of, kind, value);
            }
            for &(kind, value) in values {
                of.nest(kind, |data| data.put(1, value));
            }
        });
    });
}

fn number(of: &mut Request, kind: u16, value: u32) {
    of.put(kind, &value.to_be_bytes());
}
