//! The keys of a process. Those of its rights are in `rights`.

use core::time::Duration;

use super::node::{Node, Writer};
use super::{SpecError, amount, rights, signal_number};
use crate::spec::{Environment, HealthCheck, Process, Restart, SIGTERM, STOP_TIMEOUT};

pub(crate) fn read(session: &Node<'_>) -> Result<Process, SpecError> {
    let path = session.required("cmd/Path")?;
    let mut argv = session.list("cmd/Args")?;
    match argv.first_mut() {
        Some(first) => first.clone_from(&path),
        None => argv.push(path.clone()),
    }
    if path.is_empty() {
        return Err(session.invalid("cmd/Path", &path, "the name of a program"));
    }
    let dir = session.text("cmd/Dir").filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".into());
    if !dir.starts_with('/') {
        return Err(session.invalid("cmd/Dir", &dir, "an absolute path"));
    }
    let user = session.text("User").unwrap_or_default();
    let group = session.text("Group").filter(|group| !group.is_empty());
    let stop_signal = session.text("stopSignal").filter(|signal| !signal.is_empty());
    Ok(Process {
        argv,
        env: Environment(session.list("cmd/Env")?),
        dir,
        user: match group {
            Some(group) => format!("{user}:{group}"),
            None => user,
        },
        groups: session.list("groups")?,
        terminal: match session.flag("tty", false)? {
            true => Some(session.size("ttysize")?),
            false => None,
        },
        stdin: session.flag("openstdin", false)?,
        attach: session.flag("attach", true)?,
        stop_signal: match stop_signal {
            None => SIGTERM,
            Some(text) => {
                signal_number(&text).ok_or_else(|| session.invalid("stopSignal", &text, "a signal's name or number"))?
            }
        },
        stop_timeout: match session.filled("stopTimeout").as_deref() {
            Some("-1") => None,
            _ => Some(time(session, "stopTimeout", STOP_TIMEOUT)?),
        },
        restart: session
            .parsed("restart", "`no`, `always`, `on-failure` or `on-failure:N`", restart)?
            .unwrap_or_default(),
        health: read_health(session)?,
        rights: rights::read(session)?,
    })
}

/// VIC's `true` and `false`, and docker's words. As `unless-stopped`, nothing is started again that was asked to stop.
fn restart(text: &str) -> Option<Restart> {
    match text {
        "no" | "false" => Some(Restart::No),
        "always" | "unless-stopped" | "true" => Some(Restart::Always),
        "on-failure" => Some(Restart::OnFailure(0)),
        _ => Some(Restart::OnFailure(text.strip_prefix("on-failure:")?.parse().ok()?)),
    }
}

fn read_health(session: &Node<'_>) -> Result<Option<HealthCheck>, SpecError> {
    let own = ["interval", "timeout", "startPeriod", "startInterval", "retries"].map(|key| format!("health/{key}"));
    let argv = session.list("health/cmd")?;
    if argv.first().is_none_or(String::is_empty) {
        let told = !argv.is_empty() || own.iter().any(|key| session.text(key).is_some());
        return match told {
            true => Err(session.missing("health/cmd")),
            false => Ok(None),
        };
    }
    // no pause and no time at all would keep a processor busy, or fail every check
    let positive = |key: &str, default| match time(session, key, default)? {
        Duration::ZERO => Err(session.invalid(key, "0", "a time above 0")),
        time => Ok(time),
    };
    let usual = HealthCheck::new(argv);
    Ok(Some(HealthCheck {
        interval: positive(&own[0], usual.interval)?,
        timeout: positive(&own[1], usual.timeout)?,
        start_period: time(session, &own[2], usual.start_period)?,
        start_interval: positive(&own[3], usual.start_interval)?,
        retries: session
            .parsed(&own[4], "a number above 0", |text| text.parse().ok().filter(|retries| *retries > 0))?
            .unwrap_or(usual.retries),
        ..usual
    }))
}

fn time(session: &Node<'_>, key: &str, default: Duration) -> Result<Duration, SpecError> {
    Ok(session.parsed(key, "a time as `30`, in seconds, `500ms` or `1m30s`", amount::time)?.unwrap_or(default))
}

