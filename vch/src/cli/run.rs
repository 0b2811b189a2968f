//! What was typed for `vch run`: docker's options, in docker's spelling.
//!
//! Each group of options has a file below, with the forms in which its values are written. What a containerVM cannot do has no option: [`refused`] says why.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

pub mod disks;
pub mod machine;
pub mod network;
pub mod process;
pub mod refused;

use self::disks::DiskArgs;
use self::machine::MachineArgs;
use self::network::NetworkArgs;
use self::process::ProcessArgs;
use crate::ids::is_name;
use crate::pipe::{Address, AddressError};

/// Run a command of an image in a virtual machine of its own.
///
/// Standard input, output and error, signals and the exit code are those of the command: 128+n when signal n killed it, 126 when it cannot be
/// executed, 127 when there is none of that name, 125 when the virtual machine could not run it.
#[derive(Debug, Clone, Args)]
#[command(disable_help_flag = true, override_usage = "vch run [OPTIONS] IMAGE [COMMAND]...")]
pub struct RunArgs {
    /// Leave no trace of the container when it has ended
    #[arg(long)]
    pub rm: bool,

    /// Write the container's id to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,

    #[command(flatten)]
    pub container: ContainerArgs,

    /// The device between host and guest: virtio and vsock are fast, serial is what ESXi has
    #[arg(long, value_enum, default_value_t = LinkKind::Virtio)]
    pub link: LinkKind,

    /// Lead the link, a serial port, to a VCH that runs elsewhere, at unix://PATH or tcp://HOST:PORT of its --link-listen: `docker` and `vch attach` talk to the
    /// container there. This command prints the id, waits until the machine is off, and presses its power button when it is told to end
    #[arg(long, value_name = "ADDRESS", value_parser = elsewhere, conflicts_with = "link")]
    pub vch: Option<Address>,

    /// The master key of that VCH; made if it does not exist [default: master.key in the state directory]
    #[arg(long, value_name = "FILE", requires = "vch")]
    pub master_key: Option<PathBuf>,

    /// Start the command only when the VCH says so (`docker start`): none of its output is missed
    #[arg(long, requires = "vch")]
    pub hold: bool,

    /// Boot the kernel directly, or bootstrap.iso through the firmware
    #[arg(long, value_enum, default_value_t = BootKind::Kernel)]
    pub boot: BootKind,

    /// Have the machine go on where a template of its kind waits, in place of booting it: `auto` boots it where that cannot be done, and says why. The first one makes the
    /// template, which is kept in memory until nobody has used it for ten minutes
    #[arg(long, value_enum, env = "VCH_CLONE", default_value_t = CloneWish::Never)]
    pub clone: CloneWish,

    /// Where kernel, initramfs and bootstrap.iso lie [default: dist/ beside the program, /usr/share/tether]
    #[arg(long, value_name = "DIR", env = "VCH_ASSETS")]
    pub assets: Option<PathBuf>,

    /// How long the virtual machine may take to be ready
    #[arg(long, value_name = "SECONDS", env = "VCH_START_TIMEOUT", default_value_t = 60)]
    pub start_timeout: u64,

    /// When the virtual machine cannot run the command, show what its kernel said
    #[arg(long)]
    pub debug: bool,

    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

impl RunArgs {
    /// The device of the link: the one that can lead elsewhere is the one that ESXi has.
    pub fn link(&self) -> LinkKind {
        if self.vch.is_some() { LinkKind::Serial } else { self.link }
    }
}

/// Whether a machine is cloned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CloneWish {
    Auto,
    Never,
    Always,
}

/// A container, wherever its machine runs.
#[derive(Debug, Clone, Args)]
pub struct ContainerArgs {
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

    /// Run this program instead of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,

    /// A name for the container, which no other has
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub name: Option<String>,

    /// A note to keep with the container
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,

    /// Notes from this file, one a line
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<PathBuf>,

    /// When to pull an image that has a name in a registry
    #[arg(long, value_enum, default_value_t = Pull::Missing)]
    pub pull: Pull,

    #[command(flatten)]
    pub process: ProcessArgs,

    #[command(flatten)]
    pub disks: DiskArgs,

    #[command(flatten)]
    pub network: NetworkArgs,

    #[command(flatten)]
    pub machine: MachineArgs,

    // One positional, so that the options end at IMAGE: `vch run IMAGE -i` gives -i to the command. Its help is no doc
    // comment, because rustdoc takes the brackets for a link.
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND]", help = IMAGE_HELP)]
    pub image_and_command: Vec<String>,
}

const IMAGE_HELP: &str = "docker-archive:FILE, oci:DIR[:TAG], a file or directory of either kind, or the name of an image in a registry; then the command, in place of the image's";

impl ContainerArgs {
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

/// Whether an image is pulled that may be here already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// Even if it is here: its name may lead to another image now
    Always,
    /// If it is not here
    Missing,
    Never,
}

/// How an image's files reach the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DiskForm {
    /// All layers on one disk
    Merged,
    /// A disk for each layer, which all images share that have it
    Layers,
}

/// Where QEMU can connect a serial port to.
fn elsewhere(text: &str) -> Result<Address, String> {
    match text.parse().map_err(|error: AddressError| error.to_string())? {
        // a comma would begin another of QEMU's options
        Address::Tcp(place) if !place.contains(',') => Ok(Address::Tcp(place)),
        Address::Unix(path) => Ok(Address::Unix(path)),
        _ => Err("write unix://PATH or tcp://HOST:PORT".into()),
    }
}

/// As docker names containers.
fn name(text: &str) -> Result<String, String> {
    match text.len() >= 2 && is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("letters, digits, `_`, `.` and `-`, at least two of them, a letter or digit first".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Result<RunArgs, clap::Error> {
        match Cli::try_parse_from(line.split(' '))?.command {
            Command::Run(args) => Ok(*args),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_stop_at_the_image() {
        let check = |line: &str, interactive: bool, image: &str, command: &[&str]| {
            let args = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!((args.container.interactive, args.container.image()), (interactive, image), "{line}");
            assert_eq!(args.container.command(), command, "{line}");
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
            assert!(args.container.interactive && args.container.tty, "{line}");
        }
        assert_eq!(parse("vch run -h web img").unwrap().container.network.hostname.as_deref(), Some("web"));
        let args = parse("vch run -e A=1 --env B=2 -e C -m 1g --cpus 2 img").unwrap().container;
        assert_eq!(args.env, ["A=1", "B=2", "C"]);
        assert_eq!((args.machine.memory.mebibytes(), args.machine.cpus.processors()), (1024, 2));
    }

    #[test]
    fn a_vch_elsewhere() {
        let args = parse("vch run --vch tcp://192.0.2.1:8080 --hold img").unwrap();
        assert_eq!(
            (args.vch.clone(), args.hold, args.link()),
            (Some(Address::Tcp("192.0.2.1:8080".into())), true, LinkKind::Serial)
        );
        assert_eq!(parse("vch run img").unwrap().link(), LinkKind::Virtio);
        for odd in [
            "--hold",
            "--master-key f",
            "--vch vsock://1",
            "--vch tcp://x",
            "--vch tcp://a,b:1",
            "--vch unix:///s --link virtio",
        ] {
            assert!(parse(&format!("vch run {odd} img")).is_err(), "{odd}");
        }
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for line in ["vch run", "vch run --bogus img", "vch run --cpus 0 img", "vch run -m lots img"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
