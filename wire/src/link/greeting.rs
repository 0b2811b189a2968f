//! Greeting and resumption: what the two ends say when a pipe opens, and where each channel goes on.

use super::{Closed, Event, Link, Role, State, VERSION};
use crate::channel::Incoming;
use crate::packet::{ChannelId, Hello, Packet, Position, Welcome};

impl Link {
    pub(super) fn hello(&self) -> Packet<'static> {
        let Role::Guest { vm, boot } = &self.role else { unreachable!("only a guest is asked to greet") };
        let positions = self.channels.iter().map(|(&id, channel)| stated(id, &channel.input)).collect();
        let (vm, boot, window) = (vm.clone(), *boot, self.tuning.window);
        Packet::Hello(Hello { versions: (VERSION, VERSION), vm, boot, window, positions })
    }

    fn positions(&mut self) -> Vec<Position> {
        self.channels.iter_mut().map(|(&id, channel)| position(id, &mut channel.input)).collect()
    }

    pub(super) fn handle_hello(&mut self, hello: &Hello) {
        let Role::Host { vm } = &self.role else { return };
        let refusal = if hello.vm != *vm {
            Some(format!("this is the link of {vm}, not of {}", hello.vm))
        } else if !(hello.versions.0..=hello.versions.1).contains(&VERSION) {
            Some(format!("no common version: {}-{} there, {VERSION} here", hello.versions.0, hello.versions.1))
        } else {
            None
        };
        if let Some(reason) = refusal {
            let mut bytes = Vec::new();
            self.transmit(&Packet::Refuse(reason), &mut bytes);
            self.urgent.push_back(bytes);
            return;
        }
        if self.peer_boot.is_some_and(|boot| boot != hello.boot) {
            return self.close(Closed::Restarted);
        }
        let positions = self.positions();
        let welcome =
            Packet::Welcome(Welcome { version: VERSION, boot: hello.boot, window: self.tuning.window, positions });
        let mut bytes = Vec::new();
        self.transmit(&welcome, &mut bytes);
        self.urgent.push_back(bytes);
        self.resume(hello.boot, hello.window, &hello.positions);
    }

    /// Takes up every channel where the peer says that it is.
    pub(super) fn resume(&mut self, boot: [u8; 16], window: u32, positions: &[Position]) {
        self.peer_boot = Some(boot);
        self.peer_window = u64::from(window);
        for (id, channel) in &mut self.channels {
            let stated = positions.iter().find(|position| position.channel == *id);
            let (received, limit) = match stated {
                Some(position) => (position.received, position.limit),
                None => (0, self.peer_window),
            };
            channel.retry = None;
            channel.rewind_asked = None;
            if !(channel.out.rewind(received) && channel.out.credit(received, limit)) {
                return self.close(Closed::Violation("it has other bytes than were sent"));
            }
        }
        self.state = State::Open;
        self.events.push_back(Event::Opened { boot });
        self.events.extend(self.channels.keys().map(|&id| Event::Writable(id)));
    }
}

pub(super) fn position(channel: ChannelId, input: &mut Incoming) -> Position {
    Position { channel, received: input.received(), limit: input.grant() }
}

/// The position as it was last granted: a hello is repeated and must not change what it says.
fn stated(channel: ChannelId, input: &Incoming) -> Position {
    Position { channel, received: input.received(), limit: input.told() }
}
