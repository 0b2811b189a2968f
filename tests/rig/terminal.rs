//! A terminal that a test holds the other end of: types, reads, resizes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};
use tempfile::TempDir;

use crate::artifacts;
use crate::vch::{DEADLINE, wait};

/// After this time a person presses a key again.
const PATIENCE: Duration = Duration::from_secs(3);

/// `vch run` on a terminal of its own.
pub struct Session {
    child: Child,
    terminal: File,
    /// Kept open, so that the settings can be read after the end.
    slave: OwnedFd,
    output: mpsc::Receiver<Vec<u8>>,
    seen: String,
    _state: TempDir,
}

impl Session {
    /// Starts `vch run ARGS…` on a terminal of that size.
    pub fn start<S: AsRef<OsStr>>(rows: u16, columns: u16, args: impl IntoIterator<Item = S>) -> Session {
        let run = [artifacts::program("vch").into_os_string(), "run".into()];
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        Session::of(rows, columns, run.into_iter().chain(args))
    }

    /// Starts any program on a terminal of that size.
    pub fn of<S: AsRef<OsStr>>(rows: u16, columns: u16, command: impl IntoIterator<Item = S>) -> Session {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("a terminal");
        let clone = || slave.try_clone().expect("a descriptor");
        let state = tempfile::tempdir().expect("a temporary folder");
        // util-linux's setsid makes it the controlling terminal, so that Ctrl-C is a signal
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .args(command)
            .env("XDG_STATE_HOME", state.path())
            .env("DOCKER_CONFIG", state.path())
            .stdin(clone())
            .stdout(clone())
            .stderr(clone())
            .spawn()
            .expect("setsid of util-linux");
        let terminal = File::from(master);
        let mut reader = terminal.try_clone().expect("a descriptor");
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Session { child, terminal, slave, output, seen: String::new(), _state: state }
    }

    /// The settings of the terminal.
    pub fn settings(&self) -> Termios {
        tcgetattr(&self.slave).expect("a terminal")
    }

    pub fn type_text(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).expect("the terminal takes it");
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        // stty sets the size by the same ioctl as a terminal's window, and the kernel tells the foreground processes
        let status = Command::new("stty")
            .args(["rows", &rows.to_string(), "columns", &columns.to_string()])
            .stdin(self.slave.try_clone().expect("a descriptor"))
            .status();
        assert!(status.expect("stty of coreutils").success());
    }

    /// Waits until the screen has shown `text`; what came before it is forgotten.
    pub fn expect(&mut self, text: &str) {
        assert!(self.shows(text, DEADLINE), "{text:?} was never shown; last: {:?}", self.seen);
    }

    /// Presses a key, and again as a person would, until the screen has shown `text`.
    pub fn press_until(&mut self, key: &str, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.type_text(key);
            if self.shows(text, PATIENCE) {
                return;
            }
            assert!(Instant::now() < deadline, "{text:?} was never shown; last: {:?}", self.seen);
        }
    }

    fn shows(&mut self, text: &str, bound: Duration) -> bool {
        let deadline = Instant::now() + bound;
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Sends a signal to `vch` itself.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        // setsid forks only for a leader of a process group, which a child of ours is not: it has become vch
        let pid = self.child.id().cast_signed();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it runs");
    }

    /// Waits for the end: the exit code.
    pub fn finish(mut self) -> (i32, Termios) {
        let code = wait(&mut self.child);
        (code, self.settings())
    }
}

/// A test that fails leaves no machine behind.
impl Drop for Session {
    fn drop(&mut self) {
        // an error says that it has ended, as it should have
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
