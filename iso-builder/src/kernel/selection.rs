//! Which fragments a kernel is made of: all of ours, some of them, and files of one's own on top.
//!
//! It decides what may be left out and what that takes away. A kernel of all fragments must hold every line of them and all of `REQUIRED`; one of fewer
//! loses what rests on the others, which [`Selection::lost`] names, and must hold what PID 1 cannot start without.

use std::fs;
use std::path::Path;

use super::config::{self, FRAGMENTS};
use super::{Error, at};

/// The fragments of one kernel, in the order in which they are merged.
#[derive(Clone, Debug)]
pub struct Selection {
    fragments: Vec<Fragment>,
    /// Nothing of ours was left out.
    whole: bool,
}

/// Options with a name.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// One of [`FRAGMENTS`], or the path of a file.
    pub name: String,
    pub text: String,
}

impl Default for Selection {
    /// All of ours.
    fn default() -> Selection {
        let ours = |(name, text): &(&str, &str)| Fragment { name: (*name).to_owned(), text: (*text).to_owned() };
        Selection { fragments: FRAGMENTS.iter().map(ours).collect(), whole: true }
    }
}

impl Selection {
    /// Names in `chosen` stand for ours, and mean these alone, with `base`; paths (with a `/` or the ending `.config`) are added to what there is, and
    /// the last word on an option counts. `without` leaves some of ours out.
    pub fn of(chosen: &[String], without: &[String]) -> Result<Selection, Error> {
        let (files, names): (Vec<&String>, Vec<&String>) =
            chosen.iter().partition(|name| name.contains('/') || name.ends_with(".config"));
        for name in names.iter().copied().chain(without) {
            if !FRAGMENTS.iter().any(|(known, _)| known == name) {
                return Err(Error::Fragment { name: name.clone(), known: known() });
            }
        }
        if without.iter().any(|name| name == BASE) {
            return Err(Error::Base);
        }
        let wanted = |name: &String| names.is_empty() || names.contains(&name) || name == BASE;
        let mut selection = Selection::default();
        selection.fragments.retain(|fragment| wanted(&fragment.name) && !without.contains(&fragment.name));
        selection.whole = selection.fragments.len() == FRAGMENTS.len();
        for file in files {
            let text = fs::read_to_string(file).map_err(at(Path::new(file)))?;
            selection.fragments.push(Fragment { name: file.clone(), text });
        }
        Ok(selection)
    }

    pub fn fragments(&self) -> &[Fragment] {
        &self.fragments
    }

    /// All fragments as one file for `KCONFIG_ALLCONFIG`, options only: a comment reworded must not mean another kernel. Of lines about the same option,
    /// only the last one.
    pub fn merged(&self) -> String {
        let lines: Vec<&str> = self.fragments.iter().flat_map(|fragment| config::options(&fragment.text)).collect();
        let last = |(number, line): &(usize, &&str)| {
            !lines[number + 1..].iter().any(|later| config::name(later) == config::name(line))
        };
        let kept = lines.iter().enumerate().filter(last);
        kept.fold(String::new(), |merged, (_, line)| merged + line + "\n")
    }

    /// Fails if `config`, a final `.config`, lacks what a kernel of this selection must hold.
    pub fn check(&self, config: &str) -> Result<(), Error> {
        let mut missing = match self.whole {
            true => config::missing(config::REQUIRED, config),
            false => config::missing(config::required_by_pid_1(), config),
        };
        let merged = self.merged();
        if self.whole {
            missing.extend(config::missing(&merged, config));
        }
        let own = self.fragments.iter().filter(|fragment| !is_ours(&fragment.name));
        missing.extend(own.flat_map(|fragment| config::missing(&fragment.text, config)));
        missing.sort_unstable();
        missing.dedup();
        match missing.as_slice() {
            [] => Ok(()),
            some => Err(Error::Config { options: some.join(", ") }),
        }
    }

    /// What fell with the fragments that were left out: lines of ours that stayed, and promises in `REQUIRED`.
    pub fn lost(&self, config: &str) -> Vec<String> {
        let of = |fragment: &Fragment| {
            let missing = config::missing(&fragment.text, config).into_iter();
            missing.map(|line| format!("{line} ({})", fragment.name)).collect::<Vec<_>>()
        };
        let mut lost: Vec<String> = self.fragments.iter().flat_map(of).collect();
        lost.extend(config::missing(config::REQUIRED, config).into_iter().map(|line| format!("{line} (REQUIRED)")));
        lost
    }
}

fn is_ours(name: &str) -> bool {
    FRAGMENTS.iter().any(|(known, _)| *known == name)
}

/// The names of ours.
fn known() -> String {
    FRAGMENTS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The fragment that no kernel is without.
const BASE: &str = "base";

#[cfg(test)]
mod tests {
    use super::*;

    fn names(chosen: &[&str], without: &[&str]) -> Vec<String> {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let selection = Selection::of(&own(chosen), &own(without)).unwrap();
        selection.fragments.into_iter().map(|fragment| fragment.name).collect()
    }

    #[test]
    fn names_choose_and_files_are_added() {
        assert_eq!(names(&["virtio", "network"], &[]), ["base", "virtio", "network"]);
        assert_eq!(names(&[], &["vmware"]).len(), FRAGMENTS.len() - 1);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mine.config").display().to_string();
        fs::write(&file, "# CONFIG_SMP is not set\nCONFIG_USB=y\n").unwrap();
        assert_eq!(names(&[&file], &[]).len(), FRAGMENTS.len() + 1);
        let merged = Selection::of(std::slice::from_ref(&file), &[]).unwrap().merged();
        assert!(merged.ends_with("# CONFIG_SMP is not set\nCONFIG_USB=y\n"), "{merged}");
        assert!(!merged.contains("CONFIG_SMP=y"), "the last word counts");
    }

    #[test]
    fn a_fragment_that_is_none_is_told_with_those_that_are() {
        let error = Selection::of(&[], &["vmwar".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("vmwar") && error.contains("vmware, generic-disks"), "{error}");
        assert!(Selection::of(&[], &["base".to_owned()]).is_err());
    }

    #[test]
    fn all_of_ours_is_what_was_always_built() {
        assert_eq!(Selection::default().merged(), config::merged());
    }

    #[test]
    fn what_falls_with_a_fragment_is_named_and_pid_1_is_not_given_up() {
        let selection = Selection::of(&[], &["network".to_owned()]).unwrap();
        let all = config::merged() + config::REQUIRED;
        let config: String = all.lines().filter(|line| !line.contains("NET")).map(|line| format!("{line}\n")).collect();
        selection.check(&config).unwrap();
        let lost = selection.lost(&config);
        assert!(lost.contains(&"CONFIG_VIRTIO_NET=y (virtio)".to_owned()), "{lost:?}");
        assert!(lost.contains(&"CONFIG_VIRTIO_NET=y (REQUIRED)".to_owned()), "{lost:?}");
        let without_proc = config.replace("CONFIG_PROC_FS=y\n", "");
        let error = selection.check(&without_proc).unwrap_err().to_string();
        assert!(error.contains("CONFIG_PROC_FS=y"), "{error}");
        let error = Selection::default().check(&config).unwrap_err().to_string();
        assert!(error.contains("CONFIG_VIRTIO_NET=y"), "{error}");
    }
}
