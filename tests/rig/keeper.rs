//! A keeper of templates that is not to be trusted: it hands out what a test wants, by the protocol of `vch keep-template`.

use std::fs::{self, File};
use std::io::{IoSlice, Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::clones::Keeper;

/// What a keeper hands out.
#[derive(Debug)]
pub struct Handed {
    /// Sent first.
    pub record: Vec<u8>,
    /// With it: memory, and the state of the devices.
    pub files: Vec<File>,
}

/// A keeper in a thread of the test.
pub struct Fake {
    path: PathBuf,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Handed {
    /// What a real keeper hands out.
    pub fn by(keeper: &Keeper) -> Handed {
        let mut record = Vec::new();
        let mut socket = UnixStream::connect(&keeper.socket).expect("it listens");
        socket.read_to_end(&mut record).expect("it speaks");
        let files = [keeper.memory(), keeper.state()].map(|path| File::open(path).expect("it is ours"));
        Handed { record, files: files.into() }
    }

    /// Changes a field of the record.
    pub fn bend(&mut self, field: &str, value: impl Into<serde_json::Value>) {
        let mut record: serde_json::Value = serde_json::from_slice(&self.record).expect("JSON");
        assert!(record[field] != serde_json::Value::Null, "{record}");
        record[field] = value.into();
        self.record = record.to_string().into_bytes();
    }
}

impl Fake {
    /// Takes a real keeper's place.
    pub fn in_place_of(keeper: &Keeper, handed: Handed) -> Fake {
        keeper.end(Signal::SIGKILL);
        fs::remove_file(&keeper.socket).ok();
        let listener = UnixListener::bind(&keeper.socket).expect("a socket");
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let thread = thread::spawn(move || {
            for client in listener.incoming().flatten().take_while(|_| !until.load(Ordering::Relaxed)) {
                hand(&client, &handed);
            }
        });
        Fake { path: keeper.socket.clone(), over, thread: Some(thread) }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        UnixStream::connect(&self.path).ok();
        self.thread.take().map(JoinHandle::join);
        fs::remove_file(&self.path).ok();
    }
}

fn hand(client: &UnixStream, handed: &Handed) {
    let fds: Vec<_> = handed.files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    // who has gone does not want it
    sendmsg::<()>(client.as_raw_fd(), &[IoSlice::new(&handed.record)], &rights, MsgFlags::MSG_NOSIGNAL, None).ok();
}

/// A file in memory, with all seals or none.
pub fn memory_file(bytes: &[u8], sealed: bool) -> File {
    let made = memfd_create(c"vch-template-memory", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING);
    let mut file = File::from(made.expect("a file in memory"));
    file.write_all(bytes).expect("memory");
    if sealed {
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).expect("seals");
    }
    file
}
