//! What a host tells other hosts of a container: the machine itself needs nothing of it.

use std::collections::BTreeMap;

/// A container's name and origin, beside its spec. What is not known is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// What users call it.
    pub name: Option<String>,
    /// The image, as the user named it.
    pub image: Option<String>,
    /// The image's digest: `sha256:` and 64 hexadecimal digits.
    pub image_id: Option<String>,
    /// When it was made: nanoseconds since 1970.
    pub created_ns: Option<i64>,
    /// Docker's labels.
    pub labels: BTreeMap<String, String>,
    /// Of the main process's arguments, those that stand for the program: with `cmd` behind them they are all of them.
    pub entrypoint: Vec<String>,
    /// Of the main process's arguments, those that a user would replace.
    pub cmd: Vec<String>,
    /// What it listens at, as the image and the user say: `80/tcp`.
    pub exposed: Vec<String>,
    /// Which of the host's ports lead to it: `127.0.0.1:8080:80/tcp`, the address without brackets.
    pub published: Vec<String>,
    /// Where the image wants volumes.
    pub volumes: Vec<String>,
}
