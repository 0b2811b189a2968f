//! VMware's extension of telnet, option 232: what an ESXi host says about a VM whose serial port it connects, and what is answered.
//!
//! Source: "Using a Proxy with vSphere Virtual Serial Ports", VMware telnet extension commands. Values are opaque bytes there; names are texts.

use super::telnet::write_sub;

/// `VMWARE-TELNET-EXT`.
pub(super) const OPTION: u8 = 232;

const KNOWN_SUBOPTIONS_1: u8 = 0;
const KNOWN_SUBOPTIONS_2: u8 = 1;
const UNKNOWN_SUBOPTION_RCVD_1: u8 = 2;
const UNKNOWN_SUBOPTION_RCVD_2: u8 = 3;
const VMOTION_BEGIN: u8 = 40;
const VMOTION_GOAHEAD: u8 = 41;
const VMOTION_NOTNOW: u8 = 43;
const VMOTION_PEER: u8 = 44;
const VMOTION_PEER_OK: u8 = 45;
const VMOTION_COMPLETE: u8 = 46;
const VMOTION_ABORT: u8 = 48;
const DO_PROXY: u8 = 70;
const WILL_PROXY: u8 = 71;
const WONT_PROXY: u8 = 73;
const VM_VC_UUID: u8 = 80;
const GET_VM_VC_UUID: u8 = 81;
const VM_NAME: u8 = 82;
const GET_VM_NAME: u8 = 83;
const VM_BIOS_UUID: u8 = 84;
const GET_VM_BIOS_UUID: u8 = 85;
const VM_LOCATION_UUID: u8 = 86;
const GET_VM_LOCATION_UUID: u8 = 87;

/// All that is said and understood here.
const KNOWN: [u8; 22] = [
    KNOWN_SUBOPTIONS_1,
    KNOWN_SUBOPTIONS_2,
    UNKNOWN_SUBOPTION_RCVD_1,
    UNKNOWN_SUBOPTION_RCVD_2,
    VMOTION_BEGIN,
    VMOTION_GOAHEAD,
    VMOTION_NOTNOW,
    VMOTION_PEER,
    VMOTION_PEER_OK,
    VMOTION_COMPLETE,
    VMOTION_ABORT,
    DO_PROXY,
    WILL_PROXY,
    WONT_PROXY,
    VM_VC_UUID,
    GET_VM_VC_UUID,
    VM_NAME,
    GET_VM_NAME,
    VM_BIOS_UUID,
    GET_VM_BIOS_UUID,
    VM_LOCATION_UUID,
    GET_VM_LOCATION_UUID,
];

/// The longest value that goes back to a host, or is a part of a key.
const LONGEST_VALUE: usize = 256;
/// The longest name that is shown, in characters: vSphere's own limit is 80.
const LONGEST_NAME: usize = 128;

/// What a host says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// What it can say and understand.
    Known(Vec<u8>),
    /// Carry the bytes, please.
    DoProxy,
    /// The VM is about to move to another host; a value that names the move.
    Begin(Vec<u8>),
    /// This is where the VM comes to: the value and the secret that the other host was given.
    Peer(Vec<u8>),
    /// It is here.
    Complete,
    /// It stays.
    Abort,
    Name(String),
    VcUuid(String),
    BiosUuid(String),
    LocationUuid(String),
    /// It did not know what we said: nothing depends on it.
    NotKnown,
    /// Something that this table does not have.
    Other(u8),
}

