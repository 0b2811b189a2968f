//! A file server of a test's own: nfs-ganesha, in user space, with its files in memory.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// It serves `/files` by NFS 4 on a port of one address, and ends with its owner.
pub struct FileServer {
    server: Child,
    _dir: TempDir,
    pub port: u16,
}

impl FileServer {
    /// None where nfs-ganesha is not installed.
    pub fn start() -> Option<FileServer> {
        FileServer::start_at("127.0.0.1")
    }

    /// At an address of the network namespace that the thread is in.
    pub fn start_at(address: &str) -> Option<FileServer> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let port = TcpListener::bind((address, 0)).expect("a port").local_addr().expect("a port").port();
        let text = format!(
            "NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = {port}; Bind_addr = {address}; Enable_NLM = false; \
             Enable_RQUOTA = false; Enable_UDP = false; allow_set_io_flusher_fail = true; }}\n\
             NFSv4 {{ Graceless = true; }}\n\
             EXPORT {{ Export_Id = 1; Path = /files; Pseudo = /files; Access_Type = RW; Squash = No_Root_Squash; \
             SecType = sys; FSAL {{ Name = MEM; }} }}\n"
        );
        let path = |name: &str| dir.path().join(name);
        fs::write(path("conf"), text).expect("a file");
        let mut command = Command::new("ganesha.nfsd");
        command.arg("-F").arg("-f").arg(path("conf")).arg("-L").arg(path("log")).arg("-p").arg(path("pid"));
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let server = FileServer { server, _dir: dir, port };
        let began = Instant::now();
        while TcpStream::connect((address, port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "nfs-ganesha does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    /// It answers nothing any more, and its connections stay.
    pub fn freeze(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.server.id()).expect("a process"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).expect("a process of ours");
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}
