//! Docker inspect of a container that this host makes: what was asked for, with the image's configuration and docker's defaults in it.
//!
//! It decides nothing: the request is shown as it was written down at docker create.

use bollard_stubs::models::{ContainerCreateBody, HostConfig};
use serde_json::{Value, json};
use wire::spec::SHM_SIZE;

use super::absent;
use crate::ids::short;
use crate::maker::Made;

/// `Config`.
pub(super) fn config(id: &str, made: &Made) -> Value {
    let ContainerCreateBody {
        hostname,
        domainname,
        user,
        attach_stdin,
        attach_stdout,
        attach_stderr,
        exposed_ports,
        tty,
        open_stdin,
        stdin_once,
        env,
        cmd,
        healthcheck,
        image,
        volumes,
        working_dir,
        entrypoint,
        network_disabled,
        mac_address,
        on_build,
        labels,
        stop_signal,
        stop_timeout,
        shell,
        args_escaped: _,
        host_config: _,
        networking_config: _,
    } = &made.asked;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let flag = |flag: &Option<bool>| flag.unwrap_or_default();
    let mut config = json!({
        "Hostname": hostname.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| short(id).to_owned()),
        "Domainname": text(domainname),
        "User": text(user),
        "AttachStdin": flag(attach_stdin),
        "AttachStdout": flag(attach_stdout),
        "AttachStderr": flag(attach_stderr),
        "Tty": flag(tty),
        "OpenStdin": flag(open_stdin),
        "StdinOnce": flag(stdin_once),
        "Env": env.clone().unwrap_or_default(),
        "Cmd": cmd,
        "Image": text(image),
        "Volumes": volumes.as_ref().filter(|volumes| !volumes.is_empty()),
        "WorkingDir": text(working_dir),
        "Entrypoint": entrypoint,
        "OnBuild": on_build,
        "Labels": labels.clone().unwrap_or_default(),
    });
    // what docker leaves out where it is empty
    let more = [
        ("ExposedPorts", exposed_ports.as_ref().filter(|ports| !ports.is_empty()).map(|ports| json!(ports))),
        ("Healthcheck", healthcheck.as_ref().map(|check| json!(check))),
        ("StopSignal", stop_signal.as_ref().filter(|signal| !signal.is_empty()).map(|signal| json!(signal))),
        ("StopTimeout", stop_timeout.map(Value::from)),
        ("Shell", shell.as_ref().filter(|shell| !shell.is_empty()).map(|shell| json!(shell))),
        ("NetworkDisabled", network_disabled.filter(|disabled| *disabled).map(Value::from)),
        ("MacAddress", mac_address.as_ref().filter(|address| !address.is_empty()).map(|address| json!(address))),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            config[name] = value;
        }
    }
    config
}

/// `HostConfig`.
pub(super) fn host_config(made: &Made) -> Value {
    let asked = made.asked.host_config.clone().unwrap_or_default();
    let mut config = absent();
    let more = defaults(&asked);
    let asked = serde_json::to_value(asked).unwrap_or_default();
    if let Value::Object(all) = &mut config {
        for fields in [more, asked] {
            let Value::Object(fields) = fields else { continue };
            all.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
        }
    }
    // a list that is not there is none, and one that is empty is shown so
    for name in ["CapAdd", "CapDrop", "ExtraHosts", "GroupAdd", "SecurityOpt", "PidsLimit"] {
        if let Value::Object(all) = &mut config {
            all.entry(name).or_insert(Value::Null);
        }
    }
    config
}

/// What a request of few words leaves out, and is no default of [`absent`].
fn defaults(asked: &HostConfig) -> Value {
    json!({
        "PortBindings": asked.port_bindings.clone().unwrap_or_default(),
        "LogConfig": { "Type": "json-file", "Config": {} },
        "ShmSize": SHM_SIZE,
        "Dns": [],
        "DnsOptions": [],
        "DnsSearch": [],
        "Ulimits": [],
        "OomScoreAdj": 0,
        "ReadonlyRootfs": false,
    })
}
