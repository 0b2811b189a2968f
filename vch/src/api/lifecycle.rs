//! Start, stop, restart, kill, rename, remove: what changes a container's life.
//!
//! It decides what docker's words mean for a machine that somebody else has made. How long a guest is waited for is [`Container::ask`]'s.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, post};
use serde_json::json;
use tokio::time::timeout;
use wire::guestinfo::signal_number;
use wire::message::{MAIN, Reply, Request};

use super::error::ApiError;
use super::filters::Filters;
use super::query::Params;
use super::{Api, json, refused, wait};
use crate::containers::{Container, Event, Life, State as ContainerState};
use crate::hub::HubError;
use crate::maker::{Grace, Maker, Started};
use crate::signals::SIGKILL;
use crate::timestamp::{self, now_ns};

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/containers/{id}/start", post(start))
        .route("/containers/{id}/stop", post(stop))
        .route("/containers/{id}/restart", post(restart))
        .route("/containers/{id}/kill", post(kill))
        .route("/containers/{id}/pause", post(pause))
        .route("/containers/{id}/unpause", post(unpause))
        .route("/containers/{id}/rename", post(rename))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}", delete(remove))
        .merge(wait::routes())
}

type Done = Result<StatusCode, ApiError>;

async fn start(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Done {
    let container = api.containers.find(&id)?;
    if let Some(maker) = maker_of(&api, &container)? {
        return match maker.start(&container).await? {
            Started::Now => Ok(StatusCode::NO_CONTENT),
            Started::Before => Ok(StatusCode::NOT_MODIFIED),
        };
    }
    match container.state() {
        ContainerState::Running(_) => Ok(StatusCode::NOT_MODIFIED),
        ContainerState::Exited(_) | ContainerState::Restarting(_) => Err(made_elsewhere(&container)),
        ContainerState::Created => begin(&container).await,
    }
}

/// What makes the container's machine, if this host does.
fn maker_of<'a>(api: &'a Api, container: &Container) -> Result<Option<&'a Arc<Maker>>, ApiError> {
    // without a maker, its machine is not to be had
    container.made().map(|_| api.maker(refused::MAKES)).transpose()
}

/// A machine that has powered off is not this host's to power on.
fn made_elsewhere(container: &Container) -> ApiError {
    ApiError::not_implemented(format!(
        "the machine of container {} has ended, and this host does not make machines: power it on where it was made, \
         and the container runs again",
        container.name()
    ))
}

/// Lets a process run that is held.
async fn begin(container: &Container) -> Done {
    let mut life = container.watch();
    let hub = container.reach().await?;
    match container.ask(&hub, Request::Start).await {
        Ok(Reply::Done) => {}
        // whichever comes first: the answer, or that the guest gives up
        Ok(Reply::Failed(failure)) | Err(HubError::Failed(failure)) => return Err(unstartable(&failure.reason)),
        Ok(Reply::Refused { reason }) => return Err(ApiError::conflict(reason)),
        Ok(_) => return Err(ApiError::internal("the guest gave an answer to another question")),
        // it has ended before it could answer: what follows tells how
        Err(_) if life.borrow().is_over() => {}
        Err(error) => return Err(error.into()),
    }
    // its users hear that it runs when it is seen to
    let seen = life.wait_for(|life| life.is_over() || life.state.is_running()).await.map(|life| life.clone());
    match seen {
        Ok(Life { state: ContainerState::Exited(exited), .. }) if !exited.error.is_empty() => {
            Err(unstartable(&exited.error))
        }
        Ok(_) => Ok(StatusCode::NO_CONTENT),
        Err(_) => Err(ApiError::not_found(format!("No such container: {}", container.id))),
    }
}

/// Docker's client makes its exit code, 127 or 126, of these words.
fn unstartable(reason: &str) -> ApiError {
    ApiError::bad_parameter(format!("failed to create task for container: unable to start container process: {reason}"))
}

/// What stop and restart say beyond the spec: a signal, and milliseconds to obey it.
fn grace(params: &Params) -> Result<(Option<u8>, Option<u64>), ApiError> {
    let grace_ms = match params.number("t")? {
        None => None,
        // docker's word for ever
        Some(seconds) if seconds < 0 => Some(u64::MAX),
        Some(seconds) => Some(u64::try_from(seconds).unwrap_or_default().saturating_mul(1000)),
    };
    let signal = params.text("signal").map(signal).transpose()?;
    Ok((signal, grace_ms))
}

fn signal(text: &str) -> Result<u8, ApiError> {
    signal_number(text).ok_or_else(|| ApiError::bad_parameter(format!("invalid signal: {text}")))
}

