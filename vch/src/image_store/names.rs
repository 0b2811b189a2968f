//! What an image is called: in full, as it is kept (`docker.io/library/busybox:latest`), and as docker shows it (`busybox:latest`).

use iso_builder::registry::Name;

/// The full form of a name with a tag (`latest` if it has none) or a digest; none if it is no name.
pub(crate) fn normal(text: &str) -> Option<String> {
    text.parse::<Name>().ok().map(|name| name.to_string())
}

/// A full name as docker shows it: without the registry and the folder that everybody means.
pub(crate) fn familiar(full: &str) -> String {
    let short = full.strip_prefix("docker.io/").unwrap_or(full);
    short.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(short).to_owned()
}

/// A name without its tag or its digest. A colon before the last slash is a registry's port.
pub(crate) fn repository(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_in_full_and_shown_as_docker_does() {
        for (text, shown) in [
            ("busybox", "busybox:latest"),
            ("docker.io/library/busybox:1.36", "busybox:1.36"),
            ("docker.io/vmware/photon", "vmware/photon:latest"),
            ("library/a/b", "library/a/b:latest"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest"),
            ("ghcr.io/library/x:2", "ghcr.io/library/x:2"),
        ] {
            let full = normal(text).unwrap();
            assert_eq!(familiar(&full), shown);
            assert_eq!(normal(&familiar(&full)), Some(full), "{text}");
        }
        assert_eq!(normal("No Name"), None);
        assert_eq!(repository("127.0.0.1:5000/a:1"), "127.0.0.1:5000/a");
        assert_eq!(repository("127.0.0.1:5000/a@sha256:aa"), "127.0.0.1:5000/a");
        assert_eq!(repository("busybox"), "busybox");
    }
}
