//! Fifty clones at once, of a template that none of them finds: one makes it, and all come out right.

use std::time::Instant;

use rig::clones::Clones;

use super::each;

const CLONES: usize = 50;

#[test]
fn fifty_at_once() {
    let clones = Clones::new();
    let began = Instant::now();
    let outputs = each(CLONES, CLONES, |number| {
        let run =
            clones.shell(&["-m", "128m", "--clone", "always", "--start-timeout", "600"], &format!("echo {number}"));
        (number, run.output())
    });
    println!("{CLONES} clones at once took {:.1?}", began.elapsed());
    for (number, output) in outputs {
        assert_eq!((output.code, output.text(), output.stderr.as_str()), (0, format!("{number}\n"), ""), "{output:?}");
    }
    clones.keeper();
}
