//! `vch run --clone`: a machine goes on where a template waits, and is like any other all the same. One file for each promise.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

mod bent;
mod distinct;
mod faults;
mod generation;
mod many;
mod memory;
mod python;

/// Two processors run so many emulated machines as fast as one after the other.
const AT_ONCE: usize = 4;

/// Does something so many times, some of them at once.
fn each<T: Send>(count: usize, at_once: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            match next.fetch_add(1, Ordering::Relaxed) {
                number if number < count => done.push(run(number)),
                _ => return done,
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    })
}
