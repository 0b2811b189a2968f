//! What was typed for the commands that concern a VM itself, and not a process in it.

use std::path::PathBuf;

use clap::Args;

use super::Control;

/// Give a running VM another spec: what is new is added, and what is another is changed, or nothing is.
///
/// The spec is the whole of it, as in a .vmx file: docs/guestinfo.md lists the keys. Without FILE, the VM reads it again from where its hypervisor keeps it.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch reload 3f0c new.vmx")]
pub struct ReloadArgs {
    /// The VM, by id or the beginning of one
    pub vm: String,

    /// A file with the spec, or - for standard input
    pub file: Option<PathBuf>,

    #[command(flatten)]
    pub control: Control,
}

/// Tell the host which blocks of VMs' disks are free, so that it need not keep them.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch trim 3f0c")]
pub struct TrimArgs {
    /// VMs, by id or the beginning of one
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,

    #[command(flatten)]
    pub control: Control,
}

/// Show what a VM's kernel has said since it booted.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch kernel-log 3f0c")]
pub struct KernelLogArgs {
    /// The VM, by id or the beginning of one
    pub vm: String,

    #[command(flatten)]
    pub control: Control,
}

/// End all processes of VMs, and boot them again.
#[derive(Debug, Clone, Args)]
#[command(visible_alias = "restart", after_help = "Example: vch reboot 3f0c")]
pub struct RebootArgs {
    /// VMs, by id or the beginning of one
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,

    #[command(flatten)]
    pub control: Control,
}

/// Show how a VM is, as JSON: its sessions, their health, its networks.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch status 3f0c")]
pub struct StatusArgs {
    /// The VM, by id or the beginning of one
    pub vm: String,

    #[command(flatten)]
    pub control: Control,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Command};

    #[test]
    fn commands_have_their_words() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        let Ok(Command::Reload(args)) = parse("vch reload web -") else { panic!("no reload") };
        assert_eq!((args.vm.as_str(), args.file), ("web", Some("-".into())));
        assert!(matches!(parse("vch reload web"), Ok(Command::Reload(_))));
        assert!(matches!(parse("vch trim a b"), Ok(Command::Trim(args)) if args.vms.len() == 2));
        assert!(matches!(parse("vch kernel-log web"), Ok(Command::KernelLog(_))));
        assert!(matches!(parse("vch restart web"), Ok(Command::Reboot(_))));
        assert!(matches!(parse("vch status web"), Ok(Command::Status(_))));
        assert!(parse("vch trim").is_err() && parse("vch status").is_err());
    }
}
