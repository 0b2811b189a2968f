//! What was typed for `vch ova`: the appliance's size, its network, and what it is told.

use std::path::PathBuf;

use clap::Args;

use crate::size::{self, Size};

/// Write the appliance for ESXi and vCenter: an OVA with appliance.iso.
///
/// ovftool, govc and vCenter's own dialog deploy it: docs/vmware.md tells how. The same input gives the same bytes.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example: vch ova -o vch.ova --data-disk 20g\nThen: govc import.ova vch.ova")]
pub struct OvaArgs {
    /// The file to write
    #[arg(short, long, value_name = "FILE.ova", default_value = "vch-appliance.ova", value_parser = output)]
    pub output: PathBuf,

    /// The VM's name, which who deploys it can change
    #[arg(long, value_name = "NAME", default_value = "vch-appliance", value_parser = name)]
    pub name: String,

    /// Memory: bytes, or with k, m, g
    #[arg(short, long, value_name = "SIZE", default_value = "1g", value_parser = size::memory)]
    pub memory: Size,

    /// Processors
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub cpus: u8,

    /// The name of the network in the package, for which who deploys it chooses a port group
    #[arg(long, value_name = "NAME", default_value = "VM Network")]
    pub network: String,

    /// An empty disk of that size, made as it is deployed
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    pub data_disk: Option<u64>,

    /// Tell the appliance, under a key that begins with guestinfo.
    #[arg(long, value_name = "KEY=VALUE", value_parser = guestinfo)]
    pub guestinfo: Vec<(String, String)>,

    /// Ask who deploys it for a value, which stands in guestinfo.ovfEnv then
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = property)]
    pub property: Vec<(String, String)>,

    /// Where appliance.iso lies [default: dist/ beside the program, /usr/share/tether]
    #[arg(long, value_name = "DIR", env = "VCH_ASSETS")]
    pub assets: Option<PathBuf>,

    /// Seconds since 1970 that date the files in the OVA
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_name = "SECONDS", default_value_t = 0, hide_env_values = true)]
    pub epoch: u64,
}

fn output(text: &str) -> Result<PathBuf, String> {
    match text.ends_with(".ova") {
        true => Ok(text.into()),
        false => Err("tools know an OVA by its name: let it end with .ova".into()),
    }
}

/// It names files in the OVA, whose header has room for 100 bytes.
fn name(text: &str) -> Result<String, String> {
    let plain = |char: char| char.is_ascii_alphanumeric() || "_.-".contains(char);
    match (1..=80).contains(&text.len()) && text.chars().all(plain) && !text.starts_with(['.', '-']) {
        true => Ok(text.to_owned()),
        false => Err("1 to 80 letters, digits, `_`, `.` and `-`, a letter, digit or `_` first".into()),
    }
}

fn guestinfo(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if key.starts_with("guestinfo.") && key.len() > "guestinfo.".len() => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("write it as guestinfo.KEY=VALUE: a guest is told of no other keys".into()),
    }
}

/// Letters and digits, in parts between dots: DSP0243 keeps `.` and `:` for what stands before and behind a key.
fn property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let plain =
        |part: &str| !part.is_empty() && part.chars().all(|char| char.is_ascii_alphanumeric() || "_-".contains(char));
    match key.split('.').all(plain) {
        true => Ok((key.to_owned(), value.to_owned())),
        false => Err("a key is letters, digits, `_` and `-`, in parts between dots".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_names_that_cannot_be_are_refused() {
        assert_eq!(guestinfo("guestinfo.a=b=c"), Ok(("guestinfo.a".into(), "b=c".into())));
        for text in ["guestinfo.a", "guestinfo.=b", "guest_rpc.rpci.usevsocket=b", "a=b", ""] {
            assert!(guestinfo(text).is_err(), "{text}");
        }
        assert_eq!(property("vch.master-key"), Ok(("vch.master-key".into(), String::new())));
        assert_eq!(property("a=b"), Ok(("a".into(), "b".into())));
        for text in ["", ".a", "a..b", "a:b", "a b=c"] {
            assert!(property(text).is_err(), "{text}");
        }
        for text in ["", "a/b", "-a", "..", &"a".repeat(81)] {
            assert!(name(text).is_err(), "{text}");
        }
        assert!(output("a.ovf").is_err() && output("a.ova").is_ok());
    }
}
