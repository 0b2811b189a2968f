//! What docker's API adds to an exec: over the link alone, over the API's socket, and by docker's own client; in a machine made elsewhere, and in one of this host's.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rig::host::{Host, sh};
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use rig::serve::Serve;
use serde_json::json;
use wire::message::{Exec, Work};
use wire::spec::LinkDevice;

/// Docker's own client takes ten times as long as the rest.
const EXECS: usize = 100;
const BY_CLIENT: usize = 20;

/// In a machine made elsewhere.
pub(crate) fn bench() -> Result<()> {
    let (_dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, "exec sleep 100000");
    let serve = Serve::start();
    let _machine = serve.machine("web1", &mut spec, disk).power_on();
    rig::engine::until("it runs", || serve.ask("POST", "/containers/web1/resize?h=1&w=1", "").status == 200);
    execs(&serve, "web1", "")
}

/// `true` in this container, from the request to its end, against the link to a machine of its own. The three take turns.
pub(crate) fn execs(serve: &Serve, container: &str, of: &str) -> Result<()> {
    let (_dir, disk) = busybox_disk();
    let spec = script(LinkDevice::Virtio, "exec sleep 100000");
    let mut host = Host::boot(Machine::new(&spec, Some(disk)), &spec);
    host.shell("true");
    let config = json!({ "AttachStdout": true, "AttachStderr": true, "Cmd": ["/bin/true"] }).to_string();
    let (mut link, mut started, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..EXECS {
        let began = Instant::now();
        let session = host.create(Work::Exec(Exec { argv: vec!["/bin/true".into()], ..sh("") }));
        host.exit(session);
        link.push(began.elapsed());
        host.forget(session);

        let began = Instant::now();
        let made = serve.ask("POST", &format!("/containers/{container}/exec"), &config).json();
        let exec = format!("/exec/{}", made["Id"].as_str().unwrap_or_default());
        let start = Instant::now();
        let (_, mut connection) = serve.hijack(&format!("{exec}/start"), "{}", b"");
        connection.read_to_end();
        started.push(start.elapsed());
        let told = serve.ask("GET", &format!("{exec}/json"), "").json();
        whole.push(began.elapsed());
        ensure!(told["ExitCode"] == 0, "{told}");
    }
    let (mut client, mut nothing) = (Vec::new(), Vec::new());
    for _ in 0..BY_CLIENT {
        let began = Instant::now();
        serve.docker(&["exec", container, "/bin/true"]).output().success();
        client.push(began.elapsed());
        let began = Instant::now();
        serve.docker(&["inspect", "--type", "container", container]).output().success();
        nothing.push(began.elapsed());
    }
    let [link, started, whole, client, nothing] = [link, started, whole, client, nothing].map(middle);
    for (what, time, against, than) in [
        ("exec of `true` by docker's API, start to end", started, "the link's own exec", link),
        ("the same, made and inspected too", whole, "the link's own exec", link),
        (
            "`docker exec` without what `docker inspect` takes",
            client.saturating_sub(nothing),
            "the link's own exec",
            link,
        ),
        ("`docker exec`", client, "`docker inspect`", nothing),
    ] {
        let ratio = time.as_secs_f64() / than.as_secs_f64();
        let (time, than) = (time.as_secs_f64() * 1e3, than.as_secs_f64() * 1e3);
        println!("| {what}{of} | {time:.2} ms | {against} | {than:.2} ms | {ratio:.2} |");
    }
    Ok(())
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
