//! `vch start`, `kill`, `stop` and `wait`: one thing asked of each of several VMs. As docker's, they go on after a failure, and tell it at the end.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::timeout;
use wire::message::{self, MAIN, Reply};
use wire::status::Exit;

use super::{command, question};
use crate::cli::{KillArgs, StartArgs, StopArgs, WaitArgs};
use crate::control::{Address, Problem, ProblemKind, Request};
use crate::signals::SIGKILL;

/// From SIGKILL to the end of the process.
const KILL_TIME: Duration = Duration::from_secs(30);

pub(super) async fn start(args: &StartArgs) -> Result<u8> {
    let address = args.control.address();
    let mut all = Results::default();
    for vm in &args.vms {
        all.note(vm, ask(&address, vm, message::Request::Start).await);
    }
    all.code()
}

pub(super) async fn kill(args: &KillArgs) -> Result<u8> {
    let address = args.control.address();
    let mut all = Results::default();
    for vm in &args.vms {
        all.note(vm, signal(&address, vm, args.signal).await);
    }
    all.code()
}

pub(super) async fn stop(args: &StopArgs) -> Result<u8> {
    let address = args.control.address();
    let mut all = Results::default();
    for vm in &args.vms {
        all.note(vm, stop_one(&address, vm, args).await);
    }
    all.code()
}

pub(super) async fn wait(args: &WaitArgs) -> Result<u8> {
    let address = args.control.address();
    let mut code = 0;
    for vm in &args.vms {
        code = ended(&address, vm).await?.ending.code();
        println!("{code}");
    }
    Ok(code)
}

async fn stop_one(address: &Address, vm: &str, args: &StopArgs) -> Result<()> {
    // listen first: a process that ends at once is not missed
    let end = ended(address, vm);
    tokio::pin!(end);
    tokio::select! {
        biased;
        asked = signal(address, vm, args.signal) => asked?,
        exit = &mut end => return exit.map(|_| ()),
    }
    let Ok(patience) = u64::try_from(args.time) else { return end.await.map(|_| ()) };
    if let Ok(exit) = timeout(Duration::from_secs(patience), &mut end).await {
        return exit.map(|_| ());
    }
    signal(address, vm, SIGKILL).await?;
    match timeout(KILL_TIME, end).await {
        Ok(exit) => exit.map(|_| ()),
        Err(_) => bail!("it was killed, and still has not ended after {} s", KILL_TIME.as_secs()),
    }
}

async fn ended(address: &Address, vm: &str) -> Result<Exit> {
    question(address, &Request::Wait { vm: vm.into(), session: MAIN }).await
}

async fn signal(address: &Address, vm: &str, signal: u8) -> Result<()> {
    ask(address, vm, message::Request::Signal { session: MAIN, signal }).await
}

async fn ask(address: &Address, vm: &str, ask: message::Request) -> Result<()> {
    match command(address, &Request::Ask { vm: vm.into(), ask }).await? {
        Reply::Done => Ok(()),
        reply => Err(refused(reply).into()),
    }
}

/// What a reply means that is not the one to the question.
pub(super) fn refused(reply: Reply) -> Problem {
    match reply {
        Reply::Refused { reason } => Problem::new(ProblemKind::Refused, reason),
        Reply::Failed(failure) => Problem::failure(failure),
        Reply::Unsupported => Problem::new(ProblemKind::Refused, "the VM's guest is too old for this".into()),
        _ => Problem::new(ProblemKind::Other, "the VM's guest answered another question".into()),
    }
}

/// What became of each.
#[derive(Default)]
pub(super) struct Results {
    failed: usize,
}

impl Results {
    /// Docker prints the name of what was done.
    pub(super) fn note(&mut self, vm: &str, result: Result<()>) {
        match result {
            Ok(()) => println!("{vm}"),
            Err(error) => {
                eprintln!("vch: {vm}: {error:#}");
                self.failed += 1;
            }
        }
    }

    pub(super) fn code(self) -> Result<u8> {
        Ok(u8::from(self.failed > 0))
    }
}
