//! What a log may hold: no value of a variable, and no key, whatever is printed and however wrong a spec is.

use std::collections::BTreeMap;
use std::fmt::Debug;

use wire::guestinfo;
use wire::handshake::{LinkKey, MasterKey};
use wire::link::Security;
use wire::message::{Exec, Message, Request, SessionId, Work};
use wire::spec::{Environment, HealthCheck, LinkDevice, LinkSpec, Process, SPEED, Spec};
use wire::vmx::Dictionary;

/// What no text may hold.
const MARK: &str = "hunter2";
/// The link's key, and how it would look in hexadecimal and in a list of numbers.
const KEY: [u8; 32] = [0xa7; 32];
const KEY_TEXTS: [&str; 4] = ["a7a7", "A7A7", "167, 167", "a7, a7"];

fn env() -> Environment {
    Environment(vec![format!("PASSWORD={MARK}"), format!("{MARK}=name"), MARK.into()])
}

fn process() -> Process {
    let health = HealthCheck::new(vec!["true".into()]);
    Process { env: env(), health: Some(health), ..Process::new(vec!["sh".into()]) }
}

fn spec() -> Spec {
    let link = LinkSpec { device: LinkDevice::Virtio, key: LinkKey::new(KEY), sealed: true, speed: SPEED };
    Spec { others: BTreeMap::from([("side".into(), process())]), ..Spec::new("3f0c", link, process()) }
}

#[track_caller]
fn check(what: &str, text: &str) {
    assert!(!text.contains(MARK), "{what}: {text}");
    assert!(!KEY_TEXTS.iter().any(|key| text.contains(key)), "{what}: {text}");
}

#[track_caller]
fn check_debug(what: &str, value: &dyn Debug) {
    check(what, &format!("{value:?}"));
    check(what, &format!("{value:#?}"));
    check(what, &format!("{value:x?}"));
}

#[test]
fn nothing_that_holds_a_secret_shows_it() {
    let spec = spec();
    check_debug("a spec", &spec);
    check_debug("its keys", &guestinfo::write(&spec));
    check_debug("a process", &spec.main);
    check_debug("the link", &spec.link);
    check_debug("a master key", &MasterKey::new(KEY));
    check_debug("a key made of it", &MasterKey::new(KEY).link_key("3f0c"));
    check_debug("the link's security", &Security { key: LinkKey::new(KEY), sealed: true, seed: [0; 32] });
    let exec = Exec {
        argv: vec!["sh".into()],
        env: env(),
        dir: String::new(),
        user: String::new(),
        terminal: None,
        stdin: false,
        attach: true,
    };
    let create = Request::Create { session: SessionId(1), work: Work::Exec(exec) };
    let reload = Request::Reload { keys: guestinfo::write(&spec).to_string().as_str().into() };
    for request in [create, reload] {
        check_debug("a request", &request);
        check_debug("a message", &Message::Request { id: 1, request });
    }
}

#[test]
fn no_error_shows_the_value_of_a_secret() {
    let text = guestinfo::write(&spec()).to_string();
    assert!(text.contains(MARK) && text.contains("a7a7"), "{text}");
    let secret = |key: &str| key.contains("/cmd/env") || key.ends_with("link/key");
    let (mut secrets, mut errors) = (0, 0);
    for prefix in ["guestinfo.vice.", "guestinfo."] {
        let text = text.replace("guestinfo.vice.", prefix);
        for line in text.lines() {
            let (key, _) = line.split_once(" = ").expect("a line of a dictionary");
            if !secret(key) {
                continue;
            }
            secrets += 1;
            // no list, no number, no key; each but one of another type than it should be
            for wrong in [MARK.to_owned(), format!("[1, |22{MARK}|22]"), format!("[|22{MARK}|22"), "a7".repeat(31)] {
                let replaced: String = text
                    .lines()
                    .map(|old| if old == line { format!("{key} = \"{wrong}\"\n") } else { format!("{old}\n") })
                    .collect();
                // the count and the joined elements matter only where there is no JSON
                let without = |json: &str| -> String {
                    replaced.lines().filter(|line| !line.contains(json)).map(|line| format!("{line}\n")).collect()
                };
                for text in [replaced.clone(), without("/cmd/env~json"), without("/cmd/env~ ")] {
                    let read = guestinfo::read(&Dictionary::parse(&text).expect("a dictionary"));
                    if let Err(error) = read {
                        errors += 1;
                        check(key, &error.to_string());
                        check_debug(key, &error);
                    }
                }
            }
        }
    }
    // three keys of a list in each of two processes, and the link's
    assert_eq!(secrets, 2 * 7);
    assert!(errors >= 2 * 7, "{errors}");
}

#[test]
fn a_line_that_cannot_be_read_is_named_by_its_number() {
    for wrong in [format!("k = \"{MARK}"), MARK.to_string(), format!("k = \"{MARK}|zz\""), format!("k = \"{MARK}\"\"")]
    {
        let error = Dictionary::parse(&format!("a = \"b\"\n{wrong}\n")).unwrap_err();
        assert!(error.to_string().starts_with("line 2: "), "{error}");
        check(&wrong, &error.to_string());
        check_debug(&wrong, &error);
    }
}
