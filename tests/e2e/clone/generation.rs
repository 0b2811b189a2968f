//! A machine that goes on where a template waited, and is not told which clone it is, or without randomness, runs nothing: it says so, and ends.
//!
//! A QEMU that is not to be trusted changes what the guest is told.

use rig::clones::Clones;

/// The file of keys, and what is made of it: `$keys` lies where QEMU finds it, and `text` writes it, padded to what it was.
const KEYS: &str =
    "for word; do case $word in name=opt/guestinfo,file=*) keys=${word#name=opt/guestinfo,file=} ;; esac; done
tell() { cat >$here/keys; truncate -s 65536 $here/keys; cat $here/keys >$keys; }";

/// Runs a container whose clone finds changed keys: it must not run.
fn check(change: &str, sentence: &str) {
    let clones = Clones::new();
    let before = format!(
        "{KEYS}\ncase \"$*\" in *-incoming*) {change} ;; *memory-backend-file*) cat $keys >$here/template ;; esac"
    );
    let qemu = clones.qemu(&before);
    let run = clones.shell(&["--clone", "always", "--start-timeout", "60"], "echo it ran");
    let output = run.env("VCH_ACCEL", "tcg").env("VCH_QEMU", qemu).output();
    assert_eq!((output.code, output.text().as_str()), (125, ""), "{output:?}");
    assert!(output.stderr.contains(sentence), "{output:?}");
    assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
}

#[test]
fn a_clone_of_a_clone_is_refused() {
    let change = "printf '%s\\n' 'guestinfo.vice./clone/generation = \"00112233445566778899aabbccddeeff\"' 'guestinfo.vice./clone/wait = \"true\"' | tell";
    check(change, "a clone is no template");
}

#[test]
fn a_clone_without_randomness_runs_nothing() {
    check("tr -d '\\0' <$keys | grep -v clone/entropy | tell", "guestinfo has no guestinfo.vice./clone/entropy");
}

#[test]
fn a_clone_that_is_called_what_its_template_was_runs_nothing() {
    let change = "{ grep -a clone/generation $here/template; tr -d '\\0' <$keys | grep -v clone/generation; } | tell";
    check(change, "guestinfo.vice./clone/generation is missing, or the template's");
}

#[test]
fn a_clone_that_is_told_nothing_of_clones_runs_nothing() {
    check(
        "tr -d '\\0' <$keys | grep -v clone/ | tell",
        "guestinfo.vice./clone/generation is missing, or the template's",
    );
}
