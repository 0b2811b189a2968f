//! The appliance's keys, one by one and against the document.

use core::time::Duration;

use super::*;
use crate::guestinfo::base64;
use crate::spec::{Level, Nic, Prefix, Transport};
use crate::vmx::Dictionary;

/// Never shown.
const MARK: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQ=";
const KEY: &str = "a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7";

fn pem(label: &str) -> String {
    format!("-----BEGIN {label}-----\n{MARK}\n-----END {label}-----\n")
}

fn keys(given: &[(&str, &str)]) -> Dictionary {
    let mut keys = Dictionary::default();
    given.iter().for_each(|(key, value)| keys.set(&format!("guestinfo.vice./init/{key}"), *value));
    keys
}

fn from(given: &[(&str, &str)]) -> Result<ApplianceSpec, SpecError> {
    read(&keys(given))
}

#[track_caller]
fn refused(given: &[(&str, &str)], expected: &str) {
    let reason = from(given).unwrap_err();
    assert_eq!(reason.to_string().replace("guestinfo.vice./init/", ""), expected);
}

/// Something under every key.
pub(super) fn whole() -> Dictionary {
    let mut keys = keys(&[
        ("hostname", "vch1"),
        ("domainname", "example.org"),
        ("networks", "client|bridge"),
        ("networks|client/mac", "52:54:00:00:00:01"),
        ("networks|client/addresses~json", "[\"10.0.0.2/24\"]"),
        ("networks|client/gateways~json", "[\"10.0.0.1\"]"),
        ("networks|bridge/Common/id", "192"),
        ("networks|bridge/ip/IP", "rBAAAQ=="),
        ("networks|bridge/ip/Mask", "//8AAA=="),
        ("networks|bridge/network/gateway/IP", "rBAAAw=="),
        ("networks|bridge/network/dns", "0"),
        ("networks|bridge/network/dns|0", "rBAAAQ=="),
        ("networks|bridge/network/pools", "0"),
        ("networks|bridge/network/pools|0/first", "rBAAAg=="),
        ("networks|bridge/network/pools|0/last", "rBAACQ=="),
        ("networks|bridge/network/destinations", "0"),
        ("networks|bridge/network/destinations|0/IP", "rBEAAA=="),
        ("networks|bridge/network/destinations|0/Mask", "//8AAA=="),
        ("names/search~json", "[\"example.org\"]"),
        ("docker/port", "12376"),
        ("docker/insecure", "false"),
        ("docker/tls/cert", &pem("CERTIFICATE")),
        ("docker/tls/key", &pem("PRIVATE KEY")),
        ("docker/tls/ca", &base64::encode(pem("CERTIFICATE").as_bytes())),
        ("docker/tls/verify", "true"),
        ("link/port", "8081"),
        ("link/vsock", "true"),
        ("link/key", KEY),
        ("vspc/port", "0"),
        ("status/port", "8443"),
        ("data/required", "true"),
        ("log/size", "64k"),
        ("log/files", "3"),
        ("log/output", "5m"),
        ("sessions", "watch"),
        ("sessions|watch/cmd/Path", "/bin/busybox"),
        ("sessions|watch/cmd/Args", "1"),
        ("sessions|watch/cmd/Args~", "busybox|top"),
        ("sessions|watch/restart", "true"),
        ("sessions|watch/stopTimeout", "3"),
        ("sessions|watch/health/cmd~json", "[\"true\"]"),
        ("watchdog", "5s"),
        ("debug/console", "true"),
        ("diagnostics/debug", "2"),
        ("diagnostics/syslog/Network", "udp"),
        ("diagnostics/syslog/RAddr", "192.0.2.1"),
    ]);
    keys.set("guestinfo.vice..init.networks|bridge.network.type", "bridge");
    keys
}

#[test]
fn nothing_said_is_an_appliance_that_takes_links() {
    let spec = from(&[]).unwrap();
    assert_eq!(spec, ApplianceSpec::default());
    assert_eq!((spec.docker.clone(), spec.links.raw, spec.links.concentrator), (None, Some(8080), Some(2377)));
    assert_eq!(spec.ports(Role::Client), [2378]);
    assert_eq!(spec.ports(Role::Management), [8080, 2377, 2378]);
    assert!(spec.ports(Role::Public).is_empty() && spec.ports(Role::Bridge).is_empty());
    // a container's own keys are not the appliance's
    let mut keys = Dictionary::default();
    keys.set("guestinfo.vice./hostname", "web");
    assert_eq!(read(&keys), Ok(ApplianceSpec::default()));
}

