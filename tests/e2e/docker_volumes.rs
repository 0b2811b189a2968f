//! Volumes of containers that vch serve makes: docker volume, and -v, --mount, --volumes-from and --tmpfs of docker run, through a container's whole life.

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use rig::engine::until;
use rig::nfs::FileServer;
use rig::serve::Serve;
use rig::vch::Output;

/// Docker's client succeeds; what it says on standard output, without the last newline.
fn did(serve: &Serve, args: &[&str]) -> String {
    serve.docker(args).output().success().trim_end().to_owned()
}

fn fails(output: Output, code: i32, words: &str) {
    assert_eq!(output.code, code, "{output:?}");
    assert!(output.stderr.contains(words), "{words:?} is not in {output:?}");
}

/// What docker events tells of volumes since the beginning.
fn events(serve: &Serve) -> Vec<String> {
    let soon = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1;
    let format =
        "{{.Type}} {{.Action}} {{if eq .Type \"volume\"}}{{.Actor.ID}}{{else}}{{.Actor.Attributes.name}}{{end}}";
    let told = did(serve, &["events", "--since", "1", "--until", &soon.to_string(), "--format", format]);
    told.lines().map(str::to_owned).collect()
}

#[test]
fn volumes_are_made_listed_and_removed_without_a_machine() {
    let mut serve = Serve::with_qemu(&[]);
    assert_eq!(did(&serve, &["volume", "create", "-o", "size=64m", "--label", "tier=db", "data"]), "data");
    let own = did(&serve, &["volume", "create"]);
    assert_eq!(own.len(), 64);
    let template = "{{.Name}} {{.Driver}} {{.Scope}} {{.Options.size}} {{.Labels.tier}}";
    assert_eq!(did(&serve, &["volume", "inspect", "-f", template, "data"]), "data local local 64m db");
    let file = did(&serve, &["volume", "inspect", "-f", "{{.Mountpoint}}", "data"]);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 64 << 20);
    // another time is none
    assert_eq!(did(&serve, &["volume", "create", "data"]), "data");
    fails(
        serve.docker(&["volume", "create", "-d", "nosuch", "x1"]).output(),
        1,
        "error looking up volume plugin nosuch",
    );
    fails(serve.docker(&["volume", "create", "-o", "colour=red", "x1"]).output(), 1, "invalid option: \"colour\"");
    fails(
        serve.docker(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/etc", "x1"]).output(),
        1,
        "shares none",
    );
    fails(
        serve.docker(&["volume", "create", "a b"]).output(),
        1,
        "includes invalid characters for a local volume name",
    );
    fails(serve.docker(&["volume", "inspect", "nosuch"]).output(), 1, "get nosuch: no such volume");
    fails(serve.docker(&["volume", "rm", "nosuch"]).output(), 1, "get nosuch: no such volume");
    // a container has its volumes from its creation on
    let args =
        ["create", "--name", "web", "-v", "data:/d", "-v", "/own", "--mount", "src=new,dst=/n,readonly", "busybox"];
    did(&serve, &args);
    let web = did(&serve, &["inspect", "-f", "{{.Id}}", "web"]);
    let template = "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}} {{.Driver}};{{end}}";
    let mounts = "volume /d true local;volume /n false local;volume /own true local;";
    assert_eq!(did(&serve, &["inspect", "-f", template, "web"]), mounts);
    let in_use = format!("remove data: volume is in use - [{web}]");
    fails(serve.docker(&["volume", "rm", "data"]).output(), 1, &in_use);
    fails(serve.docker(&["volume", "rm", "-f", "data"]).output(), 1, &in_use);
    assert_eq!(did(&serve, &["volume", "ls", "-q", "-f", "dangling=true"]), own);
    assert_eq!(did(&serve, &["volume", "ls", "-q", "-f", "label=tier=db"]), "data");
    assert_eq!(did(&serve, &["volume", "ls", "-q", "-f", "name=at", "-f", "driver=local"]), "data");
    assert_eq!(did(&serve, &["ps", "-aq", "--no-trunc", "-f", "volume=data"]), web);
    let all = did(&serve, &["volume", "ls", "-q"]);
    serve.kill();
    serve.start_again();
    serve.until_docker_answers();
    assert_eq!(did(&serve, &["volume", "ls", "-q"]), all);
    assert!(did(&serve, &["system", "df", "-v"]).lines().any(|line| line.starts_with("data ") && line.contains('1')));
    // what was named is nobody's to remove
    did(&serve, &["rm", "-v", "web"]);
    assert_eq!(did(&serve, &["volume", "ls", "-q"]).lines().count(), 3);
    let pruned = did(&serve, &["volume", "prune", "-f"]);
    assert!(pruned.contains(&own) && !pruned.contains("data") && !pruned.contains("space: 0B"), "{pruned}");
    assert!(did(&serve, &["volume", "prune", "-af", "--filter", "label!=tier"]).contains("new"));
    assert_eq!(did(&serve, &["volume", "ls", "-q"]), "data");
    did(&serve, &["volume", "rm", "data"]);
    did(&serve, &["volume", "rm", "-f", "data"]);
    assert!(!std::path::Path::new(&file).exists());
    // what cannot be had leaves nothing
    let create = |option: &str, value: &str| serve.docker(&["create", option, value, "busybox"]).output();
    fails(create("-v", "/etc:/e"), 1, "share no folders or files of this host");
    fails(create("-v", "x1:/e:fast"), 1, "invalid volume specification: 'x1:/e:fast'");
    fails(create("--mount", "src=x1,dst=/e,volume-subpath=a"), 1, "leave out volume-subpath");
    fails(create("--volumes-from", "nosuch"), 1, "No such container: nosuch");
    fails(serve.docker(&["create", "-v", "x1:/e", "-v", "x2:/e", "busybox"]).output(), 1, "Duplicate mount point: /e");
    fails(serve.docker(&["run", "-v", "/etc:/e", "busybox", "true"]).output(), 125, "use a volume (-v NAME:/e");
    assert_eq!(did(&serve, &["volume", "ls", "-q"]), "");
}

