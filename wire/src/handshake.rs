//! Who has the key: the Noise handshake of a link, and the sealing of packets after it.
//!
//! `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s` (noiseprotocol.org, revision 34): two messages, the pre-shared key mixed in first. Nobody without the key makes
//! or reads either of them, and what was said in the clear before (the prologue) is bound by both. The guest begins. Its message can be recorded and sent
//! again, so an answer to it proves nothing about the guest yet: the first sealed packet does. When that counts is decided in [`crate::link`].
//!
//! Randomness is an argument: each end draws its ephemeral keys from a seed ([`Entropy`]).

mod keys;

use std::fmt;

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, StatelessTransportState};

pub use self::keys::{LinkKey, MasterKey};
pub(crate) use self::keys::{read_hex, write_hex};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Bytes that sealing adds: the Poly1305 tag.
const TAG: usize = 16;
/// Bytes that a handshake message adds to its payload: an ephemeral key and a tag.
const OVERHEAD: usize = 32 + TAG;

/// Where ephemeral keys come from: a secret seed and a count, hashed. 32 bytes from the system's generator make a good seed.
pub struct Entropy {
    seed: [u8; 32],
    drawn: u64,
}

impl Entropy {
    /// Draws from `seed`, which must be secret and never be used again.
    pub fn new(seed: [u8; 32]) -> Entropy {
        Entropy { seed, drawn: 0 }
    }

    fn draw(&mut self) -> [u8; 32] {
        self.drawn += 1;
        let mut hash = DefaultResolver.resolve_hash(&HashChoice::Blake2s).expect("the feature use-blake2");
        hash.input(&self.seed);
        hash.input(&self.drawn.to_le_bytes());
        let mut bytes = [0; 32];
        hash.result(&mut bytes);
        bytes
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy(..)")
    }
}

/// The guest's first message, waiting for its answer.
pub struct Offer(Box<HandshakeState>);

impl Offer {
    /// Begins: the message that carries `payload` to whoever has the key.
    pub fn new(key: &LinkKey, prologue: &[u8], payload: &[u8], entropy: &mut Entropy) -> (Offer, Vec<u8>) {
        let mut state = builder(key, prologue, entropy).build_initiator().expect("the pattern needs no other key");
        let mut message = vec![0; payload.len() + OVERHEAD];
        let len = state.write_message(payload, &mut message).expect("a greeting is shorter than 64 KiB");
        message.truncate(len);
        (Offer(Box::new(state)), message)
    }

    /// Reads the answer. One that is not the holder of the key's is refused, and the offer stands.
    pub fn accept(mut self, message: &[u8]) -> Result<(Vec<u8>, Sealer), Offer> {
        let mut payload = vec![0; message.len()];
        match self.0.read_message(message, &mut payload) {
            Ok(len) => {
                payload.truncate(len);
                Ok((payload, Sealer::new(*self.0)))
            }
            Err(_) => Err(self),
        }
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Offer(..)")
    }
}

/// A guest's message that was made with the key, to be answered.
pub struct Opening(Box<HandshakeState>);

impl Opening {
    /// Reads a guest's first message; `None` when it was not made with the key, or for another prologue.
    pub fn read(key: &LinkKey, prologue: &[u8], message: &[u8], entropy: &mut Entropy) -> Option<(Opening, Vec<u8>)> {
        let mut state = builder(key, prologue, entropy).build_responder().expect("the pattern needs no other key");
        let mut payload = vec![0; message.len()];
        let len = state.read_message(message, &mut payload).ok()?;
        payload.truncate(len);
        Some((Opening(Box::new(state)), payload))
    }

    /// The answer that carries `payload`.
    pub fn answer(mut self, payload: &[u8]) -> (Vec<u8>, Sealer) {
        let mut message = vec![0; payload.len() + OVERHEAD];
        let len = self.0.write_message(payload, &mut message).expect("a greeting is shorter than 64 KiB");
        message.truncate(len);
        (message, Sealer::new(*self.0))
    }
}

/// Seals and opens the packets of one connection. Each direction has its own key, so that what was sent cannot come back as received.
pub struct Sealer {
    transport: StatelessTransportState,
    next: u64,
    /// The lowest number that a packet may have: what was opened once is not opened again.
    floor: u64,
}

impl Sealer {
    fn new(state: HandshakeState) -> Sealer {
        let transport = state.into_stateless_transport_mode().expect("both messages have been exchanged");
        Sealer { transport, next: 0, floor: 0 }
    }

    /// Seals a packet: its number, and bytes that only the peer can open.
    pub fn seal(&mut self, packet: &[u8]) -> (u64, Vec<u8>) {
        let number = self.next;
        self.next += 1;
        let mut sealed = vec![0; packet.len() + TAG];
        self.transport.write_message(number, packet, &mut sealed).expect("a packet is shorter than 64 KiB");
        (number, sealed)
    }

