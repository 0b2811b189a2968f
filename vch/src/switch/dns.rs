//! The service of names at the gateway: it knows this network's machines, and asks the host's own servers about the rest.
//!
//! A name of this network has its addresses and nothing else: a question for another kind has an answer without records, and nobody else is asked. An internal network's machines learn of nobody else. Who is asked: [`servers`].

mod listen;
mod servers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::sync::Arc;

use simple_dns::rdata::{A, AAAA, PTR, RData};
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub(crate) use self::listen::Listening;
use self::servers::Over;
use super::Settings;
use super::gateway::Gateway;
use super::packet::{Ipv4, Pair};

pub(super) const PORT: u16 = 53;
/// Seconds that an answer of ours may be kept: a machine may have another address when it is started again.
const KEPT: u32 = 0;

/// A question in a datagram. Too many at once are lost: they are asked again.
pub(super) fn take(gateway: &Arc<Gateway>, pair: Pair, query: &[u8]) {
    let Ok(permit) = gateway.questions.clone().try_acquire_owned() else { return };
    let (gateway, query) = (gateway.clone(), query.to_vec());
    tokio::spawn(async move {
        if let Some(answer) = answer(&gateway.settings, *pair.machine.ip(), &query, Over::Udp).await {
            gateway.send(&Ipv4::udp(pair, &answer));
        }
        drop(permit);
    });
}

/// Questions over a connection, one after the other, until it ends.
pub(super) async fn serve_stream(
    settings: &Settings,
    machine: SocketAddrV4,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; usize::from(length)];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let Some(answer) = answer(settings, *machine.ip(), &query, Over::Tcp).await else { return };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        if stream.write_all(&[&length.to_be_bytes(), &answer[..]].concat()).await.is_err() {
            return;
        }
    }
}

/// The answer to a query; none to what is no query.
async fn answer(settings: &Settings, asking: Ipv4Addr, query: &[u8], over: Over) -> Option<Vec<u8>> {
    let told = {
        let packet = Packet::parse(query).ok().filter(|packet| !packet.has_flags(PacketFlag::RESPONSE))?;
        let told = known(settings, asking, &packet);
        match told {
            Some(told) => Some(reply(&packet, told)),
            None if settings.internal => Some(reply(&packet, Err(RCODE::ServerFailure))),
            None => None,
        }
    };
    match told {
        Some(told) => told,
        None => match servers::ask(query, over).await {
            Some(answer) => Some(answer),
            None => reply(&Packet::parse(query).ok()?, Err(RCODE::ServerFailure)),
        },
    }
}

/// What this network knows of it: records, or why there are none; `None` if others have to be asked.
fn known(settings: &Settings, asking: Ipv4Addr, query: &Packet<'_>) -> Option<Result<Vec<RData<'static>>, RCODE>> {
    let [question] = &query.questions[..] else { return Some(Err(RCODE::FormatError)) };
    if query.opcode() != OPCODE::StandardQuery {
        return Some(Err(RCODE::NotImplemented));
    }
    let name = question.qname.to_string().to_ascii_lowercase();
    let wants = |kind| question.qtype == QTYPE::ANY || question.qtype == QTYPE::TYPE(kind);
    if let Some(address) = reversed(&name) {
        let Some(name) = settings.names.name(asking.into(), address) else {
            let is_ours = matches!(address, IpAddr::V4(address) if settings.contains(address));
            return is_ours.then_some(Err(RCODE::NameError));
        };
        let Ok(name) = Name::new(&name) else { return Some(Err(RCODE::ServerFailure)) };
        let pointer = wants(TYPE::PTR).then(|| RData::PTR(PTR(name.into_owned())));
        return Some(Ok(pointer.into_iter().collect()));
    }
    let addresses = settings.names.addresses(asking.into(), &name)?;
    let records = addresses.into_iter().filter_map(|address| match address {
        IpAddr::V4(address) => wants(TYPE::A).then(|| RData::A(A { address: address.to_bits() })),
        IpAddr::V6(address) => wants(TYPE::AAAA).then(|| RData::AAAA(AAAA { address: address.to_bits() })),
    });
    Some(Ok(records.collect()))
}

fn reply(query: &Packet<'_>, told: Result<Vec<RData<'static>>, RCODE>) -> Option<Vec<u8>> {
    let mut reply = Packet::new_reply(query.id());
    *reply.opcode_mut() = query.opcode();
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    reply.questions.clone_from(&query.questions);
    match (told, &query.questions[..]) {
        (Ok(records), [question]) => {
            let record = |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, KEPT, data);
            reply.answers = records.into_iter().map(record).collect();
        }
        (Ok(_), _) => *reply.rcode_mut() = RCODE::FormatError,
        (Err(code), _) => *reply.rcode_mut() = code,
    }
    reply.build_bytes_vec_compressed().ok()
}

/// The address whose name is asked for: `3.0.9.10.in-addr.arpa`.
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let parts: Vec<u8> = digits.split('.').rev().map(|part| part.parse().ok()).collect::<Option<_>>()?;
        return <[u8; 4]>::try_from(parts).ok().map(|parts| Ipv4Addr::from(parts).into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let digit =
        |part: &str| Some(part).filter(|part| part.len() == 1).and_then(|part| u128::from_str_radix(part, 16).ok());
    let parts: Vec<u128> = digits.split('.').rev().map(digit).collect::<Option<_>>()?;
    let bits = parts.iter().fold(0, |bits, digit| bits << 4 | digit);
    (parts.len() == 32).then(|| Ipv6Addr::from_bits(bits).into())
}
