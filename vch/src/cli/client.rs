//! What was typed for the commands that use `vch serve`, and for `vch logs`: docker's words.

use std::path::PathBuf;

use clap::Args;

use crate::control::{self, Address};
use crate::detach::Keys;
use wire::guestinfo::signal_number;

/// Where `vch serve` is.
#[derive(Debug, Clone, Args)]
pub struct Control {
    /// The control socket of `vch serve` [default: vch/control.sock in $XDG_RUNTIME_DIR, or /tmp/vch-UID/control.sock]
    #[arg(long = "control", value_name = "unix://PATH", env = control::ENVIRONMENT)]
    address: Option<Address>,
}

impl Control {
    pub fn address(&self) -> Address {
        self.address.clone().unwrap_or_default()
    }
}

/// List the containerVMs whose links serve holds.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch ps")]
pub struct PsArgs {
    /// Only their ids, in full
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub control: Control,
}

/// Let the process of a VM that was told to hold it begin.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch start 3f0c")]
pub struct StartArgs {
    /// VMs, by id or the beginning of one
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,

    #[command(flatten)]
    pub control: Control,
}

/// Connect this terminal to a VM's process.
///
/// The exit code is the process's. On a terminal, the detach keys leave it running.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch attach --detach-keys ctrl-x,d 3f0c")]
pub struct AttachArgs {
    /// Do not connect standard input
    #[arg(long)]
    pub no_stdin: bool,

    /// The keys that detach, with commas between them: `a`, `ctrl-p`, `DEL`
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: Keys,

    /// Pass signals on to the process, if it has no terminal
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub sig_proxy: bool,

    /// The VM, by id or the beginning of one
    pub vm: String,

    #[command(flatten)]
    pub control: Control,
}

/// Run a command in a VM, beside its process.
///
/// The exit code is the command's; 126 when it cannot be executed, 127 when there is none of that name. A command that should outlive this one is run with -d.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch exec -it 3f0c sh", override_usage = "vch exec [OPTIONS] VM COMMAND [ARGUMENT]...")]
pub struct ExecArgs {
    /// Connect standard input
    #[arg(short, long)]
    pub interactive: bool,

    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,

    /// Do not wait for it
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub detach: bool,

    /// Set an environment variable; without a value, take it from this environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// The user to run as: a name or number, and a group after a colon
    #[arg(short, long, value_name = "USER[:GROUP]", default_value = "", hide_default_value = true)]
    pub user: String,

    /// The directory to run in, absolute
    #[arg(short, long, value_name = "DIR", default_value = "", hide_default_value = true)]
    pub workdir: String,

    /// The keys that detach, with commas between them: `a`, `ctrl-p`, `DEL`
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: Keys,

    #[command(flatten)]
    pub control: Control,

    /// The VM, by id or the beginning of one; then the command
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_names = ["VM", "COMMAND"])]
    pub vm_and_command: Vec<String>,
}

impl ExecArgs {
    pub fn vm(&self) -> &str {
        &self.vm_and_command[0]
    }

    pub fn command(&self) -> &[String] {
        &self.vm_and_command[1..]
    }
}

/// Send a signal to a VM's process.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch kill -s HUP 3f0c")]
pub struct KillArgs {
    /// A signal's name, with or without SIG, or number, 1 to 64
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = signal)]
    pub signal: u8,

    /// VMs, by id or the beginning of one
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,

    #[command(flatten)]
    pub control: Control,
}

/// Ask a VM's process to end, and kill it when it does not.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch stop -t 30 3f0c")]
pub struct StopArgs {
    /// The signal that asks
    #[arg(short, long, value_name = "SIGNAL", default_value = "TERM", value_parser = signal)]
    pub signal: u8,

    /// Seconds until it is killed; -1 waits for ever
    #[arg(
        short,
        long = "time",
        visible_alias = "timeout",
        value_name = "SECONDS",
        default_value_t = 10,
        allow_negative_numbers = true
    )]
    pub time: i64,

    /// VMs, by id or the beginning of one
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,

    #[command(flatten)]
    pub control: Control,
}

/// Wait until a VM's process has ended, and print its exit code.
///
/// The exit code of `vch wait` itself is that of the last VM's process.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch wait 3f0c")]
pub struct WaitArgs {
    /// VMs, by id or the beginning of one
    #[arg(required = true, value_name = "VM")]
    pub vms: Vec<String>,

    #[command(flatten)]
    pub control: Control,
}

