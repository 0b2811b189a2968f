//! What was typed: the command line as clap parses it, in docker's words.
//!
//! It decides spelling and nothing else; what the options mean for an image is decided in [`crate::plan`].

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::size::{self, Size};

/// Runs containers as virtual machines.
#[derive(Debug, Parser)]
#[command(name = "vch", version, about, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(RunArgs),
}

/// Run a command of an image in a virtual machine of its own.
///
/// Standard input, output and error, signals and the exit code are those of the command: 128+n when signal n killed it, 126 when it cannot be
/// executed, 127 when there is none of that name, 125 when the virtual machine could not run it.
#[derive(Debug, Clone, Args)]
#[command(disable_help_flag = true, override_usage = "vch run [OPTIONS] IMAGE [COMMAND]...")]
pub struct RunArgs {
    /// Connect standard input
    #[arg(short, long)]
    pub interactive: bool,

    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,

    /// Set an environment variable; without a value, take it from this environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// Set the environment variables in this file, one a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,

    /// The directory to run in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,

    /// The user to run as: a name or number, and a group after a colon
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,

    /// The host name inside [default: the first 12 characters of the container's id]
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,

    /// Memory of the virtual machine: bytes, or with k, m, g
    #[arg(short, long, value_name = "SIZE", default_value = "512m", value_parser = size::memory)]
    pub memory: Size,

    /// Processors of the virtual machine, a whole number
    #[arg(long, value_name = "N", default_value = "1", value_parser = size::processors)]
    pub cpus: u8,

    /// Run this program instead of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,

    /// Leave no trace of the container when it has ended
    #[arg(long)]
    pub rm: bool,

    /// The device between host and guest: virtio and vsock are fast, serial is what ESXi has
    #[arg(long, value_enum, default_value_t = LinkKind::Virtio)]
    pub link: LinkKind,

    /// Boot the kernel directly, or bootstrap.iso through the firmware
    #[arg(long, value_enum, default_value_t = BootKind::Kernel)]
    pub boot: BootKind,

    /// Where kernel, initramfs and bootstrap.iso lie [default: dist/ beside the program, /usr/share/tether]
    #[arg(long, value_name = "DIR", env = "VCH_ASSETS")]
    pub assets: Option<PathBuf>,

    /// How long the virtual machine may take to be ready
    #[arg(long, value_name = "SECONDS", env = "VCH_START_TIMEOUT", default_value_t = 60)]
    pub start_timeout: u64,

    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,

    // One positional, so that the options end at IMAGE: `vch run IMAGE -i` gives -i to the command. Its help is no doc
    // comment, because rustdoc takes the brackets for a link.
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND]", help = IMAGE_HELP)]
    pub image_and_command: Vec<String>,
}

const IMAGE_HELP: &str =
    "docker-archive:FILE, oci:DIR[:TAG], a file or directory of either kind; then the command, in place of the image's";

impl RunArgs {
    pub fn image(&self) -> &str {
        &self.image_and_command[0]
    }

    pub fn command(&self) -> &[String] {
        &self.image_and_command[1..]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LinkKind {
    Virtio,
    Serial,
    Vsock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BootKind {
    Kernel,
    Iso,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<RunArgs, clap::Error> {
        let Command::Run(args) = Cli::try_parse_from(line.split(' '))?.command;
        Ok(args)
    }

    #[test]
    fn options_stop_at_the_image() {
        let check = |line: &str, interactive: bool, image: &str, command: &[&str]| {
            let args = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!((args.interactive, args.image()), (interactive, image), "{line}");
            assert_eq!(args.command(), command, "{line}");
        };
        check("vch run img", false, "img", &[]);
        check("vch run -i img -t --rm", true, "img", &["-t", "--rm"]);
        check("vch run img -i", false, "img", &["-i"]);
        check("vch run img sh -c true", false, "img", &["sh", "-c", "true"]);
        check("vch run img -- x", false, "img", &["--", "x"]);
        check("vch run -- img -x", false, "img", &["-x"]);
        check("vch run img a -- b", false, "img", &["a", "--", "b"]);
        check("vch run img --help", false, "img", &["--help"]);
    }

    #[test]
    fn short_flags_combine_and_h_is_the_host_name() {
        for line in ["vch run -it img", "vch run -ti img"] {
            let args = parse(line).unwrap();
            assert!(args.interactive && args.tty, "{line}");
        }
        assert_eq!(parse("vch run -h web img").unwrap().hostname.as_deref(), Some("web"));
        let args = parse("vch run -e A=1 --env B=2 -e C -m 1g --cpus 2 img").unwrap();
        assert_eq!(args.env, ["A=1", "B=2", "C"]);
        assert_eq!((args.memory.mebibytes(), args.cpus), (1024, 2));
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for line in ["vch run", "vch run --bogus img", "vch run --cpus 1.5 img", "vch run -m lots img"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
