//! vmx-double: a program, or a whole machine's init, runs as in a virtual machine of VMware's. What it can be asked is in `double::trace::USAGE`.
//!
//! Without arguments, and as PID 1, it is the init of a machine: see `double::trace::init`. Its exit code is the program's; 125 when it could not be started.
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;

use double::trace::{Options, USAGE, launch, launch_init};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let outcome: Result<i32, Box<dyn Error>> = match arguments.peek() {
        None if std::process::id() == 1 => launch_init().map_err(Into::into),
        Some(first) if first == "--help" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => Options::parse(arguments).map_err(Into::into).and_then(|options| Ok(launch(options)?)),
    };
    match outcome {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error) => {
            let first: &dyn Error = error.as_ref();
            let texts: Vec<String> =
                std::iter::successors(Some(first), |&error| error.source()).map(ToString::to_string).collect();
            eprintln!("vmx-double: {}", texts.join(": "));
            ExitCode::from(125)
        }
    }
}
