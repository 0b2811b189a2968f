//! The container's process: docker's rules for command, environment, directory and user, for its rights, and for what happens when it ends.

use std::time::Duration;

use iso_builder::oci::Healthcheck;
use wire::guestinfo;
use wire::spec::{
    ALL_CAPABILITIES, Capabilities, DOCKERS_CAPABILITIES, Environment, HealthCheck, Process, Rights, SIGTERM, TermSize,
};

use super::{Asked, ImageConfig, PlanError};
use crate::cli::run::process::{ProcessArgs, SecurityOpt};

/// The process, whose environment names the host `hostname`.
pub(super) fn process(asked: &Asked<'_>, image: &ImageConfig, hostname: &str) -> Result<Process, PlanError> {
    let Asked { args, variables, .. } = asked;
    let (entrypoint, cmd) = parts(args.entrypoint.as_deref(), args.command(), image);
    let argv = [entrypoint, cmd].concat();
    if argv.first().is_none_or(String::is_empty) {
        return Err(PlanError::NoCommand);
    }
    let options = &args.process;
    Ok(Process {
        env: environment(hostname, args.tty, &image.env, variables)?,
        dir: directory(options.workdir.as_deref(), &image.working_dir)?,
        user: options.user.clone().unwrap_or_else(|| image.user.clone()),
        groups: options.group_add.clone(),
        terminal: args.tty.then(|| asked.size.unwrap_or(DEFAULT_SIZE)),
        stdin: args.interactive,
        rights: rights(options, asked.seccomp.map(<[u8]>::to_vec)),
        stop_signal: match (options.stop_signal, image.stop_signal.as_deref().filter(|text| !text.is_empty())) {
            (Some(signal), _) => signal,
            (None, None) => SIGTERM,
            (None, Some(text)) => {
                guestinfo::signal_number(text).ok_or_else(|| PlanError::StopSignal(text.to_owned()))?
            }
        },
        // a negative one is for ever
        stop_timeout: u64::try_from(options.stop_timeout).ok().map(Duration::from_secs),
        restart: options.restart,
        health: health(options, image.healthcheck.as_ref())?,
        ..Process::new(argv)
    })
}

/// The capabilities that `--cap-add`, `--cap-drop` and `--privileged` leave, as docker reckons.
pub fn capabilities(options: &ProcessArgs) -> u64 {
    let all = |sets: &[u64]| sets.contains(&ALL_CAPABILITIES);
    let bits = |sets: &[u64]| sets.iter().filter(|set| **set != ALL_CAPABILITIES).fold(0, |bits, set| bits | set);
    let (add, drop) = (&options.cap_add, &options.cap_drop);
    match () {
        () if options.privileged => ALL_CAPABILITIES,
        () if all(add) => ALL_CAPABILITIES & !bits(drop),
        () if all(drop) => bits(add),
        () => DOCKERS_CAPABILITIES & !bits(drop) | bits(add),
    }
}

fn rights(options: &ProcessArgs, seccomp: Option<Vec<u8>>) -> Rights {
    let mut limits: Vec<wire::spec::Limit> = Vec::new();
    for limit in &options.ulimit {
        // the last one counts
        limits.retain(|old| old.resource != limit.resource);
        limits.push(*limit);
    }
    let told = options.security_opt.iter().rev().find_map(|option| match option {
        SecurityOpt::NoNewPrivileges(flag) => Some(*flag),
        _ => None,
    });
    Rights {
        capabilities: Capabilities { bounding: capabilities(options), ambient: 0 },
        no_new_privileges: told.unwrap_or(false),
        seccomp,
        limits,
        oom_score: options.oom_score_adj,
    }
}

