//! The whole picture: docker's own client, an appliance in one machine, containers in others, and nothing but TCP between them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use rig::appliance::{Appliance, Options, master_key};
use rig::artifacts;
use rig::host::PATIENCE;
use rig::images::run;
use rig::terminal::Session;
use rig::vch::{self, Output, Run, Running};
use tempfile::TempDir;

const READY: &str = "vch is ready";

/// An appliance, and what its users have of it: certificates, and the file with its master key.
struct Site {
    appliance: Appliance,
    dir: TempDir,
    tls: bool,
}

impl Site {
    /// Behind TLS, with certificates of `vch certs`. Nothing has been waited for.
    fn with_tls(change: impl FnOnce(&mut Options)) -> Site {
        let dir = tempfile::tempdir().unwrap();
        certify(dir.path());
        let file = |name: &str| dir.path().join(name);
        let appliance = Appliance::boot(|options| {
            options.tls(&file("server-cert.pem"), &file("server-key.pem"), &file("ca.pem"));
            change(options);
        });
        Site::of(appliance, dir, true)
    }

    /// For everybody.
    fn without_tls(change: impl FnOnce(&mut Options)) -> Site {
        Site::of(Appliance::boot(change), tempfile::tempdir().unwrap(), false)
    }

    fn of(appliance: Appliance, dir: TempDir, tls: bool) -> Site {
        use std::os::unix::fs::PermissionsExt as _;
        let key = dir.path().join("master.key");
        std::fs::write(&key, format!("{}\n", master_key().to_hex())).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        Site { appliance, dir, tls }
    }

    fn host(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.appliance.docker_port())
    }

    /// What docker is told about TLS: these files are the client's.
    fn options(&self, certificates: &Path) -> Vec<String> {
        let option = |name: &str, file: &str| format!("--tls{name}={}", certificates.join(file).display());
        match self.tls {
            true => {
                vec![
                    "--tlsverify".into(),
                    option("cacert", "ca.pem"),
                    option("cert", "cert.pem"),
                    option("key", "key.pem"),
                ]
            }
            false => Vec::new(),
        }
    }

    fn docker(&self, args: &[&str]) -> Run {
        vch::docker(&self.host()).args(self.options(self.dir.path())).args(args)
    }

    /// Docker on a terminal.
    fn on_terminal(&self, args: &[&str]) -> Session {
        let words = ["docker".to_owned(), "--host".to_owned(), self.host()];
        let words = words.into_iter().chain(self.options(self.dir.path()));
        Session::of(24, 80, words.chain(args.iter().map(|&arg| arg.to_owned())))
    }

    /// A containerVM as a user makes one, beside the appliance.
    fn container(&self, options: &[&str], script: &str) -> Container {
        let image = artifacts::dist("busybox.tar").display().to_string();
        let (link, key) =
            (format!("tcp://127.0.0.1:{}", self.appliance.link_port()), self.dir.path().join("master.key"));
        let run = vch::run(["--vch", &link, "--network", "none", "--master-key"]).args([key]);
        Container(Some(run.args(options).args([image.as_str(), "sh", "-c", script]).start()))
    }

    /// Asks until the answer is that; while the appliance is away, there is none.
    #[track_caller]
    fn wait_for(&self, args: &[&str], answer: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.docker(args).output();
            if output.code == 0 && output.text().trim_end() == answer {
                return;
            }
            assert!(Instant::now() < deadline, "{args:?}: {output:?}, not {answer:?}; {}", self.appliance.console());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    fn wait_until_it_runs(&self, name: &str) {
        self.wait_for(&["inspect", "--format", "{{.State.Status}}", name], "running");
    }
}

fn certify(dir: &Path) {
    vch::command("certs").args([dir.to_str().unwrap(), "--san", "127.0.0.1"]).output().success();
}

/// A containerVM, by the `vch run` that made it; it does not outlive its test.
struct Container(Option<Running>);

impl Container {
    /// Waits until the machine is off.
    fn finish(mut self) -> Output {
        self.0.take().expect("it has not been waited for").finish()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            kill(running.pid(), Signal::SIGTERM).ok();
            // QEMU goes with it
            running.finish();
        }
    }
}

