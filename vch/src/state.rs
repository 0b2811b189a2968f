//! The files of one container, and where vch keeps files at all.
//!
//! ```text
//! $XDG_CACHE_HOME/tether/disks/<digest>-v1.raw     an image's disk, shared by its containers
//! $XDG_CACHE_HOME/tether/disks/layer-<digest>-v1.raw  an image's layer's, shared by all images that have it
//! $XDG_STATE_HOME/tether/containers/<id>/          container.json console.log output.log guestinfo disk.qcow2 vch-volume-N.raw exit.json kernel.log
//! $XDG_STATE_HOME/tether/serve/<id>/               container.json, journal/: what `vch serve` keeps of a container
//! $XDG_STATE_HOME/tether/volumes/<name>/           disk.raw lock
//! $XDG_STATE_HOME/tether/master.key                what the keys of `vch serve`'s links follow from
//! $XDG_RUNTIME_DIR or /tmp: a directory of a run   the link's socket, whose path must be short
//! ```

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::ids;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wire::status::Ending;

/// `tether` in the user's cache: what is there can be made again.
pub fn cache_dir() -> Result<PathBuf> {
    base_dir("XDG_CACHE_HOME", ".cache")
}

/// `tether` in the user's state: what has to last.
pub fn state_dir() -> Result<PathBuf> {
    base_dir("XDG_STATE_HOME", ".local/state")
}

/// Makes a directory that only its owner may enter, and those above it.
pub fn make_dir(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot make the directory {}", dir.display()))
}

fn base_dir(variable: &str, below_home: &str) -> Result<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    match (absolute(variable), absolute("HOME")) {
        (Some(dir), _) => Ok(dir.join("tether")),
        (None, Some(home)) => Ok(home.join(below_home).join("tether")),
        (None, None) => bail!("neither {variable} nor HOME names a directory: set one of them"),
    }
}

/// An id as docker makes them: 64 hexadecimal digits at random.
pub fn new_id() -> Result<String> {
    Ok(hex(&random()?))
}

/// An id of the same form, that is the same for the same text: its SHA-256.
pub(crate) fn id_from(text: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(text))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 32 bytes of randomness, for ids and keys.
pub fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("cannot read /dev/urandom")?;
    Ok(bytes)
}

/// Writes a file that only its owner may read: a spec holds secrets.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(bytes)).with_context(|| format!("cannot write {}", path.display()))
}

/// The directory of one container. Dropped, it disappears if that was asked for.
#[derive(Debug)]
pub struct Container {
    dir: PathBuf,
    transient: bool,
    began: SystemTime,
}

/// What a container is, for those who look later.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct About {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub image: String,
    pub command: Vec<String>,
    /// Those of the image, and those that were asked for.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its mounts: `data:/srv`.
    #[serde(default)]
    pub mounts: Vec<String>,
    /// Its ports: `0.0.0.0:8080->80/tcp`.
    #[serde(default)]
    pub ports: Vec<String>,
}

/// How a container ended, for those who look later.
#[derive(Debug, Serialize)]
struct Ended<'a> {
    code: u8,
    ending: Option<Ending>,
    /// The kernel killed one of its processes for want of memory.
    oom: bool,
    error: Option<&'a str>,
    /// Seconds since 1970.
    began: f64,
    ended: f64,
}

