//! The recorder as a client of the hub: whatever ends, fails or is full, every byte is in the journal, and once.

use std::fs::OpenOptions;

use tokio::task::JoinHandle;

use super::*;
use crate::journal::{Journal, Position, Selection};
use crate::recorder::record;

const LIMIT: u64 = 4 * 1024 * 1024;

fn start(hub: &Hub, journal: &Journal) -> JoinHandle<()> {
    tokio::spawn(record(hub.clone(), journal.clone(), VM.into()))
}

/// The host is gone, as if it had been killed.
fn cut_off(guest: &Guest) {
    guest.plug(tokio::io::duplex(64).0);
}

/// Waits until the journal has so much.
async fn until_it_has(journal: &Journal, stdout: usize) {
    soon("the journal", async {
        let mut reader = journal.read(Selection::default());
        let mut count = 0;
        while count < stdout {
            count += reader.next().await.unwrap().expect("more").bytes.len();
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn all_of_it_is_in_the_journal_also_what_came_first_and_last() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), LIMIT).unwrap();
    let guest = Guest::new();
    guest.main(|main| main.stdout = b"before anybody came".to_vec());
    let hub = hub(1);
    guest.connect(&hub).await;
    let mut follower = journal.read(Selection::default());
    let recorder = start(&hub, &journal);
    let first = soon("what came first", follower.next()).await.unwrap().unwrap();
    assert_eq!(first.bytes, b"before anybody came");
    guest.until("it is taken", |guest| guest.link.is_flushed()).await;
    guest.main(|main| {
        main.stdout.extend(pattern(300_000));
        main.stderr = b"last words".to_vec();
        main.code = Some(3);
    });
    soon("its end", recorder).await.unwrap();
    // who follows has come to the end
    let mut count = first.bytes.len();
    while let Some(record) = soon("the rest", follower.next()).await.unwrap() {
        count += record.bytes.len();
    }
    assert_eq!(count, 19 + 300_000 + 10);
    let (stdout, stderr) = journal.everything().await;
    assert!(stdout == [&b"before anybody came"[..], &pattern(300_000)].concat());
    assert_eq!(stderr, b"last words");
    guest.until("all is taken", |guest| guest.link.is_flushed()).await;
}

/// The host is killed after every few steps, and what was not synced is gone in part: the power failed too.
#[tokio::test(start_paused = true)]
async fn a_host_that_is_killed_again_and_again_has_every_byte_once() {
    for seed in 0..6usize {
        let dir = tempfile::tempdir().unwrap();
        let guest = Guest::new();
        let (stdout, stderr) = (pattern(1_500_000), pattern(200_000));
        guest.main(|main| (main.stdout, main.stderr, main.code) = (stdout.clone(), stderr.clone(), Some(7)));
        let mut rounds = 0usize;
        loop {
            rounds += 1;
            let journal = Journal::open(dir.path(), LIMIT).unwrap();
            let hub = hub(rounds.to_le_bytes()[0]);
            guest.connect(&hub).await;
            let recorder = start(&hub, &journal);
            for _ in 0..(rounds * 37 + seed * 101) % 400 {
                tokio::task::yield_now().await;
                if rounds.is_multiple_of(3) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            if recorder.is_finished() {
                break;
            }
            cut_off(&guest);
            recorder.abort();
            let _aborted = recorder.await;
            journal.until_alone().await;
            if let Some((path, least)) = journal.must_last() {
                let file = OpenOptions::new().write(true).open(path).unwrap();
                let len = file.metadata().unwrap().len();
                file.set_len(least + (len - least) * (rounds as u64 % 4) / 3).unwrap();
            }
        }
        assert!(rounds > 10, "{rounds} restarts are too few");
        let journal = Journal::open(dir.path(), LIMIT).unwrap();
        let (heard, errors) = journal.everything().await;
        assert_eq!((heard.len(), errors.len()), (stdout.len(), stderr.len()), "seed {seed}");
        assert!(heard == stdout && errors == stderr, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_holds_the_process_up_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), LIMIT).unwrap();
    let (hub, guest) = connected().await;
    let recorder = start(&hub, &journal);
    guest.main(|main| main.stdout = b"first".to_vec());
    until_it_has(&journal, 5).await;
    guest.until("it is taken", |guest| guest.link.is_flushed()).await;
    let file = journal.swap_file(OpenOptions::new().write(true).open("/dev/full").unwrap());
    guest.main(|main| {
        main.stdout.extend(pattern(20 * WINDOW));
        main.code = Some(0);
    });
    tokio::time::sleep(Duration::from_secs(100)).await;
    let written = guest.main(|main| main.written.0);
    assert!(written <= 5 + WINDOW, "{written} of a window of {WINDOW}");
    journal.swap_file(file);
    soon("the rest", recorder).await.unwrap();
    assert!(journal.everything().await.0 == [&b"first"[..], &pattern(20 * WINDOW)].concat());
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_lost_at_a_sync_is_had_from_the_guest_again() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), LIMIT).unwrap();
    let (hub, guest) = connected().await;
    let recorder = start(&hub, &journal);
    guest.main(|main| main.stdout = b"first".to_vec());
    until_it_has(&journal, 5).await;
    guest.until("it is taken", |guest| guest.link.is_flushed()).await;
    // takes everything, and cannot be synced
    journal.swap_file(OpenOptions::new().write(true).open("/dev/null").unwrap());
    guest.main(|main| {
        main.stdout.extend(pattern(5 * WINDOW));
        main.code = Some(0);
    });
    soon("the rest", recorder).await.unwrap();
    assert!(journal.everything().await.0 == [&b"first"[..], &pattern(5 * WINDOW)].concat());
    assert!(guest.main(|main| main.attached), "the guest has never heard that nobody listens");
}

