//! The seeds of the fuzz targets, each as it is, cut at every byte and with every byte bent, in every test run.

use std::fs;
use std::path::Path;

use guest::toolbox::{Output, Toolbox};
use wire::handshake::LinkKey;

#[allow(unreachable_pub, reason = "for the fuzz targets it is a library")]
#[path = "../fuzz/lib.rs"]
mod targets;

#[test]
fn toolbox() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/toolbox");
    let mut operations = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display()); // shown when it fails
        let seed = fs::read(&path).unwrap();
        targets::toolbox(&seed);
        for at in 0..seed.len() {
            targets::toolbox(&seed[..at]);
            for bent in [0x01, 0x80, 0xff] {
                let mut other = seed.clone();
                other[at] ^= bent;
                targets::toolbox(&other);
            }
        }
        let key = LinkKey::new(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        let outputs = Toolbox::new("c1", &key, "test").handle(&seed);
        operations += outputs.iter().filter(|output| matches!(output, Output::Operate(..))).count();
    }
    // bending what nobody may do to begin with would show little
    assert_eq!(operations, 14);
}
