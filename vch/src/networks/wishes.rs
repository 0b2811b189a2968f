//! What a container asks of its networks, in docker's words: which they are, and as whom it is known there.
//!
//! It decides what is refused before a machine is made. Everything here is a function of its arguments.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use bollard_stubs::models::{ContainerCreateBody, EndpointSettings, HostConfig};
use serde::{Deserialize, Serialize};

use super::NetworkError;
use crate::cli::run::network::mac;

/// What a container asks of one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    pub(crate) address: Option<Ipv4Addr>,
    /// As the user wrote it.
    pub(crate) mac: Option<String>,
    pub(crate) aliases: Vec<String>,
    /// `container:alias`
    pub(crate) links: Vec<String>,
    pub(crate) driver_opts: BTreeMap<String, String>,
    /// Of its networks, the one with the highest is its way to everywhere.
    pub(crate) gw_priority: i64,
}

/// By the networks' names.
pub(crate) type Wishes = BTreeMap<String, Wish>;

/// Of one network; `name` is what its user called it.
pub(super) fn wish(name: &str, asked: &EndpointSettings) -> Result<Wish, NetworkError> {
    let invalid = |what: String| {
        NetworkError::Invalid(format!("invalid config for network {name}: invalid endpoint settings:\n{what}"))
    };
    let ipam = asked.ipam_config.as_ref();
    if ipam.and_then(|ipam| ipam.ipv6_address.as_deref()).is_some_and(|address| !address.is_empty()) {
        return Err(invalid("networks of this host carry IPv4 alone: leave out --ip6".into()));
    }
    let address = ipam.and_then(|ipam| ipam.ipv4_address.as_deref()).filter(|text| !text.is_empty());
    let address = match address {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| invalid(format!("invalid IPv4 address: {text}")))?),
    };
    let mac_address = asked.mac_address.clone().filter(|text| !text.is_empty());
    if let Some(text) = &mac_address {
        mac(text).map_err(|why| invalid(format!("invalid MAC address {text}: {why}")))?;
    }
    if address.is_some() && name == super::BRIDGE {
        return Err(invalid("user specified IP address is supported on user defined networks only".into()));
    }
    Ok(Wish {
        address,
        mac: mac_address,
        aliases: asked.aliases.clone().unwrap_or_default(),
        links: asked.links.clone().unwrap_or_default(),
        driver_opts: asked.driver_opts.clone().unwrap_or_default().into_iter().collect(),
        gw_priority: asked.gw_priority.unwrap_or_default(),
    })
}

/// Of all networks of a container that is to be made. `resolve` finds the name of a network by whatever its user called it.
pub(super) fn wishes(
    asked: &ContainerCreateBody,
    resolve: impl Fn(&str) -> Result<String, NetworkError>,
) -> Result<Wishes, NetworkError> {
    let none = HostConfig::default();
    let host = asked.host_config.as_ref().unwrap_or(&none);
    let mode = match asked.network_disabled {
        Some(true) => super::NONE,
        _ => host.network_mode.as_deref().unwrap_or_default(),
    };
    let main = match mode {
        "host" => return Err(NetworkError::Refused(SHARES_HOST.into())),
        mode if mode.starts_with("container:") => return Err(NetworkError::Refused(SHARES_CONTAINER.into())),
        mode => resolve(if mode.is_empty() { super::BRIDGE } else { mode })?,
    };
    let empty = HashMap::new();
    let configs =
        asked.networking_config.as_ref().and_then(|config| config.endpoints_config.as_ref()).unwrap_or(&empty);
    let mut wishes = Wishes::new();
    for (called, settings) in configs {
        if called == "host" {
            return Err(NetworkError::Refused(SHARES_HOST.into()));
        }
        let name = resolve(called)?;
        let wish = wish(&name, settings)?;
        wishes.insert(name, wish);
    }
    let is_default = matches!(mode, "" | "default");
    if wishes.is_empty() || !is_default {
        let own = wishes.entry(main.clone()).or_default();
        own.links.extend(host.links.iter().flatten().cloned());
    }
    // where clients of old say it
    if let (Some(own), Some(text)) = (wishes.get_mut(&main), asked.mac_address.as_ref().filter(|text| !text.is_empty()))
        && own.mac.is_none()
        && mac(text).is_ok()
    {
        own.mac = Some(text.clone());
    }
    if wishes.len() > 1 && wishes.contains_key(super::NONE) {
        return Err(NetworkError::Invalid(ALONE.into()));
    }
    Ok(wishes)
}

