//! Names, ids and beginnings; what is remembered.

use futures_util::FutureExt;
use wire::vmx::Dictionary;

use super::*;
use crate::hub::tests::guest::Guest;
use crate::hub::tests::{hub, soon};

impl Containers {
    /// One that a guest has told so much of.
    pub(crate) fn add(&self, vm: &str, told: Option<&Told>) -> Arc<Container> {
        let id = id_of(vm);
        let container = Container::new(&id, vm, &self.dir.join(&id), self.journal_limit).unwrap();
        if let Some(Told { spec, about }) = told {
            let mut keys: Dictionary = wire::guestinfo::write(spec);
            wire::guestinfo::write_about(about, &mut keys);
            container.set_told(&keys.to_string());
        }
        let container = Arc::new(container);
        locked(&self.all).insert(id, container.clone());
        container
    }
}

#[tokio::test]
async fn a_container_is_found_by_name_id_and_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path(), 1 << 20).unwrap();
    let (web, long) = (containers.add("web", None), containers.add(&"ab".repeat(32), None));
    assert_eq!((web.id.len(), long.id.as_str()), (64, "ab".repeat(32).as_str()));
    let found = |name: &str| containers.find(name).map(|container| container.id.clone());
    assert_eq!(found("web"), Ok(web.id.clone()));
    assert_eq!(found("/web"), Ok(web.id.clone()));
    assert_eq!(found("abab"), Ok(long.id.clone()));
    assert_eq!(found("nosuch").unwrap_err().to_string(), "No such container: nosuch");
    assert!(found("").is_err());
    assert_eq!(containers.rename(&web, "we!").await.unwrap_err(), NameError::Invalid("we!".into()));
    assert_eq!(
        containers.rename(&long, "web").await.unwrap_err(),
        NameError::Taken { name: "web".into(), id: web.id.clone() }
    );
    containers.rename(&web, "db").await.unwrap();
    assert_eq!((found("db"), found("web").is_err()), (Ok(web.id.clone()), true));
    // it is remembered
    containers.remove(&long).await.unwrap();
    let again = Containers::open(dir.path(), 1 << 20).unwrap();
    assert_eq!(again.list().iter().map(|container| container.name()).collect::<Vec<_>>(), ["db"]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_next_machine_does_not_get_the_one_that_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path(), 1 << 20).unwrap();
    let container = containers.add("web", None);
    let (old, guest) = (hub(1), Guest::new());
    guest.connect(&old).await;
    guest.main(|main| main.code = Some(0));
    soon("it has ended", old.watch().wait_for(|status| status.main.is_over())).await.unwrap();
    // its output is written still
    container.set_hub(Some(old.clone()));
    let mut next = std::pin::pin!(container.next_hub(0));
    assert!(next.as_mut().now_or_never().is_none());
    let new = hub(2);
    container.set_hub(Some(new.clone()));
    assert!(soon("the next", next).await.is_some_and(|next| next.is_same(&new)));

    // an end that came meanwhile was its
    container.set_hub(Some(old));
    let ended = Exited { started_ns: 1, finished_ns: 2, code: 0, oom: false, error: String::new() };
    container.set_state(State::Exited(ended));
    assert!(soon("none", container.next_hub(0)).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_record_that_could_not_be_written_is_written_when_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path(), 1 << 20).unwrap();
    let container = containers.add("web", None);
    // what is in its place cannot be written over
    let part = container.dir().join("container.part");
    fs::create_dir(&part).unwrap();
    container.set_name("db");
    container.save().await.unwrap();
    let names = || Containers::open(dir.path(), 1 << 20).unwrap().list()[0].name();
    assert_eq!(names(), "web");
    fs::remove_dir(&part).unwrap();
    soon("it is written", async {
        while names() != "db" {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_process_whose_run_nobody_saw_has_run() {
    let dir = tempfile::tempdir().unwrap();
    let containers = Containers::open(dir.path(), 1 << 20).unwrap();
    let container = containers.add("web", None);
    let ends = |started_ns| {
        container.change_power(|power| (power.starting, power.has_run) = (true, false));
        let exited = Exited { started_ns, finished_ns: 9, code: 5, oom: false, error: String::new() };
        containers.pass(&container, State::Exited(exited));
        container.power().has_run
    };
    assert!(ends(7));
    // it could not be run
    container.set_state(State::Created);
    assert!(!ends(0));
}
