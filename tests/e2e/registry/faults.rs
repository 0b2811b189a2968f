//! A registry has bad days, and worse ones lie. What comes is right or does not come, and a wait has an end.

use std::time::{Duration, Instant};

use rig::registry::LOGIN;
use rig::registry::faulty::{Faults, Faulty, Image, JOE};
use serde_json::json;

use super::User;

/// A registry with these faults, of an image of three layers, and one who pulls from it.
fn world(faults: Faults) -> (User, Image, Faulty) {
    let image = Image::new(3);
    let registry = Faulty::start(&image, faults);
    (User::new(), image, registry)
}

/// What is pulled can be used, whatever happened on the way.
fn pulls(user: &User, image: &Image, registry: &Faulty) {
    assert_eq!(user.pulls(&[&registry.name()]), image.digest());
    user.disk(&["--pull", "never", &registry.name()]);
}

#[test]
fn a_blob_that_breaks_off_goes_on_where_it_stopped() {
    let (user, image, registry) = world(Faults { cuts: 4, ..Faults::default() });
    pulls(&user, &image, &registry);
    let ranges = registry.seen().into_iter().filter_map(|seen| seen.range).count();
    assert_eq!(ranges, 4, "each cut is followed by the rest");
}

#[test]
fn a_pull_that_failed_is_taken_up_by_the_next() {
    let (user, image, registry) = world(Faults { cuts: 3, ..Faults::default() });
    user.fails(&["pull", "--attempts", "1", &registry.name()], &["the connection broke"]);
    assert!(!user.says(&["images"]).stdout.contains("faulty"), "it has no name before all of it is there");
    // one after the other may be cut still
    user.pulls(&[&registry.name()]);
    assert!(registry.seen().iter().any(|seen| seen.range.is_some()));
    pulls(&user, &image, &registry);
}

#[test]
fn a_registry_without_ranges_is_asked_for_the_whole() {
    let (user, image, registry) = world(Faults { cuts: 2, no_ranges: true, ..Faults::default() });
    pulls(&user, &image, &registry);
}

#[test]
fn a_busy_registry_is_asked_again_when_it_says() {
    let (user, image, registry) = world(Faults { busy: (2, 2), ..Faults::default() });
    let began = Instant::now();
    assert_eq!(user.pulls(&[&registry.name()]), image.digest());
    assert!(began.elapsed() >= Duration::from_secs(4), "two times two seconds");
    let (user, _, registry) = world(Faults { busy: (1, 3600), ..Faults::default() });
    user.fails(&["pull", &registry.name()], &["too many requests; try again in 3600 s"]);
}

#[test]
fn what_has_another_digest_is_not_kept() {
    let (user, _, registry) = world(Faults { damaged: true, ..Faults::default() });
    user.fails(&["pull", &registry.name()], &[&registry.name(), "a blob has the digest sha256:", "it is damaged"]);
    let (user, image, registry) = world(Faults { forged: true, ..Faults::default() });
    user.fails(&["pull", &registry.name()], &["the manifest has the digest sha256:", image.digest()]);
    let pinned = format!("{}@{}", registry.name(), image.digest());
    user.fails(&["pull", &pinned], &["the manifest has the digest sha256:", image.digest()]);
    assert!(!user.says(&["images"]).stdout.contains("faulty"));
}

#[test]
fn what_does_not_end_is_ended() {
    let (user, _, registry) = world(Faults { endless: true, ..Faults::default() });
    user.fails(&["pull", &registry.name()], &["its manifest has no end"]);
    let (user, _, registry) = world(Faults { drip: true, ..Faults::default() });
    user.fails(&["pull", "--timeout", "1", "--attempts", "2", &registry.name()], &["it says nothing for 1 s"]);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("127.0.0.1:{}/x", silent.local_addr().unwrap().port());
    user.fails(&["pull", "--plain-http", "--timeout", "1", "--attempts", "2", &name], &["it says nothing for 1 s"]);
}

#[test]
fn a_token_whose_time_is_over_is_replaced() {
    let (user, image, registry) = world(Faults { tokens: Some(2), ..Faults::default() });
    user.fails(&["pull", &registry.name()], &["guests may not have it"]);
    let host = format!("127.0.0.1:{}", registry.port);
    user.writes(".docker/config.json", &json!({ "auths": { host: { "auth": LOGIN } } }).to_string());
    pulls(&user, &image, &registry);
    // manifest, config and three layers, two a token
    assert!(registry.tokens() >= 3, "{}", registry.tokens());
    let given = registry.seen().into_iter().filter(|seen| seen.authorization.as_deref() == Some(JOE));
    assert!(
        given.map(|seen| seen.target).all(|target| target.starts_with("/token?")),
        "the password is for the token server"
    );
}

#[test]
fn a_login_does_not_follow_a_redirect() {
    let image = Image::new(3);
    let storage = Faulty::start(&image, Faults::default());
    let faults = Faults { tokens: Some(100), elsewhere: Some(storage.url()), ..Faults::default() };
    let (user, registry) = (User::new(), Faulty::start(&image, faults));
    let host = format!("127.0.0.1:{}", registry.port);
    user.writes(".docker/config.json", &json!({ "auths": { host: { "auth": LOGIN } } }).to_string());
    pulls(&user, &image, &registry);
    let seen = storage.seen();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen.iter().all(|seen| seen.authorization.is_none()), "{seen:?}");
}

#[test]
fn a_mirror_that_fails_is_done_without() {
    let (user, image, registry) = world(Faults::default());
    let mirror = Faulty::start(&image, Faults { status: Some(500), ..Faults::default() });
    let mirrored = format!("127.0.0.1:{}={}", registry.port, mirror.url());
    assert_eq!(user.pulls(&["--mirror", &mirrored, &registry.name()]), image.digest());
    assert_eq!(mirror.seen().len(), 1, "it is asked once");
    // and one that works is asked alone
    let (user, good) = (User::new(), Faulty::start(&image, Faults::default()));
    let (before, mirrored) = (registry.seen().len(), format!("127.0.0.1:{}={}", registry.port, good.url()));
    assert_eq!(user.pulls(&["--mirror", &mirrored, &registry.name()]), image.digest());
    assert_eq!((registry.seen().len(), good.seen().len()), (before, 5));
    let (user, broken) = (User::new(), Faulty::start(&image, Faults { status: Some(500), ..Faults::default() }));
    let mirrored = format!("127.0.0.1:{}={}", broken.port, mirror.url());
    let arguments = ["pull", "--attempts", "2", "--mirror", &mirrored, &broken.name()];
    user.fails(&arguments, &["it answers 500", "(and its mirror", "it answers 500"]);
}

#[test]
fn two_pulls_at_once_fetch_each_blob_once() {
    let (user, image, registry) = world(Faults::default());
    let name = registry.name();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert_eq!(user.pulls(&[&name]), image.digest()));
        }
    });
    let blobs = registry.seen().into_iter().filter(|seen| seen.target.contains("/blobs/")).count();
    assert_eq!(blobs, 4, "a config and three layers");
}
