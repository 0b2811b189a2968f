//! Which paths a layer may use, and the words for those that it may not.

/// What is wrong with one entry of a layer.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error("{path:?} climbs out of the image")]
    Climbs { path: String },
    #[error("{path:?} cannot be in an image: {why}")]
    Unusable { path: String, why: &'static str },
    #[error("{path:?} leads through {through:?}, which is no directory")]
    NotADir { path: String, through: String },
    #[error("{path:?} leads through a loop of symlinks")]
    Loop { path: String },
    #[error("{path:?} is a hard link to {target:?}, which {why}")]
    Target { path: String, target: String, why: String },
    #[error("{path:?} is one file too many: an image holds fewer than 2^32")]
    TooMany { path: String },
}

/// The names on the way from the root; none for the root itself. `..` takes one back, as `path/filepath.Clean` does.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>, EntryError> {
    if path.is_empty() {
        return Err(unusable(path, "its name is empty"));
    }
    if path.len() > PATH_LIMIT {
        return Err(unusable(path, "its path is longer than 4095 bytes"));
    }
    let mut names = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop().ok_or_else(|| EntryError::Climbs { path: shown(path) })?;
            }
            name => {
                check_name(path, name)?;
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// A name that a directory entry may have.
pub(super) fn check_name(path: &[u8], name: &[u8]) -> Result<(), EntryError> {
    match name {
        b"" => Err(unusable(path, "a name in it is empty")),
        b"." | b".." => Err(unusable(path, "a name in it is . or ..")),
        name if name.len() > NAME_LIMIT => Err(unusable(path, "a name in it is longer than 255 bytes")),
        name if name.iter().any(|byte| matches!(byte, 0 | b'/')) => Err(unusable(path, "a name in it holds a NUL")),
        _ => Ok(()),
    }
}

pub(super) fn unusable(path: &[u8], why: &'static str) -> EntryError {
    EntryError::Unusable { path: shown(path), why }
}

/// The error for a hard link whose target is itself no path.
pub(super) fn bad_target(path: &[u8], target: &[u8], error: &EntryError) -> EntryError {
    let why = match error {
        EntryError::Climbs { .. } => "climbs out of the image".to_owned(),
        EntryError::Unusable { why, .. } => format!("cannot be in an image: {why}"),
        other => other.to_string(),
    };
    EntryError::Target { path: shown(path), target: shown(target), why }
}

/// A path for a message: on one line, and not longer than one.
pub(super) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    match text.char_indices().nth(SHOWN_LIMIT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into_owned(),
    }
}

/// Bytes of a symlink's target: `PATH_MAX` of Linux less its NUL.
pub(super) const TARGET_LIMIT: usize = 4095;

/// Bytes of a path: a longer one could not be opened in one call.
const PATH_LIMIT: usize = 4095;

/// Bytes of a name: what ext4 and Linux can hold.
const NAME_LIMIT: usize = 255;

/// Characters of a path in a message.
const SHOWN_LIMIT: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        let cases: [(&str, Result<&str, &str>); 14] = [
            ("a/b", Ok("a b")),
            ("./a//b/", Ok("a b")),
            ("/a/./b", Ok("a b")),
            ("a/../b", Ok("b")),
            ("./", Ok("")),
            ("/", Ok("")),
            ("a/..", Ok("")),
            ("...", Ok("...")),
            ("", Err(r#""" cannot be in an image: its name is empty"#)),
            ("../x", Err(r#""../x" climbs out of the image"#)),
            ("a/../../x", Err(r#""a/../../x" climbs out of the image"#)),
            ("/..", Err(r#""/.." climbs out of the image"#)),
            ("a/../../a/x", Err(r#""a/../../a/x" climbs out of the image"#)),
            ("a\0b", Err(r#""a\0b" cannot be in an image: a name in it holds a NUL"#)),
        ];
        for (path, expected) in cases {
            let found = components(path.as_bytes()).map(|names| String::from_utf8(names.join(&b' ')).unwrap());
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(found.map_err(|error| error.to_string()), expected, "{path:?}");
        }
    }

    #[test]
    fn lengths_at_their_limits() {
        assert!(components(&[b'a'; 255]).is_ok());
        assert!(components(&[b'a'; 256]).is_err());
        assert!(components(&b"a/".repeat(2047)).is_ok());
        assert!(components(&b"a/".repeat(2048)).is_err());
    }
}
