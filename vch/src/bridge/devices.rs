//! Devices of the host's kernel: bridges of networks and taps of machines' cards, by `ip` of iproute2.
//!
//! It decides what they are called and which are ours: by their names, and by the alias that tells whose they are.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::rules::Network;
use crate::networks::{Subnet, mac, mac_text};
use crate::state::id_from;

/// Names of bridges and taps begin so: the kernel's names have 15 characters.
const BRIDGE: &str = "vchb-";
const TAP: &str = "vcht-";

/// Whose devices: those of one state directory.
#[derive(Clone, Debug)]
pub(super) struct Owner(String);

#[derive(Debug, Deserialize)]
struct Device {
    // ip says {} of one that has no address of the kind
    #[serde(default)]
    ifname: String,
    ifalias: Option<String>,
    #[serde(default)]
    addr_info: Vec<Address>,
}

/// One that the host has.
#[derive(Debug, Deserialize)]
struct Address {
    local: Ipv4Addr,
    prefixlen: u8,
}

impl Owner {
    pub(super) fn of(sockets: &Path) -> Owner {
        Owner(id_from(sockets.as_os_str().as_encoded_bytes())[..8].to_owned())
    }

    pub(super) fn bridge(&self, network: &str) -> String {
        self.device(BRIDGE, network)
    }

    pub(super) fn tap(&self, network: &str, id: &str) -> String {
        self.device(TAP, &format!("{network}\n{id}"))
    }

    fn device(&self, kind: &str, of: &str) -> String {
        format!("{kind}{}", &id_from(format!("{}\n{of}", self.0))[..8])
    }

    fn alias(&self, of: &str) -> String {
        // ip reads it in quotation marks, and names have none: what is written down may have been changed by others
        let plain = |char: &char| char.is_ascii_alphanumeric() || "_.-".contains(*char);
        format!("vch {}: {}", self.0, of.chars().filter(plain).take(ALIAS).collect::<String>())
    }

    /// Those that there are; an error if there are another state directory's, whose rules would be gone.
    pub(super) fn devices(&self) -> Result<BTreeSet<String>> {
        let told = run(Command::new("ip").args(["-j", "link", "show"]), "")?;
        let all: Vec<Device> = serde_json::from_str(&told)
            .context("cannot read what ip says: --network kernel needs the one of iproute2; or use --network user")?;
        self.own(all)
    }

    fn own(&self, all: Vec<Device>) -> Result<BTreeSet<String>> {
        let ours = all.into_iter().filter(|one| is_of_ours(&one.ifname));
        let mut names = BTreeSet::new();
        for device in ours {
            let alias = device.ifalias.unwrap_or_default();
            // one that was half made has no alias yet
            if !alias.is_empty() && !self.has(&alias) {
                bail!(
                    "the device {name} is of another state directory's networks ({alias}), and this host's kernel carries those of one: \
                     use --network user, or remove what is left of them with ip link delete {name}",
                    name = device.ifname
                );
            }
            names.insert(device.ifname);
        }
        Ok(names)
    }

    fn has(&self, alias: &str) -> bool {
        alias.starts_with(&self.alias("")[..])
    }

    /// Makes a bridge that is not there, and has one that is there as it should be.
    pub(super) fn make_bridge(&self, name: &str, network: &str, settings: &Network, mtu: u16) -> Result<()> {
        let is_new = !exists(name)?;
        if is_new {
            let told = run(Command::new("ip").args(["-j", "-4", "address", "show"]), "")?;
            in_use(settings.subnet, &serde_json::from_str::<Vec<Device>>(&told).context("cannot read what ip says")?)?;
        }
        self.have_bridge(is_new, name, network, settings, mtu).inspect_err(|_| {
            if is_new {
                // why it could not be made says more than that what there is of it stays
                drop(remove(name));
            }
        })
    }

    fn have_bridge(&self, is_new: bool, name: &str, network: &str, settings: &Network, mtu: u16) -> Result<()> {
        let mut batch = String::new();
        if is_new {
            batch.push_str(&format!("link add name {name} type bridge\n"));
        }
        // the same after a restart: machines keep it in mind
        let mac = mac_text(mac(settings.gateway));
        let (alias, gateway, prefix) = (self.alias(network), settings.gateway, settings.subnet.prefix);
        batch.push_str(&format!("link set dev {name} address {mac} mtu {mtu} alias \"{alias}\"\n"));
        ip(&batch)?;
        without_ipv6(name);
        // the host reaches ports that it publishes from 127.0.0.1 as well
        setting(&format!("conf/{name}/route_localnet"), "1")?;
        ip(&format!("address replace {gateway}/{prefix} dev {name}\nlink set dev {name} up\n"))
    }