/// The check that the options ask for, over the image's.
fn health(options: &ProcessArgs, image: Option<&Healthcheck>) -> Result<Option<HealthCheck>, PlanError> {
    if options.no_healthcheck {
        return Ok(None);
    }
    let shell = |command: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()];
    let image = image.cloned().unwrap_or_default();
    let argv = match (options.health_cmd.as_deref(), image.test.split_first()) {
        (Some("" | "none"), _) => return Ok(None),
        (Some(command), _) => shell(command),
        (None, None) => return Ok(None),
        (None, Some((kind, words))) => match (kind.as_str(), words) {
            ("NONE", _) => return Ok(None),
            ("CMD", [_, ..]) => words.to_vec(),
            ("CMD-SHELL", [command]) => shell(command),
            _ => return Err(PlanError::Healthcheck(kind.clone())),
        },
    };
    let time = |option: Option<Duration>, image: Duration, default: Duration| {
        option.or(Some(image)).filter(|time| !time.is_zero()).unwrap_or(default)
    };
    let usual = HealthCheck::new(argv);
    let retries = options.health_retries.or(Some(image.retries)).filter(|times| *times > 0);
    Ok(Some(HealthCheck {
        interval: time(options.health_interval, image.interval, usual.interval),
        timeout: time(options.health_timeout, image.timeout, usual.timeout),
        start_period: time(options.health_start_period, image.start_period, usual.start_period),
        start_interval: time(options.health_start_interval, image.start_interval, usual.start_interval),
        retries: retries.unwrap_or(usual.retries),
        ..usual
    }))
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

