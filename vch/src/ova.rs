//! `vch ova`: the appliance as a package that ESXi, vCenter, ovftool and govc deploy.
//!
//! ```text
//! descriptor  what the machine is: OVF       archive  the package: OVF, manifest, medium
//! ```
//!
//! It reads no clock and draws nothing: the same input gives the same bytes.

use std::fs::File;

use anyhow::{Context, Result};

mod archive;
mod descriptor;

use self::descriptor::Appliance;
use crate::assets;
use crate::cli::OvaArgs;

/// Writes the package; the exit code is the result.
pub fn run(args: &OvaArgs) -> Result<u8> {
    let program = std::env::current_exe().context("cannot find out where vch lies")?;
    let iso = assets::appliance(args.assets.as_deref(), &program)?;
    let medium = File::open(&iso).with_context(|| format!("cannot read {}", iso.display()))?;
    let size = medium.metadata().with_context(|| format!("cannot read {}", iso.display()))?.len();
    let medium_name = format!("{}.iso", args.name);
    let appliance = Appliance {
        name: &args.name,
        version: env!("CARGO_PKG_VERSION"),
        medium: &medium_name,
        medium_size: size,
        memory_mib: args.memory.mebibytes().next_multiple_of(MEMORY_UNIT),
        cpus: args.cpus,
        network: &args.network,
        data_disk: args.data_disk,
        guestinfo: &args.guestinfo,
        properties: &args.property,
    };
    let package = archive::Package {
        name: &args.name,
        descriptor: descriptor::text(&appliance)?,
        medium: &medium,
        medium_name: &medium_name,
        medium_size: size,
        time: args.epoch,
    };
    package.write(&args.output).with_context(|| format!("cannot write {}", args.output.display()))?;
    eprintln!("vch: wrote {}: docs/vmware.md tells how to deploy it", args.output.display());
    Ok(0)
}

/// MiB: ESXi refuses other amounts.
const MEMORY_UNIT: u64 = 4;
