//! The status page as a person has it: in Chromium, with real machines behind it, and its downloads unpacked with tar.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rig::host::PATIENCE;
use rig::images::{busybox_disk, run};
use rig::machine::{Powered, script};
use rig::serve::Serve;
use rig::vch;
use rig::vspc::Esxi;
use tempfile::TempDir;
use wire::spec::LinkDevice;

const STATUS: [&str; 2] = ["--status", "tcp://127.0.0.1:0"];
/// What a stranger would like to run in the reader's browser.
const HOSTILE: &str = "<script>document.title='taken'</script><img src=x onerror=alert(1)>\"'&amp;";

/// Where its page is.
fn page(serve: &Serve) -> String {
    format!("http://{}", serve.address("http://"))
}

/// A machine of this script, with a secret in its environment.
fn machine(serve: &Serve, id: &str, text: &str) -> (TempDir, Powered) {
    let (dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Virtio, text);
    spec.main.env.0.push("PASSWORD=hunter2".into());
    let machine = serve.machine(id, &mut spec, disk).power_on();
    (dir, machine)
}

/// curl's answer: the head and the body. Waits for nothing.
fn curl(url: &str, more: &[&str]) -> String {
    let output =
        Command::new("curl").args(["-sS", "-i", "--max-time", "60"]).args(more).arg(url).output().expect("curl");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Asks until the answer holds all of it.
fn wait_for(url: &str, parts: &[&str]) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = curl(url, &[]);
        if parts.iter().all(|part| answer.contains(part)) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{parts:?} is not in {answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Chromium as a person's, with nothing of its own on the network.
fn chromium(profile: &Path, more: &[&str]) -> String {
    let mut child = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromium");
    let mut stdout = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || std::io::read_to_string(&mut stdout).unwrap_or_default());
    let code = vch::wait(&mut child);
    assert_eq!(code, 0, "chromium {more:?}");
    reader.join().expect("a reader")
}

/// The text of an element's first occurrence behind a place.
fn text_behind<'a>(dom: &'a str, place: &str, tag: &str) -> &'a str {
    let rest = dom.split_once(place).unwrap_or_else(|| panic!("no {place}: {dom}")).1;
    let rest = rest.split_once(&format!("<{tag}")).and_then(|(_, rest)| rest.split_once('>')).expect("the element").1;
    rest.split_once(&format!("</{tag}>")).expect("its end").0
}

fn has(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|it| it.success())
}

#[test]
fn a_person_sees_the_machines_in_a_browser() {
    if !has("chromium") {
        return crate::skip("a_person_sees_the_machines_in_a_browser", "the package chromium is not installed");
    }
    let serve = Serve::start_with(&STATUS);
    let url = page(&serve);
    let hostile = HOSTILE.replace('\'', "'\\''");
    let text = format!("echo begins; echo '{hostile}'; echo broken >&2; exec sleep 100000");
    let (_dir, _runs) = machine(&serve, "web1", &text);
    let (_other, _ends) = machine(&serve, "job1", "while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 3");
    serve.wait_for("job1", &["running"]);
    serve.command("exec", &["job1", "touch", "/tmp/go"]).output().success();
    wait_for(&url, &["Exited (3)", "Up ", "iB<small>of "]);
    wait_for(&format!("{url}/containers/web1"), &["broken", "onerror"]);
    let profile = tempfile::tempdir().unwrap();

    let dom = chromium(profile.path(), &["--dump-dom", &format!("{url}/")]);
    assert!(dom.contains("<title>Virtual Container Host"), "{dom}");
    // the style is let in by its hash, and seen to work
    assert_eq!(text_behind(&dom, "<thead>", "th"), "Name");
    assert!(dom.contains(">web1</a>") && dom.contains(">job1</a>"), "{dom}");
    let row = dom.split("<tr>").find(|row| row.contains(">web1</a>")).unwrap();
    for part in ["class=\"state good\">running", "class=\"state good\">open", "iB<small>of "] {
        assert!(row.contains(part), "{part}: {row}");
    }
    let row = dom.split("<tr>").find(|row| row.contains(">job1</a>")).unwrap();
    assert!(row.contains("class=\"state bad\">exited") && row.contains("Exited (3)"), "{row}");
    let shot = profile.path().join("page.png");
    let option = format!("--screenshot={}", shot.display());
    chromium(profile.path(), &["--window-size=1200,800", &option, &format!("{url}/")]);
    assert!(std::fs::metadata(&shot).is_ok_and(|it| it.len() > 10_000));

    // the page's own link, and what a hostile line comes to behind it
    let link = row_link(&dom, "web1");
    let dom = chromium(profile.path(), &["--dump-dom", &format!("{url}{link}")]);
    assert!(dom.contains("<title>web1, a container</title>"), "{dom}");
    assert!(!dom.contains("<script") && !dom.contains("<img"), "{dom}");
    assert!(
        dom.contains("&lt;script&gt;document.title='taken'&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;"),
        "{dom}"
    );
    assert!(dom.contains("PASSWORD") && !dom.contains("hunter2"), "{dom}");
    assert!(dom.contains("<span class=\"stderr\">stderr  broken</span>"), "{dom}");
    let log = curl(&format!("{url}{link}/log.txt"), &[]);
    assert!(log.contains("text/plain") && log.contains(&format!(" stdout {HOSTILE}\n")), "{log}");
}