    /// Opens what the peer sealed.
    pub fn open(&mut self, number: u64, sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        if number < self.floor {
            return Err(Unopened::Replayed);
        }
        let mut packet = vec![0; sealed.len()];
        let len = self.transport.read_message(number, sealed, &mut packet).map_err(|_| Unopened::Forged)?;
        packet.truncate(len);
        self.floor = number.checked_add(1).ok_or(Unopened::Forged)?;
        Ok(packet)
    }
}

/// Why a sealed packet was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// One with its number, or a later one, was opened before.
    Replayed,
    /// It was not sealed by the peer of this connection.
    Forged,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({} sent)", self.next)
    }
}

fn builder<'a>(key: &'a LinkKey, prologue: &'a [u8], entropy: &mut Entropy) -> Builder<'a> {
    let params = PATTERN.parse().expect("the pattern is Noise's");
    Builder::with_resolver(params, Box::new(Drawn(entropy.draw())))
        .psk(0, key.bytes())
        .and_then(|builder| builder.prologue(prologue))
        .expect("each is set once")
}

/// The usual primitives, and one draw of randomness: an NN handshake makes one ephemeral key at each end.
struct Drawn([u8; 32]);

impl CryptoResolver for Drawn {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.0))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            // of the others nothing is linked then: PID 1 is small
            HashChoice::Blake2s => DefaultResolver.resolve_hash(&HashChoice::Blake2s),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

struct Once(Option<[u8; 32]>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        match self.0.take() {
            Some(bytes) if dest.len() == bytes.len() => dest.copy_from_slice(&bytes),
            _ => return Err(snow::Error::Rng),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> LinkKey {
        LinkKey::new([byte; 32])
    }

    fn entropy(byte: u8) -> Entropy {
        Entropy::new([byte; 32])
    }

    fn connected() -> (Sealer, Sealer) {
        let (offer, hello) = Offer::new(&key(1), b"p", b"hello", &mut entropy(2));
        let (opening, payload) = Opening::read(&key(1), b"p", &hello, &mut entropy(3)).unwrap();
        assert_eq!(payload, b"hello");
        let (welcome, host) = opening.answer(b"welcome");
        let (payload, guest) = offer.accept(&welcome).unwrap();
        assert_eq!(payload, b"welcome");
        (guest, host)
    }

    #[test]
    fn both_ends_of_one_key_understand_each_other() {
        let (mut guest, mut host) = connected();
        for text in [&b"one"[..], b"", &[7; 60_000]] {
            let (number, sealed) = guest.seal(text);
            assert_eq!(host.open(number, &sealed).unwrap(), text);
            let (number, sealed) = host.seal(text);
            assert_eq!(guest.open(number, &sealed).unwrap(), text);
        }
    }

    #[test]
    fn another_key_or_prologue_opens_nothing() {
        let (_, hello) = Offer::new(&key(1), b"p", b"secret", &mut entropy(2));
        assert!(!hello.windows(6).any(|window| window == b"secret"));
        assert!(Opening::read(&key(9), b"p", &hello, &mut entropy(3)).is_none());
        assert!(Opening::read(&key(1), b"q", &hello, &mut entropy(3)).is_none());
        for at in 0..hello.len() {
            let mut bent = hello.clone();
            bent[at] ^= 1;
            assert!(Opening::read(&key(1), b"p", &bent, &mut entropy(3)).is_none(), "byte {at}");
        }
    }

    #[test]
    fn a_forged_answer_is_refused_and_the_offer_stands() {
        let (offer, hello) = Offer::new(&key(1), b"p", b"", &mut entropy(2));
        let (opening, _) = Opening::read(&key(1), b"p", &hello, &mut entropy(3)).unwrap();
        let (welcome, _) = opening.answer(b"w");
        let mut forged = welcome.clone();
        *forged.last_mut().unwrap() ^= 1;
        let Err(offer) = offer.accept(&forged) else { panic!("forged") };
        let Err(offer) = offer.accept(&hello) else { panic!("reflected") };
        assert!(offer.accept(&welcome).is_ok());
    }

    #[test]
    fn nothing_is_opened_twice_or_turned_around() {
        let (mut guest, mut host) = connected();
        let (number, sealed) = guest.seal(b"x");
        assert!(guest.open(number, &sealed) == Err(Unopened::Forged), "reflected");
        assert!(host.open(number, &sealed).is_ok());
        assert!(host.open(number, &sealed) == Err(Unopened::Replayed), "replayed");
        assert!(host.open(number + 1, &sealed) == Err(Unopened::Forged), "renumbered");
    }

    #[test]
    fn each_draw_differs() {
        let mut source = entropy(5);
        assert_ne!(source.draw(), source.draw());
        assert_ne!(entropy(5).draw(), entropy(6).draw());
        assert_eq!(format!("{source:?}"), "Entropy(..)");
    }
}
