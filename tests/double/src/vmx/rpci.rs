//! RPCI: what a guest may ask, in which words, and what VMX answers: `1 DATA` or `0 WHY NOT`.
//!
//! Where only real hosts know the words of a refusal, they are ours: see docs/esxi-checklist.md.

use super::{Origin, Vmx};

/// What a guest may keep in guestinfo, keys and values: `tools.setInfo.sizeLimit`, in bytes, as it is when nobody sets it.
const MOST_KEPT: usize = 1 << 20;

impl Vmx {
    /// Answers a request of RPCI, however it came.
    pub fn rpci(&mut self, origin: Origin, request: &[u8]) -> Vec<u8> {
        self.requests.push(request.to_vec());
        // some clients end their requests with a zero, and some do not
        let request = request.strip_suffix(&[0]).unwrap_or(request);
        let answer = self.serve(origin, request);
        match answer {
            Ok(data) => [b"1 ", data.as_slice()].concat(),
            Err(why) => [b"0 ", why.as_bytes()].concat(),
        }
    }

    fn serve(&mut self, origin: Origin, request: &[u8]) -> Result<Vec<u8>, &'static str> {
        let (command, arguments) = word(request);
        let command = String::from_utf8_lossy(command);
        let done = Ok(Vec::new());
        match command.as_ref() {
            "info-get" => {
                self.authorize(origin)?;
                self.get(arguments)
            }
            "info-set" => {
                self.authorize(origin)?;
                self.set(arguments)
            }
            // what a clone is told of it, if it is told: see docs/esxi-checklist.md
            "instantclone.freeze" => {
                self.frozen = true;
                done
            }
            "log" => {
                self.told.log.push(text(arguments));
                done
            }
            "SetGuestInfo" => self.tell(arguments),
            "SetGuestDiskInfo" => {
                self.told.disks = Some(arguments.to_vec());
                done
            }
            "tools.set.version" | "tools.set.versiontype" => {
                self.told.version = Some(text(arguments));
                done
            }
            "tools.os.statechange.status" => self.change(arguments),
            _ => {
                if let Some(capability) = command.strip_prefix("tools.capability.") {
                    self.told.capabilities.insert(capability.to_owned(), text(arguments));
                    return done;
                }
                if command.starts_with("vmx.capability.") {
                    return Ok(b"1".to_vec());
                }
                Err("Unknown command")
            }
        }
    }

    fn authorize(&self, origin: Origin) -> Result<(), &'static str> {
        let is_denied = self.faults.authenticate && origin == Origin::Unprivileged;
        if is_denied { Err("Permission denied") } else { Ok(()) }
    }

    fn get(&self, arguments: &[u8]) -> Result<Vec<u8>, &'static str> {
        let key = reachable(arguments).ok_or("No value found")?;
        self.guestinfo.get(&key).cloned().ok_or("No value found")
    }

    /// The value is the rest of the line, spaces included; there must be one, so nothing can be deleted.
    fn set(&mut self, arguments: &[u8]) -> Result<Vec<u8>, &'static str> {
        let (key, value) = word(arguments);
        if key.is_empty() || value.is_empty() {
            return Err("Two and exactly two arguments expected");
        }
        let key = reachable(key).ok_or("Permission denied")?;
        // what the host says to the guest has a slash in its key
        if key.contains('/') {
            return Err("Permission denied");
        }
        let others = self.set_by_guest.iter().filter(|other| **other != key);
        let kept: usize = others.map(|key| key.len() + self.guestinfo.get(key).map_or(0, Vec::len)).sum();
        if kept + key.len() + value.len() > MOST_KEPT {
            return Err("Value too long");
        }
        self.set_by_guest.insert(key.clone());
        self.guestinfo.insert(key, value.to_vec());
        Ok(Vec::new())
    }

    /// `SetGuestInfo  SLOT DATA`: two spaces, and data of any bytes.
    fn tell(&mut self, arguments: &[u8]) -> Result<Vec<u8>, &'static str> {
        let (slot, data) = word(arguments.trim_ascii_start());
        let slot = text(slot).parse().map_err(|_| "Bad guest info type")?;
        if slot == NIC_V3 && self.faults.no_nic_v3 {
            return Err("Unsupported guest info type");
        }
        self.told.guest.insert(slot, data.to_vec());
        Ok(Vec::new())
    }

    fn change(&mut self, arguments: &[u8]) -> Result<Vec<u8>, &'static str> {
        let words = text(arguments);
        let parsed = match words.split_ascii_whitespace().collect::<Vec<_>>()[..] {
            ["0", change] => change.parse().ok().map(|change| (false, change)),
            ["1", change] => change.parse().ok().map(|change| (true, change)),
            _ => None,
        };
        self.told.state_changes.push(parsed.ok_or("Two and exactly two arguments expected")?);
        Ok(Vec::new())
    }
}

/// The slot of `SetGuestInfo` for NIC information of version 3.
const NIC_V3: u32 = 10;