const SHARES_HOST: &str =
    "a virtual machine has a network of its own, and cannot have the host's: let ports of the host lead to it with -p";
const SHARES_CONTAINER: &str =
    "a virtual machine shares its network with no other: put both on one network, where they find each other by name";
/// Docker's words.
pub(super) const ALONE: &str =
    "container cannot be connected to multiple networks with one of the networks in private (none) mode";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Wishes, NetworkError> {
        let known = |called: &str| match called {
            "default" => Ok("bridge".to_owned()),
            "bridge" | "none" | "n1" | "n2" => Ok(called.to_owned()),
            "n1id" => Ok("n1".to_owned()),
            other => Err(NetworkError::Unknown(other.into())),
        };
        wishes(&serde_json::from_str(json).unwrap(), known)
    }

    #[track_caller]
    fn names(json: &str, expected: &[&str]) {
        assert_eq!(read(json).unwrap().keys().map(String::as_str).collect::<Vec<_>>(), expected, "{json}");
    }

    #[test]
    fn networks_are_those_of_the_mode_and_of_the_endpoints() {
        names("{}", &["bridge"]);
        names(r#"{"HostConfig":{"NetworkMode":"default"}}"#, &["bridge"]);
        names(r#"{"HostConfig":{"NetworkMode":"none"}}"#, &["none"]);
        names(r#"{"HostConfig":{"NetworkMode":"n1"}}"#, &["n1"]);
        names(r#"{"HostConfig":{"NetworkMode":"n1id"},"NetworkingConfig":{"EndpointsConfig":{"n1":{}}}}"#, &["n1"]);
        names(r#"{"HostConfig":{"NetworkMode":"default"},"NetworkingConfig":{"EndpointsConfig":{"n1":{}}}}"#, &["n1"]);
        names(r#"{"HostConfig":{"NetworkMode":"n1"},"NetworkingConfig":{"EndpointsConfig":{"n2":{}}}}"#, &["n1", "n2"]);
    }

    #[test]
    fn what_a_network_is_asked_for_is_read() {
        let json = r#"{"HostConfig":{"NetworkMode":"n1","Links":["db:store"]},"NetworkingConfig":{"EndpointsConfig":{"n1":
            {"IPAMConfig":{"IPv4Address":"10.5.0.7"},"Aliases":["q"],"MacAddress":"02:42:00:00:00:07","GwPriority":3}}}}"#;
        let wish = read(json).unwrap().remove("n1").unwrap();
        assert_eq!((wish.address, wish.gw_priority), (Some(Ipv4Addr::new(10, 5, 0, 7)), 3));
        assert_eq!((wish.aliases, wish.links), (vec!["q".to_owned()], vec!["db:store".to_owned()]));
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_sentence() {
        let check = |json: &str, part: &str| {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check(r#"{"HostConfig":{"NetworkMode":"host"}}"#, "cannot have the host's");
        check(r#"{"HostConfig":{"NetworkMode":"container:web"}}"#, "shares its network with no other");
        check(r#"{"HostConfig":{"NetworkMode":"nosuch"}}"#, "network nosuch not found");
        check(
            r#"{"HostConfig":{"NetworkMode":"none"},"NetworkingConfig":{"EndpointsConfig":{"n1":{}}}}"#,
            "private (none) mode",
        );
        let bridge =
            r#"{"NetworkingConfig":{"EndpointsConfig":{"bridge":{"IPAMConfig":{"IPv4Address":"172.17.0.9"}}}}}"#;
        check(bridge, "user specified IP address is supported on user defined networks only");
        let odd = r#"{"NetworkingConfig":{"EndpointsConfig":{"n1":{"MacAddress":"zz"}}}}"#;
        check(odd, "invalid MAC address zz");
    }
}
