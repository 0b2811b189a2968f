//! The files of a container whose machine is on: its guest looks at them, packs and unpacks them.

use axum::body::{Body, BodyDataStream};
use wire::message::{PathInfo, Reply, Request, Work};

use super::path;
use crate::api::carried::Carried;
use crate::api::error::ApiError;
use crate::hub::Hub;

/// The way to its guest.
pub(super) struct Guest {
    pub(super) hub: Hub,
}

impl Guest {
    pub(super) async fn pack(self, path: String) -> Result<Body, ApiError> {
        let archive = Carried::begin(self.hub, Work::CopyOut { path }).await?.into_stream().await?;
        Ok(Body::from_stream(archive))
    }

    pub(super) async fn unpack(
        self,
        dir: String,
        owners: bool,
        replace: bool,
        body: &mut BodyDataStream,
    ) -> Result<(), ApiError> {
        Ok(Carried::begin(self.hub, Work::CopyIn { dir, owners, replace }).await?.feed(body).await?)
    }

    /// None where there is nothing.
    pub(super) async fn look(&self, path: &str) -> Result<Option<PathInfo>, ApiError> {
        match self.hub.request(Request::Inspect { path: path.into() }).await? {
            Reply::Path(info) => Ok(Some(info)),
            Reply::Refused { reason } if NOTHING.iter().any(|nothing| reason.contains(nothing)) => Ok(None),
            Reply::Refused { reason } => Err(ApiError::bad_parameter(reason)),
            Reply::Unsupported => Err(ApiError::not_implemented("the container's guest is too old to copy files")),
            _ => Err(ApiError::internal("the container's guest answered another question")),
        }
    }

    /// Where a path leads, through all links on it, within the container's root. What does not exist leads nowhere else.
    pub(super) async fn follow(&self, path: &str) -> Result<String, ApiError> {
        let mut ahead: Vec<String> = path::components(path).rev().map(str::to_owned).collect();
        let mut behind: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(component) = ahead.pop() {
            if component == ".." {
                behind.pop();
                continue;
            }
            behind.push(component);
            let target = self.look(&format!("/{}", behind.join("/"))).await?.map(|info| info.target);
            let Some(target) = target.filter(|target| !target.is_empty()) else { continue };
            links += 1;
            if links > MAX_LINKS {
                return Err(ApiError::bad_parameter(format!("{path} leads through too many symbolic links")));
            }
            behind.pop();
            if target.starts_with('/') {
                behind.clear();
            }
            ahead.extend(path::components(&target).rev().map(str::to_owned));
        }
        Ok(format!("/{}", behind.join("/")))
    }
}

/// What a guest says where there is nothing: docker's words, and the system's of a path through a file.
const NOTHING: [&str; 2] = ["Could not find the file", "Not a directory"];
/// As Linux counts them: path_resolution(7).
const MAX_LINKS: usize = 40;