#[test]
fn every_key_is_read() {
    let spec = read(&whole()).unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.domain.as_deref()), (Some("vch1"), Some("example.org")));
    let [client, bridge] = &spec.networks[..] else { panic!("{:?}", spec.networks) };
    assert_eq!(client.roles, [Role::Client, Role::Public, Role::Management]);
    assert_eq!((client.endpoint.nic, client.endpoint.default), (Nic::Mac([0x52, 0x54, 0, 0, 0, 1]), true));
    assert_eq!((bridge.roles.as_slice(), bridge.endpoint.default), (&[Role::Bridge][..], false));
    let own = Prefix { address: [172, 16, 0, 1].into(), length: 16 };
    assert_eq!((bridge.endpoint.nic, bridge.endpoint.addresses.as_slice()), (Nic::Slot(192), &[own][..]));
    let docker = spec.docker.clone().unwrap();
    let tls = docker.tls.unwrap();
    assert_eq!((docker.port, tls.certificate.text()), (12376, pem("CERTIFICATE").as_str()));
    assert_eq!((tls.key.text(), tls.clients.unwrap().text()), (&*pem("PRIVATE KEY"), &*pem("CERTIFICATE")));
    let links = &spec.links;
    assert_eq!((links.raw, links.concentrator, links.vsock), (Some(8081), None, true));
    assert_eq!(links.key, MasterKey::from_hex(KEY));
    assert_eq!(spec.watchdog, Duration::from_secs(5));
    assert_eq!((spec.status, spec.require_data, spec.console), (Some(8443), true, true));
    assert_eq!(spec.logs, LogLimits { size: 65_536, files: 3, output: Some(5 << 20) });
    let watch = &spec.services["watch"];
    assert_eq!(
        (watch.argv.as_slice(), watch.stop_timeout),
        (&["/bin/busybox", "top"].map(str::to_owned)[..], Some(Duration::from_secs(3)))
    );
    let syslog = spec.diagnostics.syslog.unwrap();
    assert_eq!((spec.diagnostics.level, syslog.transport), (Level::Trace, Transport::Udp));
    assert_eq!(spec.ports(Role::Client), [12376, 8443]);
    // and in one value
    let mut packed = Dictionary::default();
    packed.set("guestinfo.vice./init/spec", whole().to_string());
    assert_eq!(read(&packed), Ok(spec));
}

#[test]
fn nobody_is_let_in_by_what_was_left_out() {
    let (certificate, key) = (pem("CERTIFICATE"), pem("RSA PRIVATE KEY"));
    let pair = [("docker/tls/cert", certificate.as_str()), ("docker/tls/key", key.as_str())];
    let with = |more: &[(&'static str, &'static str)]| [&pair[..], more].concat();
    refused(&[("docker/port", "2376")], "guestinfo has no docker/tls/cert, nor docker/insecure = \"true\"");
    refused(&pair, "guestinfo has no docker/tls/ca, nor docker/tls/verify = \"false\"");
    refused(&pair[..1], "guestinfo has no docker/tls/key");
    refused(&pair[1..], "guestinfo has no docker/tls/cert");
    refused(&[("docker/tls/ca", &certificate)], "guestinfo has no docker/tls/cert");
    refused(
        &with(&[("docker/tls/verify", "false"), ("docker/insecure", "true")]),
        "guestinfo docker/insecure: \"true\" is not possible: docker/tls/cert says that the API is behind TLS",
    );
    let open = from(&with(&[("docker/tls/verify", "false")])).unwrap().docker.unwrap();
    assert_eq!((open.port, open.tls.unwrap().clients), (2376, None));
    assert_eq!(from(&[("docker/insecure", "true")]).unwrap().docker, Some(Docker { port: 2375, tls: None }));
}

#[test]
fn what_is_wrong_is_named() {
    for odd in ["65536", "-1", "+1", "http", "0x50"] {
        let expected = format!("guestinfo link/port: {odd:?} is not a port from 1 to 65535, or 0 for none");
        refused(&[("link/port", odd)], &expected);
    }
    refused(
        &[("docker/insecure", "true"), ("docker/port", "0")],
        "guestinfo docker/port: \"0\" is not a port from 1 to 65535",
    );
    refused(
        &[("docker/insecure", "true"), ("docker/port", "8080")],
        "guestinfo link/port: \"8080\" is not free: another service of the appliance has this port",
    );
    refused(
        &[("log/size", "1k")],
        "guestinfo log/size: \"1k\" is not a size of at least 4k as `1048576`, in bytes, or `1m`",
    );
    for odd in ["0", "500ms", "soon"] {
        let expected = "a time of at least a second as `30`, in seconds, or `1m30s`";
        refused(&[("watchdog", odd)], &format!("guestinfo watchdog: {odd:?} is not {expected}"));
    }
    refused(&[("log/files", "100")], "guestinfo log/files: \"100\" is not a number from 0 to 99");
    refused(
        &[("hostname", "a b")],
        "guestinfo hostname: \"a b\" is not a name of at most 64 letters, digits, `-`, `_` and `.`",
    );
    refused(&[("data/required", "yes")], "guestinfo data/required: \"yes\" is not `true` or `false`");
    for odd in ["a/b", "vch", "..", ""] {
        let list = format!("watch|{odd}");
        let expected =
            format!("guestinfo sessions: {odd:?} is not a name of letters, digits, `_` and `-`, other than `vch`");
        refused(&[("sessions", &list), ("sessions|watch/cmd/Path", "true")], &expected);
    }
    refused(&[("sessions", "watch")], "guestinfo has no sessions|watch/cmd/Path");
}

