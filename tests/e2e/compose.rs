//! docker-compose up: two services that need each other, on a network, with a volume, a health check and a port; and what the second version of it calls.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use rig::engine::until;
use rig::serve::Serve;

const PROJECT: &str = r#"
version: "2.4"
services:
  db:
    image: busybox
    command: sh -c "cd /data; echo stored > index.html; exec httpd -f -p 80"
    volumes: ["data:/data"]
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"]
      interval: 1s
      retries: 600
  web:
    image: busybox
    command: sh -c "mkdir /www; wget -q -O /www/index.html http://db/; echo up; exec httpd -f -p 80 -h /www"
    depends_on:
      db:
        condition: service_healthy
    ports: ["127.0.0.1::80"]
    volumes: ["/own"]
volumes:
  data:
    driver_opts:
      size: 64m
"#;

/// One call of docker-compose: its code, and what it says.
fn compose(serve: &Serve, project: &Path, args: &[&str]) -> (i32, String) {
    let mut command = Command::new("docker-compose");
    command.args(["--ansi", "never", "--project-name", "shop"]).args(args).current_dir(project);
    // a loaded machine takes its time
    command.env("DOCKER_HOST", serve.docker_host()).env("COMPOSE_HTTP_TIMEOUT", "600").env("HOME", project);
    let output = command.output().expect("docker-compose");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn two_services_that_need_each_other_come_up_and_go_down() {
    if Command::new("docker-compose").arg("version").output().is_err() {
        return crate::skip("two_services_that_need_each_other_come_up_and_go_down", "there is no docker-compose here");
    }
    let serve = Serve::with_qemu(&[]);
    let project = tempfile::tempdir().unwrap();
    fs::write(project.path().join("docker-compose.yml"), PROJECT).unwrap();
    let did = |args: &[&str]| {
        let (code, said) = compose(&serve, project.path(), args);
        assert_eq!(code, 0, "{args:?}: {said}; {}", serve.log());
        said
    };
    did(&["up", "-d"]);
    until("the second has heard the first", || did(&["logs", "web"]).contains("up"));
    let shown = did(&["ps"]);
    assert!(shown.contains("db") && shown.contains("web") && shown.to_lowercase().contains("up"), "{shown}");
    assert!(did(&["exec", "-T", "web", "cat", "/www/index.html"]).contains("stored"));
    // through the port that it publishes
    let at = did(&["port", "web", "80"]);
    until("the port answers", || {
        let Ok(mut stream) = TcpStream::connect(at.trim()) else { return false };
        let mut answer = String::new();
        write!(stream, "GET / HTTP/1.0\r\n\r\n").is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.contains("stored")
    });
    // what is up stays as it is
    let containers = serve.docker(&["ps", "-q"]).output().success();
    did(&["up", "-d"]);
    assert_eq!(serve.docker(&["ps", "-q"]).output().success(), containers);
    did(&["stop", "-t", "0"]);
    assert_eq!(serve.docker(&["ps", "-q"]).output().success(), "");
    assert!(serve.docker(&["volume", "ls", "-q"]).output().success().contains("shop_data"));
    did(&["down", "-v", "-t", "0"]);
    for args in [["ps", "-aq"].as_slice(), &["volume", "ls", "-q"], &["network", "ls", "-qf", "name=shop"]] {
        assert_eq!(serve.docker(args).output().success(), "", "{args:?}");
    }
}
