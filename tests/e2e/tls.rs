//! Docker's client and openssl at the TLS port, with certificates of `vch certs`: who is let in, and what the others are told.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rig::engine::until;
use rig::host::PATIENCE;
use rig::images::run;
use rig::serve::Serve;
use rig::vch;
use tempfile::TempDir;

/// Certificates in a new directory.
fn certificates() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    certify(dir.path(), &[]);
    dir
}

fn certify(dir: &Path, more: &[&str]) {
    let dir = dir.to_str().unwrap();
    vch::command("certs")
        .args([&[dir, "--san", "127.0.0.1", "--san", "vch.example"], more].concat())
        .output()
        .success();
}

/// A serve with these certificates, and where docker finds it.
fn serve(dir: &Path) -> (Serve, String) {
    let file = |name: &str| dir.join(name).display().to_string();
    let serve = Serve::start_with(&[
        "-H",
        "tcp://127.0.0.1:0",
        "--tlsverify",
        "--tlscacert",
        &file("ca.pem"),
        "--tlscert",
        &file("server-cert.pem"),
        "--tlskey",
        &file("server-key.pem"),
    ]);
    let host = format!("tcp://{}", serve.address("tcp://"));
    (serve, host)
}

/// What docker says with this CA, certificate and key.
fn docker(serve: &Serve, host: &str, [ca, certificate, key]: [&Path; 3]) -> vch::Output {
    let option = |name: &str, path: &Path| format!("--tls{name}={}", path.display());
    let options = [option("cacert", ca), option("cert", certificate), option("key", key)];
    let [ca, certificate, key] = options.each_ref().map(String::as_str);
    serve.docker_at(host, &["--tlsverify", ca, certificate, key, "version", "--format", "{{.Server.Os}}"]).output()
}

fn openssl(args: &[&str], dir: &Path) -> String {
    run(Command::new("openssl").args(args).current_dir(dir))
}