#[test]
fn no_error_and_no_debug_shows_a_secret() {
    let spec = read(&whole()).unwrap();
    for text in [format!("{spec:?}"), format!("{spec:#?}")] {
        assert!(!text.contains(MARK) && !text.contains("a7a7") && !text.contains("167"), "{text}");
    }
    for key in ["docker/tls/cert", "docker/tls/key", "docker/tls/ca", "link/key"] {
        let mut keys = whole();
        keys.set(&format!("guestinfo.vice./init/{key}"), format!("{MARK}!"));
        let error = read(&keys).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("guestinfo guestinfo.vice./init/{key}: \"...\" is not ")),
            "{error}"
        );
        assert!(!format!("{error:?}").contains(MARK));
    }
}

mod networks {
    use super::super::{Role, SpecError};
    use super::{from, refused};

    type Shown = Vec<(String, Vec<Role>, bool)>;

    fn networks(given: &[(&str, &str)]) -> Result<Shown, SpecError> {
        let networks = from(given)?.networks.into_iter();
        Ok(networks.map(|network| (network.endpoint.name, network.roles, network.endpoint.default)).collect())
    }

    const ONE: &str = "52:54:00:00:00:01";
    const TWO: &str = "52:54:00:00:00:02";

    #[test]
    fn one_card_has_every_role_but_the_bridge() {
        let every = vec![Role::Public, Role::Client, Role::Management];
        assert_eq!(
            networks(&[("networks", "lan"), ("networks|lan/mac", ONE)]).unwrap(),
            [("lan".into(), every.clone(), true)]
        );
        // as VIC's installer wrote it when it was given one port group
        for (key, value) in [("ip/IP", "CgAAAg=="), ("static", "false")] {
            let mut given = vec![("networks", "client|management|public")];
            for name in ["client", "management", "public"] {
                let path = |key: &str| -> &'static str { format!("networks|{name}/{key}").leak() };
                given.extend([(path("mac"), ONE), (path(key), value), (path("ip/Mask"), "////AA==")]);
            }
            let found = networks(&given).unwrap();
            assert_eq!(found, [("client".into(), vec![Role::Client, Role::Management, Role::Public], true)]);
        }
    }

    #[test]
    fn the_public_network_leads_to_the_world() {
        let given = [
            ("networks", "client|public"),
            ("networks|client/mac", ONE),
            ("networks|client/addresses~json", "[\"10.0.0.2/24\"]"),
            ("networks|public/mac", TWO),
        ];
        let found = networks(&given).unwrap();
        assert_eq!(
            found,
            [
                ("client".into(), vec![Role::Client], false),
                ("public".into(), vec![Role::Public, Role::Management], true)
            ]
        );
        let own = [&given[..], &[("networks|public/network/default", "false")]].concat();
        assert!(networks(&own).unwrap().iter().all(|(_, _, default)| !default));
    }

    #[test]
    fn roles_are_given_by_name_or_by_key() {
        let given = [
            ("networks", "front|back|inner"),
            ("networks|front/mac", ONE),
            ("networks|front/roles~json", "[\"client\",\"public\"]"),
            ("networks|back/mac", TWO),
            ("networks|back/roles~json", "[\"management\"]"),
            ("networks|inner/Common/id", "224"),
            ("networks|inner/addresses~json", "[\"172.16.0.1/16\"]"),
            ("networks|inner/roles~json", "[\"bridge\"]"),
        ];
        let roles: Vec<Vec<Role>> = networks(&given).unwrap().into_iter().map(|(_, roles, _)| roles).collect();
        assert_eq!(roles, [vec![Role::Client, Role::Public], vec![Role::Management], vec![Role::Bridge]]);
        let wrong = |list| [&given[..], &[("networks|inner/roles~json", list)]].concat();
        refused(
            &wrong("[\"bridge\",\"client\"]"),
            "guestinfo networks|inner/roles: \"bridge, client\" is not possible: containers on a bridge share it with nobody else",
        );
        refused(
            &wrong("[\"dmz\"]"),
            "guestinfo networks|inner/roles: \"dmz\" is not `client`, `management`, `public` or `bridge`",
        );
        refused(
            &[("networks", "bridge"), ("networks|bridge/mac", ONE)],
            "guestinfo networks: \"bridge\" is not enough: all are bridges, and clients are on none",
        );
    }

    #[test]
    fn two_addresses_on_one_card_are_two_networks() {
        let given = [
            ("networks", "client|management"),
            ("networks|client/mac", ONE),
            ("networks|client/addresses~json", "[\"10.0.0.2/24\"]"),
            ("networks|management/mac", ONE),
            ("networks|management/addresses~json", "[\"10.0.1.2/24\"]"),
        ];
        assert_eq!(networks(&given).unwrap().len(), 2);
        let same = [
            &given[..],
            &[("networks|management/mac", TWO), ("networks|management/addresses~json", "[\"10.0.0.2/24\"]")],
        ]
        .concat();
        refused(&same, "guestinfo networks|management/addresses: \"10.0.0.2\" is not free: another network has it");
    }
}
