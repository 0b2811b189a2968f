//! The appliance's networks: which there are, what they are called, and the files that say who is who. How a network is set up and kept: [`guest::net::networks`].

use std::fs::{self, File};
use std::io;
use std::time::Duration;

use guest::net::card::{self, CardError};
use guest::net::firewall;
use guest::net::networks::{HostName, Networks, NetworksError};
use guest::net::stack::Stack;
use guest::{clock, say};
use wire::appliance::{ApplianceSpec, Network, Role};
use wire::spec::{Endpoint, Nic};
use wire::status::{Failure, FailureKind};

use crate::boot::{failure, machine};
use crate::firewall::{USUAL, sides};
use crate::parameters;

/// How long an appliance that was told of no card waits for one.
const CARD_BOUND: Duration = Duration::from_secs(5);
const HOST_NAME: &str = "vch";
const ROLES: [(Role, &str); 4] =
    [(Role::Client, "client"), (Role::Management, "management"), (Role::Public, "public"), (Role::Bridge, "bridge")];
const FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

/// None yet. Those that come are guarded as their roles say; without a configuration nobody comes in.
pub(crate) fn none(spec: Option<&ApplianceSpec>) -> io::Result<Networks> {
    let spec = spec.cloned();
    Networks::new(Box::new(move |named| {
        let sides = spec.as_ref().map(|spec| sides(spec, named));
        firewall::set_gateway(&sides.unwrap_or_default())
    }))
}

/// Takes the interfaces up behind the firewall, and writes who is who.
pub(crate) fn set_up(networks: &mut Networks, spec: &ApplianceSpec) -> Result<(), Failure> {
    let list = match spec.networks.is_empty() {
        true => first_card()?,
        false => spec.networks.clone(),
    };
    for network in &list {
        for (_, name) in
            ROLES.iter().filter(|(role, name)| network.roles.contains(role) && network.endpoint.name != *name)
        {
            networks.alias(name, &network.endpoint.name);
        }
    }
    let host =
        HostName { name: spec.hostname.clone().unwrap_or_else(|| HOST_NAME.into()), domain: spec.domain.clone() };
    let endpoints: Vec<Endpoint> = list.iter().map(|network| network.endpoint.clone()).collect();
    match networks.set_up(host, &spec.names, &endpoints) {
        // the server may come back after its power did: it is asked on
        Err(error @ NetworksError::Unanswered { .. }) => say!(Warn, "{error}"),
        other => other.map_err(|error| failure(FailureKind::Machine, &error))?,
    }
    let status = networks.status();
    let public = list.iter().filter(|network| network.roles.contains(&Role::Public));
    public.filter_map(|network| status.get(&network.endpoint.name)).for_each(|of| parameters::loosen(&of.interface));
    write(networks).map_err(|error| machine("cannot write who is who", &error))
}

fn first_card() -> Result<Vec<Network>, Failure> {
    let found = Stack::open().map_err(CardError::from);
    let found = found.and_then(|mut stack| card::first(&mut stack, clock::now() + CARD_BOUND));
    let Some(link) = found.map_err(|error| machine("cannot look for a network card", &error))? else {
        say!(Warn, "the machine has no network card: nobody reaches the appliance by IP");
        return Ok(Vec::new());
    };
    let endpoint = Endpoint { dhcp: true, default: true, ..Endpoint::new("client", Nic::Mac(link.mac)) };
    Ok(vec![Network { endpoint, roles: USUAL.into() }])
}

/// The appliance's own files, in the memory that its root is.
fn write(networks: &mut Networks) -> io::Result<()> {
    fs::create_dir_all("/etc")?;
    let image = FILES.map(|path| fs::read_to_string(path).unwrap_or_default());
    fs::write("/etc/hostname", format!("{}\n", networks.host_name()))?;
    for (path, text) in FILES.into_iter().zip(networks.texts(&image)) {
        fs::write(path, text)?;
    }
    let open = |path| File::options().write(true).open(path);
    networks.keep([open(FILES[0])?, open(FILES[1])?], image);
    Ok(())
}