/// All that openssl says of a connection, after which it hears what the host says of it: in TLS 1.3 that comes behind the handshake.
fn s_client(host: &str, dir: &Path, more: &[&str]) -> String {
    let address = host.trim_start_matches("tcp://");
    let mut child = Command::new("openssl")
        .args([&["s_client", "-connect", address][..], more].concat())
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl");
    // one that is not let in does not read it
    let request = b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let stdin = child.stdin.as_mut().expect("piped");
    stdin.write_all(request).ok();
    // it ends when the host closes the connection: its own input goes on until then
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("a child of ours").is_none() {
        assert!(Instant::now() < deadline, "openssl does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("a child of ours");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn openssl_takes_the_certificates_for_what_they_are() {
    let dir = certificates();
    let at = dir.path();
    for (purpose, certificate) in [("sslserver", "server-cert.pem"), ("sslclient", "cert.pem")] {
        let args = ["verify", "-x509_strict", "-CAfile", "ca.pem", "-purpose", purpose, certificate];
        assert_eq!(openssl(&args, at), format!("{certificate}: OK\n"));
    }
    for (option, name) in [("-verify_ip", "127.0.0.1"), ("-verify_hostname", "vch.example")] {
        openssl(&["verify", "-CAfile", "ca.pem", option, name, "server-cert.pem"], at);
    }
    let wrong = Command::new("openssl")
        .args(["verify", "-CAfile", "ca.pem", "-purpose", "sslserver", "cert.pem"])
        .current_dir(at)
        .output()
        .unwrap();
    assert!(!wrong.status.success(), "a client's certificate is no server's");
    // valid now, and for the days that were asked for
    let dates = openssl(&["x509", "-in", "cert.pem", "-noout", "-checkend", &(364 * 86_400).to_string()], at);
    assert!(dates.contains("will not expire"), "{dates}");
}

#[test]
fn docker_is_let_in_with_a_certificate_and_told_why_not_without() {
    let (dir, other) = (certificates(), certificates());
    let (serve, host) = serve(dir.path());
    let own = |name: &str| dir.path().join(name);
    let path = |text: &str| PathBuf::from(text);
    let (ca, certificate, key) = (own("ca.pem"), own("cert.pem"), own("key.pem"));
    assert_eq!(docker(&serve, &host, [&ca, &certificate, &key]).success(), "linux\n");

    // one that has expired: by openssl, from our CA
    let at = dir.path();
    std::fs::write(own("client.cnf"), "extendedKeyUsage=clientAuth\n").unwrap();
    openssl(&["req", "-new", "-key", "key.pem", "-subj", "/CN=late", "-out", "late.csr"], at);
    let sign = "x509 -req -in late.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -extfile client.cnf -days";
    let sign = |days: &str, out: &str| {
        let args = [&sign.split(' ').collect::<Vec<_>>()[..], &[days, "-out", out]].concat();
        openssl(&args, at);
    };
    sign("-1", "expired.pem");
    sign("1", "valid.pem");
    assert_eq!(docker(&serve, &host, [&ca, &own("valid.pem"), &key]).success(), "linux\n");
    let refused = |certificate: &Path, key: &Path, part: &str| {
        let output = docker(&serve, &host, [&ca, certificate, key]);
        assert!(output.code != 0 && output.stderr.contains(part), "{part}: {output:?}");
    };
    refused(&own("expired.pem"), &key, "tls: expired certificate");
    // docker shows no certificate to a host that names other CAs; openssl does
    refused(&other.path().join("cert.pem"), &other.path().join("key.pem"), "tls: certificate required");
    let said = s_client(&host, other.path(), &["-cert", "cert.pem", "-key", "key.pem"]);
    assert!(said.contains("alert unknown ca"), "{said}");
    // the host's own certificate is no client's
    refused(&own("server-cert.pem"), &own("server-key.pem"), "tls: unsupported certificate");
    // docker trusts another CA than the host's
    let output = docker(&serve, &host, [&other.path().join("ca.pem"), &certificate, &key]);
    assert!(output.code != 0 && output.stderr.contains("unknown authority"), "{output:?}");

    // no certificate, no TLS, an old TLS
    let ca_option = format!("--tlscacert={}", ca.display());
    let output = serve.docker_at(&host, &["--tlsverify", &ca_option, "version"]).output();
    assert!(output.code != 0 && output.stderr.contains("tls: certificate required"), "{output:?}");
    let output = serve.docker_at(&host, &["version"]).output();
    assert!(output.code != 0 && output.stderr.contains("HTTP request to an HTTPS server"), "{output:?}");
    let said = s_client(&host, at, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(said.contains("alert"), "{said}");
    let said = s_client(&host, at, &["-tls1_2", "-cert", "cert.pem", "-key", "key.pem"]);
    assert!(said.contains("HTTP/1.1 200 OK"), "{said}");

    // none of them has done any harm, nor left a line for each
    assert_eq!(docker(&serve, &host, [&path(ca.to_str().unwrap()), &certificate, &key]).success(), "linux\n");
    assert!(serve.log().lines().count() < 10, "{}", serve.log());
}

#[test]
fn certificates_change_while_it_serves() {
    let dir = certificates();
    let (serve, host) = serve(dir.path());
    let files = ["ca.pem", "cert.pem", "key.pem"].map(|name| dir.path().join(name));
    let [ca, certificate, key] = files.each_ref().map(PathBuf::as_path);
    let files = [ca, certificate, key];
    assert_eq!(docker(&serve, &host, files).success(), "linux\n");
    let shown = || {
        let said = s_client(&host, dir.path(), &["-cert", "cert.pem", "-key", "key.pem"]);
        let certificate = said.split("-----BEGIN CERTIFICATE-----").nth(1).expect("a certificate");
        certificate.split("-----END").next().map(str::to_owned)
    };
    let first = shown();
    certify(dir.path(), &["--force"]);
    serve.send(Signal::SIGHUP);
    until("the new certificate is shown", || shown() != first);
    // what it cannot use it does not take
    std::fs::write(dir.path().join("server-key.pem"), "nonsense").unwrap();
    serve.send(Signal::SIGHUP);
    until("the certificates stay as they are", || serve.log().contains("the certificates stay as they are"));
    assert_eq!(docker(&serve, &host, files).success(), "linux\n");
}
