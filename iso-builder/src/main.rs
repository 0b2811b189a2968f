//! iso-builder: what was asked on the command line is done by the library.
//!
//! A failure is one line on stderr and exit code 1; a wrong command line is 2. `diff` and `verify` answer by 0 and 1, and fail with 2.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let (json, trouble) = (cli.json(), cli.trouble());
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            match json {
                true => eprintln!("{}", serde_json::json!({"event": "error", "message": format!("{error:#}")})),
                false => eprintln!("iso-builder: {error:#}"),
            }
            ExitCode::from(trouble)
        }
    }
}
