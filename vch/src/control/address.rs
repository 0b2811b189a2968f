//! Where the control socket is, and who may be there: it decides that only its owner uses it, and that one serve has it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;
use tokio::net::{UnixListener, UnixStream};

use crate::state;
use crate::whole::if_there;

/// The environment variable that names the control socket.
pub const ENVIRONMENT: &str = "VCH_CONTROL";

/// A control socket: `unix://PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    path: PathBuf,
    /// Its directory is ours to make and to check.
    own_dir: bool,
}

/// A text that is no address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no control socket: write unix:// and an absolute path of at most {MAX_PATH} bytes")]
pub struct NoAddress(String);

/// What Linux takes: `sun_path` and its zero.
const MAX_PATH: usize = 107;

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Address, NoAddress> {
        match text.strip_prefix("unix://").map(Path::new) {
            Some(path) if path.is_absolute() && path.as_os_str().len() <= MAX_PATH => {
                Ok(Address { path: path.into(), own_dir: false })
            }
            _ => Err(NoAddress(text.into())),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unix://{}", self.path.display())
    }
}

impl Default for Address {
    /// `$XDG_RUNTIME_DIR/vch/control.sock`, or `/tmp/vch-UID/control.sock`.
    fn default() -> Address {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Address::of_user(runtime, geteuid().as_raw())
    }
}

impl Address {
    fn of_user(runtime: Option<PathBuf>, uid: u32) -> Address {
        let usable = |dir: &PathBuf| dir.is_absolute() && dir.as_os_str().len() <= MAX_PATH - "/vch/control.sock".len();
        let dir = match runtime.filter(usable) {
            Some(dir) => dir.join("vch"),
            None => format!("/tmp/vch-{uid}").into(),
        };
        Address { path: dir.join("control.sock"), own_dir: true }
    }

    /// Connects to the serve that is there.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        self.check_dir().map_err(|error| io::Error::new(ErrorKind::PermissionDenied, format!("{error:#}")))?;
        UnixStream::connect(&self.path).await
    }

    /// Takes the socket; the file is removed with what is returned. One that a killed serve left behind is taken over, one that a living serve holds is not.
    pub async fn listen(&self) -> Result<Listening> {
        if self.own_dir {
            state::make_dir(self.dir())?;
        }
        self.check_dir()?;
        // the lock decides between two that start at once; the kernel lets go of it when its holder dies
        let lock_path = self.path.with_extension("lock");
        let lock = fs::File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.with_context(|| format!("cannot open {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => bail!(
                "another vch serve holds {self}: end it, or give this one a socket of its own with --control unix://PATH"
            ),
            Err(fs::TryLockError::Error(error)) => bail!("cannot lock {}: {error}", lock_path.display()),
        }
        if UnixStream::connect(&self.path).await.is_ok() {
            bail!("something else answers at {self}: give this serve a socket of its own with --control unix://PATH");
        }
        if_there(fs::remove_file(&self.path))
            .with_context(|| format!("cannot remove the old socket {}", self.path.display()))?;
        let listener = UnixListener::bind(&self.path).with_context(|| format!("cannot listen at {self}"))?;
        let owner_only = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&self.path, owner_only)
            .with_context(|| format!("cannot make {} private", self.path.display()))?;
        Ok(Listening { listener, path: self.path.clone(), _lock: lock })
    }

    fn dir(&self) -> &Path {
        self.path.parent().expect("the path is absolute and has a file name")
    }

    /// In `/tmp`, anybody may have made our directory before us.
    fn check_dir(&self) -> Result<()> {
        let dir = self.dir();
        if !self.own_dir {
            return Ok(());
        }
        let found = if_there(fs::symlink_metadata(dir));
        let Some(found) = found.with_context(|| format!("cannot look at {}", dir.display()))? else { return Ok(()) };
        let private = found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0;
        if !private {
            bail!(
                "{} is not a directory that only you may enter (owner {}, mode {:o}): remove it, or name a socket with --control",
                dir.display(),
                found.uid(),
                found.mode() & 0o7777
            );
        }
        Ok(())
    }
}

/// A control socket that is ours. Dropped, its file is gone.
#[derive(Debug)]
pub struct Listening {
    pub listener: UnixListener,
    path: PathBuf,
    _lock: fs::File,
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            eprintln!("vch: cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_and_an_absolute_path() {
        assert_eq!("unix:///run/x.sock".parse::<Address>().unwrap().to_string(), "unix:///run/x.sock");
        let long = format!("unix:///{}", "x".repeat(MAX_PATH));
        for text in ["", "/run/x.sock", "unix://", "unix://x.sock", "tcp://1.2.3.4:5", long.as_str()] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("write unix:// and an absolute path"), "{error}");
        }
    }

    #[test]
    fn the_default_is_the_users_own() {
        let check = |runtime: Option<&str>, expected: &str| {
            assert_eq!(Address::of_user(runtime.map(PathBuf::from), 7).to_string(), expected);
        };
        check(Some("/run/user/7"), "unix:///run/user/7/vch/control.sock");
        check(Some("relative"), "unix:///tmp/vch-7/control.sock");
        check(Some(&format!("/{}", "x".repeat(100))), "unix:///tmp/vch-7/control.sock");
        check(None, "unix:///tmp/vch-7/control.sock");
    }

    #[tokio::test]
    async fn one_serve_has_it_and_a_dead_ones_is_taken_over() {
        let root = tempfile::tempdir().unwrap();
        let address = Address::of_user(Some(root.path().into()), 7);
        let listening = address.listen().await.unwrap();
        assert_eq!(fs::metadata(address.dir()).unwrap().mode() & 0o777, 0o700);
        assert!(address.connect().await.is_ok());
        let error = address.listen().await.unwrap_err().to_string();
        assert!(error.starts_with("another vch serve holds unix://"), "{error}");
        drop(listening);
        assert!(!address.path.exists());
        // as kill -9 leaves it
        drop(std::os::unix::net::UnixListener::bind(&address.path).unwrap());
        assert!(address.path.exists() && address.connect().await.is_err());
        assert!(address.listen().await.is_ok());
    }

    #[tokio::test]
    async fn a_directory_that_others_may_enter_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let address = Address::of_user(Some(root.path().into()), 7);
        fs::create_dir(address.dir()).unwrap();
        fs::set_permissions(address.dir(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = address.listen().await.unwrap_err().to_string();
        assert!(error.contains("only you may enter"), "{error}");
        assert_eq!(address.connect().await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
