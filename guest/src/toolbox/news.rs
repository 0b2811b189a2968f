//! What VMX is told of the machine unasked, and how: each item when it is not what was told last, and once more a while after VMX has refused it.
//!
//! Older hosts do not know the newer forms of two items, and then get the older ones: open-vm-tools, services/plugins/guestInfo/guestInfoServer.c.

use wire::guestinfo::base64;

use super::{Disk, Facts, nics};

/// What is told, in this order.
const ITEMS: [Item; 6] = [Item::Name, Item::Os, Item::OsShort, Item::Nics, Item::Disk, Item::Uptime];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Name,
    Os,
    OsShort,
    Nics,
    Disk,
    Uptime,
}

/// What VMX knows.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The requests that told it, in the places of their items; empty for what was not told.
    known: [Vec<u8>; ITEMS.len()],
    /// What VMX did not take, and how it was told.
    refused: [bool; ITEMS.len()],
    last: usize,
    /// VMX does not know the type of cards of version 3: they go under the one before.
    old_nics: bool,
    /// VMX does not know disks as JSON.
    old_disk: bool,
}

impl Told {
    /// The next request that is to be made.
    pub(super) fn next(&mut self, facts: &Facts, os: &str, os_short: &str) -> Option<Vec<u8>> {
        for (at, item) in ITEMS.into_iter().enumerate() {
            let request = match item {
                Item::Name => info(1, facts.host_name.as_bytes()),
                Item::Os => info(5, os.as_bytes()),
                Item::OsShort => info(6, os_short.as_bytes()),
                Item::Nics => info(if self.old_nics { 9 } else { 10 }, &nics::encode(&facts.networks)),
                Item::Disk => match (facts.disk, self.old_disk) {
                    (None, _) => continue,
                    (Some(disk), false) => disk_as_json(disk),
                    (Some(disk), true) => info(3, &disk_as_bytes(disk)),
                },
                // hundredths of a second
                Item::Uptime => info(7, (facts.uptime.as_millis() / 10).to_string().as_bytes()),
            };
            if self.known[at] != request {
                self.last = at;
                self.known[at].clone_from(&request);
                return Some(request);
            }
        }
        None
    }

    /// What came of the last request.
    pub(super) fn heard(&mut self, accepted: bool) {
        self.refused[self.last] = !accepted;
        match (accepted, ITEMS[self.last]) {
            (false, Item::Nics) => self.old_nics = true,
            (false, Item::Disk) => self.old_disk = true,
            _ => {}
        }
    }

    /// What was refused is worth another try.
    pub(super) fn try_again(&mut self) {
        for (known, refused) in self.known.iter_mut().zip(&mut self.refused) {
            if std::mem::take(refused) {
                known.clear();
            }
        }
    }
}

/// Two spaces stand for an argument that is not used any more.
fn info(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut request = format!("SetGuestInfo  {kind} ").into_bytes();
    request.extend_from_slice(data);
    request
}

/// Less is no news.
const STEP: u64 = 1 << 20;

fn disk_as_json(Disk { free, total }: Disk) -> Vec<u8> {
    let (name, free) = (base64::encode(b"/"), free / STEP * STEP);
    // the order of the keys, and the line breaks, are part of the format
    format!("SetGuestDiskInfo {{\n\"version\":\"1\",\n\"disks\":[\n{{\"name\":\"{name}\",\"free\":\"{free}\",\"size\":\"{total}\"}}\n]}}").into()
}

