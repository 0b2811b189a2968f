//! The other end of a machine's vsock device, without a vhost in the kernel: vhost-device-vsock, and the socket at which it hands the guest's connections over.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wire::spec::VSOCK_PORT;

use crate::vch::DEADLINE;

/// Running; it ends with its owner.
pub struct Vsock {
    program: Child,
    listener: UnixListener,
    socket: PathBuf,
}

impl Vsock {
    /// Starts it in a folder of the machine's own, and waits until QEMU can connect.
    pub fn start(dir: &Path) -> Vsock {
        let (socket, guest) = (dir.join("vhost"), dir.join("vsock"));
        let listener = UnixListener::bind(dir.join(format!("vsock_{VSOCK_PORT}"))).expect("a socket");
        listener.set_nonblocking(true).expect("a socket");
        let program = Command::new("vhost-device-vsock")
            .args(["--guest-cid", "3", "--socket"])
            .arg(&socket)
            .arg("--uds-path")
            .arg(guest)
            .stdin(Stdio::null())
            .spawn()
            .expect("vhost-device-vsock (./dev images installs it)");
        let vsock = Vsock { program, listener, socket };
        let began = Instant::now();
        // To try and connect would be taken for QEMU; the kernel lists who listens (flag __SO_ACCEPTCON).
        while !fs::read_to_string("/proc/net/unix").expect("procfs").lines().any(|line| {
            line.ends_with(&format!(" {}", vsock.socket.display()))
                && line.split_whitespace().nth(3) == Some("00010000")
        }) {
            assert!(began.elapsed() < DEADLINE, "vhost-device-vsock does not listen");
            std::thread::sleep(Duration::from_millis(1));
        }
        vsock
    }

    /// What QEMU needs for it, for a machine with so much memory.
    pub fn arguments(&self, mebibytes: u32) -> Vec<String> {
        let words = [
            "-object",
            &format!("memory-backend-memfd,id=mem,share=on,size={mebibytes}M"),
            "-machine",
            "memory-backend=mem",
            "-chardev",
            &format!("socket,id=vsock,path={}", self.socket.display()),
            "-device",
            "vhost-user-vsock-pci,chardev=vsock",
        ];
        words.map(String::from).to_vec()
    }

    /// The guest's next connection, while `machine` runs.
    pub fn accept(&self, machine: &mut Child) -> UnixStream {
        let began = Instant::now();
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    socket.set_nonblocking(false).expect("a socket");
                    return socket;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
            assert!(
                machine.try_wait().expect("a child of ours").is_none(),
                "QEMU has ended before the guest connected"
            );
            assert!(began.elapsed() < DEADLINE, "the guest does not connect");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        self.program.kill().ok();
        self.program.wait().ok();
    }
}
