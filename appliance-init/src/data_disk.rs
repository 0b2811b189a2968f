//! The data disk: what must outlive the machine is on an ext4 file system labelled `vchdata`. It decides where state is kept, and what is said when it is in memory.
//!
//! The journal makes a reset harmless: what was synced is there, and nothing is half written. No file system is made or repaired here.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guest::disks::{self, Disk, DiskError, FsKind};
use guest::say;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use wire::appliance::DATA_LABEL;
use wire::spec::DiskId;

/// Where state is kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Data {
    /// What `vch` has to itself; only root can look into it.
    pub(crate) state: PathBuf,
    /// It outlives the machine.
    pub(crate) lasts: bool,
}

/// Why there is no place for state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    #[error("data/required wants a data disk: {0}; `iso-builder data-disk` makes one")]
    Required(#[source] DiskError),
    #[error("cannot use the data disk: {0}")]
    Disk(#[source] DiskError),
    #[error("cannot use {name} as the data disk: it holds no ext4 file system, and is labelled as if it did")]
    Kind { name: String },
    #[error("cannot mount the data disk {name}: {}", .source.desc().to_lowercase())]
    Mount { name: String, source: Errno },
    #[error("cannot make {path}, where state is kept")]
    Dir { path: PathBuf, source: io::Error },
}

const MOUNT_POINT: &str = "/data";
const IN_MEMORY: &str = "/run/vch-state";
/// How long a required disk is waited for. Disks that a machine has when it starts are there before PID 1 is.
const REQUIRED_WITHIN: Duration = Duration::from_secs(10);
/// Nobody has anything to execute on it, and errors must not become worse: ext4(5).
const OPTIONS: &str = "errors=remount-ro";

/// Mounts the data disk, if the machine has one, and makes the directory for the state.
pub(crate) fn mount_data(required: bool) -> Result<Data, DataError> {
    let wait = if required { REQUIRED_WITHIN } else { Duration::ZERO };
    let found = disks::find(&[DiskId::Label(DATA_LABEL.into())], wait);
    let data = match chosen(found, required)? {
        Some(disk) => {
            mount_disk(&disk)?;
            say!(Info, "state is kept on the data disk"; disk = disk.name);
            Data { state: Path::new(MOUNT_POINT).join("vch"), lasts: true }
        }
        None => {
            say!(
                Warn,
                "there is no data disk: a reset loses what is known of containers, their logs, and a master key that was drawn"
            );
            Data { state: IN_MEMORY.into(), lasts: false }
        }
    };
    make_dir(&data.state).map_err(|source| DataError::Dir { path: data.state.clone(), source })?;
    Ok(data)
}

/// None: there is no such disk, and none need be.
fn chosen(found: Result<Vec<Disk>, DiskError>, required: bool) -> Result<Option<Disk>, DataError> {
    match found.map(|disks| disks.into_iter().next()) {
        Ok(Some(disk)) if disk.kind != Some(FsKind::Ext4) => Err(DataError::Kind { name: disk.name }),
        Ok(disk) => Ok(disk),
        Err(DiskError::Missing { .. }) if !required => Ok(None),
        Err(error @ DiskError::Missing { .. }) => Err(DataError::Required(error)),
        Err(error) => Err(DataError::Disk(error)),
    }
}

fn mount_disk(disk: &Disk) -> Result<(), DataError> {
    let path = Path::new(MOUNT_POINT);
    make_dir(path).map_err(|source| DataError::Dir { path: path.into(), source })?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    let device = Path::new("/dev").join(&disk.name);
    mount(Some(&device), path, Some("ext4"), flags, Some(OPTIONS))
        .map_err(|source| DataError::Mount { name: disk.name.clone(), source })
}

fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::metadata(path)?.is_dir() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> DiskError {
        DiskError::Missing {
            id: DiskId::Label(DATA_LABEL.into()),
            waited: REQUIRED_WITHIN,
            seen: vec!["vda (no file system)".into()],
        }
    }

    #[test]
    fn only_a_disk_that_was_asked_for_is_missed() {
        assert!(matches!(chosen(Err(missing()), false), Ok(None)));
        assert_eq!(
            chosen(Err(missing()), true).unwrap_err().to_string(),
            "data/required wants a data disk: no disk has the label \"vchdata\" after 10 s; the machine has vda (no file system); \
             `iso-builder data-disk` makes one"
        );
        let ambiguous =
            || DiskError::Ambiguous { id: DiskId::Label(DATA_LABEL.into()), names: vec!["vda".into(), "vdb".into()] };
        let reason = chosen(Err(ambiguous()), false).unwrap_err().to_string();
        assert!(reason.starts_with("cannot use the data disk: vda and vdb have the label"), "{reason}");
    }

    #[test]
    fn a_directory_is_made_once_and_a_file_is_none() {
        let dir = std::env::temp_dir().join(format!("appliance-data-{}", std::process::id()));
        make_dir(&dir).unwrap();
        make_dir(&dir).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        assert!(make_dir(&dir.join("file")).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
