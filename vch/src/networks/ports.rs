//! Which ports of the host are to lead to a container: docker's `PortBindings`, and all that its image names with `-P`.
//!
//! It decides what is asked for. Whether it can be had, the host's kernel says when the container starts: [`super::plugged`].

use std::net::{IpAddr, Ipv4Addr};

use bollard_stubs::models::ContainerCreateBody;
use wire::spec::Protocol;

use super::NetworkError;

/// A port of a container, and the first and last of the host's that may lead to it: 0 is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) port: u16,
    pub(super) udp: bool,
    pub(super) address: IpAddr,
    pub(super) host: (u16, u16),
}

impl Wanted {
    pub(super) fn protocol(self) -> Protocol {
        if self.udp { Protocol::Udp } else { Protocol::Tcp }
    }
}

/// In the order of the container's ports. `exposed` are those that its image names.
pub(super) fn wanted(asked: &ContainerCreateBody, exposed: &[String]) -> Result<Vec<Wanted>, NetworkError> {
    let mut all = Vec::new();
    let host = asked.host_config.as_ref();
    let bindings = host.and_then(|host| host.port_bindings.as_ref());
    for (name, bindings) in bindings.into_iter().flatten() {
        let (port, udp) = container_port(name)?;
        for binding in bindings.iter().flatten() {
            let address = host_address(binding.host_ip.as_deref().unwrap_or_default())?;
            let host = host_ports(binding.host_port.as_deref().unwrap_or_default())?;
            all.push(Wanted { port, udp, address, host });
        }
        // docker's form of any port
        if bindings.as_ref().is_none_or(Vec::is_empty) {
            all.push(Wanted { port, udp, address: ANY, host: (0, 0) });
        }
    }
    if host.and_then(|host| host.publish_all_ports).unwrap_or_default() {
        let named = asked.exposed_ports.iter().flatten().map(|(name, _)| name.as_str());
        for name in exposed.iter().map(String::as_str).chain(named) {
            let (port, udp) = container_port(name)?;
            if !all.iter().any(|known| (known.port, known.udp) == (port, udp)) {
                all.push(Wanted { port, udp, address: ANY, host: (0, 0) });
            }
        }
    }
    all.sort();
    Ok(all)
}

/// `80/tcp`
fn container_port(text: &str) -> Result<(u16, bool), NetworkError> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port = port.parse().ok().filter(|port| *port > 0);
    match (port, protocol) {
        (Some(port), "tcp") => Ok((port, false)),
        (Some(port), "udp") => Ok((port, true)),
        (Some(_), _) => {
            Err(NetworkError::Refused(format!("ports of this host lead to TCP and UDP, and not to {text}")))
        }
        (None, _) => Err(NetworkError::Invalid(format!("invalid port specification: {text:?}"))),
    }
}

fn host_address(text: &str) -> Result<IpAddr, NetworkError> {
    match text.trim_start_matches('[').trim_end_matches(']') {
        "" => Ok(ANY),
        bare => bare.parse().map_err(|_| NetworkError::Invalid(format!("invalid IP address: {text}"))),
    }
}

/// `8080`, `8000-8010`, or nothing.
fn host_ports(text: &str) -> Result<(u16, u16), NetworkError> {
    let invalid = || NetworkError::Invalid(format!("invalid port specification: {text:?}"));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first, first.parse(), last.parse()) {
        ("", _, _) => Ok((0, 0)),
        (_, Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => Err(invalid()),
    }
}

/// All of the host's addresses.
pub(super) const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, exposed: &[&str]) -> Result<String, NetworkError> {
        let exposed: Vec<String> = exposed.iter().map(|text| (*text).to_owned()).collect();
        let all = wanted(&serde_json::from_str(json).unwrap(), &exposed)?;
        let one = |wanted: &Wanted| {
            let Wanted { port, udp, address, host: (first, last) } = wanted;
            format!("{address} {first}-{last} {port}{}", if *udp { "u" } else { "" })
        };
        Ok(all.iter().map(one).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn ports_are_read_as_docker_writes_them() {
        let check = |bindings: &str, expected: &str| {
            let json = format!(r#"{{"HostConfig":{{"PortBindings":{bindings}}}}}"#);
            assert_eq!(read(&json, &["99/tcp"]).unwrap(), expected, "{bindings}");
        };
        check("{}", "");
        check(r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}"#, "0.0.0.0 8080-8080 80");
        check(r#"{"53/udp":[{"HostIp":"127.0.0.1","HostPort":"0"}]}"#, "127.0.0.1 0-0 53u");
        check(
            r#"{"80/tcp":[{"HostIp":"::1","HostPort":"8000-8010"},{"HostPort":""}]}"#,
            "0.0.0.0 0-0 80, ::1 8000-8010 80",
        );
        check(r#"{"80/tcp":null,"81/tcp":[]}"#, "0.0.0.0 0-0 80, 0.0.0.0 0-0 81");
    }

    #[test]
    fn all_that_is_exposed_is_published_once() {
        let json = r#"{"ExposedPorts":{"81/udp":{}},"HostConfig":{"PublishAllPorts":true,"PortBindings":{"80/tcp":[{"HostPort":"8080"}]}}}"#;
        assert!(read(json, &["80/tcp", "90/tcp"]).is_ok());
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for bindings in [
            r#"{"80/sctp":[]}"#,
            r#"{"0/tcp":[]}"#,
            r#"{"80/tcp":[{"HostPort":"x"}]}"#,
            r#"{"80/tcp":[{"HostIp":"x"}]}"#,
        ] {
            let json = format!(r#"{{"HostConfig":{{"PortBindings":{bindings}}}}}"#);
            assert!(read(&json, &[]).is_err(), "{bindings}");
        }
    }
}
