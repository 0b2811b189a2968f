//! What is remembered of a container that this host makes: enough to make its machine again at each start.

use bollard_stubs::models::ContainerCreateBody;
use serde::{Deserialize, Serialize};

/// A container as docker's client asked for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Made {
    /// The request, `HostConfig` and `NetworkingConfig` with it, made one with the image's configuration and docker's defaults: what docker inspect shows.
    pub(crate) asked: ContainerCreateBody,
    /// The image's id: `sha256:` and 64 hexadecimal digits. Its name may lead to another one by now.
    pub(crate) image_id: String,
    /// What is mounted in it, as it was settled when it was created.
    #[serde(default)]
    pub(crate) mounts: Vec<super::mounts::MountPoint>,
}

impl Made {
    /// `--log-driver none`: its output is for those who are attached.
    pub(crate) fn keeps_no_log(&self) -> bool {
        let log = self.asked.host_config.as_ref().and_then(|host| host.log_config.as_ref());
        log.and_then(|log| log.typ.as_deref()) == Some("none")
    }
}
