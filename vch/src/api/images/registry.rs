//! What docker's client has its daemon ask of a registry beside pulls: whether a login is good, and what a name leads to.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use iso_builder::registry::{self, Credentials, Error, Name, Reason};
use serde::Deserialize;
use serde_json::json;

use super::pull::{explained, settings};
use crate::api::aside::aside;
use crate::api::error::ApiError;
use crate::api::{Api, json, refused};
use crate::image_store;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    username: String,
    password: String,
    identitytoken: String,
    serveraddress: String,
}

/// Docker login: the registry is asked, and the login is the client's to keep.
pub(super) async fn login(
    State(api): State<Arc<Api>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    api.maker(refused::LOGINS)?;
    let body = body.map_err(|rejection| ApiError::bad_parameter(rejection.body_text()))?;
    // serde's words may repeat a secret
    let login: Login = serde_json::from_slice(&body)
        .map_err(|_| ApiError::bad_parameter("the login is no JSON as docker login sends it"))?;
    let host = host(&login.serveraddress);
    let name: Name = format!("{host}/library/login")
        .parse()
        .map_err(|_| ApiError::bad_parameter(format!("{host:?} is no host of a registry")))?;
    let credentials = match login.identitytoken.is_empty() {
        true => Credentials::password(name.host(), &login.username, &login.password),
        false => Credentials::identity(name.host(), &login.identitytoken),
    };
    let mut settings = image_store::settings(credentials).map_err(ApiError::internal)?;
    // whose login it is not
    settings.mirrors.clear();
    let knocked = aside(move || registry::knock(&name, &settings)).await?;
    knocked.map_err(|error| match &error {
        Error::Pull(failed) if matches!(failed.reason, Reason::Guest { .. } | Reason::Denied { .. }) => ApiError::new(
            StatusCode::UNAUTHORIZED,
            format!("login attempt to {}/v2/ failed with status: 401 Unauthorized", failed.registry),
        ),
        Error::Pull(failed) => {
            ApiError::internal(format!("login attempt to {}/v2/ failed: {}", failed.registry, failed.reason))
        }
        _ => ApiError::internal(error.to_string()),
    })?;
    Ok(json::json(&json!({ "IdentityToken": "", "Status": "Login Succeeded" })))
}

/// A registry's host, as a client's configuration calls it.
fn host(address: &str) -> &str {
    let address = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    match address.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// What libraries ask that want to know a digest without pulling; docker's own client asks registries itself.
pub(super) async fn look(
    State(api): State<Arc<Api>>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let maker = api.maker("this host talks to no registry: ask it where containerVMs are made")?.clone();
    let name = rest.strip_suffix("/json").ok_or_else(|| ApiError::not_found("page not found"))?;
    let name: Name =
        name.parse().map_err(|error| ApiError::bad_parameter(format!("invalid reference format: {error}")))?;
    let settings = settings(&name, &headers)?;
    let wanted = name.clone();
    let found = aside(move || maker.images.look(&wanted, &settings)).await?;
    let found = found.map_err(|error| explained(&name, error))?;
    let top = found.top;
    Ok(json::json(&json!({
        "Descriptor": { "mediaType": top.media_type, "digest": top.digest.to_string(), "size": top.size },
        "Platforms": found.platforms,
    })))
}