fn data_disk(dir: &Path) -> PathBuf {
    let disk = dir.join("data.raw");
    run(Command::new(artifacts::program("iso-builder")).args(["data-disk", "--size", "256M", "-o"]).arg(&disk));
    disk
}

#[test]
fn docker_with_a_certificate_uses_containers_in_machines_beside_the_appliance() {
    // the appliance stands still until its VMs have found nobody
    let mut site = Site::with_tls(|options| options.extra.push("-S".into()));
    let echo = "echo ready; while read -r line; do [ \"$line\" = quit ] && exit 3; echo \"[$line]\"; done; exit 9";
    let echo = site.container(&["--interactive", "--name", "echo", "--label", "tier=front"], echo);
    let ticks = "trap 'echo bye; exit 4' TERM; n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.1; done";
    let ticks = site.container(&["--name", "ticks"], ticks);
    for early in [&echo, &ticks] {
        early.0.as_ref().expect("it runs").wait_for_output();
    }
    site.appliance.go_on();
    site.appliance.wait_for_console(READY);
    for name in ["echo", "ticks"] {
        site.wait_until_it_runs(name);
    }
    let names = ["ps", "--format", "{{.Names}}", "--filter", "label=tier=front"];
    assert_eq!(site.docker(&names).output().success(), "echo\n");

    // who has no certificate of that authority is not let in
    let other = tempfile::tempdir().unwrap();
    certify(other.path());
    std::fs::copy(site.dir.path().join("ca.pem"), other.path().join("ca.pem")).unwrap();
    let refused = vch::docker(&site.host()).args(site.options(other.path())).args(["ps"]).output();
    assert!(refused.code != 0 && refused.stderr.contains("tls: "), "{refused:?}");
    let authority = format!("--tlscacert={}", other.path().join("ca.pem").display());
    let refused = vch::docker(&site.host()).args(["--tlsverify", &authority, "ps"]).output();
    assert!(refused.code != 0 && refused.stderr.contains("certificate required"), "{refused:?}");
    let refused = vch::docker(&site.host()).args(["ps"]).output();
    assert!(refused.code != 0 && refused.text().is_empty(), "{refused:?}");

    // exec
    let ran = site.docker(&["exec", "ticks", "sh", "-c", "echo out; echo err >&2; exit 5"]).output();
    assert_eq!((ran.code, ran.text().as_str(), ran.stderr.as_str()), (5, "out\n", "err\n"));
    let ran = site.docker(&["exec", "-i", "echo", "md5sum"]).stdin(vec![b'x'; 300_000]).output();
    assert_eq!(ran.success(), "d408ed46ebcc326f9e7c6bb9c77af1cd  -\n");
    let mut shell = site.on_terminal(&["exec", "-it", "ticks", "sh"]);
    shell.press_until("stty size\r", "24 80");
    shell.type_text("exit 7\r");
    assert_eq!(shell.finish().0, 7);

    // attach: what the container reads is what was typed, and its exit code is docker's
    let attached = site.docker(&["attach", "echo"]).stdin("one\ntwo words\nquit\n").output();
    assert_eq!((attached.code, attached.text().as_str()), (3, "[one]\n[two words]\n"), "{attached:?}");
    assert_eq!(site.docker(&["logs", "echo"]).output().success(), "ready\n[one]\n[two words]\n");
    assert_eq!(site.docker(&["wait", "echo"]).output().success(), "3\n");
    echo.finish();

    // logs that are followed end with the container, which has the time that it was given
    let followed = site.docker(&["logs", "--follow", "ticks"]).start();
    followed.wait_for_output();
    assert_eq!(site.docker(&["stop", "--timeout", "60", "ticks"]).output().success(), "ticks\n");
    let text = followed.finish().success();
    assert!(text.starts_with("tick 1\ntick 2\n") && text.ends_with("\nbye\n"), "{text}");
    site.wait_for(&["inspect", "--format", "{{.State.ExitCode}} {{.State.Running}}", "ticks"], "4 false");
    ticks.finish();

    // one that waits for its start; and the power button while somebody is attached
    let _held = site.container(&["--name", "held", "--hold", "--interactive"], "echo begun; cat; sleep 100000");
    site.wait_for(&["inspect", "--format", "{{.State.Status}}", "held"], "created");
    let attached = site.docker(&["start", "--attach", "held"]).start();
    attached.wait_for_output();
    let followed = site.docker(&["logs", "--follow", "held"]).start();
    followed.wait_for_output();
    site.appliance.power_button();
    site.appliance.wait_for_end();
    assert!(site.appliance.console().contains("vch has ended"), "{}", site.appliance.console());
    // they end, and do not wait for what does not come
    assert_eq!((attached.finish().text().as_str(), followed.finish().text().as_str()), ("begun\n", "begun\n"));
}