/// List the processes of a VM's container.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch top 3f0c")]
pub struct TopArgs {
    /// The VM, by id or the beginning of one
    pub vm: String,

    #[command(flatten)]
    pub control: Control,
}

/// Show what containers use: processor, memory, network, disks, processes.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch stats --no-stream 3f0c")]
pub struct StatsArgs {
    /// Once, and not every second
    #[arg(long)]
    pub no_stream: bool,

    /// VMs, by id or the beginning of one; without any, all
    #[arg(value_name = "VM")]
    pub vms: Vec<String>,

    #[command(flatten)]
    pub control: Control,
}

/// Copy files into a VM's container, or out of it.
///
/// As with docker: a directory that exists takes the source in, `SOURCE/.` is the directory's content, and the last component of a destination that does
/// not exist is the copy's new name. `-` is a tar archive on standard input or output.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples: vch cp 3f0c:/etc/hosts .   vch cp site/. 3f0c:/srv   vch cp 3f0c:/var - >var.tar")]
pub struct CpArgs {
    /// Keep owners: the numbers of user and group
    #[arg(short, long)]
    pub archive: bool,

    /// Follow the source, if it is a symbolic link
    #[arg(short = 'L', long)]
    pub follow_link: bool,

    /// VM:PATH, PATH, or -
    pub source: String,

    /// VM:PATH, PATH, or -
    pub destination: String,

    #[command(flatten)]
    pub control: Control,
}

/// Show what a container has written, from the file behind its log device.
///
/// Standard output's lines go to standard output, standard error's to standard error.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch logs -f --tail 20 --since 10m ~/.local/state/tether/containers/3f0c...")]
pub struct LogsArgs {
    /// Go on until the container has ended
    #[arg(short, long)]
    pub follow: bool,

    /// Begin each line with its time
    #[arg(short, long)]
    pub timestamps: bool,

    /// Only what was written since: 2026-01-31T23:59:59Z, seconds since 1970, or how long ago, as 10m
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,

    /// Only what was written before
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,

    /// Only so many lines from the end, or `all`
    #[arg(short = 'n', long, value_name = "N", default_value = "all")]
    pub tail: String,

    /// The log's file, or the directory of a container, which holds it as output.log
    #[arg(value_name = "FILE")]
    pub source: PathBuf,
}

fn signal(text: &str) -> Result<u8, String> {
    signal_number(text).ok_or_else(|| format!("{text:?} is no signal: write a name as TERM, or a number from 1 to 64"))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Ok(Cli::try_parse_from(line.split(' '))?.command)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_exec_stop_at_the_vm() {
        let Ok(Command::Exec(args)) = parse("vch exec -it -e A=b -u www web ls -l --help") else { panic!("no exec") };
        assert!(args.interactive && args.tty);
        assert_eq!((args.vm(), args.user.as_str()), ("web", "www"));
        assert_eq!(args.command(), ["ls", "-l", "--help"]);
        for line in ["vch exec", "vch exec web", "vch exec -d -i web ls", "vch exec -x web ls"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        let check = |line: &str, expected: Option<u8>| {
            let signal = match parse(line) {
                Ok(Command::Kill(args)) => Some(args.signal),
                Ok(Command::Stop(args)) => Some(args.signal),
                _ => None,
            };
            assert_eq!(signal, expected, "{line}");
        };
        check("vch kill web", Some(9));
        check("vch kill -s SIGHUP web", Some(1));
        check("vch kill --signal usr1 web db", Some(10));
        check("vch kill -s 64 web", Some(64));
        check("vch kill -s RTMIN+3 web", Some(37));
        check("vch kill -s 0 web", None);
        check("vch kill -s BOGUS web", None);
        check("vch stop -t -1 web", Some(15));
        check("vch stop -s INT web", Some(2));
    }

    #[test]
    fn sig_proxy_is_as_dockers() {
        for (line, expected) in [
            ("vch attach web", true),
            ("vch attach --sig-proxy web", true),
            ("vch attach --sig-proxy=false web", false),
        ] {
            let Ok(Command::Attach(args)) = parse(line) else { panic!("{line}") };
            assert_eq!(args.sig_proxy, expected, "{line}");
        }
        assert!(parse("vch attach --detach-keys ctrl-1 web").is_err());
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        for command in
            Cli::command().get_subcommands_mut().filter(|command| command.get_name() != "run" && !command.is_hide_set())
        {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{help}");
        }
    }
}
