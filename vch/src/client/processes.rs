//! `vch attach` and `vch exec`: a person, or a script, at a process's streams.

use std::io::{self, IsTerminal};

use anyhow::{Result, bail};
use wire::message::{Exec, MAIN, SessionId, Work};
use wire::spec::{Environment, TermSize};

use super::session::{self, Manners};
use crate::cli::{AttachArgs, ExecArgs};
use crate::control::Request;
use crate::{plan, terminal};

pub(super) async fn attach(args: &AttachArgs) -> Result<u8> {
    let stdin = !args.no_stdin;
    let request = Request::Attach { vm: args.vm.clone(), session: MAIN, stdin, from: None };
    let keys = io::stdin().is_terminal().then(|| args.detach_keys.clone());
    let manners = Manners { keys, signals_pass: args.sig_proxy };
    let ending = session::take_part(&args.control.address(), request, session::own_ends(stdin)?, manners).await?;
    Ok(ending.code())
}

pub(super) async fn exec(args: &ExecArgs) -> Result<u8> {
    if args.tty && args.interactive && !io::stdin().is_terminal() {
        bail!("the input device is not a TTY: leave out -t, or give a terminal on standard input");
    }
    // as docker: whoever has a terminal knows one
    let mut variables: Vec<String> = args.tty.then(|| "TERM=xterm".to_owned()).into_iter().collect();
    variables.extend(args.env.iter().cloned());
    for entry in &mut variables {
        *entry = plan::resolve(entry, |name| std::env::var(name).ok())?;
    }
    if !args.workdir.is_empty() && !args.workdir.starts_with('/') {
        bail!("the directory {:?} is not absolute", args.workdir);
    }
    let work = Work::Exec(Exec {
        argv: args.command().to_vec(),
        env: environment(&variables),
        dir: args.workdir.clone(),
        user: args.user.clone(),
        terminal: args.tty.then(|| terminal::size().unwrap_or(TermSize { rows: 24, columns: 80 })),
        stdin: args.interactive,
        attach: !args.detach,
    });
    let (vm, stdin) = (args.vm().to_owned(), args.interactive);
    let address = args.control.address();
    let request = Request::Create { vm, work, attach: !args.detach, stdin };
    if args.detach {
        let _session: SessionId = super::command(&address, &request).await?;
        return Ok(0);
    }
    let manners = Manners { keys: Some(args.detach_keys.clone()), signals_pass: false };
    let ending = session::take_part(&address, request, session::own_ends(stdin)?, manners).await?;
    Ok(ending.code())
}

/// The last assignment counts; as with docker, a variable without a value that is not set here is left out.
fn environment(variables: &[String]) -> Environment {
    let mut env = Environment::default();
    variables.iter().filter(|entry| entry.contains('=')).for_each(|entry| env.set(entry.clone()));
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_assignment_counts() {
        let variables = ["TERM=xterm", "A=1", "B", "TERM=vt100", "C="].map(str::to_owned);
        assert_eq!(environment(&variables).0, ["TERM=vt100", "A=1", "C="]);
    }
}
