//! Docker top and docker stats: what a container runs and uses, as its guest counts it.
//!
//! It decides when a sample is taken. What ps shows of processes: [`processes`]; what docker calls the counters: [`mod@figures`].

mod figures;
mod processes;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use wire::message::{Reply, Request};
use wire::vitals::Stats;

use self::figures::Sample;
use self::processes::Columns;
use super::Api;
use super::error::ApiError;
use super::json;
use super::query::Params;
use crate::containers::Container;
use crate::hub::Hub;
use crate::timestamp::now_ns;

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/containers/{id}/top", get(top)).route("/containers/{id}/stats", get(stats))
}

async fn top(State(api): State<Arc<Api>>, Path(name): Path<String>, params: Params) -> Result<Response, ApiError> {
    let container = api.containers.find(&name)?;
    let columns = Columns::read(params.text("ps_args"))?;
    container.reach().await?;
    let hub = container.running()?;
    let Reply::Processes(listed) = hub.request(Request::Top).await? else { return Err(unanswered()) };
    // its clock tells how old processes are
    let at_us = figures(&hub).await?.at_us;
    api.containers.events.container(&container, "top", &[]);
    Ok(json::json(&columns.table(&listed, at_us, now_ns())))
}

async fn stats(State(api): State<Arc<Api>>, Path(name): Path<String>, params: Params) -> Result<Response, ApiError> {
    let container = api.containers.find(&name)?;
    // as for docker, what nobody says is yes
    let is_stream = params.text("stream").is_none() || params.flag("stream");
    let mut watch = Watch { container, before: None };
    if !is_stream {
        if !params.flag("one-shot") && watch.is_running() {
            // processor time is a difference
            watch.look().await?;
            tokio::time::sleep(GLANCE).await;
        }
        return Ok(json::json(&watch.look().await?));
    }
    let mut ticks = interval_at(Instant::now(), INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lines = stream::try_unfold((watch, ticks), async |(mut watch, mut ticks)| {
        ticks.tick().await;
        if watch.container.watch().borrow().removed {
            return Ok::<_, io::Error>(None);
        }
        let told = watch.look().await.map_err(|error| io::Error::other(error.message))?;
        Ok(Some((Bytes::from(format!("{told}\n")), (watch, ticks))))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
}

/// One who looks at a container's figures again and again.
struct Watch {
    container: Arc<Container>,
    before: Option<Sample>,
}

impl Watch {
    fn is_running(&self) -> bool {
        self.container.state().is_running()
    }

    /// The figures of now, and of the last time beside them. Of a container that does not run, there are none, also if it ends meanwhile.
    async fn look(&mut self) -> Result<Value, ApiError> {
        // whoever is awaited in vain is told below
        let _absent = self.container.reach().await;
        let sample = match self.container.running() {
            Err(_) if !self.is_running() => None,
            Err(error) => return Err(error.into()),
            Ok(hub) => match figures(&hub).await {
                Ok(stats) => Some(Sample { at_ns: now_ns(), stats }),
                Err(_) if !self.is_running() => None,
                Err(error) => return Err(error),
            },
        };
        let told = figures::told(&self.container.id, &self.container.name(), self.before.as_ref(), sample.as_ref());
        self.before = sample;
        Ok(told)
    }
}

async fn figures(hub: &Hub) -> Result<Stats, ApiError> {
    match hub.request(Request::Stats).await? {
        Reply::Stats(stats) => Ok(*stats),
        _ => Err(unanswered()),
    }
}

fn unanswered() -> ApiError {
    ApiError::internal("the container's guest does not tell what it uses: it is too old")
}

/// Between the two samples of who asks once: docker's client gives up 2 s after it has asked, and a busy guest takes a while to count.
const GLANCE: Duration = Duration::from_millis(250);
/// Between two samples, as docker takes them.
const INTERVAL: Duration = Duration::from_secs(1);
