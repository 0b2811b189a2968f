//! Which services there are, and how they are started: what follows from the spec, and from what the medium and the machine have.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guest::sys::spawn::{Executable, Program};
use nix::unistd::{Gid, Uid};
use wire::appliance::ApplianceSpec;
use wire::spec::{ALL_CAPABILITIES, Capabilities, Process, Restart, Rights, SIGTERM, VSOCK_PORT};

use super::{Service, Terms};

/// Where things lie in the appliance.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The socket of sd_notify(3).
    pub(crate) notify: PathBuf,
    /// Certificates and keys, as `secrets` writes them.
    pub(crate) secrets: PathBuf,
    /// What `vch` keeps: on the data disk, if there is one.
    pub(crate) state: PathBuf,
    /// The terminal of the debugging shell, if there is to be one and the medium has it.
    pub(crate) shell: Option<PathBuf>,
}

/// The appliance's own program, on its medium.
const VCH: &str = "/bin/vch";
/// A medium that was made for debugging has it.
pub(crate) const BUSYBOX: &str = "/bin/busybox";
/// Programs find what media bring.
const PATH: &str = "PATH=/bin:/sbin:/usr/bin:/usr/sbin";
/// A machine without hardware support, and with ten VMs that come back at once, is slow.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long `vch` has to end: it only has to close what it has.
const GRACE: Duration = Duration::from_secs(10);

/// All of them, in the order in which they start: the shell first, for when the others do not come up.
pub(crate) fn services(spec: &ApplianceSpec, places: &Places) -> Result<Vec<Service>, String> {
    let mut services = Vec::new();
    if let Some(terminal) = &places.shell {
        services.push(shell(terminal)?);
    }
    services.push(vch(spec, places)?);
    for (name, process) in &spec.services {
        services.push(other(name, process)?);
    }
    Ok(services)
}

fn shell(terminal: &Path) -> Result<Service, String> {
    let argv = ["busybox", "sh", "-l"].map(str::to_owned);
    let mut program = program(BUSYBOX, &argv, &["HOME=/".into(), "TERM=linux".into()], "/")?;
    program.rights.capabilities = Capabilities { bounding: ALL_CAPABILITIES, ..Capabilities::default() };
    let terms = Terms {
        readiness: None,
        watchdog: None,
        restart: Restart::Always,
        // shells take no SIGTERM
        stop_signal: 9,
        grace: None,
    };
    Ok(Service { name: "shell".into(), program, terms, terminal: Some(terminal.into()) })
}

fn vch(spec: &ApplianceSpec, places: &Places) -> Result<Service, String> {
    let env = [
        format!("NOTIFY_SOCKET={}", places.notify.display()),
        format!("WATCHDOG_USEC={}", spec.watchdog.as_micros()),
        "HOME=/".into(),
    ];
    let terms = Terms {
        readiness: Some(READY_WITHIN),
        watchdog: Some(spec.watchdog),
        restart: Restart::Always,
        stop_signal: SIGTERM,
        grace: Some(GRACE),
    };
    let program = program(VCH, &arguments(spec, places), &env, "/")?;
    Ok(Service { name: "vch".into(), program, terms, terminal: None })
}

/// What `vch` is started with, its own name first.
pub(crate) fn arguments(spec: &ApplianceSpec, places: &Places) -> Vec<String> {
    let mut args: Vec<String> = ["vch", "serve", "--hypervisor", "none"].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: String| args.extend([format!("--{name}"), value]);
    let secret = |name: &str| places.secrets.join(name).display().to_string();
    option("state", places.state.display().to_string());
    option("host", "unix:///run/vch.sock".into());
    if let Some(docker) = &spec.docker {
        option("host", format!("tcp://0.0.0.0:{}", docker.port));
    }
    if let Some(port) = spec.links.raw {
        option("link-listen", format!("tcp://0.0.0.0:{port}"));
    }
    if let Some(port) = spec.links.concentrator {
        option("link-listen", format!("vspc://0.0.0.0:{port}"));
    }
    if spec.links.vsock {
        option("link-listen", format!("vsock://{VSOCK_PORT}"));
    }
    if let Some(port) = spec.status {
        option("status", format!("tcp://0.0.0.0:{port}"));
    }
    if spec.links.key.is_some() {
        option("master-key", secret(super::super::secrets::MASTER_KEY));
    }
    if let Some(bytes) = spec.logs.output {
        option("log-limit", bytes.to_string());
    }
    if let Some(tls) = spec.docker.as_ref().and_then(|docker| docker.tls.as_ref()) {
        option("tlscert", secret(super::super::secrets::CERTIFICATE));
        option("tlskey", secret(super::super::secrets::KEY));
        if tls.clients.is_some() {
            option("tlscacert", secret(super::super::secrets::CLIENTS));
        }
        args.push(if tls.clients.is_some() { "--tlsverify".into() } else { "--tls".into() });
    }
    args
}

fn other(name: &str, process: &Process) -> Result<Service, String> {
    let mut program = program(&process.argv[0], &process.argv, &process.env.0, &process.dir)
        .map_err(|reason| format!("{name}: {reason}"))?;
    (program.uid, program.gid) = account(&process.user).map_err(|reason| format!("{name}: {reason}"))?;
    program.groups = vec![program.gid];
    program.rights = process.rights.clone();
    let terms = Terms {
        readiness: None,
        watchdog: None,
        restart: process.restart,
        stop_signal: process.stop_signal,
        grace: process.stop_timeout,
    };
    Ok(Service { name: name.to_owned(), program, terms, terminal: None })
}