/// How many there are in one byte, and `PartitionEntry` of open-vm-tools' lib/include/guestInfo.h.
fn disk_as_bytes(Disk { free, total }: Disk) -> Vec<u8> {
    /// `PARTITION_NAME_SIZE`.
    const NAME: usize = 100;
    let mut bytes = vec![1];
    bytes.extend_from_slice(&(free / STEP * STEP).to_le_bytes());
    bytes.extend_from_slice(&total.to_le_bytes());
    bytes.push(b'/');
    bytes.resize(1 + 16 + NAME, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn facts() -> Facts {
        Facts {
            host_name: "c1".into(),
            uptime: Duration::from_millis(12_345),
            disk: Some(Disk { free: (5 << 20) + 7, total: 8 << 20 }),
            ..Facts::default()
        }
    }

    /// Everything that is told, by a host that accepts what `accepts` says.
    fn tell(told: &mut Told, facts: &Facts, accepts: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(request) = told.next(facts, "os", "short") {
            told.heard(accepts(&request));
            all.push(request);
            assert!(all.len() < 50, "it does not end");
        }
        all
    }

    fn starts(all: &[Vec<u8>]) -> Vec<String> {
        let start = |request: &Vec<u8>| String::from_utf8_lossy(&request[..request.len().min(16)]).into_owned();
        all.iter().map(start).collect()
    }

    #[test]
    fn everything_is_told_once_and_then_what_is_new() {
        let mut told = Told::default();
        let all = tell(&mut told, &facts(), |_| true);
        assert_eq!(all[..3], [&b"SetGuestInfo  1 c1"[..], b"SetGuestInfo  5 os", b"SetGuestInfo  6 short"]);
        assert!(all[3].starts_with(b"SetGuestInfo  10 \0\0\0\x03\0\0\0\x01"));
        let disk = "SetGuestDiskInfo {\n\"version\":\"1\",\n\"disks\":[\n{\"name\":\"Lw==\",\"free\":\"5242880\",\"size\":\"8388608\"}\n]}";
        assert_eq!(String::from_utf8_lossy(&all[4]), disk);
        assert_eq!(all[5..], [b"SetGuestInfo  7 1234"]);
        assert!(tell(&mut told, &facts(), |_| true).is_empty());
        let later = Facts { uptime: Duration::from_secs(60), host_name: "c2".into(), ..facts() };
        assert_eq!(tell(&mut told, &later, |_| true), [&b"SetGuestInfo  1 c2"[..], b"SetGuestInfo  7 6000"]);
        let no_news = Facts { disk: Some(Disk { free: 5 << 20, total: 8 << 20 }), ..later.clone() };
        assert!(tell(&mut told, &no_news, |_| true).is_empty(), "less than a MiB");
        assert!(tell(&mut told, &Facts { disk: None, ..later }, |_| true).is_empty());
    }

    #[test]
    fn an_old_host_gets_the_old_forms() {
        let mut told = Told::default();
        let all = tell(&mut told, &facts(), |request| {
            !request.starts_with(b"SetGuestInfo  10 ") && !request.starts_with(b"SetGuestDisk")
        });
        assert_eq!(starts(&all)[3..5], ["SetGuestInfo  10", "SetGuestInfo  9 "]);
        assert_eq!(all[3][17..], all[4][16..], "the same under another number");
        let mut expected = b"SetGuestInfo  3 \x01".to_vec();
        expected.extend([&(5_u64 << 20).to_le_bytes()[..], &(8_u64 << 20).to_le_bytes(), b"/", &[0; 99]].concat());
        assert!(all[5].starts_with(b"SetGuestDiskInfo ") && all[6] == expected);
        let later = Facts { disk: None, networks: vec![wire::status::EndpointStatus::default()], ..facts() };
        assert_eq!(starts(&tell(&mut told, &later, |_| true)), ["SetGuestInfo  9 "], "and remembers it");
    }

    #[test]
    fn what_is_refused_is_tried_again_later_and_not_at_once() {
        let mut told = Told::default();
        let all = tell(&mut told, &facts(), |_| false);
        assert_eq!(all.len(), 8, "both forms of two of them");
        assert!(tell(&mut told, &facts(), |_| false).is_empty());
        told.try_again();
        assert_eq!(tell(&mut told, &facts(), |_| true).len(), 6);
        told.try_again();
        assert!(tell(&mut told, &facts(), |_| true).is_empty());
    }
}
