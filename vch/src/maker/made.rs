//! What is remembered of a container that this host makes: enough to make its machine again at each start.

use std::fmt;

use bollard_stubs::models::{ContainerCreateBody, HostConfig};
use serde::{Deserialize, Serialize};

/// A container as docker's client asked for it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Made {
    /// The request, `HostConfig` and `NetworkingConfig` with it, made one with the image's configuration and docker's defaults: what docker inspect shows.
    pub(crate) asked: ContainerCreateBody,
    /// The image's id: `sha256:` and 64 hexadecimal digits. Its name may lead to another one by now.
    pub(crate) image_id: String,
    /// What is mounted in it, as it was settled when it was created.
    #[serde(default)]
    pub(crate) mounts: Vec<super::mounts::MountPoint>,
}

impl fmt::Debug for Made {
    /// Not what was asked for: an environment, and options of a volume, hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").field("image_id", &self.image_id).field("mounts", &self.mounts).finish_non_exhaustive()
    }
}

impl Made {
    /// What was asked of this host.
    pub(crate) fn host(&self) -> Option<&HostConfig> {
        self.asked.host_config.as_ref()
    }

    /// `docker run --rm`
    pub(crate) fn removes_itself(&self) -> bool {
        self.host().and_then(|host| host.auto_remove).unwrap_or_default()
    }

    /// `--log-driver none`: its output is for those who are attached.
    pub(crate) fn keeps_no_log(&self) -> bool {
        let log = self.host().and_then(|host| host.log_config.as_ref());
        log.and_then(|log| log.typ.as_deref()) == Some("none")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_what_was_asked_for_is_shown() {
        let asked =
            ContainerCreateBody { env: Some(vec!["PASSWORD=hunter2".into()]), ..ContainerCreateBody::default() };
        let made = Made { asked, image_id: "sha256:ab".into(), mounts: Vec::new() };
        let shown = format!("{made:?} {made:#?}");
        assert!(shown.contains("sha256:ab") && !shown.contains("hunter2"), "{shown}");
    }
}
