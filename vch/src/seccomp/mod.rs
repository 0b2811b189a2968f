//! `--security-opt seccomp=FILE`: docker's JSON profile as the filter that the guest's kernel runs.
//!
//! `profile` reads the profile and says what it means for each system call; `program` makes a BPF program of that. The syntax, and what decides between
//! rules, is that of docker and runc: <https://docs.docker.com/engine/security/seccomp/>

mod profile;
mod program;

use std::fs;

use anyhow::{Context, Result};

use crate::cli::run::process::{ProcessArgs, SecurityOpt};
use crate::plan;

/// The filter that the last `--security-opt seccomp=` asks for, as seccomp(2) takes it.
pub fn filter(options: &ProcessArgs) -> Result<Option<Vec<u8>>> {
    let asked = options.security_opt.iter().rev().find_map(|option| match option {
        SecurityOpt::Seccomp(file) => Some(file),
        _ => None,
    });
    let Some(Some(file)) = asked else { return Ok(None) };
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read the seccomp profile {}", file.display()))?;
    let context = || format!("the seccomp profile {} cannot be used", file.display());
    compile(&text, plan::capabilities(options)).map(Some).with_context(context)
}

/// Makes a filter of a profile, for a process with these capabilities.
pub fn compile(text: &str, capabilities: u64) -> Result<Vec<u8>> {
    let policy = profile::read(text, capabilities)?;
    Ok(program::assemble(&policy)?)
}