impl Container {
    pub fn create(id: &str, transient: bool) -> Result<Container> {
        let dir = state_dir()?.join("containers").join(id);
        make_dir(&dir)?;
        Ok(Container { dir, transient, began: SystemTime::now() })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it disappears with its container.
    pub fn is_transient(&self) -> bool {
        self.transient
    }

    /// Keeps what it is. Two containers cannot have one name.
    pub fn write_about(&self, about: &About) -> Result<()> {
        let text = serde_json::to_vec_pretty(about).context("cannot encode container.json")?;
        self.create_file(&self.dir.join(ABOUT), |file| file.write_all(&text))?;
        let Some(name) = &about.name else { return Ok(()) };
        // ours is written: of two that begin at once, at least one finds the other
        match others(&self.dir)?.into_iter().find(|other| other.name.as_ref() == Some(name)) {
            None => Ok(()),
            Some(other) => {
                let dir = self.dir.with_file_name(&other.id);
                fs::remove_file(self.dir.join(ABOUT)).ok();
                bail!(
                    "the name {name:?} is in use by container {}: choose another one, or remove {}",
                    other.id,
                    dir.display()
                )
            }
        }
    }

    /// What the guest's kernel had said when something failed.
    pub fn kernel_log(&self) -> PathBuf {
        self.dir.join("kernel.log")
    }

    pub fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// What the container has written, as entries of [`wire::log`].
    pub fn log(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    pub fn guestinfo(&self) -> PathBuf {
        self.dir.join("guestinfo")
    }

    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk.qcow2")
    }

    /// Makes a file that only its owner may read: an environment holds secrets.
    pub fn create_file(&self, path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
        let opened = File::options().write(true).create_new(true).mode(0o600).open(path);
        let written = opened.and_then(|mut file| write(&mut file));
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn write_exit(&self, code: u8, ending: Option<Ending>, oom: bool, error: Option<&str>) -> Result<()> {
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let ended = Ended { code, ending, oom, error, began: seconds(self.began), ended: seconds(SystemTime::now()) };
        let text = serde_json::to_vec_pretty(&ended).context("cannot encode exit.json")?;
        self.create_file(&self.dir.join("exit.json"), |file| file.write_all(&text))
    }
}

/// The containers beside the one in `dir`.
fn others(dir: &Path) -> Result<Vec<About>> {
    let all = dir.parent().unwrap_or(dir);
    let entries = fs::read_dir(all).with_context(|| format!("cannot read {}", all.display()))?;
    let others = entries.flatten().map(|entry| entry.path()).filter(|other| other != dir);
    // one that is being made, or was made by an older version, has no name
    Ok(others.filter_map(|other| serde_json::from_slice(&fs::read(other.join(ABOUT)).ok()?).ok()).collect())
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.transient
            && let Err(error) = fs::remove_dir_all(&self.dir)
        {
            eprintln!("vch: cannot remove {}: {error}", self.dir.display());
        }
    }
}

/// A directory for the sockets of one run; it disappears with it.
pub fn socket_dir() -> Result<tempfile::TempDir> {
    let parent = short_dir();
    let owner_only = fs::Permissions::from_mode(0o700);
    let made = tempfile::Builder::new().prefix("vch-").permissions(owner_only).tempdir_in(&parent);
    made.with_context(|| format!("cannot make a directory in {}", parent.display()))
}

/// The directory for the sockets of a host that keeps its state in `state`: the same after each start, and its owner's alone.
pub(crate) fn lasting_socket_dir(state: &Path) -> Result<PathBuf> {
    let parent = short_dir();
    let state = fs::canonicalize(state).with_context(|| format!("cannot find {}", state.display()))?;
    let dir = parent.join(format!("vch-{}", ids::short(&id_from(state.as_os_str().as_bytes()))));
    make_dir(&dir)?;
    let meta = fs::symlink_metadata(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let is_ours = meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o007 == 0;
    match is_ours {
        true => Ok(dir),
        false => {
            bail!("{} is somebody else's: remove it, or set XDG_RUNTIME_DIR to a directory of your own", dir.display())
        }
    }
}

/// Where directories of sockets are made. A socket's path has at most 107 bytes; such a directory has at most 17 of them, its sockets less than 33.
fn short_dir() -> PathBuf {
    let short = |path: &PathBuf| path.is_dir() && path.as_os_str().len() < 59;
    std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(short).unwrap_or("/tmp".into())
}

/// Whether the file system of `dir` has no room left.
pub fn is_full(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|stat| stat.f_bavail * stat.f_frsize < FULL)
}

const ABOUT: &str = "container.json";

/// The log's name in the directory of a container.
pub const LOG: &str = "output.log";

/// Less than this, and QEMU's next cluster does not fit.
const FULL: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_differ() {
        let ids: BTreeSet<String> = (0..50).map(|_| new_id().unwrap()).collect();
        assert_eq!(ids.len(), 50);
        assert!(ids.iter().all(|id| id.len() == 64 && id.chars().all(|char| char.is_ascii_hexdigit())));
    }

    #[test]
    fn a_socket_directory_is_private_and_short() {
        let dir = socket_dir().unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(dir.path().join("a-long-socket-name").as_os_str().len() < 108);
    }

    #[test]
    fn a_name_is_one_containers() {
        let root = tempfile::tempdir().unwrap();
        let container = |id: &str, name: Option<&str>| {
            let dir = root.path().join(id);
            fs::create_dir(&dir).unwrap();
            let container = Container { dir, transient: false, began: SystemTime::now() };
            container.write_about(&About { id: id.into(), name: name.map(str::to_owned), ..About::default() })
        };
        container("1", Some("web")).unwrap();
        container("2", None).unwrap();
        container("3", Some("db")).unwrap();
        let error = container("4", Some("web")).unwrap_err().to_string();
        assert!(error.starts_with("the name \"web\" is in use by container 1"), "{error}");
        fs::remove_dir_all(root.path().join("1")).unwrap();
        container("5", Some("web")).unwrap();
    }

    #[test]
    fn a_transient_container_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        for (transient, stays) in [(true, false), (false, true)] {
            let dir = root.path().join(format!("{transient}"));
            fs::create_dir(&dir).unwrap();
            let container = Container { dir: dir.clone(), transient, began: SystemTime::now() };
            container.write_exit(3, Some(Ending::Exited { code: 3 }), false, None).unwrap();
            drop(container);
            assert_eq!(dir.join("exit.json").exists(), stays);
        }
    }
}
