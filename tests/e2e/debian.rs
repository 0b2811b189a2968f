//! A real distribution: Debian with Python, thousands of files, shared libraries.

use rig::artifacts;
use rig::vch::run;

fn debian(options: &[&str], command: &[&str]) -> String {
    let image = artifacts::debian().display().to_string();
    let args = ["--rm"].iter().chain(options).copied().chain([image.as_str()]).chain(command.iter().copied());
    run(args).output().success()
}

#[test]
fn python_runs() {
    let program = "import sys, os; print(sum(range(10**5)), os.getpid() > 1, sys.stdin.isatty())";
    assert_eq!(debian(&[], &["python3", "-c", program]), "4999950000 True False\n");
}

#[test]
fn the_package_database_is_whole() {
    let script = ". /etc/os-release; echo $ID; dpkg --audit; dpkg -V libc6 dpkg coreutils; find / -xdev | wc -l";
    let output = debian(&[], &["bash", "-c", script]);
    let (id, count) = output.trim_end().split_once('\n').unwrap_or_else(|| panic!("{output}"));
    assert_eq!(id, "debian");
    assert!(count.parse::<u32>().is_ok_and(|count| count > 5000), "{output}");
}

#[test]
fn users_by_name_have_their_groups_and_home() {
    let output = debian(&["-u", "daemon"], &["sh", "-c", "id -un; id -gn; echo $HOME"]);
    assert_eq!(output, "daemon\ndaemon\n/usr/sbin\n");
}
