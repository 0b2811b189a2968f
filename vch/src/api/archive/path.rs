//! A container's paths as docker's clients write them. Docker takes `.` and `..` out of the text, before any link is looked at.

/// The path from the root, without `.`, `..` and needless slashes. A `/` or `/.` at its end stays: it says that the directory is meant, also through a link, or
/// what is in it.
pub(super) fn clean(path: &str) -> String {
    let mut clean = Vec::new();
    for component in components(path) {
        match component {
            ".." => drop(clean.pop()),
            component => clean.push(component),
        }
    }
    let is_content = path == "." || path.ends_with("/.");
    let end = match () {
        () if clean.is_empty() => "",
        () if is_content => "/.",
        () if path.ends_with('/') => "/",
        () => "",
    };
    format!("/{}{end}", clean.join("/"))
}

/// What it is made of; `..` is one of them, `.` is nothing.
pub(super) fn components(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|component| !matches!(*component, "" | "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_at_the_root_and_keep_what_their_end_says() {
        for (path, expected) in [
            ("etc", "/etc"),
            ("/etc//x/", "/etc/x/"),
            ("/etc/.", "/etc/."),
            ("/etc/./x", "/etc/x"),
            ("../../etc/passwd", "/etc/passwd"),
            ("/a/../../b", "/b"),
            ("/", "/"),
            (".", "/"),
            ("", "/"),
            ("/..", "/"),
            ("/a/..", "/"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }
}
