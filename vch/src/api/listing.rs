//! Docker ps: which containers there are, and which of them were asked for.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};

use super::Api;
use super::endpoints::{self, Published};
use super::error::ApiError;
use super::filters::Filters;
use super::inspect::{self, Condition};
use super::json;
use super::query::Params;
use crate::containers::{Container, State as ContainerState, network_id};
use crate::timestamp::now_ns;

/// Its paths.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/containers/json", get(list)).merge(inspect::routes())
}

async fn list(State(api): State<Arc<Api>>, params: Params) -> Result<Response, ApiError> {
    let wanted = Wanted::read(&api, &params)?;
    let all = api.containers.list();
    let fitting = all.iter().filter(|container| wanted.includes(container));
    let mut shown = Vec::new();
    for container in fitting.take(wanted.limit) {
        let mut summary = summary(container);
        if params.flag("size") {
            inspect::add_sizes(&api, container, &mut summary).await;
        }
        shown.push(summary);
    }
    Ok(json::json(&shown))
}

/// What was asked for.
struct Wanted {
    all: bool,
    limit: usize,
    filters: Filters,
    exited: Vec<u8>,
    /// Nanoseconds since 1970, both exclusive.
    between: (Option<u64>, Option<u64>),
    is_task: Option<bool>,
}

/// Docker's filters.
const FILTERS: [&str; 15] = [
    "id",
    "name",
    "label",
    "status",
    "ancestor",
    "before",
    "since",
    "exited",
    "health",
    "network",
    "volume",
    "publish",
    "expose",
    "is-task",
    "isolation",
];
/// Docker's states. Not all of them are states of a VM.
const STATES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
const HEALTHS: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

impl Wanted {
    fn read(api: &Api, params: &Params) -> Result<Wanted, ApiError> {
        let filters = Filters::read(params, &FILTERS)?;
        for (name, known) in [("status", STATES.as_slice()), ("health", HEALTHS.as_slice())] {
            if let Some(odd) = filters.values(name).iter().find(|value| !known.contains(&value.as_str())) {
                return Err(ApiError::bad_parameter(format!("invalid filter '{name}={odd}'")));
            }
        }
        let created = |name: &str| match filters.values(name) {
            [] => Ok(None),
            [first, ..] => api.containers.find(first).map(|container| Some(container.created_ns())),
        };
        let number = |value: &String| {
            value.parse().map_err(|_| ApiError::bad_parameter(format!("invalid filter 'exited={value}'")))
        };
        for port in filters.values("publish").iter().chain(filters.values("expose")) {
            port_range(port).ok_or_else(|| ApiError::bad_parameter(format!("invalid port {port:?}")))?;
        }
        let limit = params.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|&limit| limit > 0);
        Ok(Wanted {
            all: params.flag("all") || limit.is_some() || filters.has("status"),
            limit: limit.unwrap_or(usize::MAX),
            exited: filters.values("exited").iter().map(number).collect::<Result<_, _>>()?,
            between: (created("since")?, created("before")?),
            is_task: filters.truth("is-task")?,
            filters,
        })
    }

    fn includes(&self, container: &Container) -> bool {
        let filters = &self.filters;
        let condition = Condition::of(container);
        let state = container.state();
        if !self.all && !state.is_active() {
            return false;
        }
        // there is no swarm whose tasks they could be
        if self.is_task == Some(true) {
            return false;
        }
        let code = match &state {
            ContainerState::Exited(exited) => Some(exited.code),
            ContainerState::Created | ContainerState::Running(_) | ContainerState::Restarting(_) => None,
        };
        if !self.exited.is_empty() && !code.is_some_and(|code| self.exited.contains(&code)) {
            return false;
        }
        let created = container.created_ns();
        if self.between.0.is_some_and(|since| created <= since)
            || self.between.1.is_some_and(|before| created >= before)
        {
            return false;
        }
        filters.any("id", |id| container.id.starts_with(id))
            && filters.any("name", |pattern| is_named(&container.name(), pattern))
            && filters.labels("label", &container.labels())
            && filters.exact("status", condition.word)
            && filters.exact("health", condition.health.unwrap_or("none"))
            && self.fits_spec(container)
    }

    /// Of a container whose spec is not known, nothing of it fits.
    fn fits_spec(&self, container: &Container) -> bool {
        let filters = &self.filters;
        let told = container.told();
        let ports = told.as_ref().map(|told| endpoints::ports(told, None)).unwrap_or_default();
        let leads = |port: &&Published| port.at.is_some();
        let spec = told.as_ref().map(|told| &told.spec);
        let joined = container.joined();
        let network = |wanted: &str| {
            if let Some(joined) = &joined {
                return joined.iter().any(|one| one.network == wanted || network_id(&one.network).starts_with(wanted));
            }
            let mut names = spec.into_iter().flat_map(|spec| &spec.networks).map(|network| &network.name);
            names.any(|name| name == wanted || network_id(name).starts_with(wanted))
        };
        let made = container.made();
        let volume = |wanted: &str| {
            if made.iter().flat_map(|made| &made.mounts).any(|mount| mount.volume() == Some(wanted)) {
                return true;
            }
            let mut mounts = spec.into_iter().flat_map(|spec| &spec.mounts);
            mounts.any(|mount| mount.name == wanted || mount.destination == wanted)
        };
        filters.any("ancestor", |image| is_image(container, image))
            && filters.any("network", network)
            && filters.any("volume", volume)
            && filters.any("publish", |port| ports.iter().filter(leads).any(|one| is_port(one, port)))
            && filters.any("expose", |port| ports.iter().any(|one| is_port(one, port)))
    }
}

