//! Fifty clones at once, of a template that none of them finds: one makes it, and all come out right.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rig::clones::Clones;
use rig::vch::{Output, Run};

use super::each;

const CLONES: usize = 50;

#[test]
fn fifty_at_once() {
    let clones = Clones::new();
    let began = Instant::now();
    let ran = each(CLONES, CLONES, |number| {
        let options = ["-m", "128m", "--clone", "always", "--start-timeout", "600"];
        let (output, console) = with_console(clones.shell(&options, &format!("echo {number}")));
        (number, output, console)
    });
    println!("{CLONES} clones at once took {:.1?}", began.elapsed());
    let fails = |(number, output, _): &(usize, Output, String)| {
        (output.code, output.text(), output.stderr.as_str()) != (0, format!("{number}\n"), "")
    };
    let failed: Vec<_> = ran.into_iter().filter(fails).collect();
    for (number, output, console) in &failed {
        println!("{number}: {output:?}\n{console}");
    }
    assert!(failed.is_empty(), "{} of {CLONES} failed", failed.len());
    clones.keeper();
}

/// Runs it, and keeps what its machine says on its console, which goes with the container.
fn with_console(run: Run) -> (Output, String) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (kept, ended) = (dir.path().join("console"), AtomicBool::new(false));
    let running = run.start();
    let state = running.state().to_owned();
    let output = thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) && !keep_console(&state, &kept) {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let output = running.finish();
        ended.store(true, Ordering::Relaxed);
        output
    });
    (output, String::from_utf8_lossy(&fs::read(&kept).unwrap_or_default()).into_owned())
}

/// Gives the console of the only container another name, once it is there.
fn keep_console(state: &Path, to: &Path) -> bool {
    let mut dirs = fs::read_dir(state.join("tether/containers")).into_iter().flatten().flatten();
    dirs.any(|dir| fs::hard_link(dir.path().join("console.log"), to).is_ok())
}
