//! One container's page: its state, what it was asked to be, and its last lines.

use std::fmt::Write as _;

use serde_json::Value;
use wire::status::{ProcessState, Status};

use super::facts::ContainerFacts;
use super::html::{bytes, escape, list, moment, span};
use super::lines::{Last, Line, word};
use super::overview::{link, memory, state};
use crate::api;
use crate::containers::Container;
use crate::timestamp;

/// So many lines of its log are on the page.
pub(super) const LINES: usize = 200;

/// The page.
pub(super) fn page(container: &Container, facts: &ContainerFacts, log: &Last) -> String {
    let spec = shown_spec(container);
    let content = format!(
        "<main>\n<header>\n<p class=\"up\"><a href=\"/\">All containers</a></p>\n<h1>{}</h1>\n\
         <p class=\"quiet id\">{}</p>\n</header>\n{}{}{}{}<h2>Log</h2>\n{}\
         <h2>As docker inspects it</h2>\n<p class=\"quiet\">Without the values of environment variables.</p>\n\
         <div class=\"sheet\"><pre tabindex=\"0\">{}</pre></div>\n</main>\n",
        escape(&facts.name),
        escape(&facts.id),
        about(facts, &spec),
        sessions(facts.machine.as_ref()),
        networks(facts.machine.as_ref(), &spec),
        mounts(&spec),
        lines(facts, log),
        escape(&serde_json::to_string_pretty(&spec).unwrap_or_default()),
    );
    super::html::page(&format!("{}, a container", facts.name), &content)
}

/// What `docker inspect` shows, but of the environment only names: values are often secrets.
pub(super) fn shown_spec(container: &Container) -> Value {
    let mut spec = api::details(container, Vec::new());
    conceal(&mut spec);
    spec
}

fn conceal(spec: &mut Value) {
    let Some(entries) = spec.pointer_mut("/Config/Env").and_then(Value::as_array_mut) else { return };
    for entry in entries {
        let name = entry.as_str().unwrap_or_default().split('=').next().unwrap_or_default();
        *entry = Value::String(name.to_owned());
    }
}

fn about(facts: &ContainerFacts, spec: &Value) -> String {
    let code = |text: &str| if text.is_empty() { "–".into() } else { format!("<code>{}</code>", escape(text)) };
    let args = spec["Args"].as_array().into_iter().flatten();
    let words: Vec<String> = std::iter::once(&spec["Path"]).chain(args).filter_map(Value::as_str).map(quoted).collect();
    let names: Vec<&str> =
        spec.pointer("/Config/Env").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let usage = facts.usage.as_ref();
    let mut pairs = vec![
        ("State", state(facts)),
        ("Link", link(&facts.link)),
        ("VM up", usage.map_or("–".into(), |usage| span(usage.uptime_seconds))),
        ("Memory", usage.map_or("–".into(), memory)),
        ("Processor time", usage.map_or("–".into(), |usage| format!("{:.1} s", usage.cpu_seconds))),
        ("Processes", usage.map_or("–".into(), |usage| usage.processes.to_string())),
        ("Restarts", facts.restarts.to_string()),
        ("Created", moment(&facts.created)),
        ("Image", if facts.image.is_empty() { "–".into() } else { escape(&facts.image) }),
        ("Command", code(&words.join(" "))),
        ("Environment", code(&names.join(" "))),
        ("VM", code(&facts.vm)),
    ];
    if let Some(version) = &facts.link.guest_version {
        pairs.push(("Version in the VM", escape(version)));
    }
    if let Some(name) = &facts.vmware_name {
        let uuid = facts.vmware_uuid.as_deref().unwrap_or_default();
        pairs.push(("vSphere knows it as", format!("{}<small class=\"id\">{}</small>", escape(name), escape(uuid))));
    }
    list(&pairs)
}

