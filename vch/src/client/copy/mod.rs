//! `vch cp`: files into a VM's container, and out of it, as a tar archive on a session's streams.
//!
//! It decides who reads and who writes the archive. Where a copy goes, and under which name, is decided in [`plan`]; what lies on this side is [`local`]'s.

mod local;
mod plan;

use std::io;

use anyhow::{Context, Result, bail};
use wire::message::{self, PathInfo, Reply, Work};

use super::commands::refused;
use super::question;
use super::session::{self, Ending, Ends, Manners};
use crate::cli::CpArgs;
use crate::control::{Address, Problem, ProblemKind, Request};
use crate::streams::Source;

use self::plan::{Kind, Place, Side};

pub(super) async fn copy(args: &CpArgs) -> Result<u8> {
    let address = args.control.address();
    match (Place::parse(&args.source)?, Place::parse(&args.destination)?) {
        (Place::Vm { vm, path }, Place::Stream) => out_as_archive(&address, &vm, &path, args.follow_link).await,
        (Place::Stream, Place::Vm { vm, path }) => in_as_archive(&address, &vm, &path, args.archive).await,
        (Place::Vm { vm, path }, Place::Local { path: to }) => {
            let inside = Inside { address: &address, vm: &vm };
            let path = if args.follow_link { inside.resolve(path).await? } else { path };
            let source = inside.side(&path).await?;
            let plan = plan::plan(&source, &local::side(&to)?)?;
            let (reader, writer) = io::pipe().context("cannot make a pipe")?;
            let unpacking = tokio::task::spawn_blocking(move || local::unpack(reader, &plan));
            let ends = Ends { stdin: None, stdout: Box::new(writer), stderr: Box::new(io::stderr()) };
            let code = transfer(&address, &vm, Work::CopyOut { path: plan::plain(&path) }, ends).await?;
            let unpacked = unpacking.await.context("unpacking went wrong")?;
            if code == 0 {
                unpacked?;
            }
            Ok(code)
        }
        (Place::Local { path }, Place::Vm { vm, path: to }) => {
            let inside = Inside { address: &address, vm: &vm };
            let source = if args.follow_link { local::resolve(&path)? } else { path };
            let to = inside.resolve(to).await?;
            let plan = plan::plan(&local::side(&source)?, &inside.side(&to).await?)?;
            let work = Work::CopyIn { dir: plan.dir.clone(), owners: args.archive, replace: false };
            let (reader, writer) = io::pipe().context("cannot make a pipe")?;
            let packing = tokio::task::spawn_blocking(move || local::pack(&source, &plan, writer));
            let open = Box::new(move || Box::new(reader) as Source);
            let ends = Ends { stdin: Some(open), stdout: Box::new(io::sink()), stderr: Box::new(io::stderr()) };
            let code = transfer(&address, &vm, work, ends).await?;
            if code == 0 {
                packing.await.context("packing went wrong")??;
            }
            Ok(code)
        }
        (Place::Vm { .. }, Place::Vm { .. }) => bail!("cannot copy from VM to VM: copy out, then in"),
        _ => bail!("one of source and destination has to be in a VM: write VM:PATH"),
    }
}

async fn out_as_archive(address: &Address, vm: &str, path: &str, follow: bool) -> Result<u8> {
    let path = if follow { Inside { address, vm }.resolve(path.into()).await? } else { path.to_owned() };
    if io::IsTerminal::is_terminal(&io::stdout()) {
        bail!("an archive on the terminal helps nobody: send it to a file or a pipe");
    }
    transfer(address, vm, Work::CopyOut { path: plan::plain(&path) }, session::own_ends(false)?).await
}

async fn in_as_archive(address: &Address, vm: &str, path: &str, owners: bool) -> Result<u8> {
    let inside = Inside { address, vm };
    let dir = inside.resolve(path.into()).await?;
    match inside.side(&dir).await?.kind {
        Some(Kind::Directory) => {}
        Some(Kind::Other) => bail!("{vm}:{path} is not a directory: an archive is unpacked in one"),
        None => bail!("there is no directory {vm}:{path}"),
    }
    let work = Work::CopyIn { dir: plan::plain(&dir), owners, replace: false };
    transfer(address, vm, work, session::own_ends(true)?).await
}

/// Runs a copying session; the result is the command's exit code.
async fn transfer(address: &Address, vm: &str, work: Work, ends: Ends) -> Result<u8> {
    let request = Request::Create { vm: vm.into(), work, attach: true, stdin: ends.stdin.is_some() };
    match session::take_part(address, request, ends, Manners::default()).await? {
        // the guest has said why, on standard error
        Ending::Exited(exit) => Ok(u8::from(exit.ending.code() != 0)),
        ending => Ok(ending.code()),
    }
}

/// The files of a VM's container.
struct Inside<'a> {
    address: &'a Address,
    vm: &'a str,
}

impl Inside<'_> {
    async fn look(&self, path: &str) -> Result<Option<PathInfo>> {
        let ask = message::Request::Inspect { path: path.into() };
        match question(self.address, &Request::Ask { vm: self.vm.into(), ask }).await? {
            Reply::Path(info) => Ok(Some(info)),
            // there is nothing, or no way to it: what is done then says why
            Reply::Refused { .. } => Ok(None),
            reply => Err(refused(reply).into()),
        }
    }

    async fn side(&self, path: &str) -> Result<Side> {
        let kind = self.look(&plan::plain(path)).await?.map(|info| Kind::of(info.mode));
        Ok(Side { shown: format!("{}:{path}", self.vm), path: path.into(), kind })
    }

    /// Where a path leads when its last component is a symbolic link.
    async fn resolve(&self, mut path: String) -> Result<String> {
        for _ in 0..MAX_LINKS {
            match self.look(&plan::plain(&path)).await? {
                Some(info) if !info.target.is_empty() => path = plan::follow(&path, &info.target),
                _ => return Ok(path),
            }
        }
        let message = format!("{}:{path} leads through too many symbolic links", self.vm);
        Err(Problem::new(ProblemKind::Refused, message).into())
    }
}

/// As Linux counts them: path_resolution(7).
const MAX_LINKS: usize = 40;
