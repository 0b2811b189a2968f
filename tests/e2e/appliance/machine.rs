//! The appliance as a machine: its networks and names, what is open and what is not, how it ends, and what it says when it was told nothing, or nonsense.
//!
//! In the place of `vch` is a script that says on the console how it finds the machine, so that nothing here depends on what is served.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use rig::artifacts;
use rig::host::PATIENCE;
use rig::images::run;
use rig::machine::{Machine, Powered, script};
use rig::vmware::{Vmware, shim};
use wire::spec::LinkDevice;
use wire::status::{MachineState, Status};
use wire::vmx::Dictionary;

const VCH: &str = include_str!("vch.sh");
const MAC: &str = "52:54:00:00:00:01";
const OTHER: &str = "52:54:00:00:00:02";
const INIT: &str = "guestinfo.vice./init/";

/// Made once a run of the tests: `init` is PID 1.
fn initramfs(init: &Path, name: &str) -> PathBuf {
    let target = artifacts::root().join("target");
    let (vch, made) = (target.join(format!("{name}.sh")), target.join(name));
    fs::write(&vch, VCH).expect("a file");
    Command::new("chmod").arg("+x").arg(&vch).status().expect("chmod");
    let found = Command::new("sh").args(["-c", "command -v busybox"]).output().expect("sh").stdout;
    let busybox = String::from_utf8(found).expect("a path");
    let mut command = Command::new(artifacts::program("iso-builder"));
    command.arg("initramfs").arg("--init").arg(init).arg("-o").arg(&made);
    command.args(["--add", &format!("{}:/bin/vch", vch.display())]);
    command.args(["--add", &format!("{}:/bin/busybox", busybox.trim())]);
    run(&mut command);
    made
}

fn keys(keys: &[(&str, &str)]) -> String {
    let mut dictionary = Dictionary::default();
    for (key, value) in keys {
        dictionary.set(&format!("{INIT}{key}"), *value);
    }
    dictionary.to_string()
}

/// An appliance that is told this much, or nothing.
fn appliance(guestinfo: Option<String>) -> Machine {
    static INITRAMFS: OnceLock<PathBuf> = OnceLock::new();
    let initramfs =
        INITRAMFS.get_or_init(|| initramfs(&artifacts::program("appliance-init"), "appliance.initramfs")).clone();
    Machine { initramfs, guestinfo, ..Machine::new(&script(LinkDevice::Serial, ""), None) }
}

/// QEMU's own network; each of these ports of the guest is reached at a port of this host's, in their order.
fn card(machine: &mut Machine, mac: &str, name: &str, ports: &[u16]) -> Vec<u16> {
    // held together, so that none is given twice
    let held: Vec<TcpListener> = ports.iter().map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let own: Vec<u16> = held.iter().map(|listener| listener.local_addr().expect("a port").port()).collect();
    let forwards: String =
        own.iter().zip(ports).map(|(own, port)| format!(",hostfwd=tcp:127.0.0.1:{own}-10.0.2.15:{port}")).collect();
    machine.extra.extend(
        ["-netdev", &format!("user,id={name}{forwards}"), "-device"]
            .map(String::from)
            .into_iter()
            .chain([format!("virtio-net-pci,netdev={name},mac={mac},romfile=")]),
    );
    own
}

/// A connection that QEMU has taken, and passes on to the guest.
struct Probe(TcpStream);

impl Probe {
    fn new(port: u16) -> Probe {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("QEMU takes it");
        Probe(stream)
    }

    /// The guest has said that nobody listens, which it does only where its firewall lets the question in.
    fn is_answered(&mut self, within: Duration) -> bool {
        self.0.set_read_timeout(Some(within)).expect("a socket");
        match self.0.read(&mut [0]) {
            Ok(0) => true,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            other => panic!("{other:?}"),
        }
    }
}

/// Asks at the closed ports first, so that by the time that the open ones have answered, they would have.
fn assert_open(powered: &Powered, open: &[u16], closed: &[u16]) {
    let probes = |ports: &[u16]| ports.iter().map(|port| Probe::new(*port)).collect::<Vec<_>>();
    let mut silent = probes(closed);
    for (at, mut probe) in probes(open).into_iter().enumerate() {
        assert!(probe.is_answered(PATIENCE), "open port {at} does not answer: {}", powered.console());
    }
    for (at, probe) in silent.iter_mut().enumerate() {
        assert!(!probe.is_answered(Duration::from_millis(1)), "closed port {at} answers: {}", powered.console());
    }
}