/// A container that counts until it is told to end; it is under way.
fn flood(site: &mut Site) -> Container {
    // QEMU would hold what is asked earlier, and pass it on much later
    site.appliance.wait_for_console(READY);
    let script = "n=0; while [ ! -e /enough ]; do n=$((n+1)); echo $n; done; echo end; sleep 100000";
    let container = site.container(&["--name", "flood"], script);
    site.wait_until_it_runs("flood");
    wait_for_more(site);
    container
}

/// Waits until more has come than there is now.
fn wait_for_more(site: &Site) {
    let last = || {
        let output = site.docker(&["logs", "--tail", "1", "flood"]).output();
        output.text().trim_end().parse::<u32>().unwrap_or(0)
    };
    let (before, deadline) = (last(), Instant::now() + PATIENCE);
    while last() <= before {
        assert!(Instant::now() < deadline, "nothing comes behind {before}: {}", site.appliance.console());
    }
}

/// The lines of the log, when it has been told to end and has.
fn counted(site: &Site) -> Vec<u32> {
    assert_eq!(site.docker(&["exec", "flood", "touch", "/enough"]).output().success(), "");
    site.wait_for(&["logs", "--tail", "1", "flood"], "end");
    let text = site.docker(&["logs", "flood"]).output().success();
    let lines = text.strip_suffix("end\n").expect("it was waited for").lines();
    lines.map(|line| line.parse().unwrap_or_else(|_| panic!("{line:?} is no number"))).collect()
}

#[test]
fn with_a_data_disk_nothing_is_lost_by_a_reset_under_load_or_a_vch_that_is_killed() {
    let name = "appliance_docker::with_a_data_disk_nothing_is_lost_by_a_reset_under_load_or_a_vch_that_is_killed";
    if !crate::appliance_services::can_have_a_shell(name) {
        return;
    }
    let disks = tempfile::tempdir().unwrap();
    let disk = data_disk(disks.path());
    let mut site = Site::without_tls(|options| {
        options.shell = true;
        options.key("debug/console", "true");
        options.data_disk = Some(disk.clone());
        options.key("data/required", "true");
    });
    let _flood = flood(&mut site);
    site.appliance.kill_vch();
    site.appliance.wait_for(READY, 2);
    wait_for_more(&site);
    site.appliance.reset();
    site.appliance.wait_for(READY, 3);
    site.wait_until_it_runs("flood");
    wait_for_more(&site);
    let came = counted(&site);
    assert!(came.iter().copied().eq(1..=came[came.len() - 1]), "{} lines came", came.len());
    site.appliance.power_button();
    site.appliance.wait_for_end();
    run(Command::new("e2fsck").arg("-fn").arg(&disk));
}

#[test]
fn without_a_data_disk_a_reset_loses_what_had_come_and_nothing_that_comes_later() {
    let mut site = Site::without_tls(|_| ());
    let _flood = flood(&mut site);
    site.appliance.reset();
    site.appliance.wait_for(READY, 2);
    // the container is known again, by what its machine says of itself
    site.wait_until_it_runs("flood");
    wait_for_more(&site);
    let came = counted(&site);
    // the first may be the rest of one that had come in part
    let (first, last) = (came[1], came[came.len() - 1]);
    assert!(first > 2 && came[1..].iter().copied().eq(first..=last), "{} lines from {first} to {last}", came.len());
}