/// The first word, and what is behind the one space after it.
fn word(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == b' ') {
        Some(space) => (&line[..space], &line[space + 1..]),
        None => (line, &[]),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// The key as it is kept, if a guest can have to do with it at all.
fn reachable(key: &[u8]) -> Option<String> {
    let key = text(key).to_ascii_lowercase();
    key.strip_prefix("guestinfo.").is_some_and(|name| !name.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(vmx: &mut Vmx, request: &str, answer: &str) {
        let given = vmx.rpci(Origin::Unprivileged, request.as_bytes());
        assert_eq!(String::from_utf8_lossy(&given), answer, "to {request:?}");
    }

    #[test]
    fn a_value_is_had_by_its_key_whatever_the_case() {
        let mut vmx = Vmx::with(&[("guestinfo.Foo", "hello"), ("guestinfo.empty", ""), ("uuid.bios", "56 4d")]);
        check(&mut vmx, "info-get guestinfo.foo", "1 hello");
        check(&mut vmx, "info-get GUESTINFO.FOO\0", "1 hello");
        check(&mut vmx, "info-get guestinfo.empty", "1 ");
        for missing in ["info-get guestinfo.bar", "info-get uuid.bios", "info-get guestinfo.", "info-get", "info-get "]
        {
            check(&mut vmx, missing, "0 No value found");
        }
    }

    #[test]
    fn a_value_is_the_rest_of_the_line() {
        let mut vmx = Vmx::default();
        check(&mut vmx, "info-set guestinfo.Ip two  words \0", "1 ");
        assert_eq!(vmx.guestinfo["guestinfo.ip"], b"two  words ");
        check(&mut vmx, "info-get guestinfo.ip", "1 two  words ");
        check(&mut vmx, "info-set guestinfo.ip  ", "1 ");
        assert_eq!(vmx.guestinfo["guestinfo.ip"], b" ", "one space is how a guest says: none");
        let bytes: Vec<u8> = (0..=255).collect();
        vmx.rpci(Origin::Unprivileged, &[b"info-set guestinfo.binary ", bytes.as_slice()].concat());
        assert_eq!(vmx.guestinfo["guestinfo.binary"], bytes);
    }

    #[test]
    fn what_is_the_hosts_cannot_be_set() {
        let mut vmx = Vmx::with(&[("guestinfo.vice./name", "mine")]);
        for request in ["info-set guestinfo.vice./name yours", "info-set guestinfo.a/b c", "info-set uuid.bios 1"] {
            check(&mut vmx, request, "0 Permission denied");
        }
        for request in
            ["info-set", "info-set ", "info-set guestinfo.a", "info-set guestinfo.a ", "info-set guestinfo.a \0"]
        {
            check(&mut vmx, request, "0 Two and exactly two arguments expected");
        }
        check(&mut vmx, "info-get guestinfo.vice./name", "1 mine");
        assert_eq!(vmx.guestinfo.len(), 1);
    }

    #[test]
    fn a_guest_cannot_fill_the_host() {
        let mut vmx = Vmx::default();
        let value = "x".repeat(60_000);
        let mut set =
            |key: usize| vmx.rpci(Origin::Privileged, format!("info-set guestinfo.k{key} {value}").as_bytes());
        assert_eq!((0..20).take_while(|key| set(*key) == b"1 ").count(), 17);
        assert_eq!(set(17), b"0 Value too long");
        assert_eq!(set(3), b"1 ", "what is there can be set again");
    }

    #[test]
    fn who_is_not_privileged_may_be_denied() {
        let mut vmx = Vmx::with(&[("guestinfo.a", "1")]);
        vmx.faults.authenticate = true;
        check(&mut vmx, "info-get guestinfo.a", "0 Permission denied");
        check(&mut vmx, "info-set guestinfo.a 2", "0 Permission denied");
        check(&mut vmx, "log hello", "1 ");
        assert_eq!(vmx.rpci(Origin::Privileged, b"info-set guestinfo.a 2"), b"1 ");
        assert_eq!(vmx.rpci(Origin::Privileged, b"info-get guestinfo.a"), b"1 2");
    }

    #[test]
    fn what_tools_tell_is_kept() {
        let mut vmx = Vmx::default();
        for request in [
            "tools.set.version 2147483647",
            "tools.capability.statechange ",
            "tools.capability.hgfs_server toolbox 1",
            "tools.os.statechange.status 1 3",
            "tools.os.statechange.status 0 1",
            "SetGuestInfo  1 host.example",
            "SetGuestInfo  10 \u{1}\0 \u{2}",
            "SetGuestDiskInfo {\"version\":\"1\"}",
            "log one line",
        ] {
            check(&mut vmx, request, "1 ");
        }
        check(&mut vmx, "vmx.capability.unified_loop toolbox", "1 1");
        let told = &vmx.told;
        assert_eq!(told.version.as_deref(), Some("2147483647"));
        assert_eq!(told.capabilities["hgfs_server"], "toolbox 1");
        assert_eq!(told.capabilities["statechange"], "");
        assert_eq!(told.state_changes, [(true, 3), (false, 1)]);
        assert_eq!(told.guest[&1], b"host.example");
        assert_eq!(told.guest[&10], b"\x01\0 \x02");
        assert_eq!(told.disks.as_deref(), Some(&b"{\"version\":\"1\"}"[..]));
        assert_eq!(told.log, ["one line"]);
        assert_eq!(vmx.requests.len(), 10);
    }

    #[test]
    fn what_is_unknown_or_malformed_is_refused() {
        let mut vmx = Vmx::default();
        for request in ["", "\0", "frobnicate", "info-getguestinfo.a", "Info-Get guestinfo.a", "tools.set"] {
            check(&mut vmx, request, "0 Unknown command");
        }
        check(&mut vmx, "tools.os.statechange.status 2 3", "0 Two and exactly two arguments expected");
        check(&mut vmx, "SetGuestInfo  x data", "0 Bad guest info type");
        vmx.faults.no_nic_v3 = true;
        check(&mut vmx, "SetGuestInfo  10 data", "0 Unsupported guest info type");
        check(&mut vmx, "SetGuestInfo  9 data", "1 ");
    }
}
