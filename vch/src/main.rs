//! The command `vch`: parses the command line, runs it, and turns the outcome into an exit code.
//!
//! A command that vch itself cannot carry out ends with 125, as docker's do; everything else is the container's own code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use vch::cli::run::refused;
use vch::cli::{Cli, Command};
use vch::template::keeper;
use vch::{certs, client, logs, ova, run, serve, vmx};

/// What docker says when it, and not the container, failed.
const VCH_FAILED: u8 = 125;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Logs(args) => logs::run(args),
        Command::Vmx(args) => vmx::run(args),
        Command::Ova(args) => ova::run(args),
        Command::Certs(args) => certs::run(args),
        Command::KeepTemplate(args) => keeper::run(args),
        command => client::run(command),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("vch: {error:#}");
            ExitCode::from(client::code(&error))
        }
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg)
        && std::env::args().nth(1).is_some_and(|command| command == "run" || command == "vmx")
        && let Some(sentence) = refused::sentence(option)
    {
        eprintln!("vch: {sentence}");
        return ExitCode::from(VCH_FAILED);
    }
    let text = error.render().to_string();
    eprint!("vch: {}", text.strip_prefix("error: ").unwrap_or(&text));
    ExitCode::from(VCH_FAILED)
}