    /// A tap on a bridge. It is this program's user's: one that has no owner could be opened by everybody.
    pub(super) fn make_tap(&self, name: &str, bridge: &str, mtu: u16, of: &str) -> Result<()> {
        if !exists(name)? {
            let user = rustix::process::geteuid().as_raw();
            ip(&format!("tuntap add dev {name} mode tap user {user}\n"))?;
        }
        without_ipv6(name);
        let alias = self.alias(of);
        // where bridges ask the packet filter (br_netfilter), what a machine sends to a port of the host that leads to itself comes back the way it came
        ip(&format!(
            "link set dev {name} mtu {mtu} alias \"{alias}\"\nlink set dev {name} master {bridge}\n\
             link set dev {name} type bridge_slave hairpin on\nlink set dev {name} up\n"
        ))
    }
}

/// What an earlier program left in the kernel for machines of this state directory; none where there is no `ip`.
pub(super) fn left(sockets: &Path) -> Option<String> {
    // where there is nothing of the kind, nothing is run
    if !names().ok()?.iter().any(|name| is_of_ours(name)) {
        return None;
    }
    let told = run(Command::new("ip").args(["-j", "link", "show"]), "").ok()?;
    left_of(&Owner::of(sockets), serde_json::from_str(&told).ok()?)
}

fn left_of(owner: &Owner, all: Vec<Device>) -> Option<String> {
    let is_left =
        |device: &Device| is_of_ours(&device.ifname) && device.ifalias.as_deref().is_some_and(|alias| owner.has(alias));
    all.into_iter().find(is_left).map(|device| device.ifname)
}

fn is_of_ours(name: &str) -> bool {
    name.starts_with(BRIDGE) || name.starts_with(TAP)
}

/// An error if the host has another device in a network's block of addresses: one of them could not be reached any more.
fn in_use(subnet: Subnet, all: &[Device]) -> Result<()> {
    for device in all.iter().filter(|device| !device.ifname.starts_with(BRIDGE)) {
        let blocks = device.addr_info.iter().map(|address| Subnet::new(address.local, address.prefixlen));
        if let Some(block) = blocks.into_iter().find(|block| block.overlaps(subnet)) {
            bail!(
                "its addresses {subnet} overlap with {block} of this host's device {}: make a network with docker network create \
                 --subnet and other addresses, or use --network user",
                device.ifname
            );
        }
    }
    Ok(())
}

pub(super) fn remove(name: &str) -> Result<()> {
    match exists(name)? {
        true => ip(&format!("link delete dev {name}\n")),
        false => Ok(()),
    }
}

/// In this program's network namespace, where `/sys` may be another's.
pub(super) fn exists(name: &str) -> Result<bool> {
    Ok(names()?.iter().any(|device| device == name))
}

fn names() -> Result<Vec<String>> {
    let devices =
        std::fs::read_to_string("/proc/thread-self/net/dev").context("cannot read which devices there are")?;
    let names = devices.lines().filter_map(|line| line.split_once(':'));
    Ok(names.map(|(device, _)| device.trim().to_owned()).collect())
}

/// Whether this host forwards packets.
pub(super) fn forwards() -> Result<bool> {
    let path = format!("{SETTINGS}ip_forward");
    let is = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(is.trim() != "0")
}

/// It does from now on, or no more.
pub(super) fn forward(whether: bool) -> Result<()> {
    match forwards()? == whether {
        true => Ok(()),
        false => setting("ip_forward", if whether { "1" } else { "0" }),
    }
}

fn setting(name: &str, value: &str) -> Result<()> {
    std::fs::write(format!("{SETTINGS}{name}"), value).with_context(|| {
        format!("cannot set {SETTINGS}{name}: is /proc/sys writable here? --network user needs no root")
    })
}

/// Networks carry IPv4: the host says nothing else to machines. A kernel without IPv6 has nothing to be told.
fn without_ipv6(name: &str) {
    let _absent = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
}

fn ip(batch: &str) -> Result<()> {
    run(Command::new("ip").args(["-batch", "-"]), batch).map(drop)
}

/// Replaces the rules of the packet filter, all at once or not at all.
pub(super) fn nft(text: &str) -> Result<()> {
    run(Command::new("nft").args(["-f", "-"]), text).map(drop)
}

/// Whether the packet filter has the chain that says that the host forwarded nothing by itself.
pub(super) fn is_closed() -> Result<bool> {
    let chains =
        run(Command::new("nft").args(["list", "chains", "inet"]), "").context("cannot read the packet filter")?;
    Ok(has_chain(&chains, "table inet vch {", "chain others {"))
}

/// Reads what `nft list chains` says.
fn has_chain(chains: &str, table: &str, chain: &str) -> bool {
    let of_table = chains.lines().skip_while(|line| *line != table).skip(1).take_while(|line| line.starts_with('\t'));
    of_table.into_iter().any(|line| line.trim() == chain)
}