/// Where a row's name leads.
fn row_link(dom: &str, name: &str) -> String {
    let before = dom.split(&format!(">{name}</a>")).next().unwrap();
    before.rsplit("href=\"").next().unwrap().trim_end_matches('"').to_owned()
}

#[test]
fn the_bundle_has_what_somebody_else_needs_and_no_secret() {
    let serve = Serve::start_with(&STATUS);
    let url = page(&serve);
    // more than a part of a log
    let (_dir, _machine) = machine(&serve, "web1", "seq 1 200000; echo end; echo oops >&2; exec sleep 100000");
    wait_for(&format!("{url}/containers/web1"), &["         end\n", "oops"]);
    let overview = curl(&url, &[]);
    assert!(overview.contains("href=\"/logs.tar.gz\""), "{overview}");
    let dir = tempfile::tempdir().unwrap();
    run(Command::new("curl")
        .args(["-sSf", "-o", "logs.tar.gz", &format!("{url}/logs.tar.gz")])
        .current_dir(dir.path()));
    let names = run(Command::new("tar").args(["tzf", "logs.tar.gz"]).current_dir(dir.path()));
    run(Command::new("tar").args(["xzf", "logs.tar.gz"]).current_dir(dir.path()));
    let top = dir.path().join("vch-logs");
    let text =
        |name: &str| std::fs::read_to_string(top.join(name)).unwrap_or_else(|error| panic!("{name}: {error}; {names}"));
    let inspect = names.lines().find(|name| name.ends_with("inspect.json")).unwrap();
    let folder = inspect.trim_start_matches("vch-logs/").trim_end_matches("/inspect.json");
    assert!(folder.starts_with("containers/web1-"), "{names}");
    assert!(text("vch.log").contains("web1: its link is open"), "{}", text("vch.log"));
    let status: serde_json::Value = serde_json::from_str(&text("status.json")).unwrap();
    assert_eq!(status["containers"][0]["name"], "web1");
    let inspected: serde_json::Value = serde_json::from_str(&text(&format!("{folder}/inspect.json"))).unwrap();
    assert!(inspected["Config"]["Env"].as_array().unwrap().contains(&"PASSWORD".into()), "{inspected}");
    let logs = names.lines().filter(|name| name.contains("/log"));
    let parts: Vec<String> = logs.map(|name| text(name.trim_start_matches("vch-logs/"))).collect();
    assert!(parts.len() > 1, "{names}");
    let parts = parts.concat();
    let numbers: Vec<&str> =
        parts.lines().filter_map(|line| line.split_once(" stdout ").map(|(_, text)| text)).collect();
    assert_eq!((numbers.len(), numbers[0], numbers[199_999], numbers[200_000]), (200_001, "1", "200000", "end"));
    assert!(parts.contains(" stderr oops\n"));

    let all = run(Command::new("tar").args(["xzOf", "logs.tar.gz"]).current_dir(dir.path()));
    for secret in ["hunter2", "c0ffee00c0ffee00", "link/key"] {
        assert!(!all.contains(secret), "{secret}");
    }
    let refused = curl(&url, &["-X", "POST"]);
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
}

#[test]
fn a_cut_link_and_the_name_in_vsphere_are_seen() {
    let serve = Serve::start_with(&["--status", "tcp://127.0.0.1:0", "--link-listen", "vspc://127.0.0.1:0"]);
    let url = page(&serve);
    let esxi = Esxi::new(serve.address("vspc://"), "web <b>1</b>");
    let (_dir, disk) = busybox_disk();
    let mut spec = script(LinkDevice::Serial, "exec sleep 100000");
    let mut machine = serve.machine("web1", &mut spec, disk);
    machine.link_connects = Some(esxi.port());
    let machine = machine.power_on();
    wait_for(&url, &["vSphere: web &lt;b&gt;1&lt;/b&gt;", "state good\">open"]);
    drop(machine);
    wait_for(&url, &["state bad\">cut"]);
}

#[test]
fn with_tlsverify_the_page_asks_for_a_certificate_too() {
    let dir = tempfile::tempdir().unwrap();
    vch::command("certs").args([dir.path().to_str().unwrap(), "--san", "127.0.0.1"]).output().success();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (ca, certificate, key) = (file("ca.pem"), file("server-cert.pem"), file("server-key.pem"));
    let files = ["--tlsverify", "--tlscacert", &ca, "--tlscert", &certificate, "--tlskey", &key];
    let serve = Serve::start_with(&[&STATUS[..], &files].concat());
    let url = format!("https://{}", serve.address("https://"));
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let known = curl(&format!("{url}/health"), &["--cacert", &ca, "--cert", &cert, "--key", &key]);
    assert!(known.starts_with("HTTP/1.1 200 ") && known.ends_with("well\n"), "{known}");
    let stranger = curl(&format!("{url}/health"), &["--cacert", &ca]);
    assert!(!stranger.contains("HTTP/1.1 200") && stranger.contains("certificate required"), "{stranger}");
}
