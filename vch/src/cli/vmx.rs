//! What was typed for `vch vmx`: a container as `vch run` takes it, and what ESXi needs to know of its machine.
//!
//! The forms of addresses on ESXi's side are decided here; what a `.vmx` file says is decided in [`crate::vmx`].

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "these comments are help texts: brackets hold the names of datastores"
)]

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use wire::spec::Prefix;

use super::ContainerArgs;

/// Write a containerVM for ESXi: a directory with a .vmx file, VMDK disks and bootstrap.iso.
///
/// The container is planned as `vch run` plans it. Its link is the first serial port, which connects to a `vch serve` that has the same master key.
/// docs/vmware.md tells how to get the directory onto a host.
#[derive(Debug, Clone, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "vch vmx --vch URI [OPTIONS] IMAGE [COMMAND]...",
    after_help = "Example: vch vmx --vch tcp://192.0.2.10:8080 --name web -m 1g -p 80 docker-archive:nginx.tar"
)]
pub struct VmxArgs {
    #[command(flatten)]
    pub container: ContainerArgs,

    #[command(flatten)]
    pub esxi: EsxiArgs,

    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// What only ESXi's machines have.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "ESXi")]
pub struct EsxiArgs {
    /// Where the link connects: tcp://HOST:PORT, of `vch serve --link-listen`, or telnet://HOST:PORT, of a serial port concentrator (vSPC)
    #[arg(long = "vch", value_name = "URI", value_parser = link)]
    pub link: LinkUri,

    /// The directory to make, which must not exist [default: the name, else the id's first 12 digits]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// The port group of the network card
    #[arg(long, value_name = "NAME", default_value = "VM Network")]
    pub port_group: String,

    /// An address of the card, as 192.0.2.5/24 [default: asked for with DHCP]
    #[arg(long, value_name = "IP/BITS", value_parser = prefix)]
    pub ip: Vec<Prefix>,

    /// Who carries packets to other networks; with --ip
    #[arg(long, value_name = "IP", requires = "ip")]
    pub gateway: Vec<IpAddr>,

    /// How the disks are stored: as VMware Workstation runs them, or as `govc import.vmdk` takes them to ESXi
    #[arg(long, value_enum, default_value_t = VmdkForm::Sparse)]
    pub vmdk: VmdkForm,

    /// Take the medium from there, as "[datastore1] iso/bootstrap.iso", in place of a copy in the directory
    #[arg(long, value_name = "PATH")]
    pub iso: Option<String>,

    /// The version of the virtual hardware: 13 is ESXi 6.5
    #[arg(long, value_name = "N", default_value_t = 13, value_parser = clap::value_parser!(u8).range(13..=22))]
    pub hardware: u8,

    /// Let every process of the container read guestinfo, the link's key too: for a host on which tether cannot use VMCI
    #[arg(long)]
    pub open_guestinfo: bool,

    /// The master key of the `vch serve` that the link connects to; made if it does not exist [default: master.key in the state directory]
    #[arg(long, value_name = "FILE")]
    pub master_key: Option<PathBuf>,

    /// Where the master key lies, unless that is said [default: $XDG_STATE_HOME/tether]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Where bootstrap.iso lies [default: dist/ beside the program, /usr/share/tether]
    #[arg(long, value_name = "DIR", env = "VCH_ASSETS")]
    pub assets: Option<PathBuf>,
}

/// How a disk lies in its file. ESXi converts either before it runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VmdkForm {
    /// monolithicSparse
    Sparse,
    /// streamOptimized: compressed, and not to be written to
    Stream,
}

/// Where ESXi connects a serial port to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkUri {
    /// `tcp://HOST:PORT`: bytes as they are.
    Direct(String),
    /// `telnet://HOST:PORT`: a virtual serial port concentrator, which outlives a move of the VM.
    Concentrator(String),
}

/// Parses `--vch`.
fn link(text: &str) -> Result<LinkUri, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, ""));
    let named = |char: char| char.is_ascii_alphanumeric() || "-._:[]".contains(char);
    let listens = |host: &str| ["0.0.0.0", "[::]"].contains(&host);
    if host.is_empty() || !host.chars().all(named) || port.parse::<u16>().is_ok_and(|port| port == 0) {
        return Err("it names a host and a port, as in tcp://192.0.2.10:8080".into());
    }
    match scheme {
        _ if port.parse::<u16>().is_err() => {
            Err("it names a host and a port up to 65535, as in tcp://192.0.2.10:8080".into())
        }
        _ if listens(host) => Err(format!("{host} is where a server listens: name an address that ESXi reaches")),
        "tcp" => Ok(LinkUri::Direct(text.to_owned())),
        "telnet" => Ok(LinkUri::Concentrator(text.to_owned())),
        _ => Err("it begins with tcp:// or telnet://".into()),
    }
}

/// Parses `--ip`.
fn prefix(text: &str) -> Result<Prefix, String> {
    let parse = || {
        let (address, length) = text.split_once('/')?;
        let (address, length) = (address.parse::<IpAddr>().ok()?, length.parse().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        (1..=most).contains(&length).then_some(Prefix { address, length })
    };
    parse().ok_or_else(|| "write an address and how many of its bits are the network's, as 192.0.2.5/24".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_container_as_run_takes_it() {
        let line = "vch vmx --vch tcp://vch:8080 -m 1g -i --name web -p 80 --ip 192.0.2.5/24 img sh -i";
        let Command::Vmx(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else { panic!() };
        assert_eq!((args.container.image(), args.container.command()), ("img", &["sh".into(), "-i".into()][..]));
        assert_eq!((args.container.machine.memory.mebibytes(), args.container.interactive), (1024, true));
        assert_eq!(args.esxi.link, LinkUri::Direct("tcp://vch:8080".into()));
        for line in ["vch vmx img", "vch vmx --vch tcp://vch:8080", "vch vmx --vch tcp://a:1 --gateway 192.0.2.1 img"] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn addresses_that_esxi_can_connect_to() {
        let check = |text: &str, expected| assert_eq!(link(text), Ok(expected), "{text}");
        check("tcp://192.0.2.10:8080", LinkUri::Direct("tcp://192.0.2.10:8080".into()));
        check("telnet://vch.example.org:2377", LinkUri::Concentrator("telnet://vch.example.org:2377".into()));
        check("tcp://[2001:db8::1]:8080", LinkUri::Direct("tcp://[2001:db8::1]:8080".into()));
        for text in [
            "",
            "vch",
            "vch:8080",
            "tcp://vch",
            "tcp://:8080",
            "tcp://vch:0",
            "tcp://vch:99999",
            "unix:///a:1",
            "tcp://a\"b:1",
            "tcp://0.0.0.0:8080",
        ] {
            assert!(link(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_of_cards() {
        let expected = Prefix { address: "192.0.2.5".parse().unwrap(), length: 24 };
        assert_eq!(prefix("192.0.2.5/24"), Ok(expected));
        assert!(prefix("2001:db8::5/64").is_ok());
        for text in ["192.0.2.5", "192.0.2.5/0", "192.0.2.5/33", "host/24", "192.0.2.5/x"] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }
}
