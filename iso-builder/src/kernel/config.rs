//! What the kernel contains: the fragments of `kernel-config/`, merged, and the check that Kconfig did what they ask.
//!
//! Kconfig drops an option silently when something it depends on is off. [`missing`] is what makes that an error with a
//! name. Which options there are, and why, is said in the fragments, not here.

/// The fragments by name, in the order in which they are merged.
pub const FRAGMENTS: &[(&str, &str)] = &[
    ("base", include_str!("../../../kernel-config/base.config")),
    ("abi", include_str!("../../../kernel-config/abi.config")),
    ("hardening", include_str!("../../../kernel-config/hardening.config")),
    ("cgroup", include_str!("../../../kernel-config/cgroup.config")),
    ("memory", include_str!("../../../kernel-config/memory.config")),
    ("platform", include_str!("../../../kernel-config/platform.config")),
    ("serial", include_str!("../../../kernel-config/serial.config")),
    ("virtio", include_str!("../../../kernel-config/virtio.config")),
    ("vmware", include_str!("../../../kernel-config/vmware.config")),
    ("generic-disks", include_str!("../../../kernel-config/generic-disks.config")),
    ("filesystems", include_str!("../../../kernel-config/filesystems.config")),
    ("network", include_str!("../../../kernel-config/network.config")),
];

/// What the final configuration must hold whatever brought it; see the file.
pub const REQUIRED: &str = include_str!("../../../kernel-config/REQUIRED");

/// All fragments as one file for `KCONFIG_ALLCONFIG`, options only: a comment reworded must not mean another kernel.
pub fn merged() -> String {
    FRAGMENTS.iter().flat_map(|(_, text)| options(text)).fold(String::new(), |merged, line| merged + line + "\n")
}

/// The part of [`REQUIRED`] that PID 1 cannot start without: what stands under its first two headings.
pub fn required_by_pid_1() -> &'static str {
    let third = REQUIRED.match_indices("\n\n# ").nth(2);
    &REQUIRED[..third.map_or(REQUIRED.len(), |(at, _)| at)]
}

/// What a fragment is for, as its first lines say after its name, up to the first full stop.
pub fn reason(text: &str) -> String {
    let comment = text.lines().map_while(|line| line.strip_prefix("# ")).collect::<Vec<_>>().join(" ");
    let reason = comment.split_once(": ").map_or(&*comment, |(_, reason)| reason);
    reason.split_once(". ").map_or(reason, |(first, _)| first).trim_end_matches('.').to_owned()
}

/// The lines of `wanted` that `config`, a final `.config`, does not hold.
pub fn missing<'a>(wanted: &'a str, config: &str) -> Vec<&'a str> {
    let has: std::collections::HashSet<&str> = options(config).collect();
    let holds = |line: &str| {
        // Kconfig says nothing at all about an option whose dependencies are off: that is as off as can be.
        has.contains(line) || off(line).is_some_and(|name| !has.iter().any(|line| sets(line, name)))
    };
    options(wanted).filter(|line| !holds(line)).collect()
}

/// The lines that say something: `CONFIG_X=…` and `# CONFIG_X is not set`.
pub(super) fn options(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_end).filter(|line| line.starts_with("CONFIG_") || off(line).is_some())
}

/// The option that a line is about.
pub(super) fn name(line: &str) -> &str {
    off(line).unwrap_or_else(|| line.split('=').next().unwrap_or(line))
}

/// The option's name, if the line says that it is off.
fn off(line: &str) -> Option<&str> {
    let name = line.strip_prefix("# ")?.strip_suffix(" is not set")?;
    name.starts_with("CONFIG_").then_some(name)
}

fn sets(line: &str, name: &str) -> bool {
    line.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_option_is_named() {
        let wanted = "# a reason\nCONFIG_A=y\nCONFIG_B=\"x\"\n# CONFIG_MODULES is not set\n# CONFIG_GONE is not set\n";
        let config = "CONFIG_A=y\nCONFIG_B=\"y\"\nCONFIG_MODULES=y\n";
        assert_eq!(missing(wanted, config), ["CONFIG_B=\"x\"", "# CONFIG_MODULES is not set"]);
        assert_eq!(missing("CONFIG_A=y\n", "# CONFIG_A is not set\n"), ["CONFIG_A=y"]);
        assert_eq!(missing("# CONFIG_A is not set\n", "CONFIG_AB=y\n"), [""; 0]);
    }

    #[test]
    fn no_option_is_set_twice() {
        let merged = merged();
        let mut names: Vec<&str> = merged.lines().map(name).collect();
        names.sort_unstable();
        let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    #[test]
    fn the_fragments_do_not_contradict_what_is_required() {
        let merged = merged();
        for line in options(REQUIRED) {
            let name = name(line);
            let said = merged.lines().find(|said| sets(said, name) || off(said) == Some(name));
            assert!(said.is_none_or(|said| said == line), "REQUIRED wants {line}, a fragment says {said:?}");
        }
    }

    #[test]
    fn pid_1_needs_a_part_of_what_is_required() {
        let needed = required_by_pid_1();
        assert!(needed.contains("CONFIG_BLK_DEV_INITRD=y") && needed.contains("CONFIG_INPUT_EVDEV=y"), "{needed}");
        assert!(!needed.contains("CONFIG_FUTEX=y"), "{needed}");
    }

    #[test]
    fn every_fragment_says_what_it_is_for() {
        for (name, text) in FRAGMENTS {
            assert!(text.starts_with(&format!("# {name}: ")), "{name}");
            let reason = reason(text);
            assert!((10..200).contains(&reason.len()), "{name}: {reason}");
        }
        assert_eq!(reason("# a: one thing\n# and more. Besides.\n\n# no\n"), "one thing and more");
    }

    #[test]
    fn every_fragment_on_disk_is_merged() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernel-config");
        let mut on_disk: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".config")?.to_owned()))
            .collect();
        let mut merged: Vec<&str> = FRAGMENTS.iter().map(|(name, _)| *name).collect();
        on_disk.sort_unstable();
        merged.sort_unstable();
        assert_eq!(on_disk, merged);
    }
}