pub(super) fn write(session: &mut Writer<'_>, process: &Process) {
    let (user, group) = process.user.split_once(':').unwrap_or((&process.user, ""));
    session.set("cmd/Path", &process.argv[0]);
    session.set("cmd/Dir", &process.dir);
    session.set("User", user);
    session.set("Group", group);
    session.flag("tty", process.terminal.is_some());
    if let Some(size) = process.terminal {
        session.set("ttysize", &format!("{}x{}", size.rows, size.columns));
    }
    session.flag("openstdin", process.stdin);
    session.flag("attach", process.attach);
    session.set("stopSignal", &process.stop_signal.to_string());
    session.list("cmd/Args", &process.argv);
    session.list("cmd/Env", &process.env.0);
    session.list("groups", &process.groups);
    session.set("stopTimeout", &process.stop_timeout.map_or("-1".into(), amount::time_text));
    match process.restart {
        Restart::No => session.set("restart", "no"),
        Restart::Always => session.set("restart", "always"),
        Restart::OnFailure(most) => session.set("restart", &format!("on-failure:{most}")),
    }
    if let Some(health) = &process.health {
        let mut keys = session.below("health");
        keys.list("cmd", &health.argv);
        keys.set("interval", &amount::time_text(health.interval));
        keys.set("timeout", &amount::time_text(health.timeout));
        keys.set("startPeriod", &amount::time_text(health.start_period));
        keys.set("startInterval", &amount::time_text(health.start_interval));
        keys.set("retries", &health.retries.to_string());
    }
    rights::write(session, &process.rights);
}

#[cfg(test)]
mod tests {
    use super::super::BASE;
    use super::*;
    use crate::vmx::Dictionary;

    fn from(keys: &[(&str, &str)]) -> Result<Process, SpecError> {
        let mut dictionary = Dictionary::default();
        let all = [("cmd/Path", "true")].iter().chain(keys);
        all.for_each(|(key, value)| dictionary.set(&format!("{BASE}/{key}"), *value));
        read(&Node { keys: &dictionary, path: format!("{BASE}/") })
    }

    fn read_back(process: Process) {
        let mut keys = Dictionary::default();
        write(&mut Writer::new(&mut keys), &process);
        assert_eq!(read(&Node { keys: &keys, path: format!("{BASE}/") }), Ok(process));
    }

    fn plain() -> Process {
        Process::new(vec!["true".into()])
    }

    #[test]
    fn what_is_not_said_is_as_docker_has_it() {
        assert_eq!(from(&[]), Ok(plain()));
        let health = HealthCheck::new(vec!["ok".into()]);
        assert_eq!(from(&[("health/cmd~json", "[\"ok\"]")]).unwrap().health, Some(health));
    }

    #[test]
    fn a_life_cycle_survives() {
        let millis = Duration::from_millis;
        let health = HealthCheck {
            argv: vec!["/bin/check".into(), "a|b".into()],
            interval: millis(1500),
            timeout: millis(1),
            start_period: millis(90_000),
            start_interval: Duration::from_nanos(7),
            retries: u32::MAX,
        };
        read_back(Process { health: Some(health), groups: vec!["audio".into(), "44".into()], ..plain() });
        for stop_timeout in [None, Some(Duration::ZERO), Some(millis(250)), Some(millis(3_600_000))] {
            read_back(Process { stop_timeout, ..plain() });
        }
        for restart in [Restart::No, Restart::Always, Restart::OnFailure(0), Restart::OnFailure(5)] {
            read_back(Process { restart, ..plain() });
        }
        for (text, expected) in [
            ("true", Restart::Always),
            ("false", Restart::No),
            ("unless-stopped", Restart::Always),
            ("on-failure", Restart::OnFailure(0)),
            ("on-failure:3", Restart::OnFailure(3)),
        ] {
            assert_eq!(from(&[("restart", text)]).unwrap().restart, expected);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |key: &str, value: &str, expected: &str| {
            let reason = from(&[("health/cmd~json", "[\"ok\"]"), (key, value)]).unwrap_err().to_string();
            assert_eq!(reason, format!("guestinfo guestinfo.vice./{key}: {value:?} is not {expected}"));
        };
        for odd in ["sometimes", "on-failure:", "on-failure:x", "on-failure:-1", "ALWAYS"] {
            check("restart", odd, "`no`, `always`, `on-failure` or `on-failure:N`");
        }
        for key in ["stopTimeout", "health/interval", "health/startPeriod"] {
            for odd in ["-2", "soon", "1.5"] {
                check(key, odd, "a time as `30`, in seconds, `500ms` or `1m30s`");
            }
        }
        check("health/interval", "0", "a time above 0");
        for odd in ["0", "-1", "x"] {
            check("health/retries", odd, "a number above 0");
        }
        let missing = "guestinfo has no guestinfo.vice./health/cmd";
        assert_eq!(from(&[("health/retries", "3")]).unwrap_err().to_string(), missing);
        assert_eq!(from(&[("health/cmd~json", "[\"\"]")]).unwrap_err().to_string(), missing);
    }
}