/// What the console says behind `vch: NAME `.
fn fact(powered: &Powered, name: &str) -> String {
    powered.wait_for_console("vch: that is all");
    let console = powered.console();
    let begin = format!("vch: {name} ");
    let found = console.lines().find_map(|line| line.split_once(&begin));
    found.unwrap_or_else(|| panic!("no {name}: {console}")).1.to_owned()
}

fn go_down(powered: &mut Powered) {
    powered.press_power_button();
    powered.wait();
    let console = powered.console();
    assert!(console.contains("the power button was pressed"), "{console}");
}

#[test]
fn an_appliance_that_is_told_nothing_asks_for_an_address_says_what_it_lacks_and_serves_no_api() {
    let mut machine = appliance(None);
    let ports = card(&mut machine, MAC, "user", &[8080, 2377, 2378, 2375, 2376, 22, 80]);
    let mut powered = machine.power_on();
    assert_eq!(fact(&powered, "addresses"), "127.0.0.1/8 10.0.2.15/24");
    assert_eq!(fact(&powered, "name"), "vch");
    assert_eq!(fact(&powered, "resolv"), "nameserver 10.0.2.3");
    let routes = fact(&powered, "routes");
    assert!(routes.starts_with("default via 10.0.2.2 dev eth0"), "{routes}");
    for role in ["client", "management", "public"] {
        assert_eq!(fact(&powered, role), "10.0.2.15", "{role}");
    }
    assert_eq!(fact(&powered, "bridge"), "");
    assert_eq!(fact(&powered, "net/ipv4/ip_forward"), "0");
    let console = powered.console();
    assert!(console.contains("there is no configuration: the first card asks for an address by DHCP"), "{console}");
    assert!(!fact(&powered, "arguments").contains(":2375"), "{console}");
    assert_open(&powered, &ports[..3], &ports[3..]);
    go_down(&mut powered);
    assert!(powered.console().contains("vch: it is asked to stop"), "{}", powered.console());
}

#[test]
fn addresses_that_are_set_and_roles_that_share_a_card_are_as_they_were_asked_for() {
    let mut machine = appliance(Some(keys(&[
        ("hostname", "front"),
        ("domainname", "example.org"),
        ("docker/insecure", "true"),
        ("status/port", "0"),
        ("names/hosts~json", "[\"192.0.2.9 registry\"]"),
        ("networks", "client|management|public|bridge"),
        ("networks|client/mac", MAC),
        ("networks|client/addresses~json", "[\"10.0.2.15/24\"]"),
        ("networks|client/gateways~json", "[\"10.0.2.2\"]"),
        ("networks|client/dns~json", "[\"10.0.2.3\"]"),
        ("networks|management/mac", MAC),
        ("networks|management/addresses~json", "[\"10.0.3.15/24\"]"),
        ("networks|public/mac", MAC),
        ("networks|bridge/mac", OTHER),
        ("networks|bridge/addresses~json", "[\"172.16.0.1/16\"]"),
    ])));
    let ports = card(&mut machine, MAC, "user", &[2375, 8080, 2377, 2376, 2378, 22]);
    card(&mut machine, OTHER, "bridge", &[]);
    let mut powered = machine.power_on();
    assert_eq!(fact(&powered, "name"), "front");
    assert_eq!(fact(&powered, "client"), "10.0.2.15");
    assert_eq!(fact(&powered, "management"), "10.0.3.15");
    assert_eq!(fact(&powered, "bridge"), "172.16.0.1");
    assert_eq!(fact(&powered, "public"), "10.0.2.15");
    assert_eq!(fact(&powered, "resolv"), "nameserver 10.0.2.3");
    assert_eq!(fact(&powered, "whole"), "front.example.org");
    for (name, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/tcp_syncookies", "1"),
        ("net/ipv4/conf/all/rp_filter", "1"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/eth0/accept_redirects", "0"),
        ("net/ipv4/conf/eth1/send_redirects", "0"),
    ] {
        assert_eq!(fact(&powered, name), value, "{name}");
    }
    assert_open(&powered, &ports[..3], &ports[3..]);
    go_down(&mut powered);
}

#[test]
fn a_configuration_that_cannot_be_read_leaves_a_closed_machine_that_says_why() {
    let mut machine = appliance(Some(keys(&[("hostname", "front"), ("link/port", "pigeon")])));
    card(&mut machine, MAC, "user", &[]);
    let mut powered = machine.power_on();
    let reason = "guestinfo guestinfo.vice./init/link/port: \"pigeon\" is not a port from 1 to 65535, or 0 for none";
    powered.wait_for_console(reason);
    go_down(&mut powered);
    let console = powered.console();
    assert!(console.contains("nothing is served") && !console.contains("vch has started"), "{console}");
}

const STATUS: &str = "rpci info-set guestinfo.vice..init.status ";

fn statuses(vmware: &Vmware) -> Vec<Status> {
    let unescape = |text: &str| text.replace("\\\"", "\"").replace("\\\\", "\\");
    let texts = vmware.lines().into_iter().filter_map(|line| line.strip_prefix(STATUS).map(unescape));
    texts.map(|text| rig::host::status(&text)).collect()
}

fn on_vmware(vmware: &Vmware) -> Machine {
    static INITRAMFS: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let init = artifacts::root().join("target/appliance.double.init");
        shim("appliance-init", &init);
        initramfs(&init, "appliance.double.initramfs")
    };
    let initramfs = INITRAMFS.get_or_init(make).clone();
    vmware.plug(Machine { initramfs, ..Machine::new(&script(LinkDevice::Serial, ""), None) })
}

