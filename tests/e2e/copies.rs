//! A machine that is restored from what another saved: it must not go on as the same one.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rig::host::Host;
use rig::images::busybox_disk;
use rig::machine::{Machine, script};
use rig::qmp::Qmp;
use wire::message::{Reply, Request};
use wire::spec::{LinkDevice, Spec};

fn machine(spec: &Spec, disk: &Path, generation: &str, extra: &[&str]) -> Machine {
    let mut machine = Machine::new(spec, Some(disk.into()));
    let device = format!("vmgenid,guid={generation}");
    // not the quick firmware, which does not know how to tell the device where its page is
    machine.extra =
        ["-bios", "bios-256k.bin", "-device", &device].iter().chain(extra).map(|&word| word.to_owned()).collect();
    machine
}

#[test]
fn a_copy_draws_other_random_numbers_agrees_on_other_keys_and_is_told_the_time() {
    let (dir, disk) = busybox_disk();
    let spec = script(LinkDevice::Virtio, "exec sleep 100000");
    let saved = dir.path().join("saved");
    let mut host = Host::boot(machine(&spec, &disk, "00000000-0000-0000-0000-000000000001", &[]), &spec);
    let random = "head -c 16 /dev/urandom | xxd -p";
    host.shell(random);
    host.shell("sync");
    let mut qmp = Qmp::connect(&host.machine.path("qmp"));
    host.cut();
    qmp.execute("stop", "{}");
    let to = format!(r#"{{"uri": "exec:cat > {}"}}"#, saved.display());
    qmp.execute("migrate", &to);
    host.wait("the machine's memory in a file", |_| {
        qmp.execute("query-migrate", "{}").contains("\"status\": \"completed\"").then_some(())
    });
    drop((qmp, host));

    let incoming = format!("exec:cat {}", saved.display());
    let mut drawn = Vec::new();
    for generation in ["00000000-0000-0000-0000-000000000002", "00000000-0000-0000-0000-000000000003"] {
        let copy = machine(&spec, &disk, generation, &["-incoming", &incoming]);
        let mut host = Host::boot(copy, &spec);
        let mut qmp = Qmp::connect(&host.machine.path("qmp"));
        host.wait("the copy's memory", |_| {
            let status = qmp.execute("query-status", "{}");
            if status.contains("\"status\": \"paused\"") {
                qmp.execute("cont", "{}");
            }
            status.contains("\"running\": true").then_some(())
        });
        drawn.push(host.shell(random));
        let Reply::Text(log) = host.request(Request::KernelLog) else { panic!("no text") };
        assert!(log.contains("crng reseeded due to virtual machine fork"), "{log}");
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap() + Duration::from_secs(100_000);
        host.order(Request::SetClock { unix_ns: i64::try_from(now.as_nanos()).unwrap() });
        let theirs: u64 = host.shell("date +%s").trim().parse().unwrap();
        assert!(theirs >= now.as_secs(), "{theirs} and {now:?}");
    }
    println!("{drawn:?}");
    assert_ne!(drawn[0], drawn[1]);
}
