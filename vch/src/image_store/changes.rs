//! `--change` of docker import and commit: one line of a Dockerfile, applied to an image's configuration.

use serde_json::{Value, json};

use crate::timestamp;

/// Why a line is not applied, in docker's words where it has some.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("{0} is not a valid change command")]
    Unknown(String),
    #[error("{instruction} {what}")]
    Malformed { instruction: String, what: &'static str },
}

/// Applies a line such as `ENV A=b` or `CMD ["sh"]` to docker's `Config`.
pub(crate) fn apply(config: &mut Value, line: &str) -> Result<(), ChangeError> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (instruction, rest) = (word.to_ascii_uppercase(), rest.trim());
    let malformed = |what| ChangeError::Malformed { instruction: instruction.clone(), what };
    let known = [
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "ONBUILD",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    if !known.contains(&instruction.as_str()) {
        return Err(ChangeError::Unknown(instruction));
    }
    if rest.is_empty() && !["CMD", "ENTRYPOINT"].contains(&instruction.as_str()) {
        return Err(malformed("requires at least one argument"));
    }
    match instruction.as_str() {
        "CMD" => config["Cmd"] = command(rest),
        "ENTRYPOINT" => {
            config["Entrypoint"] = command(rest);
            // an entry point of one's own is not given the old one's words
            config["Cmd"] = Value::Null;
        }
        "ENV" => {
            for (name, value) in pairs(rest).ok_or_else(|| malformed("must have two arguments"))? {
                let assigned = format!("{name}=");
                let list = list(&mut config["Env"]);
                list.retain(|entry| !entry.as_str().is_some_and(|entry| entry.starts_with(&assigned)));
                list.push(json!(format!("{name}={value}")));
            }
        }
        "LABEL" => {
            for (name, value) in pairs(rest).ok_or_else(|| malformed("must have two arguments"))? {
                object(&mut config["Labels"])[&name] = json!(value);
            }
        }
        "EXPOSE" => {
            for port in words(rest) {
                let port = if port.contains('/') { port } else { format!("{port}/tcp") };
                object(&mut config["ExposedPorts"])[&port] = json!({});
            }
        }
        "VOLUME" => {
            let paths = serde_json::from_str::<Vec<String>>(rest).unwrap_or_else(|_| words(rest));
            for path in paths {
                object(&mut config["Volumes"])[&path] = json!({});
            }
        }
        "ONBUILD" => list(&mut config["OnBuild"]).push(json!(rest)),
        "STOPSIGNAL" => config["StopSignal"] = json!(rest),
        "USER" => config["User"] = json!(rest),
        "WORKDIR" => {
            let old = config["WorkingDir"].as_str().unwrap_or_default();
            let dir =
                if rest.starts_with('/') { rest.to_owned() } else { format!("{}/{rest}", old.trim_end_matches('/')) };
            config["WorkingDir"] = json!(dir);
        }
        _ => config["Healthcheck"] = health(rest).ok_or_else(|| malformed("needs NONE, or options and CMD"))?,
    }
    Ok(())
}

/// A list of words as JSON, or a line for a shell.
fn command(rest: &str) -> Value {
    match serde_json::from_str::<Vec<String>>(rest) {
        Ok(words) => json!(words),
        Err(_) if rest.is_empty() => json!([]),
        Err(_) => json!(["/bin/sh", "-c", rest]),
    }
}

/// `NAME=VALUE ...`, or `NAME VALUE` of old.
fn pairs(rest: &str) -> Option<Vec<(String, String)>> {
    let all = words(rest);
    if !all.first()?.contains('=') {
        let (name, value) = rest.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    all.iter().map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

/// Words, with quotes and backslashes taken off.
fn words(text: &str) -> Vec<String> {
    let (mut all, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, quote) {
            ('\\', None | Some('"')) => word.extend(chars.next()),
            (char, Some(open)) if char == open => quote = None,
            (char, Some(_)) => word.push(char),
            ('"' | '\'', None) => (quote, begun) = (Some(char), true),
            (char, None) if char.is_whitespace() => {
                if begun || !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (char, None) => word.push(char),
        }
    }
    if begun || !word.is_empty() {
        all.push(word);
    }
    all
}

/// `NONE`, or `--interval=5s ... CMD words`.
fn health(rest: &str) -> Option<Value> {
    if rest.eq_ignore_ascii_case("NONE") {
        return Some(json!({ "Test": ["NONE"] }));
    }
    let (mut check, mut rest) = (json!({}), rest);
    while let Some(option) = rest.strip_prefix("--") {
        let (option, left) = option.split_once(char::is_whitespace)?;
        let (name, value) = option.split_once('=')?;
        let key = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            _ => return None,
        };
        check[key] = match key {
            "Retries" => json!(value.parse::<u32>().ok()?),
            _ => json!(u64::try_from(timestamp::duration(value)?.as_nanos()).ok()?),
        };
        rest = left.trim_start();
    }
    let line = rest.strip_prefix("CMD").or_else(|| rest.strip_prefix("cmd"))?.trim();
    check["Test"] = match serde_json::from_str::<Vec<String>>(line) {
        Ok(words) => json!([vec!["CMD".to_owned()], words].concat()),
        Err(_) => json!(["CMD-SHELL", line]),
    };
    Some(check)
}

fn list(value: &mut Value) -> &mut Vec<Value> {
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("it is a list now")
}

fn object(value: &mut Value) -> &mut Value {
    if !value.is_object() {
        *value = json!({});
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_change_what_a_dockerfile_would() {
        let mut config = json!({ "Env": ["A=1", "B=2"], "WorkingDir": "/srv", "Cmd": ["old"] });
        let lines = [
            r#"ENV A="x y" C=3"#,
            "env D one two",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/data\"]",
            "LABEL a='b c'",
            "WORKDIR app",
            "USER 1000:1000",
            "STOPSIGNAL SIGINT",
            "ENTRYPOINT [\"/init\"]",
            "CMD echo hi",
            "HEALTHCHECK --interval=5s --retries=2 CMD true",
            "ONBUILD RUN x",
        ];
        for line in lines {
            assert_eq!(apply(&mut config, line), Ok(()), "{line}");
        }
        assert_eq!(
            config,
            json!({
                "Env": ["B=2", "A=x y", "C=3", "D=one two"], "WorkingDir": "/srv/app", "User": "1000:1000",
                "ExposedPorts": { "80/tcp": {}, "53/udp": {} }, "Volumes": { "/data": {} }, "Labels": { "a": "b c" },
                "StopSignal": "SIGINT", "Entrypoint": ["/init"], "Cmd": ["/bin/sh", "-c", "echo hi"], "OnBuild": ["RUN x"],
                "Healthcheck": { "Interval": 5_000_000_000u64, "Retries": 2, "Test": ["CMD-SHELL", "true"] },
            })
        );
    }

    #[test]
    fn what_cannot_be_changed_is_said() {
        let said = |line: &str| apply(&mut json!({}), line).unwrap_err().to_string();
        assert_eq!(said("RUN true"), "RUN is not a valid change command");
        assert_eq!(said("USER"), "USER requires at least one argument");
        assert_eq!(said("ENV A"), "ENV must have two arguments");
        assert!(said("HEALTHCHECK --colour=red CMD x").starts_with("HEALTHCHECK needs"));
    }
}
