//! iso-builder: what was asked on the command line is done by the library.
//!
//! A failure is one line on stderr and exit code 1; a wrong command line is 2.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iso-builder: {error:#}");
            ExitCode::FAILURE
        }
    }
}