#[test]
fn vcenter_believes_in_its_tools_sees_its_address_and_shuts_it_down() {
    let mut vmware = Vmware::empty();
    vmware.option(&["--info", &format!("{INIT}hostname=front")]);
    let mut machine = on_vmware(&vmware);
    card(&mut machine, MAC, "user", &[]);
    let mut powered = machine.power_on();
    powered.wait_for_console("vch: that is all");
    vmware.order("tclo reset");
    vmware.wait_for("an answer", |line| line == "tclo OK ATR toolbox");
    vmware.order("tclo Capabilities_Register");
    vmware.wait_for("a version", |line| line.starts_with("rpci tools.set.version "));
    vmware.wait_for("a name", |line| line == "rpci SetGuestInfo  1 front");
    vmware.order("tclo Set_Option broadcastIP 1");
    vmware.wait_for("an address", |line| line == "rpci info-set guestinfo.ip 10.0.2.15");
    let told = statuses(&vmware);
    assert_eq!(told[0].networks["client"].addresses, ["10.0.2.15/24"], "{told:?}");
    assert_eq!(told[0].state, MachineState::Running);
    vmware.order("tclo OS_Halt");
    vmware.wait_for("a state", |line| line == "rpci tools.os.statechange.status 1 1");
    powered.wait();
    assert!(powered.console().contains("vch: it is asked to stop"), "{}", powered.console());
    assert_eq!(statuses(&vmware).pop().map(|status| status.state), Some(MachineState::Stopping));
}

#[test]
fn certificates_and_keys_come_by_guestinfo_and_are_shown_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let certs = ["certs", &dir.path().display().to_string(), "--san", "front"].map(str::to_owned);
    run(Command::new(artifacts::program("vch")).args(certs));
    let mut vmware = Vmware::empty();
    let mut secrets = vec!["c0ffee".repeat(11)[..64].to_owned()];
    vmware.option(&["--info", &format!("{INIT}link/key={}", secrets[0])]);
    for (key, file) in [("cert", "server-cert.pem"), ("key", "server-key.pem"), ("ca", "ca.pem")] {
        let text = wire::guestinfo::base64::encode(&fs::read(dir.path().join(file)).unwrap());
        vmware.option(&["--info", &format!("{INIT}docker/tls/{key}={text}")]);
        if key == "key" {
            secrets.push(text);
        }
    }
    let mut machine = on_vmware(&vmware);
    card(&mut machine, MAC, "user", &[]);
    let mut powered = machine.power_on();
    let arguments = fact(&powered, "arguments");
    for part in ["--tlsverify", "--host tcp://0.0.0.0:2376", "--master-key /run/secrets/"] {
        assert!(arguments.contains(part), "{part} is not in {arguments}");
    }
    go_down(&mut powered);
    let console = powered.console();
    assert!(secrets.iter().all(|secret| !console.contains(&secret[..32])), "{console}");
}

#[test]
fn vcenter_is_told_why_nothing_is_served() {
    let mut vmware = Vmware::empty();
    vmware.option(&["--info", &format!("{INIT}docker/port=0")]);
    let mut powered = on_vmware(&vmware).power_on();
    vmware.wait_for("a status", |line| line.starts_with(STATUS));
    let told = statuses(&vmware);
    let reason = told[0].failure.as_ref().map(|failure| failure.reason.clone()).unwrap_or_default();
    assert!(told[0].state == MachineState::Failed && reason.contains("init/docker/port"), "{told:?}");
    powered.press_power_button();
    powered.wait();
}