/// A word of a command, so that one sees where it ends.
fn quoted(text: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "_-./=:,@%+".contains(char);
    if !text.is_empty() && text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

fn sessions(machine: Option<&Status>) -> String {
    let rows = machine.into_iter().flat_map(|machine| &machine.sessions).map(|(name, session)| {
        let word = match session.state {
            ProcessState::Waiting => "waits",
            ProcessState::Running => "runs",
            ProcessState::Restarting => "starts again",
            ProcessState::Ended => "has ended",
        };
        let code = session.exit.as_ref().map_or("–".into(), |exit| exit.ending.code().to_string());
        let pid = session.pid.map_or("–".into(), |pid| pid.to_string());
        [escape(name), word.into(), pid, code, session.restarts.to_string()]
    });
    table("Processes", &["Session", "State", "Process", "Last exit code", "Restarts"], rows)
}

fn networks(machine: Option<&Status>, spec: &Value) -> String {
    let told = machine.map(|machine| &machine.networks);
    let asked = spec.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    let rows = asked.into_iter().flat_map(|asked| asked.keys()).map(|name| {
        let status = told.and_then(|told| told.get(name));
        let some = |list: Option<&Vec<String>>| match list.filter(|list| !list.is_empty()) {
            Some(list) => escape(&list.join(", ")),
            None => "–".into(),
        };
        [
            escape(name),
            some(status.map(|status| &status.addresses)),
            some(status.map(|status| &status.gateways)),
            some(status.map(|status| &status.dns)),
            status.map_or("–".into(), |status| escape(&status.mac)),
        ]
    });
    table("Networks", &["Network", "Addresses", "Gateways", "Name servers", "Hardware address"], rows)
}

fn mounts(spec: &Value) -> String {
    let rows = spec["Mounts"].as_array().into_iter().flatten().map(|mount| {
        let text = |key: &str| escape(mount[key].as_str().unwrap_or_default());
        let access = if mount["RW"].as_bool() == Some(false) { "read-only" } else { "read-write" };
        [text("Destination"), text("Type"), text("Name"), text("Source"), access.into()]
    });
    table("Mounts", &["Destination", "Kind", "Volume", "Source", "Access"], rows)
}

/// A table under its title; nothing where there are no rows. Cells are HTML already.
fn table<const N: usize>(title: &str, heads: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return String::new();
    }
    let mut out =
        format!("<h2>{title}</h2>\n<div class=\"sheet rows\">\n<table>\n<caption>{title}</caption>\n<thead><tr>");
    for head in heads {
        let _infallible = write!(out, "<th scope=\"col\">{head}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (at, (head, cell)) in heads.iter().zip(&row).enumerate() {
            let _infallible = match at {
                0 => write!(out, "<th scope=\"row\">{cell}</th>"),
                _ => write!(out, "<td data-name=\"{head}\">{cell}</td>"),
            };
        }
        out.push_str("</tr>\n");
    }
    out + "</tbody>\n</table>\n</div>\n"
}

fn lines(facts: &ContainerFacts, log: &Last) -> String {
    let mut out = format!(
        "<p><a href=\"/containers/{}/log.txt\">Download all of it</a> <span class=\"quiet\">({})</span></p>\n<div class=\"sheet\">",
        escape(&facts.id),
        bytes(facts.log_bytes)
    );
    if let Some(failure) = &log.failure {
        let _infallible = write!(out, "<p class=\"empty\">{}</p>", escape(failure));
    }
    if log.lines.is_empty() {
        return out + "<p class=\"empty\">It has written nothing.</p></div>\n";
    }
    out.push_str("<pre tabindex=\"0\" aria-label=\"The last lines of the log\">");
    log.lines.iter().for_each(|log_line| line(&mut out, log_line));
    out + "</pre></div>\n"
}

fn line(out: &mut String, line: &Line) {
    let time = timestamp::format(line.time_ns);
    let text = String::from_utf8_lossy(&line.text);
    // a terminal's lines end with a carriage return that nobody wants to see
    let text = escape(text.strip_suffix('\r').unwrap_or(&text));
    let shown = time.get(11..19).unwrap_or(&time);
    let stream = word(line.stream);
    let _infallible = match stream {
        "stderr" => {
            writeln!(out, "<time datetime=\"{time}\">{shown}</time> <span class=\"stderr\">stderr  {text}</span>")
        }
        _ => writeln!(out, "<time datetime=\"{time}\">{shown}</time>         {text}"),
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_the_environment_are_not_shown() {
        let mut spec = json!({ "Config": { "Env": ["PASSWORD=hunter2=x", "EMPTY=", "BARE"] } });
        conceal(&mut spec);
        assert_eq!(spec, json!({ "Config": { "Env": ["PASSWORD", "EMPTY", "BARE"] } }));
        assert_eq!(
            (quoted("a b"), quoted("it's"), quoted("ls"), quoted("")),
            ("'a b'".into(), "'it'\\''s'".into(), "ls".into(), "''".into())
        );
    }
}
