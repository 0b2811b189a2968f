//! Options of `docker run` that mean nothing for a virtual machine, or not yet: a sentence for each, with the way out.

/// What to say to somebody who writes such an option, as `--gpus`; `None` for one that nobody knows.
pub fn sentence(option: &str) -> Option<String> {
    let name = option.split('=').next().unwrap_or(option);
    let (_, why) = REFUSED.iter().find(|(names, _)| names.split(' ').any(|known| known == name))?;
    Some(format!("{name}: {why}"))
}

const SHARED: &str = "a virtual machine shares nothing of that kind with the host or with others";
const MEMORY: &str = "a virtual machine has the memory of -m, and gives back what it does not use";
const CPUS: &str = "a virtual machine has the processors of --cpus";
const ONE_NETWORK: &str = "a virtual machine is on QEMU's user network, 10.0.2.15, or on none (--network)";

const REFUSED: [(&str, &str); 17] = [
    ("-d --detach", "vch run stays with its container: let your shell put it in the background"),
    (
        "-a --attach --sig-proxy --detach-keys",
        "vch run is always attached to all streams: redirect those that you do not want",
    ),
    ("-P --publish-all", "name each port with -p: `-p 80` leads any free port of the host to it"),
    (
        "--platform --disable-content-trust",
        "images are for linux/amd64 here, and what is pulled is what its digest says",
    ),
    ("-q --quiet", "a pull tells how far it is on stderr, and only when it takes long"),
    ("--device --device-cgroup-rule --gpus", "a device of the host cannot be passed into the virtual machine"),
    (
        "--blkio-weight --blkio-weight-device --device-read-bps --device-read-iops --device-write-bps --device-write-iops",
        "the speed of disks cannot be limited",
    ),
    ("--ipc --pid --uts --userns --cgroupns --cgroup-parent", SHARED),
    (
        "--volumes-from",
        "a volume belongs to one running virtual machine at a time: name it with -v, read-only to share it",
    ),
    ("--volume-driver", "a volume is a disk in the state directory, or a disk image of yours"),
    (
        "--storage-opt",
        "a container's disk grows as it is used: mount a volume of another size with --mount type=volume,volume-opt=size=SIZE,...",
    ),
    ("--ip --ip6 --link-local-ip --network-alias --net-alias", ONE_NETWORK),
    ("--memory-swap --memory-swappiness --memory-reservation --kernel-memory", MEMORY),
    ("--cpu-shares -c --cpu-period --cpu-quota --cpuset-cpus --cpuset-mems --cpu-rt-period --cpu-rt-runtime", CPUS),
    (
        "--oom-kill-disable",
        "when the memory of -m is used up something has to end: --oom-score-adj says how readily it is the container's process",
    ),
    ("--runtime --isolation", "there is one way to run a container here: as a virtual machine"),
    ("--annotation", "notes are labels here: -l KEY=VALUE"),
];

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn what_is_refused_is_no_option() {
        assert_eq!(sentence("--bogus"), None);
        assert!(sentence("--gpus=all").unwrap().starts_with("--gpus: a device"));
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        for name in REFUSED.iter().flat_map(|(names, _)| names.split(' ')) {
            let known = run.get_arguments().any(|option| {
                option.get_long().is_some_and(|long| name == format!("--{long}"))
                    || option.get_short().is_some_and(|short| name == format!("-{short}"))
            });
            assert!(!known, "{name} is an option");
        }
    }
}
