//! Groups within the container's: processes that have to end together, wherever they have moved themselves.
//!
//! They set no controllers of their own, so that the container's limits and figures stay one group's; and the kernel then lets processes live beside them.

use std::fs::File;
use std::io::Write as _;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use super::Cgroup;

impl Cgroup {
    /// A group within this one, made unless it is there. What the kernel cannot do is left out: its processes are then this one's, and cannot be killed together.
    pub fn child(&self, name: &str) -> Cgroup {
        let copy = |file: &Option<File>| file.as_ref().and_then(|file| file.try_clone().ok());
        let inherited = Cgroup {
            procs: self.procs.iter().filter_map(|file| file.try_clone().ok()).collect(),
            // kills are counted where the limit is
            memory_events: copy(&self.memory_events),
            ..Cgroup::default()
        };
        let made = self.dir.as_ref().and_then(|dir| {
            // one that is there is as good as new
            let _there = mkdirat(dir, name, Mode::from_bits_truncate(0o755));
            let open = |file: &str| {
                let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                openat(dir, format!("{name}/{file}").as_str(), flags, Mode::empty()).map(File::from).ok()
            };
            Some((open("cgroup.procs")?, open("cgroup.kill")?))
        });
        match made {
            Some((procs, kill)) => {
                let mut group = Cgroup { kill: Some(kill), ..inherited };
                group.procs.push(procs);
                group
            }
            None => inherited,
        }
    }

    /// Kills every process in it, and in the groups within: cgroup-v2.rst, `cgroup.kill`. False where the kernel cannot.
    pub fn kill(&self) -> bool {
        self.kill.as_ref().is_some_and(|mut file| file.write_all(b"1").is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn without_control_groups_there_is_nothing_to_kill() {
        let child = Cgroup::default().child("one");
        assert!(child.procs().is_empty() && !child.kill());
    }

    #[test]
    fn a_group_within_is_killed_and_the_rest_stays() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let hierarchy = mounts.lines().find_map(|line| line.strip_prefix("cgroup2 ")?.split(' ').next());
        let place = hierarchy.map(|on| Path::new(on).join(format!("tether-kill-{}", std::process::id())));
        let Some(place) = place.filter(|place| std::fs::create_dir(place).is_ok()) else {
            return eprintln!("SKIPPED a_group_within_is_killed_and_the_rest_stays: no cgroup2 that may be written");
        };
        let outer = Cgroup::create_below(&place).unwrap();
        let inner = outer.child("one");
        let start = |group: &Cgroup| {
            let child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
            for procs in group.procs() {
                nix::unistd::write(procs, child.id().to_string().as_bytes()).unwrap();
            }
            child
        };
        let (mut one, mut other) = (start(&inner), start(&outer));
        assert!(inner.kill());
        assert!(!one.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "the rest of the container lives on");
        assert!(outer.kill());
        other.wait().unwrap();
        drop((inner, outer));
        for path in ["container/one", "container", ""] {
            std::fs::remove_dir(place.join(path)).unwrap();
        }
    }
}
