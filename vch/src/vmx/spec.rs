//! What of a container's spec is different on ESXi: the link and the log are serial ports, the network is a port group's, disks are known by their file systems.
//!
//! Everything else is what [`crate::plan`] planned. What would mean something else there than it does under QEMU is refused.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, bail};
use wire::spec::{Endpoint, LogDevice, Mount, Nic, Port, Spec};

use super::text::Card;
use crate::cli::run::network::{HostAddress, PublishArg};
use crate::cli::{ContainerArgs, EsxiArgs};

/// The spec for ESXi; `mounts` take the place of those on disks with serial numbers.
pub(super) fn on_esxi(
    mut spec: Spec,
    args: &ContainerArgs,
    esxi: &EsxiArgs,
    mounts: Vec<Mount>,
    has_card: bool,
) -> Result<Spec> {
    if args.network.add_host.iter().any(|(_, address)| *address == HostAddress::Gateway) {
        bail!("--add-host NAME:host-gateway: on ESXi there is no such host: name its address");
    }
    if let Some(syslog) = &spec.diagnostics.syslog
        && syslog.server.ip() == IpAddr::V4(QEMUS_HOST)
    {
        bail!("--log-opt syslog-address: a loopback address is the virtual machine's own: name one that it reaches");
    }
    spec.mounts = mounts;
    spec.log = spec.log.map(|_| LogDevice::Serial);
    if !has_card && !esxi.ip.is_empty() {
        bail!("--ip needs a network: leave out --network none");
    }
    if let Some(endpoint) = spec.networks.pop() {
        let Nic::Mac(mac) = endpoint.nic else { bail!("the network card has no address") };
        let mac = args.network.mac_address.unwrap_or([0x00, 0x50, 0x56, mac[1] & 0x3f, mac[2], mac[3]]);
        spec.networks.push(Endpoint {
            addresses: esxi.ip.clone(),
            dhcp: esxi.ip.is_empty(),
            gateways: esxi.gateway.clone(),
            default: true,
            dns: args.network.dns.clone(),
            ports: ports(&args.network.publish)?,
            ..Endpoint::new("port-group", Nic::Mac(mac))
        });
    }
    Ok(spec)
}

/// The card of the spec's one network.
pub(super) fn card<'a>(spec: &Spec, esxi: &'a EsxiArgs) -> Option<Card<'a>> {
    match spec.networks.first()?.nic {
        Nic::Mac(mac) => Some(Card { port_group: &esxi.port_group, mac }),
        Nic::Slot(_) => None,
    }
}

/// Who is on the network reaches the VM itself: a published port is let in, and led to another one where the two differ.
fn ports(publish: &[PublishArg]) -> Result<Vec<Port>> {
    let mut ports: Vec<Port> = Vec::new();
    for PublishArg { protocol, address, host, container } in publish {
        if address.is_some() {
            bail!("-p with an address: the virtual machine has its own on the port group, so name the ports alone");
        }
        let port = match host {
            None => Port { protocol: *protocol, ports: *container, to: None },
            Some(host) if host == container => Port { protocol: *protocol, ports: *host, to: None },
            Some(host) if host.0 == host.1 => Port { protocol: *protocol, ports: *host, to: Some(container.0) },
            Some(_) => bail!("-p: a range of ports leads to the same range, since the guest redirects single ports"),
        };
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    Ok(ports)
}

/// What a plan for QEMU puts in the place of a loopback address.
const QEMUS_HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use wire::handshake::LinkKey;
    use wire::spec::Protocol;

    use super::*;
    use crate::cli::{Cli, Command, LinkKind};
    use crate::plan::{self, Asked, ImageConfig};

    fn on(options: &str) -> Result<Spec> {
        let line = format!("vch vmx --vch tcp://vch:8080 {options}img /bin/true");
        let parsed = Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
        let Command::Vmx(args) = parsed.command else { panic!("{line}") };
        let (container, esxi) = (&args.container, &args.esxi);
        let (link, variables, layers) = (LinkKind::Serial, &[][..], &[][..]);
        let id = "c0ffee0123456789";
        let asked = Asked { id, args: container, link, transient: false, variables, seccomp: None, layers, size: None };
        let plan = plan::plan(LinkKey::new([5; 32]), asked, &ImageConfig::default()).unwrap();
        on_esxi(plan.spec, container, esxi, Vec::new(), plan.card.is_some())
    }

    #[test]
    fn a_port_group_gives_an_address_unless_one_is_named() {
        let spec = on("").unwrap();
        assert_eq!(spec.log, Some(LogDevice::Serial));
        assert!(spec.link.sealed, "others may listen on the way");
        let [endpoint] = &spec.networks[..] else { panic!() };
        assert!(endpoint.dhcp && endpoint.default && endpoint.addresses.is_empty() && endpoint.dns.is_empty());
        // VMware's own range for addresses that are set by hand ends at 00:50:56:3f:ff:ff
        assert_eq!(endpoint.nic, Nic::Mac([0x00, 0x50, 0x56, 0x00, 0xff, 0xee]));
        let spec =
            on("--ip 192.0.2.5/24 --gateway 192.0.2.1 --dns 192.0.2.2 --mac-address 02:00:00:00:00:01 ").unwrap();
        let [endpoint] = &spec.networks[..] else { panic!() };
        assert!(!endpoint.dhcp && endpoint.addresses.len() == 1 && endpoint.gateways.len() == 1);
        assert_eq!((endpoint.nic, endpoint.dns.len()), (Nic::Mac([2, 0, 0, 0, 0, 1]), 1));
        assert!(on("--network none ").unwrap().networks.is_empty());
    }

    #[test]
    fn published_ports_are_let_in_by_the_guest() {
        let ports = |options: &str| on(options).unwrap().networks[0].ports.clone();
        let port = |ports, to| Port { protocol: Protocol::Tcp, ports, to };
        assert_eq!(ports("-p 80 -p 80:80 "), [port((80, 80), None)]);
        assert_eq!(
            ports("-p 8080:80 -p 9000-9002:9000-9002 "),
            [port((8080, 8080), Some(80)), port((9000, 9002), None)]
        );
    }

    #[test]
    fn what_means_something_else_there_is_refused() {
        let error = |options: &str| on(options).unwrap_err().to_string();
        assert!(error("--add-host me:host-gateway ").contains("name its address"));
        assert!(error("-p 192.0.2.1:80:80 ").contains("name the ports alone"));
        assert!(error("-p 8000-8002:9000-9002 ").contains("the same range"));
        assert!(error("--network none --ip 192.0.2.5/24 ").contains("--ip needs a network"));
        assert!(error("--log-driver syslog --log-opt syslog-address=udp://127.0.0.1 ").contains("loopback"));
    }
}
