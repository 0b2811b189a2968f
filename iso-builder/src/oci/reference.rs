//! Which image a user means: the ways of writing it, not whether it is there.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An image as a user writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `docker-archive:FILE[:NAME]`: what `docker save` writes.
    DockerArchive { path: PathBuf, name: Option<String> },
    /// `oci:DIR[:TAG]`: an OCI image layout, in a directory or in a tar of one.
    Oci { path: PathBuf, tag: Option<String> },
    /// A file or directory of either kind; which, is seen when it is opened.
    Bare(PathBuf),
}

impl Reference {
    /// The file or directory that is meant.
    pub fn path(&self) -> &Path {
        match self {
            Reference::DockerArchive { path, .. } | Reference::Oci { path, .. } | Reference::Bare(path) => path,
        }
    }
}

impl FromStr for Reference {
    type Err = Infallible;

    /// Behind `docker-archive:` and `oci:` the path ends at the first colon, as for skopeo; a bare one is taken whole.
    fn from_str(text: &str) -> Result<Reference, Infallible> {
        let split = |text: &str| match text.split_once(':') {
            Some((path, name)) => (PathBuf::from(path), Some(name.to_owned()).filter(|name| !name.is_empty())),
            None => (PathBuf::from(text), None),
        };
        Ok(if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (path, name) = split(rest);
            Reference::DockerArchive { path, name }
        } else if let Some(rest) = text.strip_prefix("oci:") {
            let (path, tag) = split(rest);
            Reference::Oci { path, tag }
        } else {
            Reference::Bare(PathBuf::from(text))
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Reference::DockerArchive { name, .. } => ("docker-archive:", name.as_ref()),
            Reference::Oci { tag, .. } => ("oci:", tag.as_ref()),
            Reference::Bare(_) => ("", None),
        };
        write!(f, "{kind}{}", self.path().display())?;
        name.map_or(Ok(()), |name| write!(f, ":{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let docker = |path: &str, name: Option<&str>| Reference::DockerArchive {
            path: path.into(),
            name: name.map(str::to_owned),
        };
        let oci = |path: &str, tag: Option<&str>| Reference::Oci { path: path.into(), tag: tag.map(str::to_owned) };
        let cases = [
            ("docker-archive:a.tar", docker("a.tar", None)),
            ("docker-archive:a.tar:busybox:latest", docker("a.tar", Some("busybox:latest"))),
            ("oci:dir", oci("dir", None)),
            ("oci:dir:v1", oci("dir", Some("v1"))),
            ("oci:/x/dir:docker.io/library/busybox:1", oci("/x/dir", Some("docker.io/library/busybox:1"))),
            ("busybox.tar", Reference::Bare("busybox.tar".into())),
            ("busybox:latest", Reference::Bare("busybox:latest".into())),
        ];
        for (text, expected) in cases {
            let Ok(reference) = text.parse::<Reference>();
            assert_eq!(reference, expected);
            assert_eq!(reference.to_string(), text);
        }
    }
}
