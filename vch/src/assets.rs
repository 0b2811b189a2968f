//! Where the files lie that machines boot from: kernel, initramfs and bootstrap.iso, which are every containerVM's, and appliance.iso.
//!
//! It finds them and decides nothing about them; `./dev iso` makes them.

use std::path::{Path, PathBuf};

use crate::cli::BootKind;

/// What a machine boots from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    Kernel { kernel: PathBuf, initramfs: PathBuf },
    Iso(PathBuf),
}

/// Some of the files are missing.
#[derive(Debug, thiserror::Error)]
#[error("no {files} in {}: `./dev iso` makes what is missing", places.join(" or "))]
pub struct Missing {
    files: String,
    places: Vec<String>,
}

/// Finds what `kind` needs: in `chosen` if it is given, else in `dist/` of a directory above `program`, else where packages put it.
pub fn find(kind: BootKind, chosen: Option<&Path>, program: &Path) -> Result<Boot, Missing> {
    Ok(match kind {
        BootKind::Kernel => {
            let dir = directory(&[KERNEL, INITRAMFS], chosen, program)?;
            Boot::Kernel { kernel: dir.join(KERNEL), initramfs: dir.join(INITRAMFS) }
        }
        BootKind::Iso => Boot::Iso(directory(&[ISO], chosen, program)?.join(ISO)),
    })
}

/// The medium of the appliance, in the same places.
pub fn appliance(chosen: Option<&Path>, program: &Path) -> Result<PathBuf, Missing> {
    Ok(directory(&[APPLIANCE], chosen, program)?.join(APPLIANCE))
}

fn directory(names: &[&str], chosen: Option<&Path>, program: &Path) -> Result<PathBuf, Missing> {
    let places = match chosen {
        Some(dir) => vec![dir.to_owned()],
        None => {
            let dist = program.ancestors().skip(1).map(|dir| dir.join("dist")).find(|dir| dir.is_dir());
            dist.into_iter().chain([PathBuf::from(INSTALLED)]).collect()
        }
    };
    if let Some(dir) = places.iter().find(|dir| names.iter().all(|name| dir.join(name).is_file())) {
        return Ok(dir.clone());
    }
    let absent: Vec<&str> = names.iter().copied().filter(|name| !places[0].join(name).is_file()).collect();
    Err(Missing {
        files: absent.join(" and no "),
        places: places.iter().map(|dir| dir.display().to_string()).collect(),
    })
}

const KERNEL: &str = "kernel";
const INITRAMFS: &str = "initramfs";
const ISO: &str = "bootstrap.iso";
const APPLIANCE: &str = "appliance.iso";
const INSTALLED: &str = "/usr/share/tether";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dist_lies_beside_target() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("target/x86_64-unknown-linux-musl/release/vch");
        let dist = root.path().join("dist");
        std::fs::create_dir(&dist).unwrap();
        std::fs::write(dist.join("kernel"), "").unwrap();

        let error = find(BootKind::Kernel, None, &program).unwrap_err().to_string();
        let expected = format!("no initramfs in {} or {INSTALLED}: `./dev iso` makes what is missing", dist.display());
        assert_eq!(error, expected);

        std::fs::write(dist.join("initramfs"), "").unwrap();
        let kernel = Boot::Kernel { kernel: dist.join("kernel"), initramfs: dist.join("initramfs") };
        assert_eq!(find(BootKind::Kernel, None, &program).unwrap(), kernel);
        assert_eq!(find(BootKind::Kernel, Some(&dist), Path::new("/")).unwrap(), kernel);
        assert!(find(BootKind::Iso, None, &program).is_err() && appliance(None, &program).is_err());
        std::fs::write(dist.join("appliance.iso"), "").unwrap();
        assert_eq!(appliance(None, &program).unwrap(), dist.join("appliance.iso"));
    }

    #[test]
    fn a_chosen_directory_is_the_only_one() {
        let error = find(BootKind::Kernel, Some(Path::new("/nowhere")), Path::new("/bin/vch")).unwrap_err();
        assert_eq!(error.to_string(), "no kernel and no initramfs in /nowhere: `./dev iso` makes what is missing");
    }
}