/// Runs a program to its end: what it says, or why it did not do it.
fn run(command: &mut Command, input: &str) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let missing = || {
        let package = if name == "nft" { "nftables" } else { "iproute2" };
        format!("cannot run {name}, which --network kernel needs: install {package}, or use --network user")
    };
    let mut child = command.spawn().with_context(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // one that ends before it has read all says why
        let _written = stdin.write_all(input.as_bytes());
    }
    let done = child.wait_with_output().with_context(|| format!("{name} was lost"))?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        false => {
            let said = String::from_utf8_lossy(&done.stderr);
            let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it does not say why");
            bail!("{name}: {first}")
        }
    }
}

const SETTINGS: &str = "/proc/sys/net/ipv4/";
/// So much of a name is shown: the kernel keeps 255 characters.
const ALIAS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, alias: Option<String>) -> Device {
        Device { ifname: name.into(), ifalias: alias, addr_info: Vec::new() }
    }

    #[test]
    fn an_alias_has_nothing_that_ip_would_read() {
        let owner = Owner::of(Path::new("/tmp/vch-1"));
        assert!(owner.alias("web_1.x-y").ends_with(": web_1.x-y"));
        assert!(owner.alias("a\"\nlink delete dev eth0").ends_with(": alinkdeletedeveth0"));
        assert!(owner.alias(&"é".repeat(300)).ends_with(": "));
        assert!(owner.alias(&"e".repeat(300)).len() < 256);
    }

    #[test]
    fn addresses_of_other_devices_are_left_to_them() {
        let told = r#"[{"ifname":"eth0","addr_info":[{"family":"inet","local":"10.5.7.1","prefixlen":24}]},
                       {"ifname":"vchb-1","addr_info":[{"local":"10.9.0.1","prefixlen":24}]},{},{"ifname":"down"}]"#;
        let all: Vec<Device> = serde_json::from_str(told).unwrap();
        let why = |subnet: &str| in_use(subnet.parse().unwrap(), &all).map_err(|error| error.to_string());
        for subnet in ["10.5.7.0/24", "10.5.0.0/16", "10.5.7.128/25"] {
            let why = why(subnet).unwrap_err();
            assert!(why.contains("10.5.7.1/24 of this host's device eth0") && why.contains("--subnet"), "{why}");
        }
        assert_eq!(why("10.5.8.0/24"), Ok(()));
        // those of networks are compared when a network is made
        assert_eq!(why("10.9.0.0/24"), Ok(()));
    }

    #[test]
    fn what_is_left_is_found_by_its_alias() {
        let (one, other) = (Owner::of(Path::new("/tmp/vch-1")), Owner::of(Path::new("/tmp/vch-2")));
        let all = || vec![device("vchb-2", None), device("vchb-1", Some(one.alias("bridge"))), device("eth0", None)];
        assert_eq!(left_of(&one, all()).as_deref(), Some("vchb-1"));
        assert_eq!(left_of(&other, all()), None);
    }

    #[test]
    fn names_fit_the_kernel_and_follow_from_what_they_are_of() {
        let (one, other) = (Owner::of(Path::new("/tmp/vch-1")), Owner::of(Path::new("/tmp/vch-2")));
        assert_eq!(one.bridge("bridge"), Owner::of(Path::new("/tmp/vch-1")).bridge("bridge"));
        assert_ne!(one.bridge("bridge"), other.bridge("bridge"));
        assert_ne!(one.tap("a", "1"), one.tap("b", "1"));
        assert!(one.bridge("bridge").starts_with("vchb-") && one.bridge("bridge").len() == 13);
    }

    #[test]
    fn devices_of_another_are_left_alone() {
        let (one, other) = (Owner::of(Path::new("/tmp/vch-1")), Owner::of(Path::new("/tmp/vch-2")));
        let all = || vec![device("eth0", None), device("vchb-1", Some(one.alias("bridge"))), device("vcht-2", None)];
        let names: Vec<_> = one.own(all()).unwrap().into_iter().collect();
        assert_eq!(names, ["vchb-1", "vcht-2"]);
        assert!(other.own(all()).unwrap_err().to_string().contains("--network user"));
    }

    #[test]
    fn a_chain_is_looked_for_in_its_table() {
        let chains = "table inet mine {\n\tchain others {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n\
                      table inet vch {\n\tchain guard {\n\t}\n}\n";
        assert!(!has_chain(chains, "table inet vch {", "chain others {"));
        assert!(has_chain(chains, "table inet vch {", "chain guard {"));
        assert!(!has_chain("", "table inet vch {", "chain others {"));
    }
}
