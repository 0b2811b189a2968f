//! What `vch run` means for an image: docker's rules for command, environment, directory and user, and the spec that follows.
//!
//! Everything here is a function of its arguments. Where files lie and how QEMU is started is decided elsewhere.

use wire::guestinfo;
use wire::handshake::LinkKey;
use wire::spec::{Environment, LinkDevice, LinkSpec, LogDevice, Process, SIGTERM, SPEED, Spec, TermSize};

use crate::cli::{LinkKind, RunArgs};

/// The configuration that an image brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub working_dir: String,
    pub user: String,
    pub stop_signal: Option<String>,
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
}

/// The spec of a container.
///
/// `variables` are the assignments of `--env-file` and `-e`, in order; one without `=` takes the variable away. `size` is that of the host's terminal.
pub fn spec(
    id: &str,
    key: LinkKey,
    args: &RunArgs,
    variables: &[String],
    image: &ImageConfig,
    size: Option<TermSize>,
) -> Result<Spec, PlanError> {
    let argv = command(args.entrypoint.as_deref(), args.command(), image);
    if argv.first().is_none_or(String::is_empty) {
        return Err(PlanError::NoCommand);
    }
    let hostname = args.hostname.clone();
    if let Some(name) = hostname.as_ref().filter(|name| !is_hostname(name)) {
        return Err(PlanError::HostName(name.clone()));
    }
    let shown = hostname.as_deref().unwrap_or(&id[..id.len().min(SHORT_ID)]);
    // a serial line may lead anywhere; virtio and vsock end in the host's kernel or in a process of ours
    let link = match args.link {
        LinkKind::Virtio => LinkSpec { device: LinkDevice::Virtio, key, sealed: false, speed: SPEED },
        LinkKind::Serial => LinkSpec { device: LinkDevice::Serial, key, sealed: true, speed: SPEED },
        LinkKind::Vsock => LinkSpec { device: LinkDevice::Vsock, key, sealed: false, speed: SPEED },
    };
    let main = Process {
        env: environment(shown, args.tty, &image.env, variables)?,
        dir: directory(args.workdir.as_deref(), &image.working_dir)?,
        user: args.user.clone().unwrap_or_else(|| image.user.clone()),
        terminal: args.tty.then(|| size.unwrap_or(DEFAULT_SIZE)),
        stdin: args.interactive,
        stop_signal: match image.stop_signal.as_deref().filter(|text| !text.is_empty()) {
            None => SIGTERM,
            Some(text) => guestinfo::signal_number(text).ok_or_else(|| PlanError::StopSignal(text.to_owned()))?,
        },
        ..Process::new(argv)
    };
    Ok(Spec {
        // a container that leaves no trace has no log either
        log: (!args.rm).then_some(LogDevice::Virtio),
        hostname,
        ..Spec::new(id, link, main)
    })
}