#[test]
fn data_outlives_containers_and_one_machine_writes_or_several_read() {
    let mut serve = Serve::with_qemu(&[]);
    // one behind the other, as fast as they can be typed
    did(&serve, &["run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", "echo one >> /d/f"]);
    did(
        &serve,
        &[
            "run",
            "--name",
            "first",
            "-v",
            "data:/d",
            "-v",
            "/own",
            "busybox",
            "sh",
            "-c",
            "echo two >> /d/f; date > /own/t",
        ],
    );
    let script = "cat /d/f; cat /again/f; ls /etc2 | grep -c passwd; ls /n; ! touch /again/x; ls /own; \
                  awk '$2 == \"/t\" || $2 == \"/m\" {print $2, $3}' /proc/mounts | sort";
    let args = [
        "run",
        "--rm",
        "--volumes-from",
        "first:ro",
        "-v",
        "deep:/n/deep",
        "-v",
        "seeded:/etc",
        "-v",
        "seeded:/etc2:ro",
        "-v",
        "outer:/n",
        "-v",
        "data:/d",
        "-v",
        "data:/again:ro",
        "--tmpfs",
        "/t:size=1m",
        "--mount",
        "type=tmpfs,dst=/m",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    let said = did(&serve, &args);
    assert_eq!(said, "one\ntwo\none\ntwo\n1\ndeep\nt\n/m tmpfs\n/t tmpfs");
    let own = did(&serve, &["volume", "ls", "-qf", "label=com.docker.volume.anonymous"]);
    assert_eq!(own.len(), 64, "that of the first is left: {own}");

    let writes = "echo three >> /d/f; sync; echo up; sleep 1000";
    did(&serve, &["run", "-d", "--name", "writer", "-v", "data:/d", "busybox", "sh", "-c", writes]);
    until("it has written", || did(&serve, &["logs", "writer"]) == "up");
    did(&serve, &["create", "--name", "second", "-v", "data:/d:ro", "busybox", "cat", "/d/f"]);
    let refused = "volume data is in use by container writer: only containers that all mount it read-only can share it; stop writer first";
    fails(serve.docker(&["start", "second"]).output(), 1, refused);
    // its machine goes on, and so does what it has
    serve.kill();
    serve.start_again();
    serve.until_docker_answers();
    fails(serve.docker(&["start", "-a", "second"]).output(), 1, refused);
    // one that could not unmount it leaves it to be read, too
    serve.machines().into_iter().for_each(|pid| kill(pid, Signal::SIGKILL).unwrap());
    did(&serve, &["wait", "writer"]);
    did(&serve, &["rm", "writer"]);
    assert_eq!(did(&serve, &["start", "-a", "second"]), "one\ntwo\nthree");

    for name in ["reader1", "reader2"] {
        did(&serve, &["run", "-d", "--name", name, "-v", "data:/d:ro", "busybox", "sleep", "1000"]);
    }
    assert_eq!(did(&serve, &["exec", "reader2", "cat", "/d/f"]), "one\ntwo\nthree");
    let writes = serve.docker(&["run", "--rm", "-v", "data:/d", "busybox", "true"]).output();
    fails(writes, 125, "volume data is in use by container reader");
    did(&serve, &["rm", "-f", "reader1", "reader2", "second"]);
    did(&serve, &["rm", "-v", "first"]);
    // nothing holds them any more
    did(&serve, &["volume", "rm", "data", "deep", "outer", "seeded"]);
    until("the volumes are gone", || did(&serve, &["volume", "ls", "-q"]).is_empty());
}

#[test]
fn what_happens_to_volumes_is_told_in_dockers_order() {
    let serve = Serve::with_qemu(&[]);
    did(&serve, &["run", "--name", "web", "-v", "data:/d", "busybox", "true"]);
    did(&serve, &["rm", "web"]);
    did(&serve, &["volume", "rm", "data"]);
    let order = ["volume create data", "container create web", "volume mount data", "container start web"];
    let expected = order.into_iter().chain([
        "volume unmount data",
        "container die web",
        "container destroy web",
        "volume destroy data",
    ]);
    let told = events(&serve);
    let told: Vec<&str> = told.iter().map(String::as_str).filter(|line| !line.contains("attach")).collect();
    let told: Vec<&str> =
        told.into_iter().filter(|line| line.starts_with("volume") || line.starts_with("container")).collect();
    assert_eq!(told, expected.collect::<Vec<_>>());
}

/// What the thread runs from now on has a network of its own, in which this host has an address beside the loopback's.
fn alone(address: &str) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
    let own = format!("{address}/32");
    let ways: [&[&str]; 3] = [
        &["link", "set", "lo", "up"],
        &["address", "add", &own, "dev", "lo"],
        &["route", "add", "default", "dev", "lo", "src", address],
    ];
    for way in ways {
        let output = std::process::Command::new("ip").args(way).output().map_err(|error| format!("ip: {error}"))?;
        if !output.status.success() {
            return Err(format!("ip {way:?}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    Ok(())
}

#[test]
fn volumes_are_memory_or_a_directory_of_a_file_server() {
    // a thread of its own: nothing else is to be in that namespace
    let thread = std::thread::spawn(|| {
        let name = "volumes_are_memory_or_a_directory_of_a_file_server";
        let address = "198.51.100.1";
        if let Err(reason) = alone(address) {
            return crate::skip(name, &reason);
        }
        let Some(server) = FileServer::start_at(address) else {
            return crate::skip(name, "nfs-ganesha is not installed");
        };
        let serve = Serve::with_qemu(&[]);
        let options = format!("o=addr={address},port={},rw,noatime", server.port);
        did(&serve, &["volume", "create", "-o", "type=nfs", "-o", &options, "-o", "device=:/files", "files"]);
        did(
            &serve,
            &["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=700", "fast"],
        );
        let script = "awk '$2 == \"/f\" || $2 == \"/m\" {print $2, $3}' /proc/mounts | sort; stat -c %a /m; \
                      echo kept > /f/note; echo x > /m/x; dd if=/dev/zero of=/m/large bs=1M count=2 2>&1 | grep -o 'No space.*'";
        let args = ["run", "-d", "--name", "writer", "-v", "files:/f", "-v", "fast:/m", "busybox", "sh", "-c"];
        did(&serve, &[args.as_slice(), &[&format!("{script}; echo done; exec sleep 100000")]].concat());
        until("it has written", || did(&serve, &["logs", "writer"]).ends_with("done"));
        assert_eq!(did(&serve, &["logs", "writer"]), "/f nfs4\n/m tmpfs\n700\nNo space left on device\ndone");
        // shared, the one, and each machine's own, the other; the server forgets what is in a file, not how long it is
        let look = "stat -c %s /f/note; ls -A /m; (echo x > /f/x) 2>&1 | grep -o Read-only";
        let args = ["run", "--rm", "-v", "files:/f:ro", "-v", "fast:/m", "busybox", "sh", "-c", look];
        assert_eq!(did(&serve, &args), "5\nRead-only");
        did(&serve, &["rm", "-f", "writer"]);
        did(&serve, &["volume", "rm", "files", "fast"]);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
