//! `docker images PATTERN` and `--filter reference=PATTERN`: which names fit.

use crate::image_store::repository;

/// Whether one of the names, with or without its tag, is as a pattern with `*` for any part of it.
pub(super) fn is_called<'a>(mut names: impl Iterator<Item = &'a String>, pattern: &str) -> bool {
    names.any(|name| fits(name, pattern) || fits(repository(name), pattern))
}

/// Whether a name is as a pattern with `*` for anything.
fn fits(name: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return name == pattern };
    let Some(name) = name.strip_prefix(first) else { return false };
    (0..=name.len()).filter(|&at| name.is_char_boundary(at)).any(|at| fits(&name[at..], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_anywhere_in_a_name() {
        for pattern in ["busybox", "busy*", "*box", "*", "b*y*x", "busybox*"] {
            assert!(fits("busybox", pattern), "{pattern}");
        }
        for pattern in ["busy", "box", "x*", "*z", ""] {
            assert!(!fits("busybox", pattern), "{pattern}");
        }
    }
}
