//! A registry of a test's own: Debian's `docker-registry` on the loopback interface, filled by `skopeo`.

use std::ffi::OsStr;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::images::{run, sha256};

pub mod faulty;

/// It ends with its owner.
pub struct Registry {
    server: Child,
    dir: TempDir,
    pub port: u16,
}

/// What a registry wants of its clients.
#[derive(Clone, Copy, Default)]
pub struct Demands {
    /// The name `joe` and [`PASSWORD`].
    pub login: bool,
    /// TLS, with a certificate of an authority that nobody knows.
    pub tls: bool,
}

/// The programs that are missing here, if any are.
pub fn missing() -> Option<String> {
    let there =
        |name: &&str| Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err();
    let missing: Vec<&str> = ["docker-registry", "skopeo"].into_iter().filter(there).collect();
    (!missing.is_empty()).then(|| format!("not installed: {}", missing.join(", ")))
}

impl Registry {
    pub fn start(demands: Demands) -> Registry {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port").port();
        let mut config = serde_json::json!({
            "version": 0.1,
            "log": { "level": "warn" },
            "storage": { "filesystem": { "rootdirectory": path("store") } },
            "http": { "addr": format!("127.0.0.1:{port}") },
        });
        if demands.login {
            fs::write(path("htpasswd"), format!("joe:{BCRYPT_OF_PASSWORD}\n")).expect("a file");
            config["auth"] = serde_json::json!({ "htpasswd": { "realm": "test", "path": path("htpasswd") } });
        }
        if demands.tls {
            certify(dir.path());
            config["http"]["tls"] = serde_json::json!({ "certificate": path("server.crt"), "key": path("server.key") });
        }
        // JSON is YAML
        fs::write(path("config.yml"), config.to_string()).expect("a file");
        let log = fs::File::create(path("log")).expect("a file");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(path("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
        let server = command.stdout(Stdio::null()).stderr(log).spawn().expect("docker-registry");
        let registry = Registry { server, dir, port };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(registry.dir.path().join("log")).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(60), "docker-registry does not listen: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// `127.0.0.1:PORT/NAME`.
    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// The certificate of the authority, for those who are to know it.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// Pushes an image with skopeo; `from` is as skopeo writes it.
    pub fn push<S: AsRef<OsStr>>(&self, options: impl IntoIterator<Item = S>, from: &str, name: &str) {
        let mut command = skopeo();
        command.args(["copy", "--quiet", "--dest-tls-verify=false"]).arg(format!("--dest-creds=joe:{PASSWORD}"));
        run(command.args(options).arg(from).arg(format!("docker://{}", self.name(name))));
    }

    /// The digest of what a name leads to, as skopeo sees it.
    pub fn digest(&self, name: &str) -> String {
        let mut command = skopeo();
        command.args(["inspect", "--raw", "--tls-verify=false"]).arg(format!("--creds=joe:{PASSWORD}"));
        let output = command.arg(format!("docker://{}", self.name(name))).output().expect("skopeo");
        let file = self.dir.path().join("raw");
        fs::write(&file, output.stdout).expect("a file");
        format!("sha256:{}", sha256(&file))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

/// Any image may come from anywhere, in tests.
pub fn skopeo() -> Command {
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy");
    command
}

/// An authority, and a certificate of its for this computer.
fn certify(dir: &Path) {
    let openssl = |args: &[&str]| run(Command::new("openssl").args(args).current_dir(dir));
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let authority = ["-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=tests"];
    openssl(&[&["req", "-x509"], &key[..], &authority].concat());
    openssl(&[&["req", "-new"], &key[..], &["-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=x"]].concat());
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n").expect("a file");
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "names",
        "-out",
        "server.crt",
    ]);
}

/// Words that no program has in it, so that what holds them holds the login: busybox knows a `secret` of its own.
pub const PASSWORD: &str = "5ecre7-of-joe";
/// `joe:PASSWORD` in base64, as clients keep it.
pub const LOGIN: &str = "am9lOjVlY3JlNy1vZi1qb2U=";

/// By `crypt(PASSWORD, "$2y$05$abcdefghijklmnopqrstuu")`, the one form that docker-registry reads.
const BCRYPT_OF_PASSWORD: &str = "$2y$05$abcdefghijklmnopqrstuuSMg/0r5ie8aD8oKiLRK0SAs.zYEQ/1K";
