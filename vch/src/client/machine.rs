//! `vch reload`, `trim`, `kernel-log`, `reboot` and `status`: what is asked of a VM itself.

use std::fs;
use std::io::{self, Read};

use anyhow::{Context, Result, bail};
use wire::message::{self, Reply, SpecText};
use wire::vmx::Dictionary;

use super::commands::{Results, refused};
use super::tables::print;
use super::{command, question};
use crate::cli::{KernelLogArgs, RebootArgs, ReloadArgs, StatusArgs, TrimArgs};
use crate::control::{Address, Request};

pub(super) async fn reload(args: &ReloadArgs) -> Result<u8> {
    let keys = match &args.file {
        None => String::new(),
        Some(path) if path.as_os_str() == "-" => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).context("cannot read a spec on standard input")?;
            checked(text, "standard input")?
        }
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            checked(text, &path.display().to_string())?
        }
    };
    match ask(&args.control.address(), &args.vm, message::Request::Reload { keys: SpecText(keys) }).await? {
        Reply::Done => Ok(0),
        reply => Err(refused(reply).into()),
    }
}

/// A mistake is told with its line, which the guest does not know. An empty spec would mean another thing to it.
fn checked(text: String, from: &str) -> Result<String> {
    let keys = Dictionary::parse(&text).with_context(|| format!("{from} is no spec"))?;
    if !keys.has_prefix("guestinfo.") {
        bail!("{from} is no spec: it has no guestinfo keys");
    }
    if text.len() > LONGEST {
        bail!("{from} has {} bytes: a spec has at most {LONGEST}", text.len());
    }
    Ok(text)
}

pub(super) async fn trim(args: &TrimArgs) -> Result<u8> {
    let address = args.control.address();
    let mut all = Results::default();
    for vm in &args.vms {
        match ask(&address, vm, message::Request::Trim).await {
            Ok(Reply::Trimmed { bytes }) => println!("{vm}: {bytes} bytes trimmed"),
            Ok(reply) => all.note(vm, Err(refused(reply).into())),
            Err(error) => all.note(vm, Err(error)),
        }
    }
    all.code()
}

pub(super) async fn reboot(args: &RebootArgs) -> Result<u8> {
    let address = args.control.address();
    let mut all = Results::default();
    for vm in &args.vms {
        let done = match ask(&address, vm, message::Request::Reboot).await {
            Ok(Reply::Done) => Ok(()),
            Ok(reply) => Err(refused(reply).into()),
            Err(error) => Err(error),
        };
        all.note(vm, done);
    }
    all.code()
}

pub(super) async fn kernel_log(args: &KernelLogArgs) -> Result<u8> {
    text(&args.control.address(), &args.vm, message::Request::KernelLog).await
}

pub(super) async fn status(args: &StatusArgs) -> Result<u8> {
    text(&args.control.address(), &args.vm, message::Request::Status).await
}

async fn text(address: &Address, vm: &str, ask: message::Request) -> Result<u8> {
    match question(address, &Request::Ask { vm: vm.into(), ask }).await? {
        Reply::Text(text) if text.ends_with('\n') => print(&text),
        Reply::Text(text) => print(&format!("{text}\n")),
        reply => Err(refused(reply).into()),
    }
}

async fn ask(address: &Address, vm: &str, ask: message::Request) -> Result<Reply> {
    command(address, &Request::Ask { vm: vm.into(), ask }).await
}

/// What a message can carry, and its head.
const LONGEST: usize = (1 << 20) - 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_spec_does_not_reach_the_guest() {
        let check = |text: &str, expected: &str| {
            let error = format!("{:#}", checked(text.to_owned(), "new.vmx").unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        check("", "no guestinfo keys");
        check("memsize = \"512\"\nx\n", "new.vmx is no spec: line 2: no `=` in it");
        check(&format!("guestinfo.a = \"{}\"", "x".repeat(LONGEST)), "at most");
        assert!(checked("guestinfo.vice./common/id = \"web\"\n".into(), "new.vmx").is_ok());
    }
}
