//! What docker's clients may ask and this host does not do: one table, with a sentence for each.
//!
//! It decides nothing about what is done. A path that is in no table at all answers 404, as docker does.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, StatusCode};
use axum::routing::{MethodFilter, on};
use futures_util::StreamExt as _;

use super::Api;
use super::error::ApiError;

/// A path, its method, and why not.
pub(super) struct Refused {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) why: &'static str,
}

const fn refused(method: Method, path: &'static str, why: &'static str) -> Refused {
    Refused { method, path, why }
}

pub(super) const MAKES: &str = "this host does not make machines: make the containerVM with vch run or vch vmx, give it this host as the other end of its link, \
     and it is a container here";
pub(super) const PAUSES: &str = "a containerVM is paused where it was made: suspend the virtual machine there";
pub(super) const NETWORKS: &str =
    "networks of containerVMs are made where the machines are: give the machine a card there";
pub(super) const VOLUMES: &str =
    "volumes of containerVMs are disks of their machines: attach one where the machine was made";
const BUILDS: &str = "this host does not build images: build the image elsewhere, and bring it with docker load or docker pull, or give it to vch run or vch vmx";
const CHECKPOINTS: &str = "checkpoints of containerVMs are snapshots: take one where the machine was made";
pub(super) const LOGINS: &str = "this host pulls no images, and keeps no passwords: log in where containerVMs are made";
const PLUGINS: &str = "this host has no plugins";

/// What answers 501.
pub(super) static REFUSED: &[Refused] = &[
    refused(Method::GET, "/containers/{id}/checkpoints", CHECKPOINTS),
    refused(Method::POST, "/containers/{id}/checkpoints", CHECKPOINTS),
    refused(Method::DELETE, "/containers/{id}/checkpoints/{name}", CHECKPOINTS),
    refused(Method::POST, "/build", BUILDS),
    refused(Method::POST, "/build/cancel", BUILDS),
    refused(Method::POST, "/build/prune", BUILDS),
    refused(Method::POST, "/session", BUILDS),
    refused(Method::POST, "/grpc", BUILDS),
    refused(Method::PUT, "/volumes/{name}", VOLUMES),
    refused(Method::GET, "/plugins/privileges", PLUGINS),
    refused(Method::POST, "/plugins/pull", PLUGINS),
    refused(Method::POST, "/plugins/create", PLUGINS),
    refused(Method::POST, "/swarm/init", SWARMS),
    refused(Method::POST, "/swarm/join", SWARMS),
];

const SWARMS: &str = "this host takes part in no swarm: its containers are virtual machines, which vSphere places";

/// What belongs to a swarm: docker answers 503 for a daemon that is in none.
pub(super) const SWARM: [(&str, &str); 21] = [
    ("GET", "/swarm"),
    ("GET", "/swarm/unlockkey"),
    ("POST", "/swarm/leave"),
    ("POST", "/swarm/update"),
    ("POST", "/swarm/unlock"),
    ("GET", "/nodes"),
    ("GET", "/nodes/{id}"),
    ("DELETE", "/nodes/{id}"),
    ("POST", "/nodes/{id}/update"),
    ("GET", "/services"),
    ("POST", "/services/create"),
    ("GET", "/services/{id}"),
    ("GET", "/services/{id}/logs"),
    ("GET", "/tasks"),
    ("GET", "/tasks/{id}"),
    ("GET", "/secrets"),
    ("POST", "/secrets/create"),
    ("GET", "/secrets/{id}"),
    ("GET", "/configs"),
    ("POST", "/configs/create"),
    ("GET", "/configs/{id}"),
];

/// Docker's words, which its users know.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

/// Their paths. `served` has paths of the same names by other methods.
pub(super) fn routes() -> Router<Arc<Api>> {
    let mut router = Router::new();
    for Refused { method, path, why } in REFUSED {
        let answer = async |body: Body| {
            heard(body).await;
            ApiError::not_implemented(*why)
        };
        router = router.route(path, on(filter(method), answer));
    }
    for (method, path) in SWARM {
        let answer = async |body: Body| {
            heard(body).await;
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, NO_SWARM)
        };
        let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
        router = router.route(path, on(filter(&method), answer));
    }
    router
}

/// Reads what is passed over: a client that is cut off while it speaks does not hear why.
async fn heard(body: Body) {
    let mut pieces = body.into_data_stream();
    let mut count = 0;
    while let Some(Ok(piece)) = pieces.next().await {
        count += piece.len();
        if count > MOST {
            return;
        }
    }
}

/// Bytes of a body that is passed over: the context of a build that is no giant.
const MOST: usize = 64 << 20;

/// Of the methods in the tables.
fn filter(method: &Method) -> MethodFilter {
    match *method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    }
}
