//! Images, as the containers of this host tell of them.

use wire::handshake::LinkKey;
use wire::spec::{About, LinkDevice, LinkSpec, Process, Spec};

use super::*;

#[test]
fn names_are_as_docker_shows_them() {
    let check = |text: &str, expected: &str| assert_eq!(Name::parse(text).to_string(), expected);
    check("busybox", "busybox:latest");
    check("docker.io/library/busybox:1.36", "busybox:1.36");
    check("docker.io/vmware/photon", "vmware/photon:latest");
    check("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest");
    check("127.0.0.1:5000/a/b:2", "127.0.0.1:5000/a/b:2");
    check("busybox:1@sha256:aa", "busybox@sha256:aa");
    assert_eq!(Name::parse("busybox").id(), Name::parse("docker.io/library/busybox:latest").id());
    assert_eq!(Name::parse("busybox").id().len(), "sha256:".len() + 64);
}

fn image(id: &str, names: &[&str]) -> Image {
    let link = LinkSpec { device: LinkDevice::Serial, key: LinkKey::new([1; 32]), sealed: true, speed: 115_200 };
    let spec = Spec::new("web", link, Process::new(vec!["sh".into()]));
    let told = Told { spec, about: About::default() };
    Image {
        id: format!("sha256:{}", id.repeat(32)),
        tags: names.iter().map(|&name| Name::parse(name).to_string()).collect(),
        digests: Vec::new(),
        created_ns: 1_795_219_048_000_000_000,
        containers: 2,
        told: Arc::new(told),
    }
}

#[test]
fn an_image_is_found_by_name_and_by_the_beginning_of_its_id() {
    let all = [image("ab", &["busybox", "r:5000/x:1"]), image("ac", &["nginx"])];
    let known: BTreeMap<String, Image> = all.into_iter().map(|image| (image.id.clone(), image)).collect();
    let found = |name: &str| find(&known, name).map(|image| image.tags[0].clone());
    for name in ["busybox", "docker.io/library/busybox:latest", "r:5000/x:1", "ab", "sha256:abab", &"ab".repeat(32)] {
        assert_eq!(found(name).as_deref(), Ok("busybox:latest"), "{name}");
    }
    assert_eq!(found("a").unwrap_err().message, "multiple IDs found with provided prefix: a");
    assert_eq!(found("nosuch").unwrap_err().message, "No such image: nosuch:latest");
    // a guest that tells of an image has made its id up
    let odd = [Image { id: "x".into(), ..image("ad", &["odd"]) }];
    let odd: BTreeMap<String, Image> = odd.into_iter().map(|image| (image.id.clone(), image)).collect();
    assert_eq!(find(&odd, "ab").unwrap_err().message, "No such image: ab:latest");
    assert_eq!(found("busybox:2").unwrap_err().message, "No such image: busybox:2");
}

#[test]
fn every_key_of_a_genuine_daemon_is_there() {
    let image = image("ab", &["busybox"]);
    let check = |told: &Value, keys: &str| {
        for key in keys.split_whitespace() {
            let found = key.split('.').try_fold(told, |value, part| value.get(part));
            assert!(found.is_some(), "{key} is not in {told}");
        }
    };
    check(&image.summary(-1), "Containers Created Id Labels ParentId RepoDigests RepoTags SharedSize Size");
    check(&image.history()[0], "Comment Created CreatedBy Id Size Tags");
    let details = image.details();
    check(
        &details,
        "Id RepoTags RepoDigests Parent Comment Created DockerVersion Author Architecture Os Size GraphDriver.Data GraphDriver.Name \
         RootFS.Type RootFS.Layers Metadata.LastTagTime Config.Cmd Config.Entrypoint Config.Env Config.Labels Config.OnBuild \
         Config.User Config.Volumes Config.WorkingDir",
    );
    assert_eq!(details["Config"]["Labels"], json!({}));
}

#[tokio::test]
async fn containers_of_one_image_are_counted_together() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path(), 1 << 20).unwrap();
    let template = image("ab", &[]).told;
    let add = |vm: &str, name: &str, id: Option<&str>, created_ns| {
        let about = About {
            image: Some(name.into()),
            image_id: id.map(str::to_owned),
            created_ns: Some(created_ns),
            ..About::default()
        };
        containers.add(vm, Some(&Told { spec: template.spec.clone(), about }));
    };
    let id = format!("sha256:{}", "cd".repeat(32));
    add("one", "busybox", Some(&id), 2_000_000_000);
    add("two", "docker.io/library/busybox:1", Some(&id), 1_000_000_000);
    add("three", "nginx", None, 3_000_000_000);
    add("four", "nginx:latest", None, 3_000_000_000);
    containers.add("five", None);
    let known = known(&containers);
    let busybox = &known[&id];
    assert_eq!((busybox.tags.join(" "), busybox.containers), ("busybox:1 busybox:latest".into(), 2));
    assert_eq!(busybox.created_ns, 1_000_000_000);
    assert_eq!(known.len(), 2);
    assert_eq!(find(&known, "nginx").map(|image| image.containers), Ok(2));
}
