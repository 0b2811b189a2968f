//! `-m`, `--cpus`, `--sysctl`, `--log-driver` and their kin: the machine's size, the container's share of it, and its log.

#![allow(rustdoc::broken_intra_doc_links, reason = "these comments are help texts: brackets hold what can be left out")]

use clap::{Args, ValueEnum};

use crate::size::{self, Cpus, Size};

/// A containerVM's size, and its log.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machine")]
pub struct MachineArgs {
    /// Memory of the virtual machine: bytes, or with k, m, g
    #[arg(short, long, value_name = "SIZE", default_value = "512m", value_parser = size::memory)]
    pub memory: Size,

    /// Processors of the virtual machine; of a part of one, the container gets that much of its time
    #[arg(long, value_name = "N", default_value = "1", value_parser = size::cpus)]
    pub cpus: Cpus,

    /// The most processes and threads of the container; -1 is no limit
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    pub pids_limit: i64,

    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    pub shm_size: Option<u64>,

    /// Set a parameter of the virtual machine's kernel: any, as it is the container's own
    #[arg(long, value_name = "NAME=VALUE", value_parser = sysctl)]
    pub sysctl: Vec<(String, String)>,

    /// What becomes of the output: json-file keeps it for `vch logs`, syslog also sends it to a server, none keeps nothing
    #[arg(long, value_enum, value_name = "DRIVER", default_value_t = LogDriver::JsonFile)]
    pub log_driver: LogDriver,

    /// For syslog: syslog-address=tcp://IP[:PORT] or udp://IP[:PORT]
    #[arg(long, value_name = "NAME=VALUE", value_parser = log_opt)]
    pub log_opt: Vec<(String, String)>,
}

/// What becomes of a container's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogDriver {
    None,
    #[value(alias = "local")]
    JsonFile,
    Syslog,
}

/// Parses `--sysctl`.
pub fn sysctl(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as net.core.somaxconn=1024")?;
    // sysctl(8) takes names with slashes too, in which a dot is part of a name
    let name = name.trim().replace('/', ".");
    let plain =
        |part: &str| !part.is_empty() && part.chars().all(|char| char.is_ascii_alphanumeric() || "_-".contains(char));
    match name.contains('.') && name.split('.').all(plain) {
        true => Ok((name, value.trim().to_owned())),
        false => Err(format!("{name:?} is no name of a kernel parameter: they are as net.core.somaxconn")),
    }
}

/// Parses `--log-opt`.
pub fn log_opt(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("syslog-address", value)) => Ok(("syslog-address".into(), value.into())),
        Some(("syslog-format", "rfc5424")) => Ok(("syslog-format".into(), "rfc5424".into())),
        Some((name, _)) => Err(format!("{name:?} is no option of a log here: syslog-address is")),
        None => Err("write it as syslog-address=tcp://192.0.2.1:514".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_names_with_dots() {
        let check = |text: &str, name: &str, value: &str| {
            assert_eq!(sysctl(text), Ok((name.to_owned(), value.to_owned())), "{text}");
        };
        check("net.core.somaxconn=1024", "net.core.somaxconn", "1024");
        check("net/ipv4/ip_local_port_range=1 2", "net.ipv4.ip_local_port_range", "1 2");
        for text in ["", "x=1", "net.core", "net..x=1", "net.a/../b=1", ".x=1", "kernel.a b=1"] {
            assert!(sysctl(text).is_err(), "{text}");
        }
    }
}
