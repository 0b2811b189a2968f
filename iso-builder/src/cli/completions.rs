//! `iso-builder completions`: what a shell needs to complete this command line.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, print};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  iso-builder completions bash > /etc/bash_completion.d/iso-builder
  iso-builder completions zsh > \"${fpath[1]}/_iso-builder\"
  iso-builder completions fish > ~/.config/fish/completions/iso-builder.fish")]
pub(crate) struct Completions {
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "iso-builder", &mut script);
        print(&String::from_utf8(script)?)
    }
}
