//! What a language draws when it starts is a clone's own: the seed of Python's hashes.

use rig::artifacts;
use rig::clones::Clones;

use super::{AT_ONCE, each};

const CLONES: usize = 20;

#[test]
fn twenty_clones_hash_by_twenty_seeds() {
    let clones = Clones::new();
    let image = artifacts::debian();
    let run = |_| {
        let options = ["--rm", "--clone", "always", "--start-timeout", "300"];
        clones.run(&options, &image, &["python3", "-c", "print(hash('tether'))"]).output().success()
    };
    let mut hashes = each(CLONES, AT_ONCE, run);
    clones.keeper();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), CLONES, "{hashes:?}");
}
