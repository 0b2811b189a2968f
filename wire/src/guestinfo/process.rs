//! The keys of a process.

use super::node::{Node, Writer};
use super::{SpecError, signal_number};
use crate::spec::{Environment, Process, SIGTERM};

pub(super) fn read(session: &Node<'_>) -> Result<Process, SpecError> {
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
        ..Process::new(Vec::new())
    })
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
}