async fn stop(State(api): State<Arc<Api>>, Path(id): Path<String>, params: Params) -> Done {
    let container = api.containers.find(&id)?;
    let (signal, grace_ms) = grace(&params)?;
    if let Some(maker) = maker_of(&api, &container)? {
        return match maker.stop(&container, Grace { signal, grace_ms }).await? {
            true => Ok(StatusCode::NO_CONTENT),
            false => Ok(StatusCode::NOT_MODIFIED),
        };
    }
    if !container.state().is_running() {
        return Ok(StatusCode::NOT_MODIFIED);
    }
    let hub = container.reach().await?;
    let told = signal.unwrap_or_else(|| container.stop_signal());
    api.containers.events.container(&container, "kill", &[("signal", told.to_string())]);
    container.stop_asked();
    end(&container, &hub, Request::Stop { signal, grace_ms }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Asks for an end, and waits for it.
async fn end(container: &Container, hub: &crate::hub::Hub, request: Request) -> Result<(), ApiError> {
    let mut life = container.watch();
    let exits = life.borrow_and_update().exits;
    match container.ask(hub, request).await {
        Ok(Reply::Done) => {}
        Ok(Reply::Refused { reason }) => return Err(ApiError::conflict(reason)),
        Ok(_) => return Err(ApiError::not_implemented("the guest's version cannot be stopped in this way")),
        // it has ended before it could answer
        Err(_) if container.watch().borrow().is_over() => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    // removed meanwhile, it has ended too
    let _removed = life.wait_for(|life| life.exits > exits || life.is_over()).await;
    Ok(())
}

async fn restart(State(api): State<Arc<Api>>, Path(id): Path<String>, params: Params) -> Done {
    let container = api.containers.find(&id)?;
    let (signal, grace_ms) = grace(&params)?;
    if let Some(maker) = maker_of(&api, &container)? {
        maker.restart(&container, Grace { signal, grace_ms }).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    match container.state() {
        ContainerState::Running(_) => {}
        ContainerState::Created => return begin(&container).await,
        ContainerState::Exited(_) | ContainerState::Restarting(_) => return Err(made_elsewhere(&container)),
    }
    let hub = container.reach().await?;
    let told = signal.unwrap_or_else(|| container.stop_signal());
    api.containers.events.container(&container, "kill", &[("signal", told.to_string())]);
    container.stop_asked();
    container.start_when_held(true);
    let mut life = container.watch();
    // the end that is asked for is the next one; a process that ends soon may never be seen to run
    let asked_for = life.borrow().exits + 1;
    if let Err(error) = end(&container, &hub, Request::Restart { signal, grace_ms }).await {
        container.start_when_held(false);
        return Err(error);
    }
    let back = life.wait_for(|life| life.removed || life.state.is_running() || life.exits > asked_for);
    let back = timeout(api.containers.lost_after(), back).await;
    // who powers it on another time may want it held
    container.start_when_held(false);
    match back.ok().and_then(Result::ok).filter(|life| !life.removed).map(|life| life.state.clone()) {
        Some(ContainerState::Exited(exited)) if !exited.error.is_empty() => return Err(unstartable(&exited.error)),
        Some(_) => {}
        None => {
            let seconds = api.containers.lost_after().as_secs();
            let message = format!("container {id} was stopped, and its machine has not come back within {seconds} s");
            return Err(ApiError::internal(message));
        }
    }
    api.containers.events.container(&container, "restart", &[]);
    Ok(StatusCode::NO_CONTENT)
}

async fn kill(State(api): State<Arc<Api>>, Path(id): Path<String>, params: Params) -> Done {
    let container = api.containers.find(&id)?;
    let signal = params.text("signal").map_or(Ok(SIGKILL), signal)?;
    if !container.state().is_running() {
        let full = &container.id;
        return Err(ApiError::conflict(format!("cannot kill container: {id}: container {full} is not running")));
    }
    if let Some(maker) = maker_of(&api, &container)? {
        maker.kill(&container, signal).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let hub = container.reach().await?;
    let mut life = container.watch();
    let exits = life.borrow_and_update().exits;
    match container.ask(&hub, Request::Signal { session: MAIN, signal }).await? {
        Reply::Done => {}
        Reply::Refused { reason } => {
            return Err(ApiError::conflict(format!("cannot kill container: {id}: {reason}")));
        }
        _ => return Err(ApiError::internal("the guest gave an answer to another question")),
    }
    api.containers.events.container(&container, "kill", &[("signal", signal.to_string())]);
    // of this one the end is certain, and docker waits for it
    if signal == SIGKILL {
        let ended = timeout(KILL_TIME, life.wait_for(|life| life.exits > exits || life.is_over())).await;
        if ended.is_err() {
            return Err(ApiError::internal("tried to kill container, but did not receive an exit event"));
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn pause(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Done {
    api.maker(refused::PAUSES)?;
    let container = api.containers.find(&id)?;
    let maker = maker_of(&api, &container)?.ok_or_else(|| ApiError::not_implemented(refused::PAUSES))?;
    maker.pause(&container).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unpause(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Done {
    api.maker(refused::PAUSES)?;
    let container = api.containers.find(&id)?;
    let maker = maker_of(&api, &container)?.ok_or_else(|| ApiError::not_implemented(refused::PAUSES))?;
    maker.unpause(&container).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn rename(State(api): State<Arc<Api>>, Path(id): Path<String>, params: Params) -> Done {
    let container = api.containers.find(&id)?;
    let old = container.name();
    let Some(new) = params.text("name") else {
        return Err(ApiError::bad_parameter("Neither old nor new names may be empty"));
    };
    if new.trim_start_matches('/') == old {
        return Err(ApiError::bad_parameter("Renaming a container with the same name as its current name"));
    }
    api.containers.rename(&container, new).await?;
    api.containers.events.container(&container, "rename", &[("oldName", format!("/{old}"))]);
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(State(api): State<Arc<Api>>, Path(id): Path<String>, params: Params) -> Done {
    let container = api.containers.find(&id)?;
    if params.flag("link") {
        return Err(ApiError::not_implemented("containers here have no links: they find each other by their networks"));
    }
    if let Some(maker) = maker_of(&api, &container)? {
        maker.remove(&container, params.flag("force"), params.flag("v")).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    if container.state().is_running() && !params.flag("force") {
        return Err(ApiError::conflict(format!(
            "cannot remove container {id:?}: container is running: stop the container before removing or force remove"
        )));
    }
    discard(&api, &container).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends what there is of it, and forgets it. A machine that cannot be reached is forgotten all the same: should it come back, it is a container again.
async fn discard(api: &Api, container: &Arc<Container>) -> Result<(), ApiError> {
    let was_running = container.state().is_running();
    if let Ok(hub) = container.hub()
        && container.is_connected()
    {
        let request = Request::Stop { signal: Some(SIGKILL), grace_ms: Some(0) };
        if was_running {
            api.containers.events.container(container, "kill", &[("signal", SIGKILL.to_string())]);
            end(container, &hub, request).await?;
        } else {
            // it is held: there is no process whose end could be waited for
            container.ask(&hub, request).await?;
        }
    }
    let removed = api.containers.remove(container).await;
    removed.map_err(|error| ApiError::internal(format!("{error:#}")))
}

async fn prune(State(api): State<Arc<Api>>, params: Params) -> Result<Response, ApiError> {
    let filters = Filters::read(&params, &["until", "label", "label!"])?;
    let until = match filters.values("until") {
        [] => u64::MAX,
        [one] => timestamp::parse(one, now_ns())
            .ok_or_else(|| ApiError::bad_parameter(format!("invalid filter 'until={one}': it is no time")))?,
        _ => return Err(ApiError::bad_parameter("more than one until filter specified")),
    };
    let (mut deleted, mut reclaimed) = (Vec::new(), 0);
    for container in api.containers.list() {
        // one that is held has a machine, which somebody may want to start
        let is_over = match container.state() {
            ContainerState::Exited(_) => true,
            ContainerState::Created if container.made().is_some() => !container.now().starting,
            ContainerState::Created => !container.is_connected(),
            ContainerState::Running(_) | ContainerState::Restarting(_) => false,
        };
        let labels = container.labels();
        let spared = filters.has("label!") && filters.labels("label!", &labels);
        if is_over && container.created_ns() < until && filters.labels("label", &labels) && !spared {
            let maker = maker_of(&api, &container)?;
            let own = match maker {
                Some(maker) => maker.sizes(&container).await.own,
                None => 0,
            };
            let size = container.journal.size() + own;
            match maker {
                // one that was started just now stays
                Some(maker) if maker.remove(&container, false, false).await.is_err() => continue,
                Some(_) => {}
                None => discard(&api, &container).await?,
            }
            deleted.push(container.id.clone());
            reclaimed += size;
        }
    }
    api.containers.events.tell(Event {
        kind: "container",
        action: "prune".into(),
        id: String::new(),
        attributes: [("reclaimed".to_owned(), reclaimed.to_string())].into(),
        time_ns: now_ns(),
    });
    Ok(json::json(&json!({ "ContainersDeleted": deleted, "SpaceReclaimed": reclaimed })))
}

/// What docker waits for the end of a process that it has killed.
const KILL_TIME: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
