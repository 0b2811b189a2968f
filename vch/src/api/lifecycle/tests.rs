//! A restart, when the process has ended before anybody saw it run.

use super::super::double::Host;
use crate::hub::tests::guest::Guest;
use crate::hub::tests::{VM, hub, soon};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_restart_is_done_also_when_the_process_has_ended_before_anybody_saw_it_run() {
    let host = Host::new(false).await;
    let (_, mut events) = host.api.containers.events.listen();
    let path = format!("/containers/{VM}/restart?t=1");
    let machine = async {
        let restart = |request: &Request| matches!(request, Request::Restart { grace_ms: Some(1000), .. });
        host.guest.until("it is asked to", |guest| guest.requests.iter().any(restart)).await;
        host.guest.main(|main| main.code = Some(7));
        let exited = |life: &Life| life.is_over();
        soon("its end", host.container.watch().wait_for(exited)).await.unwrap();
        let (next, hub) = (Guest::of(VM, 2), hub(2));
        next.main(|main| main.code = Some(3));
        next.connect(&hub).await;
        let ended = |status: &crate::hub::GuestStatus| status.main.is_over();
        soon("the next one's end", hub.watch().wait_for(ended)).await.unwrap();
        host.api.containers.arrived(VM, hub).unwrap();
        next
    };
    let ((status, _, body), _next) = tokio::join!(host.ask("POST", &path, ""), machine);
    assert_eq!(status, 204, "{body}");
    let life = host.container.watch().borrow().clone();
    assert_eq!((life.exits, life.last.map(|last| last.code)), (2, Some(3)));
    let mut told = Vec::new();
    while told.last().is_none_or(|action| action != "restart") {
        let event = events.recv().await.unwrap();
        if event.kind == "container" {
            told.push(event.action);
        }
    }
    assert_eq!(told, ["kill", "stop", "die", "start", "die", "restart"]);
}
