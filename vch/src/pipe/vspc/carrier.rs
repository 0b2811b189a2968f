//! One VM's bytes, from the connection that it has now to its pipe and back, also while it moves to another host.
//!
//! ```text
//!  Here ──begin──> Away: nothing goes to the VM; what it still says comes ──complete, at the new host──> Arriving: the old host's last bytes come ──> Here
//!   ^───────────────abort──────────────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::extension::Say;
use super::line::{Line, MOST};
use super::moves::{Move, Moves};
use super::session::{Event, VmwareNames};

/// From the end of the old host's connection until the new one's must be there.
const ON_THE_WAY: Duration = Duration::from_secs(30);
/// What the old host gets for its last bytes; it closes its connection behind them.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// Where the VM is.
enum Phase {
    Here,
    Away { way: Move, peer: Option<Box<Line>>, until: Option<Instant> },
    Arriving { peer: Box<Line>, until: Instant },
}

/// What happens beside the connection.
enum Turn {
    Arrived(Box<Line>),
    Peer(Vec<Event>),
    Late,
}

/// Carries until the VM, or who has the other end of the pipe, has gone.
pub(super) async fn carry(
    mut line: Line,
    first: Vec<Event>,
    pipe: DuplexStream,
    moves: Arc<Moves>,
    names: watch::Sender<VmwareNames>,
) {
    let (mut from_host, mut to_host) = tokio::io::split(pipe);
    let (mut phase, mut buffer, mut late) = (Phase::Here, vec![0; 16 * 1024], false);
    let mut events = first;
    // what the VM said, on its way to the pipe
    let mut data = Vec::new();
    loop {
        for event in events.drain(..) {
            match (event, &mut phase) {
                (Event::Begin(sequence), Phase::Here) => match moves.begin(&sequence) {
                    Ok((way, secret)) => {
                        // what was to be sent to the VM stands before it
                        line.session.say(Say::GoAhead { sequence: &sequence, secret: &secret });
                        phase = Phase::Away { way, peer: None, until: None };
                    }
                    Err(_) => line.session.say(Say::NotNow(&sequence)),
                },
                (Event::Begin(sequence), _) => line.session.say(Say::NotNow(&sequence)),
                (Event::Abort, Phase::Away { .. }) => phase = Phase::Here,
                (Event::Complete, Phase::Away { .. }) => phase = arrive(phase),
                // it has waited too long with it, and has a pipe of its own by now, which ends here
                (Event::Peer(key), Phase::Here) => {
                    moves.arrive(&key, line);
                    return;
                }
                (Event::Names, _) => drop(names.send_replace(line.session.names.clone())),
                (Event::Abort | Event::Complete | Event::Peer(_), _) => {}
            }
        }
        data.append(&mut line.data);
        let gone = line.ended && data.is_empty();
        phase = match phase {
            Phase::Here if gone => return,
            Phase::Away { way, peer, until } if gone || until.is_some() => {
                let until = until.unwrap_or_else(|| Instant::now() + ON_THE_WAY);
                if late {
                    return;
                }
                Phase::Away { way, peer: peer.filter(|peer| !peer.ended), until: Some(until) }
            }
            Phase::Away { way, peer, until } => Phase::Away { way, peer: peer.filter(|peer| !peer.ended), until },
            Phase::Arriving { peer, .. } if gone || (late && data.is_empty()) => {
                line = *peer;
                Phase::Here
            }
            phase @ (Phase::Here | Phase::Arriving { .. }) => phase,
        };
        late = false;
        let is_here = matches!(phase, Phase::Here);
        tokio::select! {
            said = line.turn(data.len() < MOST) => events = said,
            turn = phase.turn() => match turn {
                Turn::Arrived(line) => {
                    if let Phase::Away { peer, .. } = &mut phase {
                        *peer = Some(line);
                    }
                }
                Turn::Peer(said) => events = phase.hear(said),
                Turn::Late => late = true,
            },
            written = to_host.write(&data), if !data.is_empty() => match written {
                Ok(count) => drop(data.drain(..count)),
                Err(_) => return,
            },
            read = from_host.read(&mut buffer), if is_here && line.has_room() => match read {
                Ok(count @ 1..) => line.session.send(&buffer[..count]),
                Ok(_) | Err(_) => return,
            },
        }
    }
}

/// The VM runs where its peer is, if it has one.
fn arrive(phase: Phase) -> Phase {
    match phase {
        Phase::Away { peer: Some(peer), .. } => Phase::Arriving { peer, until: Instant::now() + LAST_BYTES },
        phase => phase,
    }
}

impl Phase {
    /// It may be dropped while it waits.
    async fn turn(&mut self) -> Turn {
        let at = async |until: Option<Instant>| match until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        };
        match self {
            Phase::Here => std::future::pending().await,
            Phase::Away { way, peer: None, until } => tokio::select! {
                line = way.arrival() => Turn::Arrived(line),
                () = at(*until) => Turn::Late,
            },
            Phase::Away { way, peer: Some(peer), until } => tokio::select! {
                line = way.arrival() => Turn::Arrived(line),
                said = peer.turn(true) => Turn::Peer(said),
                () = at(*until) => Turn::Late,
            },
            Phase::Arriving { peer, until } => tokio::select! {
                said = peer.turn(true) => Turn::Peer(said),
                () = sleep_until(*until) => Turn::Late,
            },
        }
    }

    /// What the new host says: that the VM has come, or that it moves on before it is here.
    fn hear(&mut self, said: Vec<Event>) -> Vec<Event> {
        let (Phase::Away { peer: Some(peer), .. } | Phase::Arriving { peer, .. }) = self else { return Vec::new() };
        let mut events = Vec::new();
        for event in said {
            match event {
                Event::Complete => events.push(Event::Complete),
                Event::Begin(sequence) => peer.session.say(Say::NotNow(&sequence)),
                Event::Abort | Event::Peer(_) | Event::Names => {}
            }
        }
        events
    }
}
