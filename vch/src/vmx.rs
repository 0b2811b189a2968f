//! `vch vmx`: a containerVM for ESXi as a directory, out of an image and the options of `vch run`.
//!
//! ```text
//! spec     what of a plan is different on ESXi      files    the disks and the medium
//! text     what the .vmx file says                  deploy   how it gets to a host: docs/vmware.md
//! ```
//!
//! It decides the order. The directory is made under another name and appears when it is whole.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

mod files;
mod spec;
mod text;

use self::files::Files;
use crate::assets::Boot;
use crate::cli::{BootKind, DiskForm, LinkKind, VmxArgs};
use crate::ids;
use crate::images::{self, Unfinished};
use crate::inputs::Inputs;
use crate::plan::{self, Asked, Plan};
use crate::{assets, master_key, signals, state, timestamp};

/// Writes the directory; the exit code is the result.
pub fn run(args: &VmxArgs) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let result = runtime.block_on(async {
        let mut caught = signals::catch().context("cannot catch signals")?;
        let (unfinished_image, unfinished) = (Unfinished::default(), Unfinished::default());
        let work = {
            let (args, image, own) = (args.clone(), unfinished_image.clone(), unfinished.clone());
            tokio::task::spawn_blocking(move || write(&args, image, &own))
        };
        tokio::select! {
            done = work => done.context("writing the virtual machine went wrong")?.map(|()| 0),
            signal = signals::ending(&mut caught) => {
                unfinished_image.abandon();
                unfinished.abandon();
                Ok(128 + signal)
            }
        }
    });
    runtime.shutdown_background();
    result
}

fn write(args: &VmxArgs, unfinished_image: Unfinished, unfinished: &Unfinished) -> Result<()> {
    let (container, esxi) = (&args.container, &args.esxi);
    if container.disks.form == DiskForm::Layers {
        bail!(
            "--disk layers: virtual machines on ESXi share no disks, so each would have its own copy of every layer: leave it out"
        );
    }
    let id = state::new_id()?;
    let name = container.name.clone().unwrap_or_else(|| ids::short(&id).to_owned());
    let output = esxi.output.clone().unwrap_or_else(|| PathBuf::from(&name));
    if fs::symlink_metadata(&output).is_ok() {
        bail!("{} exists: name another directory with -o, or remove it", output.display());
    }
    if !parent(&output).is_dir() {
        bail!("there is no directory {} to make {} in", parent(&output).display(), output.display());
    }
    let iso = match &esxi.iso {
        Some(_) => None,
        None => {
            let program = std::env::current_exe().context("cannot find out where vch lies")?;
            match assets::find(BootKind::Iso, esxi.assets.as_deref(), &program)? {
                Boot::Iso(iso) => Some(iso),
                Boot::Kernel { .. } => None,
            }
        }
    };
    let inputs = Inputs::read(container)?;
    let image = images::open(container.image(), container.pull, &state::cache_dir()?, unfinished_image)?;
    let master = master_key::path(esxi.master_key.as_deref(), esxi.state.as_deref())?;
    let key = master_key::at(&master)?.link_key(&id);
    let asked = Asked {
        id: &id,
        args: container,
        link: LinkKind::Serial,
        transient: false,
        variables: &inputs.variables,
        seccomp: inputs.seccomp.as_deref(),
        layers: &[],
        size: None,
    };
    let config = image.config();
    let Plan { spec, volumes, card } = plan::plan(key, asked, &config)?;
    let labels = inputs.labels(config.labels.clone());
    let told = wire::spec::About {
        image_id: Some(image.digest().to_owned()),
        created_ns: i64::try_from(timestamp::now_ns()).ok(),
        labels: labels.clone(),
        ..plan::about(container, &config)
    };

    // beside the output, so that a rename is all that is left
    let dir = tempfile::Builder::new()
        .prefix(".vch-vmx-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent(&output))
        .with_context(|| format!("cannot make a directory in {}", parent(&output).display()))?;
    unfinished.begin(dir.path());
    let mut files = Files::in_dir(dir.path(), esxi.vmdk);
    files.root(&image.disk()?)?;
    let mounts = spec.mounts.clone();
    let spec = spec::on_esxi(spec, container, esxi, files.volumes(&volumes, &mounts)?, card.is_some())?;
    let medium = match (&esxi.iso, iso) {
        (Some(path), _) => path.clone(),
        (None, Some(iso)) => files.medium(&iso)?,
        (None, None) => bail!("there is no bootstrap.iso"),
    };
    let mut guestinfo = wire::guestinfo::write(&spec);
    wire::guestinfo::write_about(&told, &mut guestinfo);
    let machine = text::Machine {
        name: &name,
        note: note(container.image(), labels),
        hardware: esxi.hardware,
        memory_mib: container.machine.memory.mebibytes(),
        cpus: container.machine.cpus.processors(),
        medium: &medium,
        disks: files.disks(),
        link: &esxi.link,
        logs: spec.log.is_some(),
        card: spec::card(&spec, esxi),
        guarded: !esxi.open_guestinfo,
        guestinfo,
    };
    let text = machine.text()?;
    private(&dir.path().join(format!("{name}.vmx")), &text)?;
    let moved = fs::rename(dir.path(), &output);
    moved.with_context(|| format!("cannot rename {} to {}", dir.path().display(), output.display()))?;
    // the name that it knows is gone
    drop(dir.keep());
    eprintln!("vch: wrote {}: docs/vmware.md tells how it gets to an ESXi host", output.display());
    eprintln!("vch: the link is open to who has {}: `vch serve` needs it", master.display());
    println!("{id}");
    Ok(())
}

/// What an administrator reads beside the VM's name.
fn note(image: &str, labels: std::collections::BTreeMap<String, String>) -> String {
    let labels = labels.into_iter().map(|(key, value)| format!("\n{key}={value}"));
    format!("containerVM of {image}{}", labels.collect::<String>())
}

/// The environment and the link's key are in it.
fn private(path: &Path, text: &str) -> Result<()> {
    let opened = fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
