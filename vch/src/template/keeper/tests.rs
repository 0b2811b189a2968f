//! A keeper in a process of this test, and what it hands to whom.

use std::future::{pending, ready};
use std::os::unix::fs::FileExt;

use tokio::io::AsyncWriteExt;

use super::*;
use crate::template::kept::tests::template;

const KIND: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "0123456789abcdef1123456789abcdef0123456789abcdef0123456789abcdef";

/// Keeps a template in the background until it is dropped; nothing ends it but that it is not found.
fn kept(dir: &Path, idle: Option<Duration>) -> tokio::task::JoinHandle<End> {
    let place = Place::take(&file_of(dir, KIND, "sock").unwrap()).unwrap();
    tokio::spawn(async move { keep(&place, &template(KIND), idle, pending(), pending()).await })
}

async fn refused(dir: &Path) -> String {
    format!("{:#}", take(dir, KIND).await.unwrap_err())
}

#[tokio::test]
async fn a_template_is_taken_more_than_once() {
    let dir = tempfile::tempdir().unwrap();
    assert!(take(dir.path(), KIND).await.unwrap().is_none());
    let keeper = kept(dir.path(), None);
    for _ in 0..2 {
        let taken = take(dir.path(), KIND).await.unwrap().expect("a template");
        let mut page = [0; 6];
        taken.memory.read_exact_at(&mut page, 4096).unwrap();
        assert_eq!((&page, taken.record.kind.as_str()), (b"a page", KIND));
    }
    assert!(take(dir.path(), &OTHER.replace("0123", "3210")).await.unwrap().is_none());
    keeper.abort();
    assert!(keeper.await.unwrap_err().is_cancelled());
    assert!(take(dir.path(), KIND).await.unwrap().is_none());
    assert!(!file_of(dir.path(), KIND, "sock").unwrap().exists());
}

#[tokio::test]
async fn a_keeper_that_was_killed_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = file_of(dir.path(), KIND, "sock").unwrap();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(take(dir.path(), KIND).await.unwrap().is_none());
    // its socket is no obstacle to the next one
    let next = kept(dir.path(), None);
    assert!(take(dir.path(), KIND).await.unwrap().is_some());
    next.abort();
}

#[tokio::test]
async fn a_keeper_leaves_the_socket_of_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let first = kept(dir.path(), Some(Duration::from_secs(1)));
    let second = kept(dir.path(), None);
    assert_eq!(first.await.unwrap(), End::Lost);
    assert!(take(dir.path(), KIND).await.unwrap().is_some());
    second.abort();
}

#[tokio::test]
async fn nonsense_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = file_of(dir.path(), KIND, "sock").unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    let says = async |said: &[u8]| {
        let (told, _) = tokio::join!(refused(dir.path()), async {
            let (mut client, _) = listener.accept().await.unwrap();
            // who is told nonsense does not listen to its end
            client.write_all(said).await.ok();
        });
        told.strip_prefix(&format!("the keeper at {} gives no template: remove that socket: ", path.display()))
            .unwrap_or_else(|| panic!("{told}"))
            .to_owned()
    };
    assert!(says(b"220 smtp").await.starts_with("it says something else"));
    assert_eq!(says(&serde_json::to_vec(&template(KIND).record).unwrap()).await, "it passes 0 files, and not 2");
    assert_eq!(says(&[b' '; 2 * MOST]).await, "what it says has no end");
    let silent = tokio::join!(refused(dir.path()), async { (listener.accept().await, sleep(TAKE_TIME).await) }).0;
    assert!(silent.ends_with("it says nothing"), "{silent}");
    // one that ends just now
    let (taken, ()) = tokio::join!(take(dir.path(), KIND), async { drop(listener.accept().await) });
    assert!(taken.unwrap().is_none());
}

#[tokio::test]
async fn what_is_taken_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = file_of(dir.path(), KIND, "sock").unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    let hands = async |template: &Template| {
        let handed = async { hand(&listener.accept().await.unwrap().0, template).unwrap() };
        tokio::join!(refused(dir.path()), handed).0
    };
    let other = hands(&template(OTHER)).await;
    assert!(other.ends_with("the template is of another kernel, QEMU or size of machine"), "{other}");
    let unsealed = hands(&Template { memory: Template::new_memory(1 << 20).unwrap(), ..template(KIND) }).await;
    assert!(unsealed.ends_with("the template could be written: it is not sealed"), "{unsealed}");
}

#[test]
fn a_template_is_given_up_for_a_reason() {
    let idle = Some(Duration::from_secs(600));
    let fresh = Seen { asked: false, pressed: false, found: true, untaken: Duration::from_millis(599_999) };
    let old = Seen { untaken: Duration::from_secs(600), ..fresh };
    assert_eq!(end(&fresh, idle), None);
    assert_eq!(end(&old, idle), Some(End::Idle));
    assert_eq!(end(&old, None), None);
    assert_eq!(end(&Seen { found: false, ..fresh }, None), Some(End::Lost));
    assert_eq!(end(&Seen { pressed: true, ..fresh }, idle), Some(End::Pressed));
    assert_eq!(end(&Seen { asked: true, pressed: true, found: false, ..old }, idle), Some(End::Asked));
}

#[tokio::test]
async fn a_reason_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::take(&dir.path().join("sock")).unwrap();
    let template = template(KIND);
    let never = pending::<()>;
    assert_eq!(keep(&place, &template, None, ready(()), never()).await, End::Asked);
    assert_eq!(keep(&place, &template, None, never(), ready(())).await, End::Pressed);
    assert_eq!(keep(&place, &template, Some(Duration::from_millis(50)), never(), never()).await, End::Idle);
}

#[test]
fn a_template_is_its_users_alone() {
    let own = rustix::process::geteuid().as_raw();
    assert!(is_ours(own));
    assert!(!is_ours(own + 1));
}

#[test]
fn a_kind_is_a_digest() {
    let dir = Path::new("/run/user/1000/vch-0123456789ab/templates");
    assert!(file_of(dir, KIND, "sock").unwrap().ends_with("templates/0123456789abcdef.sock"));
    for kind in ["", "0123", "../../../../../../etc", "0123456789abcdeé", "0123456789abcdefg"] {
        assert!(file_of(dir, kind, "sock").is_err(), "{kind}");
    }
}

#[tokio::test]
async fn one_at_a_time_makes_a_template() {
    let dir = tempfile::tempdir().unwrap();
    let first = lock(dir.path(), KIND).await.unwrap();
    let second = timeout(Duration::from_millis(100), lock(dir.path(), KIND)).await;
    assert!(second.is_err());
    lock(dir.path(), &KIND.replace('0', "f")).await.unwrap();
    drop(first);
    lock(dir.path(), KIND).await.unwrap();
}

#[tokio::test]
async fn a_keeper_says_why_it_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let starts = async |script: &str| {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]);
        start_by(shell, &template(KIND), dir.path()).await.map_err(|error| error.to_string())
    };
    assert_eq!(starts("echo vch: no room >&2; exit 1").await.unwrap_err(), "its keeper said \"vch: no room\"");
    assert_eq!(starts("true").await.unwrap_err(), "its keeper said \"\"");
    // what it is started with
    let told = "test \"$0 ${1##*/}\" = 'keep-template 0123456789abcdef.sock' && test -z \"$HOME\" && test \"$VCH_TEMPLATE_RECORD\" && \
        test \"$(cat)\" = 'the state of its devices' && ! { echo x; } 2>/dev/null && test $(stat -Lc %s /proc/self/fd/1) = 1048576 2>/dev/null";
    starts(&format!("{told}; echo listening >&2")).await.unwrap();
}