/// The appliance has no users but root; numbers need none.
fn account(user: &str) -> Result<(Uid, Gid), String> {
    let number = |text: &str| match text {
        "" | "root" => Some(0),
        text => text.parse().ok(),
    };
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    match (number(user), number(group)) {
        (Some(uid), Some(gid)) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
        _ => Err(format!("the appliance has no user {user:?} of group {group:?}: give numbers")),
    }
}

fn program(path: &str, argv: &[String], env: &[String], dir: &str) -> Result<Program, String> {
    let text = |text: &str| CString::new(text).map_err(|_| format!("{text:?} holds a zero byte"));
    let has_path = env.iter().any(|entry| entry.starts_with("PATH="));
    let executable = if path.contains('/') {
        Executable::At(text(path)?)
    } else {
        let env_path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
        let places = env_path.unwrap_or(&PATH["PATH=".len()..]).split(':').filter(|place| place.starts_with('/'));
        Executable::InPath(places.map(|place| text(&format!("{place}/{path}"))).collect::<Result<_, _>>()?)
    };
    let usual = if has_path { None } else { Some(PATH) };
    Ok(Program {
        executable,
        argv: argv.iter().map(|arg| text(arg)).collect::<Result<_, _>>()?,
        env: usual.into_iter().chain(env.iter().map(String::as_str)).map(text).collect::<Result<_, _>>()?,
        dir: text(dir)?,
        uid: Uid::from_raw(0),
        gid: Gid::from_raw(0),
        groups: vec![Gid::from_raw(0)],
        rights: Rights::default(),
        fence: None,
    })
}

#[cfg(test)]
mod tests {
    use wire::appliance;
    use wire::vmx::Dictionary;

    use super::*;

    fn spec(keys: &[(&str, &str)]) -> ApplianceSpec {
        let mut dictionary = Dictionary::default();
        keys.iter().for_each(|(key, value)| dictionary.set(&format!("guestinfo.vice./init/{key}"), *value));
        appliance::read(&dictionary).unwrap()
    }

    fn places() -> Places {
        Places {
            notify: "/run/notify".into(),
            secrets: "/run/vch".into(),
            state: "/data/vch".into(),
            shell: Some("/dev/console".into()),
        }
    }

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nBgcI\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nBgcI\n-----END PRIVATE KEY-----\n";

    #[test]
    fn an_appliance_that_is_told_nothing_takes_links() {
        assert_eq!(
            arguments(&spec(&[]), &places()).join(" "),
            "vch serve --hypervisor none --state /data/vch --host unix:///run/vch.sock --link-listen tcp://0.0.0.0:8080 \
             --link-listen vspc://0.0.0.0:2377 --status tcp://0.0.0.0:2378"
        );
    }

    #[test]
    fn what_is_told_is_passed_on_and_secrets_by_their_files() {
        let key = "a7".repeat(32);
        let every = spec(&[
            ("docker/tls/cert", PEM),
            ("docker/tls/key", KEY),
            ("docker/tls/ca", PEM),
            ("link/key", &key),
            ("link/port", "0"),
            ("link/vsock", "true"),
            ("vspc/port", "13370"),
            ("status/port", "0"),
            ("log/output", "5m"),
        ]);
        let line = arguments(&every, &places()).join(" ");
        assert_eq!(
            line,
            "vch serve --hypervisor none --state /data/vch --host unix:///run/vch.sock --host tcp://0.0.0.0:2376 \
             --link-listen vspc://0.0.0.0:13370 --link-listen vsock://29797 --master-key /run/vch/master.key \
             --log-limit 5242880 --tlscert /run/vch/cert.pem --tlskey /run/vch/key.pem --tlscacert /run/vch/ca.pem --tlsverify"
        );
        let open = spec(&[("docker/tls/cert", PEM), ("docker/tls/key", KEY), ("docker/tls/verify", "false")]);
        let line = arguments(&open, &places()).join(" ");
        assert!(line.ends_with("--tlscert /run/vch/cert.pem --tlskey /run/vch/key.pem --tls"), "{line}");
        let plain = arguments(&spec(&[("docker/insecure", "true")]), &places()).join(" ");
        assert!(plain.contains("--host tcp://0.0.0.0:2375 ") && !plain.contains("--tls"), "{plain}");
    }

    #[test]
    fn the_shell_comes_first_and_others_last() {
        let spec = spec(&[
            ("sessions", "watch"),
            ("sessions|watch/cmd/Path", "busybox"),
            ("sessions|watch/cmd/Args~json", "[\"busybox\", \"top\"]"),
            ("sessions|watch/User", "7"),
            ("sessions|watch/restart", "always"),
        ]);
        let list = services(&spec, &places()).unwrap();
        let names: Vec<&str> = list.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["shell", "vch", "watch"]);
        let env: Vec<&str> = list[1].program.env.iter().map(|entry| entry.to_str().unwrap()).collect();
        assert_eq!(env, [PATH, "NOTIFY_SOCKET=/run/notify", "WATCHDOG_USEC=30000000", "HOME=/"]);
        let watch = &list[2];
        assert_eq!((watch.program.uid.as_raw(), watch.program.gid.as_raw()), (7, 0));
        let Executable::InPath(found) = &watch.program.executable else { panic!("{watch:?}") };
        assert_eq!(found[0].to_str(), Ok("/bin/busybox"));
        assert_eq!(watch.terms.restart, Restart::Always);
        let alone = services(&spec, &Places { shell: None, ..places() }).unwrap();
        assert_eq!(alone[0].name, "vch");
    }

    #[test]
    fn a_user_that_nobody_knows_is_named() {
        let spec = spec(&[("sessions", "a"), ("sessions|a/cmd/Path", "x"), ("sessions|a/User", "www")]);
        let reason = services(&spec, &places()).unwrap_err();
        assert_eq!(reason, "a: the appliance has no user \"www\" of group \"\": give numbers");
    }
}
