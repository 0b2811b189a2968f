//! The first page: this host, and all containers in a table.

use std::fmt::Write as _;

use super::facts::{ContainerFacts, Facts, HostFacts, LinkFacts, LinkState, Usage};
use super::html::{bytes, escape, list, moment, span};

fn page_title(host: &HostFacts) -> String {
    format!("Virtual Container Host {}", host.name)
}

/// The page.
pub(super) fn page(facts: &Facts) -> String {
    let Facts { host, containers } = facts;
    let content = format!(
        "<main>\n<header>\n<h1>Virtual Container Host <span class=\"quiet\">{}</span></h1>\n\
         <p class=\"quiet\">{}, as of {}</p>\n</header>\n{}<h2>Containers</h2>\n{}\
         <h2>Downloads</h2>\n<p><a href=\"/logs.tar.gz\">Log bundle</a>: this host’s and all containers’ logs, \
         with what is on this page; keys and the values of environment variables are not in it.</p>\n\
         <p><a href=\"/status.json\">status.json</a>: the facts of this page, for machines.</p>\n\
         <footer>tether {}</footer>\n</main>\n",
        escape(&host.name),
        count(host),
        moment(&host.now),
        about(host),
        table(containers),
        host.version,
    );
    super::html::page(&page_title(host), &content)
}

fn count(host: &HostFacts) -> String {
    let all = host.running + host.created + host.exited;
    match all {
        0 => "No containers".into(),
        1 => "1 container".into(),
        all => format!("{all} containers"),
    }
}

fn about(host: &HostFacts) -> String {
    let listeners = host.listeners.iter().map(|(kind, places)| {
        let places: Vec<String> = places.iter().map(|place| format!("<code>{}</code>", escape(place))).collect();
        (title(kind), places.join("<br>"))
    });
    let mut pairs = vec![
        (
            "Containers",
            format!("{} running<small>{} created, {} exited</small>", host.running, host.created, host.exited),
        ),
        ("Up", format!("{}<small>since {}</small>", span(host.uptime_seconds), moment(&host.began))),
        (
            "Memory of this program",
            format!("{}<small>at most {}</small>", bytes(host.memory.resident), bytes(host.memory.peak)),
        ),
        ("Version", host.version.into()),
    ];
    pairs.extend(listeners);
    list(&pairs)
}

fn title(kind: &str) -> &'static str {
    match kind {
        "links" => "VMs connect at",
        "docker" => "Docker connects at",
        _ => "Browsers connect at",
    }
}

fn table(containers: &[ContainerFacts]) -> String {
    if containers.is_empty() {
        return "<div class=\"sheet\"><p class=\"empty\">No VM has connected yet.</p></div>\n".into();
    }
    let heads = ["Name", "State", "Image", "Link", "VM up", "Memory", "Restarts"];
    let mut out = String::from(
        "<div class=\"sheet rows\">\n<table>\n<caption>All containers, the latest first</caption>\n<thead><tr>",
    );
    for head in heads {
        let class = if head == "Restarts" { " class=\"number\"" } else { "" };
        let _infallible = write!(out, "<th scope=\"col\"{class}>{head}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for container in containers {
        row(&mut out, container);
    }
    out + "</tbody>\n</table>\n</div>\n"
}

fn row(out: &mut String, container: &ContainerFacts) {
    let name = container.vmware_name.as_ref().map(|name| format!("<small>vSphere: {}</small>", escape(name)));
    let usage = container.usage.as_ref();
    let _infallible = writeln!(
        out,
        "<tr><th scope=\"row\"><a href=\"/containers/{}\">{}</a><small class=\"id\">{}</small>{}</th>\
         <td data-name=\"State\">{}</td><td data-name=\"Image\">{}</td><td data-name=\"Link\">{}</td>\
         <td data-name=\"VM up\">{}</td><td data-name=\"Memory\">{}</td><td data-name=\"Restarts\" class=\"number\">{}</td></tr>",
        escape(&container.id),
        escape(&container.name),
        escape(container.short_id()),
        name.unwrap_or_default(),
        state(container),
        or_dash(&container.image),
        link(&container.link),
        usage.map_or("–".into(), |usage| span(usage.uptime_seconds)),
        usage.map_or("–".into(), memory),
        container.restarts,
    );
}

/// How a container is, in a colour and in words.
pub(super) fn state(container: &ContainerFacts) -> String {
    let class = match (container.state, container.health, container.exit_code) {
        ("running", Some("unhealthy"), _) => "bad",
        ("running", Some("starting"), _) => "waits",
        ("running", _, _) => "good",
        ("exited", _, Some(1..)) => "bad",
        ("exited", _, _) => "off",
        _ => "waits",
    };
    let error = container.error.as_ref().map(|error| format!("<small>{}</small>", escape(error)));
    format!(
        "<span class=\"state {class}\">{}</span><small>{}</small>{}",
        escape(container.state),
        escape(&container.status),
        error.unwrap_or_default()
    )
}

/// How its link is.
pub(super) fn link(link: &LinkFacts) -> String {
    let (class, word) = match link.state {
        LinkState::Open => ("good", "open"),
        LinkState::Cut => ("bad", "cut"),
        LinkState::None => ("off", "none"),
    };
    let mut out = format!("<span class=\"state {class}\">{word}</span>");
    if let Some(seconds) = link.since_seconds {
        let _infallible = write!(out, "<small>for {}</small>", span(seconds));
    }
    if link.opened > 1 {
        let _infallible = write!(out, "<small>opened {} times</small>", link.opened);
    }
    if link.noise_bytes > 0 {
        let _infallible = write!(out, "<small>{} of noise</small>", bytes(link.noise_bytes));
    }
    if link.refused > 0 {
        let _infallible = write!(out, "<small>{} packets refused</small>", link.refused);
    }
    out
}

/// What it uses, of what it may.
pub(super) fn memory(usage: &Usage) -> String {
    let Usage { memory, memory_limit, age_seconds, .. } = usage;
    let age = if *age_seconds < 5 { String::new() } else { format!("<small>{} ago</small>", span(*age_seconds)) };
    format!("{}<small>of {}</small>{age}", bytes(*memory), bytes(*memory_limit))
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "–".into() } else { escape(text) }
}
