//! Processes that are no QEMU, started and held as if they were.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use super::*;
use crate::vm::orders::tests::Double;
use crate::vm::qemu::tests::machine;

/// A driver whose QEMU is this script, and the directory of a machine of its.
fn driver(script: &str) -> (tempfile::TempDir, Qemu, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (program, sockets, own) = (dir.path().join("qemu"), dir.path().join("s"), dir.path().join("0123456789abcdef"));
    fs::create_dir(&sockets).unwrap();
    fs::create_dir(&own).unwrap();
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let qemu = Qemu {
        program,
        confinement: Confinement::none(),
        templates: Templates::default(),
        accel: std::future::ready(Accel::Tcg).boxed().shared(),
        left: Mutex::default(),
        _lock: lock(&sockets).unwrap(),
        sockets,
    };
    (dir, qemu, own)
}

/// A process that does nothing, as one that this program has started.
fn idle(dir: &Path) -> Running {
    let child = Command::new("sleep").arg("100000").stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let process = Process::hold(Pid::from_raw(child.id().unwrap().cast_signed()).unwrap()).unwrap();
    Running::new(process, Some(child), dir.join("none"), dir.join(SAID))
}

#[tokio::test(start_paused = true)]
async fn one_that_takes_no_orders_is_ended() {
    let (_dir, qemu, own) = driver("kill -STOP $$");
    let error = qemu.power_on(&own, &machine()).await.unwrap_err().to_string();
    assert_eq!(error, "QEMU has taken no orders for 60 s, and was ended");
    for (_, process) in process::running(&qemu.sockets).unwrap() {
        process.ended().await;
    }
}

#[tokio::test]
async fn one_whose_start_is_given_up_is_ended() {
    let (_dir, qemu, own) = driver("kill -STOP $$");
    let machine = machine();
    let mut starting = qemu.power_on(&own, &machine);
    let seen = async {
        loop {
            if let Some(process) = process::running(&qemu.sockets).unwrap().remove("0123456789ab") {
                break process;
            }
            tokio::task::yield_now().await;
        }
    };
    let process = tokio::select! {
        _ = &mut starting => panic!("it takes no orders"),
        process = seen => process,
    };
    drop(starting);
    process.ended().await;
}

#[tokio::test]
async fn one_that_ends_at_once_is_quoted() {
    let (_dir, qemu, own) = driver("echo 'qemu-system-x86_64: -smp 300: too many' >&2; exit 1");
    let error = qemu.power_on(&own, &machine()).await.unwrap_err().to_string();
    assert_eq!(error, "-smp 300: too many");
    let (_dir, qemu, own) = driver("exit 3");
    let error = qemu.power_on(&own, &machine()).await.unwrap_err().to_string();
    assert_eq!(error, "QEMU ended with exit code 3");
}

#[tokio::test]
async fn machines_have_one_host() {
    let (_dir, qemu, _own) = driver("exit 3");
    let error = lock(&qemu.sockets).unwrap_err().to_string();
    assert!(error.starts_with("another vch serve looks after the machines"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_end_by_its_own_word_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut double, orders) = Double::greeted().await;
    let (powered, reins) = Powered::new();
    tokio::spawn(drive(idle(dir.path()), Some(orders), reins));
    let (obeyed, ()) = tokio::join!(powered.order(Order::PowerOff), async {
        assert_eq!(double.hear().await.0, "quit");
    });
    obeyed.unwrap();
    drop(double);
    assert_eq!(powered.off().await, Off::Other(Some(UNHEARD.into())));
    assert!(powered.order(Order::Pause).await.is_err());
}

#[tokio::test]
async fn how_one_was_killed_is_told_with_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let (double, orders) = Double::greeted().await;
    let (powered, reins) = Powered::new();
    let running = idle(dir.path());
    let kept = "qemu-system-x86_64: ram_block_discard_range: Failed to fallocate mem:c7bf000 +1000 (-1)";
    fs::write(&running.said, format!("qemu-system-x86_64: cannot write: no space\n\n{kept}\n")).unwrap();
    running.process.kill();
    drop(double);
    drive(running, Some(orders), reins).await;
    let why = "QEMU was killed by signal 9: somebody killed it, or the host had no memory left: cannot write: no space";
    assert_eq!(powered.off().await, Off::Other(Some(why.into())));
}

#[tokio::test]
async fn one_that_an_earlier_host_left_is_found_or_ended() {
    let (_dir, qemu, own) = driver("kill -STOP $$");
    let left = async |name: &str| {
        let path = qemu.sockets.join(format!("{name}.qmp"));
        let word = format!("socket,id=orders,server=on,wait=off,path={}", path.display());
        let child = std::process::Command::new(&qemu.program).args(["-chardev", &word]).spawn().unwrap();
        // it has the command line of this program until it runs its own
        while !process::running(&qemu.sockets).unwrap().contains_key(name) {
            tokio::task::yield_now().await;
        }
        child
    };
    let (mut ours, mut nobodys) = (left("0123456789ab").await, left("ffffffffffff").await);
    *locked(&qemu.left) = process::running(&qemu.sockets).unwrap();
    let powered = qemu.find(&own).await.unwrap().unwrap();
    assert_eq!(qemu.end_others(), ["ffffffffffff"]);
    nobodys.wait().unwrap();
    powered.order(Order::PowerOff).await.unwrap();
    ours.wait().unwrap();
    assert_eq!(powered.off().await, Off::Other(Some(UNHEARD.into())));
    assert!(qemu.find(&own).await.unwrap().is_none());
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_is_told_with_the_hosts_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (mut double, orders) = Double::greeted().await;
    let (powered, reins) = Powered::new();
    let running = idle(dir.path());
    let driven = tokio::spawn(drive(running, Some(orders), reins));
    // whoever is asked listens
    let (stopped, _) = tokio::join!(powered.order(Order::Pause), double.obey("stop", "{}"));
    stopped.unwrap();
    double.say(r#"{"event": "RTC_CHANGE", "data": {"offset": 1}}"#).await;
    assert_eq!(powered.trouble(), None);
    let failed = r#"{"device": "disk1", "operation": "write", "action": "report", "nospace": true, "reason": "No space left on device"}"#;
    double.say(&format!(r#"{{"event": "BLOCK_IO_ERROR", "data": {failed}}}"#)).await;
    let told = tokio::time::timeout(Duration::from_secs(30), powered.troubled()).await.expect("it is told").unwrap();
    assert!(told.starts_with("one of its disks could not be written: No space left on device: "), "{told}");
    assert_eq!(powered.trouble(), Some(told));
    driven.abort();
    assert_eq!(powered.troubled().await.map(drop), Some(()));
}
