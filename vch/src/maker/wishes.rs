//! What a request to create a container asks for, as options of `vch run`: docker's rules are written once, in [`crate::plan`].
//!
//! It decides which of docker's wishes a virtual machine cannot meet, and says why.

use bollard_stubs::models::ContainerCreateBody;
use clap::{Args as _, Command, FromArgMatches as _};

use crate::cli::ContainerArgs;
use crate::cli::run::DiskForm;
use crate::size;

/// A wish that cannot be met: one sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(pub(crate) String);

/// The options that ask for the same.
pub(super) fn read(asked: &ContainerCreateBody) -> Result<ContainerArgs, Refusal> {
    let image = asked.image.clone().unwrap_or_default();
    let mut args = plain(&image)?;
    args.interactive = asked.open_stdin.unwrap_or_default();
    args.tty = asked.tty.unwrap_or_default();
    args.env = asked.env.clone().unwrap_or_default();
    args.image_and_command.extend(asked.cmd.iter().flatten().cloned());
    args.process.workdir = asked.working_dir.clone().filter(|dir| !dir.is_empty());
    args.process.user = asked.user.clone().filter(|user| !user.is_empty());
    args.network.hostname = asked.hostname.clone().filter(|name| !name.is_empty());
    args.disks.form = DiskForm::Layers;
    if let Some(host) = &asked.host_config {
        if let Some(memory) = host.memory.filter(|&memory| memory > 0) {
            args.machine.memory = size::memory(&memory.to_string()).map_err(Refusal)?;
        }
        args.disks.read_only = host.readonly_rootfs.unwrap_or_default();
    }
    Ok(args)
}

/// The options as they are where none is given.
fn plain(image: &str) -> Result<ContainerArgs, Refusal> {
    let command = ContainerArgs::augment_args(Command::new("create").no_binary_name(true).disable_help_flag(true));
    let refused = |error: clap::Error| Refusal(error.to_string());
    let matches = command.try_get_matches_from([image]).map_err(refused)?;
    ContainerArgs::from_arg_matches(&matches).map_err(refused)
}
