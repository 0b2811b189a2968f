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
