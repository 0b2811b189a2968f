//! How a guest's vsock reaches this host: through the host's kernel, or, where that has no vhost, through the program vhost-device-vsock.
//!
//! The kernel's port is one for all of a host: when another vch listens there, the program is taken, whose socket is the machine's own.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use wire::spec::VSOCK_PORT;

use super::qemu;
use crate::pipe::{Address, Listener};
use crate::state;

/// The other end of a machine's vsock device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vsock {
    /// The host's kernel, which knows the machine by this number.
    Kernel { cid: u32 },
    /// vhost-device-vsock, to which QEMU connects here.
    Program { program: PathBuf, socket: PathBuf },
}

impl Vsock {
    /// Picks what this host has, and listens there. Sockets are made in `dir`.
    pub fn choose(dir: &Path) -> Result<(Vsock, Listener)> {
        let chosen = env::var_os(VARIABLE).filter(|name| !name.is_empty());
        let program = match &chosen {
            Some(name) => {
                let found = qemu::in_path(name);
                Some(found.with_context(|| format!("{VARIABLE} is {}: there is no such program", name.display()))?)
            }
            None => find(),
        };
        let kernel = match chosen {
            Some(_) => Err(anyhow!("{VARIABLE} is set")),
            None => by_kernel(),
        };
        match (kernel, program) {
            (Ok(both), _) => Ok(both),
            (Err(_), Some(program)) => {
                let listener = Listener::bind(&Address::Unix(dir.join(format!("{GUEST_SOCKET}_{VSOCK_PORT}"))))?;
                Ok((Vsock::Program { program, socket: dir.join("vhost") }, listener))
            }
            (Err(why), None) => bail!(
                "this host has no vsock for guests: {why:#}; load the kernel's module (modprobe vhost_vsock) and see that you may use \
                 {DEVICE}, or install {PROGRAM} (cargo install {PROGRAM}), or name it in {VARIABLE}, or use --link virtio"
            ),
        }
    }

    /// What QEMU is told of it.
    pub fn device(&self) -> String {
        match self {
            Vsock::Kernel { cid } => format!("vhost-vsock-pci,guest-cid={cid}"),
            Vsock::Program { .. } => "vhost-user-vsock-pci,chardev=vsock".into(),
        }
    }

    /// Starts the program, if there is one to start. It must run before QEMU does, and as long.
    pub async fn start(&self) -> Result<Option<Companion>> {
        match self {
            Vsock::Kernel { .. } => Ok(None),
            Vsock::Program { program, socket } => Companion::start(program, socket).await.map(Some),
        }
    }
}

/// A running vhost-device-vsock. It ends when this is dropped, and with vch.
#[derive(Debug)]
pub struct Companion {
    program: PathBuf,
    child: Child,
    complaint: JoinHandle<String>,
}

impl Companion {
    async fn start(program: &Path, socket: &Path) -> Result<Companion> {
        let mut command = qemu::tethered(program);
        command.arg("--guest-cid").arg(GUEST_CID.to_string()).arg("--socket").arg(socket);
        command.arg("--uds-path").arg(socket.with_file_name(GUEST_SOCKET));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let Some(stderr) = child.stderr.take() else { bail!("{} has no stderr", program.display()) };
        let complaint = tokio::spawn(qemu::last_line(stderr));
        let mut companion = Companion { program: program.to_owned(), child, complaint };
        let give_up = Instant::now() + START_TIME;
        while !is_listening(socket)? {
            tokio::select! {
                error = companion.ended() => return Err(error),
                () = sleep(START_INTERVAL) => {}
            }
            if Instant::now() >= give_up {
                bail!("{} does not listen at {} after {START_TIME:?}", program.display(), socket.display());
            }
        }
        Ok(companion)
    }

    /// Waits until it has ended, which it never should, and tells what it said.
    pub async fn ended(&mut self) -> anyhow::Error {
        let status = self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        let said = (&mut self.complaint).await.unwrap_or_default();
        anyhow!("{} ended ({status}): {said}", self.program.display())
    }
}

fn by_kernel() -> Result<(Vsock, Listener)> {
    File::options().read(true).write(true).open(DEVICE).with_context(|| format!("cannot open {DEVICE}"))?;
    let listener = Listener::bind(&Address::Vsock { cid: None, port: VSOCK_PORT })?;
    // QEMU is refused a number that another machine has; among two billion there is none.
    let [a, b, c, d, ..] = state::random()?;
    let cid = (u32::from_le_bytes([a, b, c, d]) >> 1).max(GUEST_CID);
    Ok((Vsock::Kernel { cid }, listener))
}

/// In `PATH`, beside vch, or where cargo puts programs.
fn find() -> Option<PathBuf> {
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    let cargo = env::var_os("CARGO_HOME").map(|home| PathBuf::from(home).join("bin"));
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo/bin"));
    let places = [beside, cargo, home].into_iter().flatten().map(|dir| dir.join(PROGRAM));
    qemu::in_path(OsStr::new(PROGRAM)).or_else(|| places.into_iter().find(|path| path.is_file()))
}

/// The kernel's list says which sockets are listened at. To try and connect would be taken for QEMU.
fn is_listening(socket: &Path) -> io::Result<bool> {
    let list = fs::read_to_string("/proc/net/unix")?;
    let listens = |line: &str| line.split_whitespace().nth(3) == Some(ACCEPTS);
    let name = format!(" {}", socket.display());
    Ok(list.lines().any(|line| line.ends_with(&name) && listens(line)))
}

const DEVICE: &str = "/dev/vhost-vsock";
const PROGRAM: &str = "vhost-device-vsock";
const VARIABLE: &str = "VCH_VHOST_VSOCK";
/// The first number that is nobody's. Each program has one machine, so that each may have it.
const GUEST_CID: u32 = 3;
/// A guest that connects to a port of the host finds the socket of this name, `_` and the port.
const GUEST_SOCKET: &str = "vsock";
/// The flag of a socket that accepts: `__SO_ACCEPTCON` in the kernel's net.h.
const ACCEPTS: &str = "00010000";
const START_TIME: Duration = Duration::from_secs(10);
const START_INTERVAL: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_listens_once_it_is_bound_and_listened_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vhost");
        assert!(!is_listening(&path).unwrap());
        let listener = UnixListener::bind(&path).unwrap();
        assert!(is_listening(&path).unwrap());
        assert!(!is_listening(&dir.path().join("vhos")).unwrap());
        drop(listener);
        assert!(path.exists() && !is_listening(&path).unwrap());
    }

    #[tokio::test]
    async fn a_program_that_ends_at_once_is_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        // as any command, it is told its options, of which it makes nothing
        fs::write(&program, "#!/bin/sh\necho it is Monday >&2\nexit 4\n").unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let vsock = Vsock::Program { program, socket: dir.path().join("vhost") };
        let error = vsock.start().await.unwrap_err().to_string();
        assert!(error.ends_with("program ended (exit status: 4): it is Monday"), "{error}");
    }
}
