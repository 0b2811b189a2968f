//! Devices of the host's kernel: bridges of networks and taps of machines' cards, by `ip` of iproute2.
//!
//! It decides what they are called and which are ours: by their names, and by the alias that tells whose they are.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::rules::Network;
use crate::state::id_from;

/// Names of bridges and taps begin so: the kernel's names have 15 characters.
const BRIDGE: &str = "vchb-";
const TAP: &str = "vcht-";

/// Whose devices: those of one state directory.
#[derive(Clone, Debug)]
pub(super) struct Owner(String);

#[derive(Debug, Deserialize)]
struct Device {
    ifname: String,
    ifalias: Option<String>,
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
        format!("vch {}: {}", self.0, of.chars().take(ALIAS).collect::<String>())
    }

    /// Those that there are; an error if there are another state directory's, whose rules would be gone.
    pub(super) fn devices(&self) -> Result<BTreeSet<String>> {
        let told = run(Command::new("ip").args(["-j", "link", "show"]), "")?;
        let all: Vec<Device> = serde_json::from_str(&told)
            .context("cannot read what ip says: --network kernel needs the one of iproute2; or use --network user")?;
        self.own(all)
    }

    fn own(&self, all: Vec<Device>) -> Result<BTreeSet<String>> {
        let ours = all.into_iter().filter(|one| one.ifname.starts_with(BRIDGE) || one.ifname.starts_with(TAP));
        let mut names = BTreeSet::new();
        for device in ours {
            let alias = device.ifalias.unwrap_or_default();
            // one that was half made has no alias yet
            if !alias.is_empty() && !alias.starts_with(&self.alias("")[..]) {
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

    /// Makes a bridge that is not there, and has one that is there as it should be.
    pub(super) fn make_bridge(&self, name: &str, network: &str, settings: &Network, mtu: u16) -> Result<()> {
        let mut batch = String::new();
        if !exists(name)? {
            batch.push_str(&format!("link add name {name} type bridge\n"));
        }
        let [a, b, c, d] = settings.gateway.octets();
        // the same after a restart: machines keep it in mind
        let mac = format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
        let (alias, gateway, prefix) = (self.alias(network), settings.gateway, settings.subnet.prefix);
        batch.push_str(&format!("link set dev {name} address {mac} mtu {mtu} alias \"{alias}\"\n"));
        ip(&batch)?;
        // it carries IPv4; a kernel without IPv6 has nothing to be told
        let _absent = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        // the host reaches ports that it publishes from 127.0.0.1 as well
        setting(&format!("conf/{name}/route_localnet"), "1")?;
        ip(&format!("address replace {gateway}/{prefix} dev {name}\nlink set dev {name} up\n"))
    }

    /// A tap on a bridge. It is this program's user's: one that has no owner could be opened by everybody.
    pub(super) fn make_tap(&self, name: &str, bridge: &str, mtu: u16, of: &str) -> Result<()> {
        let mut batch = String::new();
        let user = rustix::process::geteuid().as_raw();
        if !exists(name)? {
            batch.push_str(&format!("tuntap add dev {name} mode tap user {user} vnet_hdr\n"));
        }
        let alias = self.alias(of);
        // where bridges ask the packet filter (br_netfilter), what a machine sends to a port of the host that leads to itself comes back the way it came
        batch.push_str(&format!(
            "link set dev {name} mtu {mtu} alias \"{alias}\"\nlink set dev {name} master {bridge}\n\
             link set dev {name} type bridge_slave hairpin on\nlink set dev {name} up\n"
        ));
        ip(&batch)
    }
}

pub(super) fn remove(name: &str) -> Result<()> {
    match exists(name)? {
        true => ip(&format!("link delete dev {name}\n")),
        false => Ok(()),
    }
}

/// In this program's network namespace, where `/sys` may be another's.
fn exists(name: &str) -> Result<bool> {
    let devices =
        std::fs::read_to_string("/proc/thread-self/net/dev").context("cannot read which devices there are")?;
    Ok(devices.lines().filter_map(|line| line.split_once(':')).any(|(device, _)| device.trim() == name))
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
        Device { ifname: name.into(), ifalias: alias }
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
