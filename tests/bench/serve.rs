//! What `vch serve` holds in memory: alone, with the links of ten machines that have all written much, and after docker has read all of it.

use anyhow::{Result, ensure};
use rig::engine::until;
use rig::images::busybox_disk;
use rig::machine::script;
use rig::serve::Serve;
use wire::spec::LinkDevice;

use crate::ratio;

const MACHINES: usize = 10;
/// Bytes that each of them writes: about as many as its link's window holds, so that every buffer has grown.
const OUTPUT: usize = 1_000_000;
const LIMIT_KIB: u64 = 32 * 1024;

pub(crate) fn bench() -> Result<()> {
    let (_dir, disk) = busybox_disk();
    let serve = Serve::start();
    until("docker is answered", || serve.docker(&["ps", "-q"]).output().code == 0);
    tell("alone", serve.resident_kib());
    let text = format!("head -c {OUTPUT} /dev/zero | tr '\\0' x; exec sleep 100000");
    let mut machines = Vec::new();
    for name in (0..MACHINES).map(|number| format!("web{number}")) {
        machines.push(serve.machine(&name, &mut script(LinkDevice::Virtio, &text), disk.clone()).power_on());
        serve.wait_for_docker(&name);
        until("all of it is recorded", || recorded(&serve, &name) >= OUTPUT);
    }
    tell("ten links, 1 MB of output from each", serve.resident_kib());
    for number in 0..MACHINES {
        let logs = serve.docker(&["logs", &format!("web{number}")]).output();
        ensure!(logs.stdout.len() == OUTPUT, "web{number}: {} bytes are in its log", logs.stdout.len());
    }
    tell("the same, when docker has read it all", serve.resident_kib());
    Ok(())
}

/// Bytes of output that are in its journal, with what is around them there.
fn recorded(serve: &Serve, name: &str) -> usize {
    let path = serve.docker(&["inspect", "-f", "{{.LogPath}}", name]).output().text();
    let files = std::fs::read_dir(path.trim()).into_iter().flatten().flatten();
    files.map(|file| file.metadata().map_or(0, |it| usize::try_from(it.len()).unwrap_or(0))).sum()
}

fn tell(when: &str, kib: u64) {
    println!("| `vch serve`, resident, {when} | {kib} KiB | limit | {LIMIT_KIB} KiB | {:.2} |", ratio(kib, LIMIT_KIB));
}
