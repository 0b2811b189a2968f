//! What a guest's word and its silence make of a container.

use wire::status::{Ending, Exit, Failure, FailureKind};

use super::*;

const NOW: u64 = 10_000_000_000;

fn running() -> State {
    State::Running(Running { pid: 7, started_ns: 4_000_000_000, paused: false })
}

fn exited(state: Option<State>) -> Exited {
    match state {
        Some(State::Exited(exited)) => exited,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_process_that_runs_is_told_once() {
    let main = MainState::Running { pid: 7 };
    assert_eq!(
        next(&State::Created, &main, NOW),
        Some(State::Running(Running { pid: 7, started_ns: NOW, paused: false }))
    );
    assert_eq!(next(&running(), &main, NOW), None);
    assert_eq!(next(&running(), &MainState::Booting, NOW), None);
}

#[test]
fn an_end_has_dockers_code_and_times() {
    let exit = Exit {
        ending: Ending::Signaled { signal: 9, core: false },
        started_us: 1_000_000,
        ended_us: 3_000_000,
        oom: true,
    };
    let seen = exited(next(&running(), &MainState::Ended(exit.clone()), NOW));
    assert_eq!((seen.code, seen.oom, seen.started_ns, seen.finished_ns), (137, true, 4_000_000_000, NOW));
    // nobody saw it begin
    assert_eq!(exited(next(&State::Created, &MainState::Ended(exit.clone()), NOW)).started_ns, 8_000_000_000);
    let over = State::Exited(seen);
    assert_eq!(next(&over, &MainState::Ended(exit), NOW), None);
    assert_eq!(next(&over, &MainState::Waiting, NOW), Some(State::Created));
}

#[test]
fn what_could_not_be_run_or_was_lost_says_why() {
    let failure = Failure { kind: FailureKind::ProgramNotFound, reason: "no such file".into() };
    let failed = exited(next(&State::Created, &MainState::Failed(failure), NOW));
    assert_eq!((failed.code, failed.error.contains("no such file")), (127, true));
    let gone = exited(next(&running(), &MainState::Lost("it was reset".into()), NOW));
    assert_eq!((gone.code, gone.error.as_str()), (LOST, "it was reset"));
    let never_ran = exited(next(&State::Created, &MainState::Lost("it was reset".into()), NOW));
    assert_eq!((never_ran.code, never_ran.started_ns), (LOST, 0));
}
