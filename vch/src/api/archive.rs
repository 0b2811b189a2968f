//! Docker cp and export: files in and out of containers, as tar archives.
//!
//! ```text
//!                                       machine on: a session of its guest's      machine off, and made here: its disks
//! GET     look at the path ──> pack it ──> the body, as fast as the client reads
//! PUT     follow the path ──> unpack in it <── the body, as fast as it is written
//! ```
//!
//! It decides what a path names and which requests are refused. How bytes go between a session and a client: [`super::carried`]; between disks and a client:
//! [`super::still`]. A machine that was made elsewhere and is off keeps its disk to itself.

mod guest;
mod path;
mod stat;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use wire::message::PathInfo;

use self::guest::Guest;
use self::stat::PATH_STAT;
use super::Api;
use super::carried;
use super::error::ApiError;
use super::query::Params;
use super::still::{Still, is_still};
use crate::containers::{AbsentError, Container};
use crate::root_disk::Unpack;

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/containers/{id}/archive", get(copy_out).head(look).put(copy_in))
        .route("/containers/{id}/export", get(export))
}

async fn look(State(api): State<Arc<Api>>, Path(name): Path<String>, params: Params) -> Result<Response, ApiError> {
    let files = Files::of(&api, &api.containers.find(&name)?, &name).await?;
    let info = files.stat(&path::clean(params.required("path")?)).await?;
    Ok([(PATH_STAT, stat::header(&info)?)].into_response())
}

async fn copy_out(State(api): State<Arc<Api>>, Path(name): Path<String>, params: Params) -> Result<Response, ApiError> {
    let container = api.containers.find(&name)?;
    let files = Files::of(&api, &container, &name).await?;
    let path = path::clean(params.required("path")?);
    let stat = stat::header(&files.stat(&path).await?)?;
    let archive = files.pack(path).await?;
    api.containers.events.container(&container, "archive-path", &[]);
    Ok(([(PATH_STAT, stat), (header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"))], archive)
        .into_response())
}

async fn export(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let container = api.containers.find(&name)?;
    let archive = Files::all(&api, &container).await?;
    api.containers.events.container(&container, "export", &[]);
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], archive).into_response())
}

async fn copy_in(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    params: Params,
    body: Body,
) -> Result<(), ApiError> {
    let mut body = body.into_data_stream();
    let copied = unpack(&api, &name, &params, &mut body).await;
    carried::drain(&mut body).await;
    copied
}

async fn unpack(api: &Api, name: &str, params: &Params, body: &mut BodyDataStream) -> Result<(), ApiError> {
    let container = api.containers.find(name)?;
    let files = Files::of(api, &container, name).await?;
    let path = path::clean(params.required("path")?);
    let dir = files.follow(&path).await?;
    match files.look(&dir).await? {
        None => return Err(files.missing(&path)),
        Some(info) if !is_directory(&info) => {
            return Err(ApiError::bad_parameter("extraction point is not a directory"));
        }
        Some(_) => {}
    }
    let how = Unpack { owners: params.flag("copyUIDGID"), replace: !params.flag("noOverwriteDirNonDir") };
    match files.at {
        At::Guest(guest) => guest.unpack(dir, how.owners, how.replace, body).await?,
        At::Disk(still) => still.unpack(dir, how, body).await?,
    }
    api.containers.events.container(&container, "extract-to-dir", &[]);
    Ok(())
}

/// The files of a container that can be had.
struct Files {
    at: At,
    /// The container, as the client calls it.
    name: String,
}

/// Who has them.
enum At {
    Guest(Guest),
    Disk(Still),
}

impl Files {
    async fn of(api: &Api, container: &Arc<Container>, name: &str) -> Result<Files, ApiError> {
        let at = match is_still(api, container).await {
            Some(maker) => At::Disk(Still::open(maker, container.clone(), true).await?),
            None => At::Guest(guest(container, name).await?),
        };
        Ok(Files { at, name: name.into() })
    }

    /// An archive of all, without what is mounted.
    async fn all(api: &Api, container: &Arc<Container>) -> Result<Body, ApiError> {
        match is_still(api, container).await {
            Some(maker) => Still::open(maker, container.clone(), false).await?.pack_all(),
            None => guest(container, &container.name()).await?.pack("/".into()).await,
        }
    }

    async fn pack(self, path: String) -> Result<Body, ApiError> {
        match self.at {
            At::Guest(guest) => guest.pack(path).await,
            At::Disk(still) => still.pack(&path),
        }
    }

    /// What lies at a path: of a link, the link, with where it leads in the end.
    async fn stat(&self, path: &str) -> Result<PathInfo, ApiError> {
        let mut info = self.look(path).await?.ok_or_else(|| self.missing(path))?;
        if !info.target.is_empty() {
            info.target = self.follow(path).await?;
        }
        Ok(info)
    }

    /// None where there is nothing.
    async fn look(&self, path: &str) -> Result<Option<PathInfo>, ApiError> {
        match &self.at {
            At::Guest(guest) => guest.look(path).await,
            At::Disk(still) => still.look(path),
        }
    }

    /// Where a path leads, through all links on it, within the container's root. What does not exist leads nowhere else.
    async fn follow(&self, path: &str) -> Result<String, ApiError> {
        match &self.at {
            At::Guest(guest) => guest.follow(path).await,
            At::Disk(still) => still.follow(path),
        }
    }

    fn missing(&self, path: &str) -> ApiError {
        ApiError::not_found(format!("Could not find the file {path} in container {}", self.name))
    }
}

async fn guest(container: &Container, name: &str) -> Result<Guest, ApiError> {
    match container.reach().await {
        Ok(hub) => Ok(Guest { hub }),
        Err(AbsentError::NotRunning(_)) => Err(ApiError::conflict(format!(
            "container {name} is not running: its files are on the disk of its machine, which is off; start it, and copy then"
        ))),
        Err(error) => Err(error.into()),
    }
}

fn is_directory(info: &PathInfo) -> bool {
    info.mode & 0o170_000 == 0o040_000
}
