//! Which networks there are, who may be on them, and what becomes of their names and addresses.

use super::*;

/// A network with the first address as its gateway.
pub(super) fn record(name: &str, subnet: &str, is_chosen: bool) -> Record {
    let subnet: Subnet = subnet.parse().unwrap();
    let pool = Pool { subnet, range: None, gateway: subnet.first(), aux: BTreeMap::new(), is_chosen };
    Record { options: BTreeMap::new(), ..predefined(name, Kind::Bridge(pool)) }
}

fn networks(dir: &Path) -> Arc<Networks> {
    let containers = Containers::open(&dir.join("serve"), 1 << 20).unwrap();
    Networks::open(&dir.join("networks"), Carriers::Switches(dir.join("sockets")), containers).unwrap()
}

fn pool(text: &str) -> Option<Pool> {
    record("x", text, true).pool().cloned()
}

#[tokio::test]
async fn networks_last_and_are_found_by_name_and_id() {
    let dir = tempfile::tempdir().unwrap();
    let first = networks(dir.path());
    let names = |networks: &Networks| {
        networks.list().iter().map(|network| network.record.name.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&first), "bridge host none");
    let made = first.create(record("mine", "10.77.0.0/24", true), pool("10.77.0.0/24")).unwrap();
    // what was half written, and never became a network
    fs::write(dir.path().join("networks/xy.part"), "{").unwrap();
    let second = networks(dir.path());
    assert_eq!(names(&second), "bridge host mine none");
    for called in ["mine", &made.id, &made.id[..5]] {
        assert_eq!(second.find(called).unwrap().record, made.record, "{called}");
    }
    assert_eq!(second.find("default").unwrap().record.name, "bridge");
    assert_eq!(second.find("other").unwrap_err().to_string(), "network other not found");
    second.remove(&made).unwrap();
    assert_eq!(names(&networks(dir.path())), "bridge host none");
}

#[tokio::test]
async fn what_docker_forbids_is_forbidden_in_its_words() {
    let dir = tempfile::tempdir().unwrap();
    let networks = networks(dir.path());
    let error =
        |name: &str, subnet: &str| networks.create(record(name, subnet, true), pool(subnet)).unwrap_err().to_string();
    networks.create(record("a", "10.77.0.0/24", true), pool("10.77.0.0/24")).unwrap();
    assert_eq!(error("a", "10.78.0.0/24"), "network with name a already exists");
    assert!(error("b", "10.77.0.128/25").contains("Pool overlaps with other one on this address space"));
    assert!(error("host", "10.78.0.0/24").contains("not permitted on predefined host network"));
    let bridge = networks.find("bridge").unwrap();
    assert_eq!(
        networks.remove(&bridge).unwrap_err().to_string(),
        "bridge is a pre-defined network and cannot be removed"
    );
    // two that want any have two
    let any =
        |name: &str| networks.create(record(name, "10.0.0.0/24", true), None).unwrap().record.pool().unwrap().subnet;
    assert_ne!(any("x"), any("y"));
}

#[tokio::test]
async fn of_clients_that_ask_at_once_each_has_a_network_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let networks = networks(dir.path());
    let begin = std::sync::Barrier::new(CLIENTS);
    // as docker compose does; two of them want the same name
    let make = |name: &str| {
        begin.wait();
        networks.create(record(name, "10.0.0.0/24", true), None)
    };
    let made: Vec<_> = std::thread::scope(|scope| {
        let make = &make;
        let all: Vec<_> =
            (0..CLIENTS).map(|client| scope.spawn(move || make(&format!("n{}", client.max(1))))).collect();
        all.into_iter().filter_map(|client| client.join().unwrap().ok()).collect()
    });
    assert_eq!(made.len(), CLIENTS - 1);
    let subnets: std::collections::BTreeSet<String> =
        made.iter().map(|network| network.record.pool().unwrap().subnet.to_string()).collect();
    assert_eq!(subnets.len(), made.len());
}

const CLIENTS: usize = 8;
