//! Docker cp and export: files in and out of containers, as tar archives.
//!
//! ```text
//! GET     look at the path ──> a session that packs it ──> the body, as fast as the client reads
//! PUT     follow the path ──> a session that unpacks in it <── the body, as fast as the guest writes
//! ```
//!
//! It decides what a path names and which requests are refused. How bytes go between a session and a client: [`super::carried`]. A machine that is off keeps its
//! disk to itself: only the files of one that this host can talk to can be had.

mod path;
mod stat;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use wire::message::{PathInfo, Reply, Request, Work};

use self::stat::PATH_STAT;
use super::Api;
use super::carried::{self, Carried};
use super::error::ApiError;
use super::query::Params;
use crate::containers::{AbsentError, Container};
use crate::hub::Hub;

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/containers/{id}/archive", get(copy_out).head(look).put(copy_in))
        .route("/containers/{id}/export", get(export))
}

async fn look(State(api): State<Arc<Api>>, Path(name): Path<String>, params: Params) -> Result<Response, ApiError> {
    let files = Files::of(&*api.containers.find(&name)?, &name).await?;
    let info = files.stat(&path::clean(params.required("path")?)).await?;
    Ok([(PATH_STAT, stat::header(&info)?)].into_response())
}

async fn copy_out(State(api): State<Arc<Api>>, Path(name): Path<String>, params: Params) -> Result<Response, ApiError> {
    let container = api.containers.find(&name)?;
    let files = Files::of(&container, &name).await?;
    let path = path::clean(params.required("path")?);
    let stat = stat::header(&files.stat(&path).await?)?;
    let archive = files.pack(path).await?;
    api.containers.events.container(&container, "archive-path", &[]);
    Ok(([(PATH_STAT, stat), (header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"))], archive)
        .into_response())
}

async fn export(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let container = api.containers.find(&name)?;
    let archive = Files::of(&container, &name).await?.pack("/".into()).await?;
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
    let files = Files::of(&container, name).await?;
    let path = path::clean(params.required("path")?);
    let dir = files.follow(&path).await?;
    match files.look(&dir).await? {
        None => return Err(files.missing(&path)),
        Some(info) if !is_directory(&info) => {
            return Err(ApiError::bad_parameter("extraction point is not a directory"));
        }
        Some(_) => {}
    }
    let work = Work::CopyIn { dir, owners: params.flag("copyUIDGID"), replace: !params.flag("noOverwriteDirNonDir") };
    Carried::begin(files.hub, work).await?.feed(body).await?;
    api.containers.events.container(&container, "extract-to-dir", &[]);
    Ok(())
}

/// The files of a container whose machine can be asked.
struct Files {
    hub: Hub,
    /// The container, as the client calls it.
    name: String,
}

impl Files {
    async fn of(container: &Container, name: &str) -> Result<Files, ApiError> {
        match container.reach().await {
            Ok(hub) => Ok(Files { hub, name: name.into() }),
            Err(AbsentError::NotRunning(_)) => Err(ApiError::conflict(format!(
                "container {name} is not running: its files are on the disk of its machine, which is off; start it, and copy then"
            ))),
            Err(error) => Err(error.into()),
        }
    }

    async fn pack(self, path: String) -> Result<Body, ApiError> {
        let archive = Carried::begin(self.hub, Work::CopyOut { path }).await?.into_stream().await?;
        Ok(Body::from_stream(archive))
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
        match self.hub.request(Request::Inspect { path: path.into() }).await? {
            Reply::Path(info) => Ok(Some(info)),
            Reply::Refused { reason } if NOTHING.iter().any(|nothing| reason.contains(nothing)) => Ok(None),
            Reply::Refused { reason } => Err(ApiError::bad_parameter(reason)),
            Reply::Unsupported => Err(ApiError::not_implemented("the container's guest is too old to copy files")),
            _ => Err(ApiError::internal("the container's guest answered another question")),
        }
    }

    /// Where a path leads, through all links on it, within the container's root. What does not exist leads nowhere else.
    async fn follow(&self, path: &str) -> Result<String, ApiError> {
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

    fn missing(&self, path: &str) -> ApiError {
        ApiError::not_found(format!("Could not find the file {path} in container {}", self.name))
    }
}

fn is_directory(info: &PathInfo) -> bool {
    info.mode & 0o170_000 == 0o040_000
}

/// What a guest says where there is nothing: docker's words, and the system's of a path through a file.
const NOTHING: [&str; 2] = ["Could not find the file", "Not a directory"];
/// As Linux counts them: path_resolution(7).
const MAX_LINKS: usize = 40;
