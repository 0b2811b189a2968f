//! How a machine begins: as a clone where that is wished for and can be had, else by booting.
//!
//! Whatever is wrong with a template, or with what was made of it, is told in a sentence, and the machine boots; only who wants nothing but a clone gets an error. Once a
//! clone runs it is a machine like any other: what its guest says then is not the template's fault.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use tokio::time::{Instant, timeout_at};

use super::connected;
use crate::cli::CloneWish;
use crate::pipe::{Listener, Pipe};
use crate::template;
use crate::vm::qemu::Process;
use crate::vm::{LinkEnd, Machine, fork};

/// Starts a machine whose guest speaks at once: its process, and QEMU's end of the link; no pipe if the machine has ended instead.
pub(super) async fn start(
    wish: CloneWish,
    qemu: &Path,
    machine: &Machine,
    listener: &mut Listener,
    start_by: Instant,
) -> Result<(Process, Option<Pipe>)> {
    match wish {
        CloneWish::Never => {}
        CloneWish::Auto | CloneWish::Always => match clone(qemu, machine, listener, start_by).await {
            Ok((process, pipe)) => return Ok((process, Some(pipe))),
            Err(error) => boots(wish, error)?,
        },
    }
    let mut process = Process::start(qemu, machine)?;
    let pipe = connected(listener, &mut process, start_by).await?;
    Ok((process, pipe))
}

/// A machine that cannot be cloned boots, and says why; an error if that is not wished for.
pub(super) fn boots(wish: CloneWish, why: impl Into<anyhow::Error>) -> Result<()> {
    match wish {
        CloneWish::Never => {}
        CloneWish::Auto => eprintln!("vch: the machine boots, as it cannot be cloned: {:#}", why.into()),
        CloneWish::Always => return Err(why.into().context("--clone always")),
    }
    Ok(())
}

async fn clone(qemu: &Path, machine: &Machine, listener: &mut Listener, start_by: Instant) -> Result<(Process, Pipe)> {
    let template = template::have(qemu, machine, &template::kind(qemu, machine)?).await?;
    let LinkEnd::Own(link) = &machine.link_end else { bail!("its link leads elsewhere") };
    // where paths are short, in a directory that goes with this run
    let socket = link.with_file_name("orders");
    let (clone, _keys) = fork::clone_of(machine)?;
    let clone = Machine { orders: Some(socket.clone()), ..clone };
    go_on(qemu, &clone, &template, &socket, listener, start_by).await
}

async fn go_on(
    qemu: &Path,
    clone: &Machine,
    template: &template::kept::Template,
    socket: &Path,
    listener: &mut Listener,
    start_by: Instant,
) -> Result<(Process, Pipe)> {
    let mut process = Process::start_with(qemu, clone, template.files()?)?;
    let begun = match connected(listener, &mut process, start_by).await? {
        Some(pipe) => tokio::select! {
            runs = timeout_at(start_by, fork::resume(socket)) => match runs {
                Ok(runs) => runs.map(|()| pipe),
                Err(_) => Err(anyhow!("it does not run in time")),
            },
            _ = process.wait() => Err(anyhow!("QEMU ended")),
        },
        None => Err(anyhow!("QEMU ended at once")),
    };
    match begun {
        Ok(pipe) => Ok((process, pipe)),
        Err(error) => {
            process.kill().await;
            match process.complaint().await {
                Some(said) => Err(error.context(said)),
                None => Err(error),
            }
        }
    }
    .context("QEMU does not go on with the template")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::fork::Unclonable;

    #[test]
    fn only_who_wants_nothing_but_a_clone_gets_an_error() {
        for wish in [CloneWish::Never, CloneWish::Auto] {
            boots(wish, Unclonable::Vsock).unwrap();
        }
        let error = format!("{:#}", boots(CloneWish::Always, Unclonable::Vsock).unwrap_err());
        assert_eq!(error, format!("--clone always: {}", Unclonable::Vsock));
    }
}