/// Docker takes a regular expression. What people write is a part of a name, or its beginning, its end or all of it: `^web$`.
fn is_named(name: &str, pattern: &str) -> bool {
    let (pattern, at_start) = pattern.strip_prefix('^').map_or((pattern, false), |rest| (rest, true));
    let (pattern, at_end) = pattern.strip_suffix('$').map_or((pattern, false), |rest| (rest, true));
    let pattern = pattern.strip_prefix('/').or_else(|| pattern.strip_prefix("\\/")).unwrap_or(pattern);
    match (at_start, at_end) {
        (true, true) => name == pattern,
        (true, false) => name.starts_with(pattern),
        (false, true) => name.ends_with(pattern),
        (false, false) => name.contains(pattern),
    }
}

/// The image that a container was made of: its name, without its tag, or the beginning of its id.
fn is_image(container: &Container, wanted: &str) -> bool {
    let image = container.image();
    let bare = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(image.as_str(), |(name, _)| name);
    let id = container.told().and_then(|told| told.about.image_id.clone()).unwrap_or_default();
    let hex = id.strip_prefix("sha256:").unwrap_or(&id);
    let by_id = !hex.is_empty() && wanted.len() >= 4 && (id.starts_with(wanted) || hex.starts_with(wanted));
    image == wanted || bare == wanted || format!("{image}:latest") == wanted || by_id
}

/// `80`, `80/udp`, `8000-8010/tcp`
fn port_range(text: &str) -> Option<(u16, u16, &str)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    Some((first.parse().ok()?, last.parse().ok()?, protocol))
}

fn is_port(published: &Published, wanted: &str) -> bool {
    let Some((first, last, protocol)) = port_range(wanted) else { return false };
    let outer = published.at.as_ref().map(|(_, port)| *port);
    let fits = |port: u16| (first..=last).contains(&port);
    published.protocol == protocol && (fits(published.port) || outer.is_some_and(fits))
}

/// All of them, with what they take on disk.
pub(super) async fn with_sizes(api: &Api) -> Vec<Value> {
    let mut shown = Vec::new();
    for container in api.containers.list() {
        let mut summary = summary(&container);
        inspect::add_sizes(api, &container, &mut summary).await;
        shown.push(summary);
    }
    shown
}

/// One line of `docker ps`.
fn summary(container: &Container) -> Value {
    let told = container.told();
    let told = told.as_deref();
    let machine = container.machine();
    let condition = Condition::of(container);
    let ports = match container.state().is_running() {
        true => told.map(|told| endpoints::ports(told, machine.as_ref())).unwrap_or_default(),
        false => Vec::new(),
    };
    json!({
        "Id": container.id,
        "Names": [format!("/{}", container.name())],
        "Image": container.image(),
        "ImageID": told.and_then(|told| told.about.image_id.clone()).unwrap_or_default(),
        "Command": told.map(|told| command(&told.spec.main.argv)).unwrap_or_default(),
        "Created": container.created_ns() / 1_000_000_000,
        "Ports": endpoints::column(&ports),
        "Labels": container.labels(),
        "State": condition.word,
        "Status": condition.status(&container.state(), now_ns()),
        "HostConfig": { "NetworkMode": endpoints::mode(container).unwrap_or_else(|| inspect::network_mode(told)) },
        "NetworkSettings": { "Networks": endpoints::networks(container, told, machine.as_ref()) },
        "Mounts": inspect::mounts(container, told),
    })
}

/// As a person would type it, in docker's way: what holds a space is quoted.
fn command(argv: &[String]) -> String {
    let quoted = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    let mut words: Vec<String> = argv.iter().take(1).cloned().collect();
    words.extend(argv.iter().skip(1).map(quoted));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_as_docker_fits_them() {
        let fitting = |pattern: &str| ["web", "web-2", "db"].into_iter().filter(|name| is_named(name, pattern)).count();
        let expected = [("web", 2), ("^web$", 1), ("/web", 2), ("^/web$", 1), ("b$", 2), ("^d", 1), ("x", 0), ("", 3)];
        for (pattern, count) in expected {
            assert_eq!(fitting(pattern), count, "{pattern}");
        }
    }

    #[test]
    fn a_command_is_written_as_docker_writes_it() {
        let argv = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(command(&argv(&["sh", "-c", "echo out; exit 3"])), "sh -c 'echo out; exit 3'");
        assert_eq!(command(&argv(&["top"])), "top");
        assert_eq!(command(&[]), "");
    }

    #[test]
    fn ports_fit_single_and_in_ranges() {
        let port = Published { port: 80, protocol: "tcp".into(), at: Some(("0.0.0.0".into(), 8080)) };
        for fits in ["80", "80/tcp", "8080", "8000-8100/tcp"] {
            assert!(is_port(&port, fits), "{fits}");
        }
        for odd in ["81", "80/udp", "1-79", "x", "70000"] {
            assert!(!is_port(&port, odd), "{odd}");
        }
    }
}
