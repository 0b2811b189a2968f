//! One channel of the backdoor: a message that comes in pieces, and one that goes in pieces. What they say is not its business.

/// Who talks on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Rpci,
    Tclo,
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) service: Service,
    /// What each access must bring along, in ESI and EDI, where the guest asked for it.
    pub(super) cookies: Option<(u32, u32)>,
    incoming: Option<Incoming>,
    outgoing: Option<Outgoing>,
}

/// Part of a message from the guest.
#[derive(Debug)]
struct Incoming {
    length: usize,
    bytes: Vec<u8>,
}

/// A message to the guest, and how much of it was given.
#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    /// What it is said to have, spaces behind `bytes` included.
    length: usize,
    given: usize,
    /// The guest has asked for the size.
    is_announced: bool,
}

impl Channel {
    pub(super) fn new(service: Service, cookies: Option<(u32, u32)>) -> Channel {
        Channel { service, cookies, incoming: None, outgoing: None }
    }

    /// A message of that many bytes will come; none that was begun, and none that was not fetched, is of interest any longer. The message, if that is all of it.
    pub(super) fn expect(&mut self, length: usize) -> Option<Vec<u8>> {
        self.outgoing = None;
        self.incoming = None;
        if length == 0 {
            return Some(Vec::new());
        }
        self.incoming = Some(Incoming { length, bytes: Vec::new() });
        None
    }

    /// How many bytes are still to come.
    pub(super) fn expected(&self) -> Option<usize> {
        self.incoming.as_ref().map(|incoming| incoming.length - incoming.bytes.len())
    }

    /// Takes a piece of at most [`Channel::expected`] bytes. The message, if it is whole now.
    pub(super) fn take(&mut self, piece: &[u8]) -> Option<Vec<u8>> {
        let incoming = self.incoming.as_mut()?;
        incoming.bytes.extend_from_slice(piece);
        if incoming.bytes.len() < incoming.length { None } else { self.incoming.take().map(|whole| whole.bytes) }
    }

    /// Has that message for the guest, which is said to have `length` bytes.
    pub(super) fn offer(&mut self, bytes: Vec<u8>, length: u32) {
        let length = usize::try_from(length).unwrap_or(usize::MAX).max(bytes.len());
        self.outgoing = Some(Outgoing { bytes, length, given: 0, is_announced: false });
    }

    pub(super) fn has_message(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Says how many bytes the message has, and begins it.
    pub(super) fn announce(&mut self) -> Option<u32> {
        let outgoing = self.outgoing.as_mut()?;
        outgoing.given = 0;
        outgoing.is_announced = true;
        u32::try_from(outgoing.length).ok()
    }

    /// How many bytes are still to go of a message that was announced.
    pub(super) fn owed(&self) -> Option<usize> {
        let outgoing = self.outgoing.as_ref().filter(|outgoing| outgoing.is_announced)?;
        Some(outgoing.length - outgoing.given)
    }

    /// The next piece, of at most [`Channel::owed`] bytes. It counts as given only by [`Channel::gave`].
    pub(super) fn piece(&self, length: usize) -> Option<Vec<u8>> {
        let outgoing = self.outgoing.as_ref()?;
        let rest = outgoing.bytes.get(outgoing.given..).unwrap_or_default();
        let mut piece = rest[..rest.len().min(length)].to_vec();
        piece.resize(length, b' ');
        Some(piece)
    }

    pub(super) fn gave(&mut self, length: usize) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.given += length;
        }
    }

    /// The guest has the message. False where it has not had all of it.
    pub(super) fn is_fetched(&mut self) -> bool {
        let is_whole = self.owed() == Some(0);
        if is_whole {
            self.outgoing = None;
        }
        is_whole
    }

    /// A checkpoint: what has crossed in part must cross again from the start.
    pub(super) fn interrupt(&mut self) {
        self.incoming = None;
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.is_announced = false;
        }
    }
}
