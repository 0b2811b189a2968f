//! Docker's ids and names: it decides how much of an id is shown, and what may be a name.

/// As much of an id as docker shows.
pub(crate) fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

/// Whether docker lets a container or a volume be called so. Where one character is too few, who asks says so.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |char: char| char.is_ascii_alphanumeric() || "_.-".contains(char);
    text.starts_with(|char: char| char.is_ascii_alphanumeric()) && text.chars().all(plain)
}

/// Characters of an id, of 64.
const SHORT: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shown_as_docker_shows_them() {
        assert_eq!(short(&"0123456789abcdef".repeat(4)), "0123456789ab");
        assert_eq!(short("web"), "web");
    }

    #[test]
    fn names_are_dockers() {
        for name in ["a", "web", "Web_1.x-y", "1"] {
            assert!(is_name(name), "{name:?}");
        }
        for name in ["", "-web", ".web", "_web", "we b", "wéb", "web/1"] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
