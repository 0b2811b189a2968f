//! Which image a user means: the ways of writing it. Whether it is a file or a name in a registry depends on which files there are, and on nothing else.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::registry::{Name, NameError};

/// An image as a user writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `docker-archive:FILE[:NAME]`: what `docker save` writes.
    DockerArchive { path: PathBuf, name: Option<String> },
    /// `oci:DIR[:TAG]`: an OCI image layout, in a directory or in a tar of one.
    Oci { path: PathBuf, tag: Option<String> },
    /// `docker://NAME`: an image in a registry.
    Registry(Name),
    /// A file or directory of either kind; which, is seen when it is opened. If there is none, the name of an image in a registry.
    Bare(PathBuf),
}

impl Reference {
    /// The file or directory that is meant, unless only a registry can be.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Reference::DockerArchive { path, .. } | Reference::Oci { path, .. } | Reference::Bare(path) => Some(path),
            Reference::Registry(_) => None,
        }
    }

    /// The name in a registry that is meant; `None` for files. A bare one is a file if there is one, or if it is written as one, and else a name.
    pub fn name(&self) -> Option<Result<Name, NameError>> {
        match self {
            Reference::Registry(name) => Some(Ok(name.clone())),
            Reference::DockerArchive { .. } | Reference::Oci { .. } => None,
            // what can be there and not be looked at is for the reader to complain about
            Reference::Bare(path) if is_written_as_file(path) || !matches!(path.try_exists(), Ok(false)) => None,
            Reference::Bare(path) => Some(path.to_string_lossy().parse()),
        }
    }
}

/// Paths that no image is called by, or that nobody means as one: a typing error in them should not ask a registry.
fn is_written_as_file(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let leads = ["/", "./", "../", "~"].iter().any(|start| text.starts_with(start));
    leads || [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz"].iter().any(|end| text.ends_with(end))
}

impl FromStr for Reference {
    type Err = NameError;

    /// Behind `docker-archive:` and `oci:` the path ends at the first colon, as for skopeo; a bare one is taken whole.
    fn from_str(text: &str) -> Result<Reference, NameError> {
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
        } else if let Some(name) = text.strip_prefix("docker://") {
            Reference::Registry(name.parse()?)
        } else {
            Reference::Bare(PathBuf::from(text))
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, path, name) = match self {
            Reference::DockerArchive { path, name } => ("docker-archive:", path, name.as_ref()),
            Reference::Oci { path, tag } => ("oci:", path, tag.as_ref()),
            Reference::Registry(name) => return write!(f, "docker://{name}"),
            Reference::Bare(path) => ("", path, None),
        };
        write!(f, "{kind}{}", path.display())?;
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
            ("docker://ghcr.io/a/b:1", Reference::Registry("ghcr.io/a/b:1".parse().unwrap())),
        ];
        for (text, expected) in cases {
            let reference = text.parse::<Reference>().unwrap();
            assert_eq!(reference, expected);
            assert_eq!(reference.to_string(), text);
        }
    }
    #[test]
    fn what_is_no_file_is_a_name() {
        let name = |text: &str| text.parse::<Reference>().unwrap().name().map(|name| name.map(|name| name.to_string()));
        assert_eq!(name("no-such-file"), Some(Ok("docker.io/library/no-such-file:latest".to_owned())));
        assert_eq!(name("docker://x"), Some(Ok("docker.io/library/x:latest".to_owned())));
        assert!(matches!(name("No Such File"), Some(Err(_))));
        // the last one is there: tests run in their crate's directory
        for file in
            ["/no/such", "./no-such", "../no-such", "~/no-such", "no-such.tar", "no/such.tar.gz", "oci:no-such", "src"]
        {
            assert_eq!(name(file), None, "{file}");
        }
        assert!("docker://Not A Name".parse::<Reference>().is_err());
    }
}
