//! Real services: each is started, used by its real client over the network, stopped in order, and started again with its data on a volume.
//!
//! The client is in a containerVM of its own, and reaches the service as any other machine would: through a port of the host.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rig::host::{Host, PATIENCE, sh};
use rig::images::{run, services_disk, volume};
use rig::machine::{Machine, script};
use wire::message::{Exec, MAIN, Request, Work};
use wire::spec::{
    DiskId, Endpoint, Environment, LinkDevice, Mount, Nic, Port, Prefix, Process, Protocol, Source, Spec,
};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin";

/// What an image would say of its service.
struct Service {
    argv: Vec<String>,
    user: &'static str,
    dir: &'static str,
    stop_signal: u8,
    /// What it listens at, and what others see.
    port: (u16, u16),
    /// Where its data is.
    data: &'static str,
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(String::from).to_vec()
}

/// On QEMU's user network, where the host is 10.0.2.2.
fn network(ports: Vec<Port>) -> Endpoint {
    Endpoint {
        addresses: vec![Prefix { address: [10, 0, 2, 15].into(), length: 24 }],
        gateways: vec![[10, 0, 2, 2].into()],
        default: true,
        ports,
        ..Endpoint::new("bridge", Nic::Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]))
    }
}

fn boot(mut spec: Spec, netdev: &str, volume: Option<&Path>) -> Host {
    spec.main.env = Environment(vec![PATH.into(), "LANG=C.UTF-8".into(), "PGPASSWORD=swordfish".into()]);
    let mut machine = Machine::new(&spec, Some(services_disk()));
    machine.extra.extend(["-m", "384", "-netdev", netdev, "-device"].map(String::from));
    machine.extra.push("virtio-net-pci,netdev=net0,mac=52:54:00:12:34:56".into());
    if let Some(volume) = volume {
        machine.extra.push("-drive".into());
        machine.extra.push(format!("if=none,id=volume,format=raw,file={}", volume.display()));
        machine.extra.extend(["-device", "virtio-blk-pci,drive=volume"].map(String::from));
    }
    Host::boot(machine, &spec)
}

impl Service {
    /// Boots it behind a port of the host.
    fn boot(&self, volume: &Path, host_port: u16) -> Host {
        let mut spec = script(LinkDevice::Virtio, "");
        let (inside, outside) = self.port;
        spec.main = Process {
            user: self.user.into(),
            dir: self.dir.into(),
            stop_signal: self.stop_signal,
            stop_timeout: Some(Duration::from_secs(120)),
            ..Process::new(self.argv.clone())
        };
        let to = (inside != outside).then_some(inside);
        spec.networks = vec![network(vec![Port { protocol: Protocol::Tcp, ports: (outside, outside), to }])];
        spec.mounts = vec![Mount {
            name: "data".into(),
            source: Source::Disk(DiskId::Label("data".into())),
            destination: self.data.into(),
            read_only: false,
            // with the owner that the image's directory has
            seed: true,
        }];
        boot(spec, &format!("user,id=net0,hostfwd=tcp:127.0.0.1:{host_port}-:{outside}"), Some(volume))
    }
}

/// Asks it to stop as `docker stop` does; the volume is clean then.
fn stop(mut host: Host, volume: &Path) {
    let began = Instant::now();
    host.order(Request::PowerOff);
    let exit = host.exit(MAIN);
    let (out, err) = (host.stdout(MAIN).text(), host.stderr(MAIN).text());
    assert_eq!(exit.ending.code(), 0, "{exit:?}: {out}{err}; console: {}", host.machine.console());
    host.wait_off();
    println!("stopped in {:?}", began.elapsed());
    let superblock = run(std::process::Command::new("dumpe2fs").arg("-h").arg(volume));
    assert!(!superblock.contains("needs_recovery"), "{superblock}");
    run(std::process::Command::new("e2fsck").arg("-fn").arg(volume));
}

/// A port of the host that is free.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// A machine with the clients of all.
fn client() -> Host {
    let mut spec = script(LinkDevice::Virtio, "exec sleep 100000");
    spec.networks = vec![network(Vec::new())];
    boot(spec, "user,id=net0", None)
}

/// Runs a client's command until it succeeds: the service may still be starting.
fn ask(server: &mut Host, client: &mut Host, command: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ran = client.run(Work::Exec(Exec { argv: words(["bash", "-c", command]), ..sh("") }));
        if ran.exit.ending.code() == 0 {
            return ran.stdout;
        }
        let (out, err) = (server.stdout(MAIN).text(), server.stderr(MAIN).text());
        assert!(Instant::now() < deadline, "{command}: {ran:?}; {out}{err}; console: {}", server.machine.console());
        // its output is heard, and its end
        server.serve_for(Duration::from_millis(300));
    }
}

