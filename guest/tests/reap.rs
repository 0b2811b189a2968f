//! The reaper, in a process of its own, because it takes every child: all exit codes, all signals that kill, and orphans.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use wire::status::Ending;

/// Reaps until `count` children have ended.
fn reap(count: usize) -> BTreeMap<u32, Ending> {
    let mut ended = BTreeMap::new();
    while ended.len() < count {
        let some = guest::reap::ended_children();
        ended.extend(some.into_iter().map(|(pid, ending)| (pid.as_raw().cast_unsigned(), ending)));
        std::thread::yield_now();
    }
    ended
}

fn start(script: &str) -> u32 {
    // whoever runs the tests may ignore signals, and a shell cannot undo that
    Command::new("env").args(["--default-signal", "sh", "-c", script]).stdin(Stdio::null()).spawn().unwrap().id()
}

#[test]
fn every_way_to_end_is_told_as_it_was() {
    let exits: Vec<(u32, u8)> = (0..=255).map(|code| (start(&format!("exit {code}")), code)).collect();
    let ended = reap(exits.len());
    for (pid, code) in exits {
        assert_eq!(ended[&pid], Ending::Exited { code });
    }

    // those that end a process by default, real-time ones included: signal(7)
    let ignored = [17, 18, 19, 20, 21, 22, 23, 28];
    let deadly = (1..=64).filter(|signal| !ignored.contains(signal) && ![32, 33].contains(signal));
    let kills: Vec<(u32, u8)> =
        deadly.map(|signal| (start(&format!("ulimit -c 0; kill -{signal} $$; sleep 10")), signal)).collect();
    let ended = reap(kills.len());
    for (pid, expected) in kills {
        let Ending::Signaled { signal, .. } = ended[&pid] else { panic!("signal {expected}: {:?}", ended[&pid]) };
        assert_eq!(signal, expected);
    }
    assert!(!guest::reap::has_children());
}
