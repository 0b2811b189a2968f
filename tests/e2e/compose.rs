//! docker-compose, whichever there is: services that need each other by name, with a volume, a health check and a port, from up to down.

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
    command: sh -c "mkdir -p /www; wget -q -O /www/index.html http://db/; echo up; exec httpd -f -p 80 -h /www"
    depends_on:
      db:
        condition: service_healthy
    ports: ["127.0.0.1::80"]
    volumes: ["/own"]
  worker:
    image: busybox
    command: sleep 100000
volumes:
  data:
    driver_opts:
      size: 64m
"#;

/// A program of its own, of the first or the second version, or docker's plugin.
fn installed() -> Option<&'static [&'static str]> {
    let all: [&[&str]; 2] = [&["docker-compose"], &["docker", "compose"]];
    all.into_iter().find(|words| {
        let output = Command::new(words[0]).args(&words[1..]).arg("version").output();
        output.is_ok_and(|output| output.status.success())
    })
}

/// One call of it: its code, and what it says.
fn compose(words: &[&str], serve: &Serve, project: &Path, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(["--ansi", "never", "--project-name", "shop"]).args(args).current_dir(project);
    // a loaded machine takes its time
    command.env("DOCKER_HOST", serve.docker_host()).env("COMPOSE_HTTP_TIMEOUT", "600").env("HOME", project);
    let output = command.output().expect("docker-compose");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn services_that_need_each_other_come_up_and_go_down() {
    let Some(words) = installed() else {
        return crate::skip("services_that_need_each_other_come_up_and_go_down", "there is no docker-compose here");
    };
    let serve = Serve::with_qemu(&[]);
    let project = tempfile::tempdir().unwrap();
    fs::write(project.path().join("docker-compose.yml"), PROJECT).unwrap();
    let did = |args: &[&str]| {
        let (code, said) = compose(words, &serve, project.path(), args);
        assert_eq!(code, 0, "{args:?}: {said}; {}", serve.log());
        said
    };
    let ids = |service: &str| {
        let label = format!("label=com.docker.compose.service={service}");
        let said = serve.docker(&["ps", "-q", "--no-trunc", "-f", &label]).output().success();
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    did(&["up", "-d", "--scale", "worker=2"]);
    until("the second has heard the first", || did(&["logs", "web"]).contains("up"));
    let shown = did(&["ps"]);
    assert!(shown.contains("db") && shown.contains("web") && shown.to_lowercase().contains("up"), "{shown}");
    assert!(did(&["exec", "-T", "web", "cat", "/www/index.html"]).contains("stored"));
    // the other way round, and each of two by its number
    until("the first hears the second", || {
        did(&["exec", "-T", "db", "wget", "-qO-", "http://web/"]).contains("stored")
    });
    let workers = ids("worker");
    assert_eq!(workers.len(), 2);
    for index in ["1", "2"] {
        let name = did(&["exec", "-T", "--index", index, "worker", "hostname"]);
        assert!(workers.iter().any(|id| id.starts_with(name.trim())), "{name} of {workers:?}");
    }
    let found = did(&["exec", "-T", "db", "nslookup", "worker"]);
    for worker in &workers {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = serve.docker(&["inspect", "-f", format, worker]).output().success();
        assert!(found.contains(address.trim()), "{address} in {found}");
    }
    answers(did(&["port", "web", "80"]).trim());
    // what is up stays as it is
    let containers = serve.docker(&["ps", "-q"]).output().success();
    did(&["up", "-d", "--scale", "worker=2"]);
    assert_eq!(serve.docker(&["ps", "-q"]).output().success(), containers);
    did(&["restart", "-t", "0", "web"]);
    until("it is up again", || did(&["logs", "web"]).lines().filter(|line| line.trim().ends_with("up")).count() == 2);
    answers(did(&["port", "web", "80"]).trim());
    did(&["stop", "-t", "0"]);
    assert_eq!(serve.docker(&["ps", "-q"]).output().success(), "");
    assert!(serve.docker(&["volume", "ls", "-q"]).output().success().contains("shop_data"));
    did(&["start", "db"]);
    assert_eq!((ids("db").len(), ids("web").len()), (1, 0));
    assert!(did(&["exec", "-T", "db", "cat", "/data/index.html"]).contains("stored"));
    did(&["down", "-v", "-t", "0"]);
    for args in [["ps", "-aq"].as_slice(), &["volume", "ls", "-q"], &["network", "ls", "-qf", "name=shop"]] {
        assert_eq!(serve.docker(args).output().success(), "", "{args:?}");
    }
    until("no machine is left", || serve.machines().is_empty());
}

/// Through the port that it publishes.
fn answers(at: &str) {
    until("the port answers", || {
        let Ok(mut stream) = TcpStream::connect(at) else { return false };
        let mut answer = String::new();
        write!(stream, "GET / HTTP/1.0\r\n\r\n").is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.contains("stored")
    });
}