/// What a server answers to a request for `/`, once it listens.
fn get(server: &mut Host, port: u16) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut answer = Vec::new();
        let stream = TcpStream::connect(("127.0.0.1", port));
        if let Ok(mut stream) = stream {
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
            let asked = write!(stream, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            // QEMU takes the connection before anybody listens, and closes it then
            let _ended = asked.and_then(|()| stream.read_to_end(&mut answer));
        }
        if !answer.is_empty() {
            return String::from_utf8_lossy(&answer).into_owned();
        }
        let (out, err) = (server.stdout(MAIN).text(), server.stderr(MAIN).text());
        assert!(Instant::now() < deadline, "nothing: {out}{err}; console: {}", server.machine.console());
        server.serve_for(Duration::from_millis(100));
    }
}

#[test]
fn nginx_serves_its_volume_stops_in_order_and_serves_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = volume(dir.path(), "data");
    let service = Service {
        argv: words(["nginx", "-g", "daemon off;"]),
        user: "",
        dir: "/",
        stop_signal: 3,
        port: (80, 8080),
        data: "/var/www/html",
    };
    let port = free_port();
    let mut host = service.boot(&disk, port);
    let answer = get(&mut host, port);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("Welcome to nginx"), "{answer}");
    host.shell("echo 'a page of our own' >/var/www/html/index.html");
    assert!(get(&mut host, port).ends_with("\r\n\r\na page of our own\n"));
    stop(host, &disk);
    let mut host = service.boot(&disk, port);
    let answer = get(&mut host, port);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("a page of our own\n"), "{answer}");
    stop(host, &disk);
}

#[test]
fn redis_keeps_what_its_client_has_set() {
    let dir = tempfile::tempdir().unwrap();
    let disk = volume(dir.path(), "data");
    let server = "redis-server --appendonly yes --dir /var/lib/redis --bind 0.0.0.0 --protected-mode no";
    let service = Service {
        argv: server.split(' ').map(String::from).collect(),
        user: "redis",
        dir: "/var/lib/redis",
        stop_signal: 15,
        port: (6379, 6379),
        data: "/var/lib/redis",
    };
    let port = free_port();
    let mut client = client();
    let cli = format!("redis-cli -e -h 10.0.2.2 -p {port}");
    let mut host = service.boot(&disk, port);
    assert_eq!(ask(&mut host, &mut client, &format!("{cli} PING")), "PONG\n");
    let many = format!("for n in {{1..500}}; do echo SET key$n value$n; done | {cli} | sort | uniq -c | tr -d ' '");
    assert_eq!(ask(&mut host, &mut client, &many), "500OK\n");
    stop(host, &disk);
    let mut host = service.boot(&disk, port);
    assert_eq!(ask(&mut host, &mut client, &format!("{cli} GET key500; {cli} DBSIZE")), "value500\n500\n");
    stop(host, &disk);
}

#[test]
fn postgresql_makes_its_database_once_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = volume(dir.path(), "data");
    let server = "set -e; if ! [ -s data/PG_VERSION ]; then \
                  initdb -D data -E UTF8 --locale=C.UTF-8 --auth-host=scram-sha-256 --pwfile=<(echo swordfish) >&2; \
                  echo 'host all all all scram-sha-256' >>data/pg_hba.conf; fi; \
                  exec postgres -D data -k /tmp -c listen_addresses='*' -c shared_buffers=16MB -c jit=off";
    let service = Service {
        argv: words(["bash", "-c", server]),
        user: "postgres",
        dir: "/var/lib/postgresql",
        stop_signal: 2,
        port: (5432, 5432),
        data: "/var/lib/postgresql",
    };
    let port = free_port();
    let mut client = client();
    let psql = format!("psql -h 10.0.2.2 -p {port} -U postgres -v ON_ERROR_STOP=1 -qAt");
    let mut host = service.boot(&disk, port);
    let make = "CREATE TABLE t AS SELECT n, md5(n::text) AS d FROM generate_series(1, 5000) n; SELECT count(*) FROM t";
    assert_eq!(ask(&mut host, &mut client, &format!("{psql} -c '{make}'")), "5000\n");
    stop(host, &disk);
    let mut host = service.boot(&disk, port);
    let look = "SELECT count(*), min(d) FROM t WHERE d = md5(n::text)";
    let seen = ask(&mut host, &mut client, &format!("{psql} -c '{look}'"));
    assert!(seen.starts_with("5000|000"), "{seen}");
    let said = host.wait("what it says of its last end", |host| {
        let said = host.stderr(MAIN).text();
        said.contains("database system was shut down at").then_some(said)
    });
    assert!(!said.contains("initdb") && !said.contains("recovery"), "{said}");
    stop(host, &disk);
}