/// What is said to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say<'a> {
    Known,
    WillProxy,
    GoAhead { sequence: &'a [u8], secret: &'a [u8] },
    NotNow(&'a [u8]),
    PeerOk(&'a [u8]),
    GetName,
    GetVcUuid,
    GetBiosUuid,
    GetLocationUuid,
    NotKnown(u8),
}

impl Said {
    /// Nothing for a subnegotiation without a command, and for values longer than there is room for.
    pub(super) fn parse(bytes: &[u8]) -> Option<Said> {
        let (&command, value) = bytes.split_first()?;
        let opaque = || (value.len() <= LONGEST_VALUE).then(|| value.to_vec());
        Some(match command {
            KNOWN_SUBOPTIONS_1 => Said::Known(opaque()?),
            DO_PROXY => Said::DoProxy,
            VMOTION_BEGIN => Said::Begin(opaque()?),
            VMOTION_PEER => Said::Peer((value.len() <= LONGEST_VALUE + SECRET).then(|| value.to_vec())?),
            VMOTION_COMPLETE => Said::Complete,
            VMOTION_ABORT => Said::Abort,
            VM_NAME => Said::Name(text(value)),
            VM_VC_UUID => Said::VcUuid(uuid(value)),
            VM_BIOS_UUID => Said::BiosUuid(uuid(value)),
            VM_LOCATION_UUID => Said::LocationUuid(uuid(value)),
            UNKNOWN_SUBOPTION_RCVD_1 => Said::NotKnown,
            other => Said::Other(other),
        })
    }
}

/// The length of a secret of ours.
pub(super) const SECRET: usize = 16;

impl Say<'_> {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let (command, first, second): (u8, &[u8], &[u8]) = match self {
            Say::Known => (KNOWN_SUBOPTIONS_2, &KNOWN, &[]),
            Say::WillProxy => (WILL_PROXY, &[], &[]),
            Say::GoAhead { sequence, secret } => (VMOTION_GOAHEAD, sequence, secret),
            Say::NotNow(sequence) => (VMOTION_NOTNOW, sequence, &[]),
            Say::PeerOk(key) => (VMOTION_PEER_OK, key, &[]),
            Say::GetName => (GET_VM_NAME, &[], &[]),
            Say::GetVcUuid => (GET_VM_VC_UUID, &[], &[]),
            Say::GetBiosUuid => (GET_VM_BIOS_UUID, &[], &[]),
            Say::GetLocationUuid => (GET_VM_LOCATION_UUID, &[], &[]),
            Say::NotKnown(command) => (UNKNOWN_SUBOPTION_RCVD_2, &[command], &[]),
        };
        write_sub(OPTION, &[&[command], first, second], out);
    }

    /// What can be asked of a host, and the command by which it says that it can be asked.
    pub(super) const QUESTIONS: [(u8, Say<'static>); 4] = [
        (GET_VM_NAME, Say::GetName),
        (GET_VM_VC_UUID, Say::GetVcUuid),
        (GET_VM_BIOS_UUID, Say::GetBiosUuid),
        (GET_VM_LOCATION_UUID, Say::GetLocationUuid),
    ];
}

/// A text of somebody else's, as it can stand in a line of a log.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).take(LONGEST_NAME).collect()
}

/// As vSphere writes a UUID, `50 11 5e 16 9b dc 49 d7-f1 71 53 c4 d7 f9 17 10`, or any other: in the usual groups where it has 32 digits.
fn uuid(bytes: &[u8]) -> String {
    let text = text(bytes);
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).map(|digit| digit.to_ascii_lowercase()).collect();
    match digits.len() {
        32 => [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hosts_say_is_read() {
        let parse = |command: u8, value: &[u8]| Said::parse(&[&[command], value].concat());
        assert_eq!(parse(0, &[1, 2]), Some(Said::Known(vec![1, 2])));
        assert_eq!(parse(40, b"seq"), Some(Said::Begin(b"seq".to_vec())));
        assert_eq!(parse(44, b"seqsecret"), Some(Said::Peer(b"seqsecret".to_vec())));
        assert_eq!(parse(46, b"seq"), Some(Said::Complete));
        assert_eq!(parse(48, b""), Some(Said::Abort));
        assert_eq!(parse(70, b"Ctcp://127.0.0.1:2379"), Some(Said::DoProxy));
        assert_eq!(parse(82, b"web\n1"), Some(Said::Name("web\u{fffd}1".into())));
        let spaced = b"50 11 5E 16 9b dc 49 d7-f1 71 53 c4 d7 f9 17 10";
        assert_eq!(parse(80, spaced), Some(Said::VcUuid("50115e16-9bdc-49d7-f171-53c4d7f91710".into())));
        assert_eq!(parse(84, b"none"), Some(Said::BiosUuid("none".into())));
        assert_eq!(parse(99, b""), Some(Said::Other(99)));
        assert_eq!(Said::parse(b""), None);
        // hostile lengths
        assert_eq!(parse(40, &[7; LONGEST_VALUE + 1]), None);
        assert_eq!(parse(44, &[7; LONGEST_VALUE + SECRET + 1]), None);
        let Some(Said::Name(name)) = parse(82, &[b'x'; 4000]) else { panic!("a name") };
        assert_eq!(name.len(), LONGEST_NAME);
    }

    #[test]
    fn answers_are_written_as_the_document_has_them() {
        let written = |say: Say<'_>| {
            let mut out = Vec::new();
            say.write(&mut out);
            out
        };
        assert_eq!(written(Say::WillProxy), [255, 250, 232, 71, 255, 240]);
        let say = Say::GoAhead { sequence: &[1, 255], secret: b"s" };
        assert_eq!(written(say), [255, 250, 232, 41, 1, 255, 255, b's', 255, 240]);
        assert_eq!(written(Say::NotNow(&[1])), [255, 250, 232, 43, 1, 255, 240]);
        assert_eq!(written(Say::NotKnown(99)), [255, 250, 232, 3, 99, 255, 240]);
        assert_eq!(written(Say::Known).len(), 6 + KNOWN.len());
    }
}