/// The lines of an `--env-file`: comments and empty lines are passed over.
pub fn env_file(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().map(str::trim_start);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Gives `NAME` the value that it has in `host`; `NAME=VALUE` stays. What `host` does not have either stays `NAME`: it is taken away.
pub fn resolve(entry: &str, host: impl Fn(&str) -> Option<String>) -> Result<String, PlanError> {
    match entry.split_once('=') {
        Some(("", _)) => Err(PlanError::NoVariableName(entry.to_owned())),
        Some(_) => Ok(entry.to_owned()),
        None if entry.is_empty() => Err(PlanError::NoVariableName(entry.to_owned())),
        None => Ok(host(entry).map_or_else(|| entry.to_owned(), |value| format!("{entry}={value}"))),
    }
}

/// A command replaces the image's; an entrypoint replaces the image's and its command; an empty one takes both away.
fn command(entrypoint: Option<&str>, command: &[String], image: &ImageConfig) -> Vec<String> {
    let (first, rest) = match entrypoint {
        Some("") => (Vec::new(), command),
        Some(program) => (vec![program.to_owned()], command),
        None if command.is_empty() => (image.entrypoint.clone(), &image.cmd[..]),
        None => (image.entrypoint.clone(), command),
    };
    first.into_iter().chain(rest.iter().cloned()).collect()
}

fn environment(hostname: &str, tty: bool, image: &[String], asked: &[String]) -> Result<Environment, PlanError> {
    let mut env = Environment::default();
    env.set(DEFAULT_PATH.to_owned());
    env.set(format!("HOSTNAME={hostname}"));
    if tty {
        env.set("TERM=xterm".to_owned());
    }
    for entry in image.iter().chain(asked) {
        match entry.split_once('=') {
            Some(("", _)) => return Err(PlanError::NoVariableName(entry.clone())),
            Some(_) => env.set(entry.clone()),
            None => env.0.retain(|old| old.split_once('=').is_none_or(|(name, _)| name != entry)),
        }
    }
    Ok(env)
}

fn directory(asked: Option<&str>, image: &str) -> Result<String, PlanError> {
    match asked {
        Some(dir) if dir.starts_with('/') => Ok(dir.to_owned()),
        Some(dir) => Err(PlanError::RelativeDir(dir.to_owned())),
        None => Ok(format!("/{}", image.trim_start_matches('/'))),
    }
}

fn is_hostname(name: &str) -> bool {
    let legal = name.chars().all(|char| char.is_ascii_alphanumeric() || "-._".contains(char));
    legal && (1..=63).contains(&name.len()) && !name.starts_with(['-', '.'])
}

/// As much of an id as docker shows and makes the host name.
const SHORT_ID: usize = 12;
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_SIZE: TermSize = TermSize { rows: 24, columns: 80 };

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    const ID: &str = "0123456789abcdef";

    fn image() -> ImageConfig {
        ImageConfig {
            env: vec!["PATH=/bin".into(), "LANG=C".into()],
            entrypoint: vec!["/init".into(), "-v".into()],
            cmd: vec!["serve".into()],
            working_dir: "srv".into(),
            user: "www".into(),
            stop_signal: Some("SIGQUIT".into()),
        }
    }

    fn plan(line: &str, image: &ImageConfig) -> Result<Spec, PlanError> {
        let Command::Run(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else { panic!("{line}") };
        let variables: Vec<String> = args.env.iter().map(|entry| resolve(entry, |_| None)).collect::<Result<_, _>>()?;
        spec(ID, LinkKey::new([5; 32]), &args, &variables, image, None)
    }

    #[test]
    fn entrypoint_and_command_merge_as_dockers_do() {
        let bare = ImageConfig::default();
        let no_entrypoint = ImageConfig { entrypoint: Vec::new(), ..image() };
        let check = |image: &ImageConfig, line: &str, expected: Option<&str>| {
            let argv = plan(line, image).map(|spec| spec.main.argv.join(" "));
            assert_eq!(argv.as_deref().ok(), expected, "{line}");
            assert!(argv.is_ok() || argv == Err(PlanError::NoCommand), "{line}: {argv:?}");
        };
        check(&image(), "vch run img", Some("/init -v serve"));
        check(&image(), "vch run img a b", Some("/init -v a b"));
        check(&image(), "vch run --entrypoint sh img", Some("sh"));
        check(&image(), "vch run --entrypoint sh img -c x", Some("sh -c x"));
        check(&image(), "vch run --entrypoint= img", None);
        check(&image(), "vch run --entrypoint= img ls", Some("ls"));
        check(&no_entrypoint, "vch run img", Some("serve"));
        check(&no_entrypoint, "vch run img ls /", Some("ls /"));
        check(&bare, "vch run img", None);
        check(&bare, "vch run img true", Some("true"));
    }

    #[test]
    fn environment_in_dockers_order() {
        let bare = ImageConfig::default();
        let check = |image: &ImageConfig, line: &str, expected: &[&str]| {
            assert_eq!(plan(line, image).unwrap().main.env.0, expected, "{line}");
        };
        check(&bare, "vch run img x", &[DEFAULT_PATH, "HOSTNAME=0123456789ab"]);
        check(&bare, "vch run -t -h web img x", &[DEFAULT_PATH, "HOSTNAME=web", "TERM=xterm"]);
        check(&image(), "vch run -e LANG=de -e A= img", &["PATH=/bin", "HOSTNAME=0123456789ab", "LANG=de", "A="]);
        check(&image(), "vch run -e LANG -e TERM=vt100 -t img", &["PATH=/bin", "HOSTNAME=0123456789ab", "TERM=vt100"]);
        assert_eq!(plan("vch run -e =x img", &bare), Err(PlanError::NoVariableName("=x".into())));
    }

    #[test]
    fn a_variable_without_value_comes_from_the_host() {
        let host = |name: &str| (name == "USER").then(|| "me".to_owned());
        assert_eq!(resolve("USER", host).unwrap(), "USER=me");
        assert_eq!(resolve("OTHER", host).unwrap(), "OTHER");
        assert_eq!(resolve("USER=you=all", host).unwrap(), "USER=you=all");
        let lines: Vec<_> = env_file("# a\n\n  A=1 \nB\r\nC='x'\n").collect();
        assert_eq!(lines, ["A=1 ", "B", "C='x'"]);
    }

    #[test]
    fn the_rest_of_the_spec() {
        let spec = plan("vch run -t -i --link serial img", &image()).unwrap();
        assert_eq!((spec.id.as_str(), spec.hostname.as_deref(), spec.link.device), (ID, None, LinkDevice::Serial));
        let process = spec.main;
        assert_eq!((process.dir.as_str(), process.user.as_str(), process.stop_signal), ("/srv", "www", 3));
        assert_eq!((process.terminal, process.stdin), (Some(DEFAULT_SIZE), true));
        let spec = plan("vch run -w /a -u 5:6 img", &image()).unwrap();
        assert_eq!((spec.main.dir.as_str(), spec.main.user.as_str(), spec.main.terminal), ("/a", "5:6", None));
        assert_eq!(plan("vch run -w a img", &image()), Err(PlanError::RelativeDir("a".into())));
        assert_eq!(plan("vch run -h a/b img", &image()), Err(PlanError::HostName("a/b".into())));
        let odd = ImageConfig { stop_signal: Some("SIGNOT".into()), ..image() };
        assert_eq!(plan("vch run img", &odd), Err(PlanError::StopSignal("SIGNOT".into())));
    }
}
