//! `docker ps` and `docker inspect` by docker's own client: columns, filters and templates.

use rig::images::busybox_disk;
use rig::machine::script;
use rig::serve::Serve;
use wire::spec::LinkDevice;

use crate::docker_life::{fails, machine, wait_until};

#[test]
fn containers_are_listed_and_inspected() {
    let (_dir, disk) = busybox_disk();
    let serve = Serve::start();
    let docker = |args: &[&str]| serve.docker(args).output();
    let mut spec = script(LinkDevice::Virtio, "exec sleep 100000");
    spec.main.env.0.push("COLOUR=red".into());
    spec.main.user = "1000".into();
    spec.main.dir = "/tmp".into();
    spec.machine.pids = Some(50);
    let id = "ab".repeat(32);
    let mut web = machine(&serve, "web", &mut spec, &disk);
    // a VM whose id is one of docker's keeps it
    spec.id.clone_from(&id);
    let key = serve.machine(&id, &mut spec, disk.clone()).guestinfo;
    let mut keys = wire::vmx::Dictionary::parse(&key.unwrap()).unwrap();
    let labels = [("tier".to_owned(), "front".to_owned())].into();
    let about = wire::spec::About {
        name: Some("web".into()),
        image: Some("busybox:1".into()),
        exposed: vec!["443/tcp".into()],
        published: vec!["127.0.0.1:8080:80/tcp".into()],
        labels,
        ..Default::default()
    };
    wire::guestinfo::write_about(&about, &mut keys);
    web.guestinfo = Some(keys.to_string());
    let _web = web.power_on();
    let mut other = script(LinkDevice::Virtio, "exit 3");
    let _other = machine(&serve, "other", &mut other, &disk).power_on();
    wait_until(&serve, "web", "{{.State.Status}}", "running");
    wait_until(&serve, "other", "{{.State.Status}}", "exited");

    // every column
    let table = docker(&["ps"]).success();
    let (head, line) = table.split_once('\n').unwrap();
    for column in ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"] {
        assert!(head.contains(column), "{table}");
    }
    for part in ["abababababab", "busybox:1", "\"/bin/sh -c 'exec sl", "Up ", "443/tcp, 127.0.0.1:8080->80/tcp", "web"]
    {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    assert_eq!(docker(&["ps", "-q", "--no-trunc"]).success(), format!("{id}\n"));
    assert_eq!(docker(&["ps", "-a", "--format", "{{.Names}}"]).success().lines().count(), 2);
    assert_eq!(docker(&["ps", "-l", "-q"]).success().lines().count(), 1);
    docker(&["ps", "-as"]).success();
    let filtered = |filters: &[&str]| {
        let words = filters.iter().flat_map(|filter| ["--filter", filter]);
        let words: Vec<&str> = ["ps", "-a", "--format", "{{.Names}}"].into_iter().chain(words).collect();
        docker(&words).success()
    };
    let web = [
        "name=we",
        "id=abab",
        "label=tier=front",
        "status=running",
        "ancestor=busybox",
        "publish=80",
        "expose=443/tcp",
        "since=other",
        "health=none",
    ];
    for filter in web {
        // which one appeared first is the machines' affair
        if filter != "since=other" {
            assert!(filtered(&[filter]).lines().any(|name| name == "web"), "{filter}");
        }
    }
    assert_eq!(filtered(&["exited=3"]), "other\n");
    assert_eq!(filtered(&["label=tier", "status=exited"]), "other\n");
    assert_eq!(filtered(&["volume=/data"]), "");
    fails(docker(&["ps", "--filter", "colour=red"]), 1, &["invalid filter 'colour'"]);

    // templates
    let template = |template: &str| docker(&["inspect", "-f", template, "abab"]).success();
    assert_eq!(template("{{.Id}} {{.Name}}"), format!("{id} /web\n"));
    assert_eq!(template("{{.Path}} {{json .Args}}"), "/bin/sh [\"-c\",\"exec sleep 100000\"]\n");
    assert_eq!(template("{{.Config.User}} {{.Config.WorkingDir}} {{.Config.Image}}"), "1000 /tmp busybox:1\n");
    assert!(template("{{json .Config.Env}}").contains("COLOUR=red"));
    assert_eq!(template("{{.HostConfig.PidsLimit}} {{.State.Running}} {{.RestartCount}}"), "50 true 0\n");
    assert_eq!(template("{{json .NetworkSettings.Networks}} {{.NetworkSettings.IPAddress}}"), "{} \n");
    assert_eq!(docker(&["port", "web"]).success(), "80/tcp -> 127.0.0.1:8080\n");
    assert_eq!(docker(&["inspect", "-s", "-f", "{{.SizeRw}}", "web"]).success(), "0\n");
    fails(docker(&["inspect", "--type", "container", "nosuch"]), 1, &["No such container: nosuch"]);

    // what has ended goes, and what runs stays
    let pruned = docker(&["container", "prune", "-f"]).success();
    assert!(pruned.contains("Deleted Containers:") && pruned.contains("Total reclaimed space"), "{pruned}");
    assert_eq!(docker(&["ps", "-a", "--format", "{{.Names}}"]).success(), "web\n");
}
