//! What `vch run` means for an image: docker's rules for its options, and the spec, the disks and the network card that follow.
//!
//! Everything here is a function of its arguments. Where files lie and how QEMU is started is decided elsewhere.

mod about;
mod disks;
mod machine;
mod network;
mod process;

use std::collections::BTreeMap;

use iso_builder::oci::Healthcheck;
use wire::handshake::LinkKey;
use wire::spec::{LinkDevice, LinkSpec, Root, SPEED, Spec, TermSize};

pub use about::about;
pub use disks::{MOST_MOUNTS, TOP_SERIAL, Volume};
pub use network::Card;
pub(crate) use network::HOST;
pub use process::{capabilities, env_file, resolve};

use crate::cli::{ContainerArgs, LinkKind};
use crate::ids;

/// The configuration that an image brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub working_dir: String,
    pub user: String,
    pub stop_signal: Option<String>,
    /// Where it wants volumes.
    pub volumes: Vec<String>,
    /// Where it listens: `80/tcp`.
    pub exposed_ports: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub healthcheck: Option<Healthcheck>,
}

/// What is asked for, and what was found out about it before.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub id: &'a str,
    pub args: &'a ContainerArgs,
    pub link: LinkKind,
    /// Nothing of it is to last: it has no log either.
    pub transient: bool,
    /// The assignments of `--env-file` and `-e`, in order; one without `=` takes the variable away.
    pub variables: &'a [String],
    /// The filter of `--security-opt seccomp=FILE`, as seccomp(2) takes it.
    pub seccomp: Option<&'a [u8]>,
    /// The serial numbers of the disks of the image's layers, the lowest first; none where all is on one disk.
    pub layers: &'a [String],
    /// Of the host's terminal.
    pub size: Option<TermSize>,
}

/// What is to be made and run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub spec: Spec,
    /// The disks that its mounts are on.
    pub volumes: Vec<Volume>,
    /// The network card, if it has one.
    pub card: Option<Card>,
}

/// Why a request cannot be met.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("no command specified: the image names none, so name one after IMAGE")]
    NoCommand,
    #[error("invalid environment variable: {0:?} has no name")]
    NoVariableName(String),
    #[error("the working directory {0:?} is invalid: it needs to be an absolute path")]
    RelativeDir(String),
    #[error("invalid host name {0:?}: letters, digits, `-` and `.`, at most 63 of them")]
    HostName(String),
    #[error("the image's stop signal {0:?} is no signal")]
    StopSignal(String),
    #[error(
        "the image's health check begins with {0:?}: there are NONE, CMD and CMD-SHELL (--no-healthcheck does without it)"
    )]
    Healthcheck(String),
    #[error("duplicate mount point: {0}")]
    SameMount(String),
    #[error("{0} mounts: a virtual machine can have {MOST_MOUNTS}")]
    ManyMounts(usize),
    #[error("the image wants a volume at {0:?}, where none can be")]
    ImageVolume(String),
    #[error("--publish needs a network: leave out --network none")]
    NoNetwork,
    #[error("conflicting options: --restart and --rm (docker refuses both at once, too)")]
    RestartAndRm,
    #[error("--log-driver syslog needs --log-opt syslog-address=tcp://IP[:PORT] or udp://IP[:PORT]; {0}")]
    SyslogAddress(String),
    #[error("--log-opt is for --log-driver syslog")]
    LogOption,
}

/// Plans a container.
pub fn plan(key: LinkKey, asked: Asked<'_>, image: &ImageConfig) -> Result<Plan, PlanError> {
    let Asked { id, args, link, transient, .. } = asked;
    let hostname = args.network.hostname.clone();
    let names = hostname.iter().chain(&args.network.domainname);
    if let Some(name) = names.clone().find(|name| !is_hostname(name)) {
        return Err(PlanError::HostName(name.clone()));
    }
    let shown = hostname.as_deref().unwrap_or(ids::short(id));
    // a serial line may lead anywhere; virtio and vsock end in the host's kernel or in a process of ours
    let link = match link {
        LinkKind::Virtio => LinkSpec { device: LinkDevice::Virtio, key, sealed: false, speed: SPEED },
        LinkKind::Serial => LinkSpec { device: LinkDevice::Serial, key, sealed: true, speed: SPEED },
        LinkKind::Vsock => LinkSpec { device: LinkDevice::Vsock, key, sealed: false, speed: SPEED },
    };
    let main = process::process(&asked, image, shown)?;
    if transient && main.restart != wire::spec::Restart::No {
        return Err(PlanError::RestartAndRm);
    }
    let (mounts, volumes) = disks::mounts(&args.disks, &image.volumes)?;
    let (endpoint, card) = network::network(id, &args.network)?.unzip();
    let spec = Spec {
        log: machine::log(&args.machine, transient),
        root: Root { read_only: args.disks.read_only, ..disks::root(asked.layers) },
        mounts,
        networks: endpoint.into_iter().collect(),
        names: network::names(&args.network),
        machine: machine::machine(&args.machine),
        diagnostics: machine::diagnostics(&args.machine, args.network.network)?,
        domain: args.network.domainname.clone(),
        hostname,
        ..Spec::new(id, link, main)
    };
    Ok(Plan { spec, volumes, card })
}

fn is_hostname(name: &str) -> bool {
    let legal = name.chars().all(|char| char.is_ascii_alphanumeric() || "-._".contains(char));
    legal && (1..=63).contains(&name.len()) && !name.starts_with(['-', '.'])
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, RunArgs};

    pub(super) const ID: &str = "0123456789abcdef";

    pub(super) fn image() -> ImageConfig {
        ImageConfig {
            env: vec!["PATH=/bin".into(), "LANG=C".into()],
            entrypoint: vec!["/init".into(), "-v".into()],
            cmd: vec!["serve".into()],
            working_dir: "srv".into(),
            user: "www".into(),
            stop_signal: Some("SIGQUIT".into()),
            ..ImageConfig::default()
        }
    }

    pub(super) fn plan(line: &str, image: &ImageConfig) -> Result<Plan, PlanError> {
        let parsed = Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"));
        let Command::Run(args) = parsed.command else { panic!("{line}") };
        let RunArgs { container: args, link, rm, .. } = *args;
        let variables: Vec<String> = args.env.iter().map(|entry| resolve(entry, |_| None)).collect::<Result<_, _>>()?;
        let asked = Asked {
            id: ID,
            args: &args,
            link,
            transient: rm,
            variables: &variables,
            seccomp: None,
            layers: &[],
            size: None,
        };
        super::plan(LinkKey::new([5; 32]), asked, image)
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let error = |line: &str| plan(line, &image()).unwrap_err();
        assert_eq!(error("vch run --rm --restart always img"), PlanError::RestartAndRm);
        assert_eq!(error("vch run --network none -p 80:80 img"), PlanError::NoNetwork);
        assert_eq!(error("vch run --domainname a/b img"), PlanError::HostName("a/b".into()));
        let spec = plan("vch run -h web --domainname example.org img", &image()).unwrap().spec;
        assert_eq!((spec.hostname.as_deref(), spec.domain.as_deref()), (Some("web"), Some("example.org")));
    }

    /// Whatever is planned can be read by the guest.
    #[test]
    fn a_plan_survives_the_keys() {
        let spec = plan("vch run -i -h web img", &image()).unwrap().spec;
        let read = wire::guestinfo::read(&wire::guestinfo::write(&spec)).unwrap();
        assert_eq!(read.main.argv, spec.main.argv);
    }
}