#[tokio::test(start_paused = true)]
async fn each_boot_of_a_machine_follows_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), LIMIT).unwrap();
    for boot in 1..4u8 {
        let (hub, guest) = (hub(boot), Guest::of(VM, boot));
        guest.connect(&hub).await;
        guest.main(|main| {
            main.stdout = vec![boot; 1000];
            main.code = Some(0);
        });
        let mut follower = journal.read(Selection { from: journal.end(), to: None });
        soon("its end", record(hub, journal.clone(), VM.into())).await;
        assert_eq!(soon("its output", follower.next()).await.unwrap().unwrap().bytes, [boot; 1000]);
        assert_eq!(soon("its end", follower.next()).await.unwrap(), None);
    }
    assert_eq!(journal.everything().await.0, [[1; 1000], [2; 1000], [3; 1000]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_flood_leaves_its_end_within_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 512 * 1024;
    let journal = Journal::open(dir.path(), limit).unwrap();
    let (hub, guest) = connected().await;
    let mut slow = journal.read(Selection { from: Position::default(), to: None });
    let all = pattern(3_000_000);
    guest.main(|main| (main.stdout, main.code) = (all.clone(), Some(0)));
    let recorder = start(&hub, &journal);
    let mut most = 0;
    while !recorder.is_finished() {
        most = most.max(journal.size());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(most < limit * 5 / 4, "{most}");
    let (kept, _) = journal.everything().await;
    assert!(kept.len() as u64 > limit / 2, "{}", kept.len());
    assert!(all.ends_with(&kept));
    let mut late = Vec::new();
    while let Some(record) = slow.next().await.unwrap() {
        late.extend(record.bytes);
    }
    assert!(all.ends_with(&late));
}

#[tokio::test(start_paused = true)]
async fn what_another_has_taken_is_missing_and_the_rest_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), LIMIT).unwrap();
    let (hub, guest) = connected().await;
    let mut other = hub.attach(MAIN, OUTPUT).await.unwrap();
    guest.main(|main| main.stdout = pattern(5000));
    let mut heard = Heard::default();
    listen_until(&mut other, &mut heard, |heard| heard.stdout.len() == 5000).await;
    guest.until("it is taken", |guest| guest.link.is_flushed()).await;
    let recorder = start(&hub, &journal);
    guest.main(|main| main.stdout.extend(b"and the rest"));
    until_it_has(&journal, 12).await;
    assert_eq!(journal.everything().await.0, b"and the rest");
    // nobody wants it any more
    journal.clone().remove().unwrap();
    guest.main(|main| main.stdout.extend(b"to nobody"));
    soon("its end", recorder).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_over_ends_the_recording() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), LIMIT).unwrap();
    let (hub, guest) = connected().await;
    let recorder = start(&hub, &journal);
    guest.main(|main| main.stdout = b"its last".to_vec());
    until_it_has(&journal, 8).await;
    cut_off(&guest);
    hub.machine_ended("the machine was destroyed");
    soon("its end", recorder).await.unwrap();
    let mut follower = journal.read(Selection::default());
    assert_eq!(follower.next().await.unwrap().unwrap().bytes, b"its last");
    assert_eq!(follower.next().await.unwrap(), None);
    // nothing was there at all
    let never = Hub::start(Identity::new(VM.into(), LinkKey::new([1; 32]), true, TUNING).unwrap());
    never.machine_ended("it never began");
    soon("its end", record(never, journal, VM.into())).await;
}