/// Entrypoint and command. A command replaces the image's; an entrypoint replaces the image's and its command; an empty one takes both away.
pub(super) fn parts(entrypoint: Option<&str>, command: &[String], image: &ImageConfig) -> (Vec<String>, Vec<String>) {
    match entrypoint {
        Some("") => (Vec::new(), command.to_vec()),
        Some(program) => (vec![program.to_owned()], command.to_vec()),
        None if command.is_empty() => (image.entrypoint.clone(), image.cmd.clone()),
        None => (image.entrypoint.clone(), command.to_vec()),
    }
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

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
pub(super) const DEFAULT_SIZE: TermSize = TermSize { rows: 24, columns: 80 };

#[cfg(test)]
mod tests {
    use wire::spec::{LinkDevice, Restart};

    use super::super::tests::{ID, image, plan};
    use super::*;

    #[test]
    fn entrypoint_and_command_merge_as_dockers_do() {
        let bare = ImageConfig::default();
        let no_entrypoint = ImageConfig { entrypoint: Vec::new(), ..image() };
        let check = |image: &ImageConfig, line: &str, expected: Option<&str>| {
            let argv = plan(line, image).map(|plan| plan.spec.main.argv.join(" "));
            assert_eq!(argv.as_deref().ok(), expected, "{line}");
            assert!(!matches!(argv, Err(ref error) if *error != PlanError::NoCommand), "{line}: {argv:?}");
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
            assert_eq!(plan(line, image).unwrap().spec.main.env.0, expected, "{line}");
        };
        check(&bare, "vch run img x", &[DEFAULT_PATH, "HOSTNAME=0123456789ab"]);
        check(&bare, "vch run -t -h web img x", &[DEFAULT_PATH, "HOSTNAME=web", "TERM=xterm"]);
        check(&image(), "vch run -e LANG=de -e A= img", &["PATH=/bin", "HOSTNAME=0123456789ab", "LANG=de", "A="]);
        check(&image(), "vch run -e LANG -e TERM=vt100 -t img", &["PATH=/bin", "HOSTNAME=0123456789ab", "TERM=vt100"]);
        assert_eq!(plan("vch run -e =x img", &bare).unwrap_err(), PlanError::NoVariableName("=x".into()));
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
        let spec = plan("vch run -t -i --link serial img", &image()).unwrap().spec;
        assert_eq!((spec.id.as_str(), spec.hostname.as_deref(), spec.link.device), (ID, None, LinkDevice::Serial));
        let process = spec.main;
        assert_eq!((process.dir.as_str(), process.user.as_str(), process.stop_signal), ("/srv", "www", 3));
        assert_eq!((process.terminal, process.stdin), (Some(DEFAULT_SIZE), true));
        let spec = plan("vch run -w /a -u 5:6 img", &image()).unwrap().spec;
        assert_eq!((spec.main.dir.as_str(), spec.main.user.as_str(), spec.main.terminal), ("/a", "5:6", None));
        assert_eq!(plan("vch run -w a img", &image()).unwrap_err(), PlanError::RelativeDir("a".into()));
        assert_eq!(plan("vch run -h a/b img", &image()).unwrap_err(), PlanError::HostName("a/b".into()));
        let odd = ImageConfig { stop_signal: Some("SIGNOT".into()), ..image() };
        assert_eq!(plan("vch run img", &odd).unwrap_err(), PlanError::StopSignal("SIGNOT".into()));
    }

    #[test]
    fn capabilities_are_reckoned_as_docker_does() {
        let check = |options: &str, bits: u64| {
            let spec = plan(&format!("vch run {options}img"), &image()).unwrap().spec;
            assert_eq!(spec.main.rights.capabilities, Capabilities { bounding: bits, ambient: 0 }, "{options}");
        };
        let (admin, chown) = (1 << 21, 1);
        check("", DOCKERS_CAPABILITIES);
        check("--cap-add sys_admin --cap-drop CHOWN ", DOCKERS_CAPABILITIES & !chown | admin);
        check("--cap-drop all ", 0);
        check("--cap-drop ALL --cap-add CHOWN ", chown);
        check("--cap-add ALL --cap-drop chown ", ALL_CAPABILITIES & !chown);
        check("--privileged --cap-drop chown ", ALL_CAPABILITIES);
    }

    #[test]
    fn the_last_of_equal_options_counts() {
        let line = "vch run --ulimit nofile=1 --ulimit core=0 --ulimit nofile=5:6 --security-opt no-new-privileges \
                    --stop-signal INT --stop-timeout -1 --restart on-failure:2 --group-add 5 --group-add tty --oom-score-adj -5 img";
        let main = plan(line, &image()).unwrap().spec.main;
        let limits: Vec<_> = main.rights.limits.iter().map(|limit| (limit.resource, limit.soft, limit.hard)).collect();
        assert_eq!(limits, [(4, 0, 0), (7, 5, 6)]);
        assert!(main.rights.no_new_privileges);
        assert_eq!((main.stop_signal, main.stop_timeout, main.restart), (2, None, Restart::OnFailure(2)));
        assert_eq!((main.groups.join(" "), main.rights.oom_score), ("5 tty".into(), -5));
    }

    #[test]
    fn a_check_is_the_options_over_the_images() {
        let test = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let second = Duration::from_secs;
        let with = |words: &[&str]| {
            let check = Healthcheck { test: test(words), interval: second(7), retries: 9, ..Healthcheck::default() };
            ImageConfig { healthcheck: Some(check), ..image() }
        };
        let of = |line: &str, image: &ImageConfig| plan(line, image).unwrap().spec.main.health;
        let check = of("vch run --health-timeout 1m30s img", &with(&["CMD", "curl", "-f"])).unwrap();
        assert_eq!((check.argv, check.interval, check.timeout), (test(&["curl", "-f"]), second(7), second(90)));
        assert_eq!((check.start_period, check.start_interval, check.retries), (second(0), second(5), 9));
        let check = of("vch run --health-cmd true --health-retries 2 img", &with(&["CMD", "curl"])).unwrap();
        assert_eq!((check.argv, check.retries), (test(&["/bin/sh", "-c", "true"]), 2));
        let check = of("vch run --health-cmd true img", &image()).unwrap();
        assert_eq!((check.interval, check.timeout, check.retries), (second(30), second(30), 3));
        assert_eq!(of("vch run img", &with(&["CMD-SHELL", "a b"])).unwrap().argv, test(&["/bin/sh", "-c", "a b"]));
        assert_eq!(of("vch run --no-healthcheck img", &with(&["CMD", "curl"])), None);
        assert_eq!(of("vch run img", &with(&["NONE"])), None);
        assert_eq!(of("vch run --health-interval 5s img", &image()), None);
        assert_eq!(plan("vch run img", &with(&["EXEC"])).unwrap_err(), PlanError::Healthcheck("EXEC".into()));
    }
}
