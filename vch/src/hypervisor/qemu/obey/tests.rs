//! Orders in QMP's words, told to a double of QEMU.

use super::*;
use crate::vm::orders::tests::Double;

const MAC: [u8; 6] = [2, 0, 0xab, 0, 0, 1];

fn disk() -> (tempfile::TempDir, Disk) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data.raw");
    std::fs::write(&file, "x").unwrap();
    let serial = Some("vch-volume 1".into());
    (dir, Disk { file, format: Format::Raw, serial, read_only: false, transient: false })
}

fn card(end: CardEnd) -> Order {
    Order::PlugCard(Card { mac: MAC, end })
}

/// Gives an order, and plays QEMU.
async fn play(order: Order, qemu: impl AsyncFnOnce(&mut Double)) -> Result<()> {
    let (mut double, orders) = Double::greeted().await;
    tokio::join!(obey(&orders, order), qemu(&mut double)).0
}

#[tokio::test]
async fn orders_of_one_word() {
    for (order, command) in [
        (Order::PressPowerButton, "system_powerdown"),
        (Order::Pause, "stop"),
        (Order::Resume, "cont"),
        (Order::PowerOff, "quit"),
    ] {
        play(order, async |qemu| drop(qemu.obey(command, "{}").await)).await.unwrap();
    }
}

#[tokio::test]
async fn a_machine_that_is_reset_ends_all_the_same_when_its_guest_wants_to_boot() {
    play(Order::Reset, async |qemu| {
        assert_eq!(qemu.obey("set-action", "{}").await["reboot"], "reset");
        qemu.obey("system_reset", "{}").await;
        qemu.say(r#"{"event": "RESET", "data": {"guest": false}}"#).await;
        assert_eq!(qemu.obey("set-action", "{}").await["reboot"], "shutdown");
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_disk_is_handed_over_and_plugged_in() {
    let (_dir, disk) = disk();
    play(Order::PlugDisk(disk.clone()), async |qemu| {
        qemu.obey("add-fd", r#"{"fdset-id": 7, "fd": 12}"#).await;
        let block = qemu.obey("blockdev-add", "{}").await;
        assert_eq!(block["node-name"], "disk-vch-volume-1");
        assert_eq!(block["file"]["filename"], "/dev/fdset/7");
        assert_eq!(block["discard"], "unmap");
        assert_eq!(qemu.obey("remove-fd", "{}").await["fdset-id"], 7);
        let device = qemu.obey("device_add", "{}").await;
        assert_eq!((&device["bus"], &device["serial"]), (&"scsi.0".into(), &"vch-volume 1".into()));
    })
    .await
    .unwrap();
    let gone = Disk { file: "/nowhere/x".into(), ..disk };
    let error = play(Order::PlugDisk(gone), async |_| ()).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot open the disk /nowhere/x");
}

#[tokio::test]
async fn a_disk_that_is_refused_leaves_nothing() {
    let (_dir, disk) = disk();
    let error = play(Order::PlugDisk(disk), async |qemu| {
        qemu.obey("add-fd", r#"{"fdset-id": 7, "fd": 12}"#).await;
        qemu.obey("blockdev-add", "{}").await;
        qemu.obey("remove-fd", "{}").await;
        qemu.refuse("device_add", "no place").await;
        assert_eq!(qemu.obey("blockdev-del", "{}").await["node-name"], "disk-vch-volume-1");
    });
    assert_eq!(error.await.unwrap_err().to_string(), "QEMU refuses device_add: no place");
}

#[tokio::test]
async fn a_card_takes_the_first_port_that_is_free() {
    let end = CardEnd::Switch { switch: "/s/switch".into(), machine: "/s/card".into() };
    play(card(end), async |qemu| {
        let network = qemu.obey("netdev_add", "{}").await;
        assert_eq!((&network["type"], &network["remote"]["path"]), (&"dgram".into(), &"/s/switch".into()));
        qemu.refuse("device_add", "PCI: slot 0 function 0 not available for virtio-net-pci, in use by virtio-net-pci")
            .await;
        let device = qemu.obey("device_add", "{}").await;
        assert_eq!((&device["bus"], &device["mac"]), (&"port1".into(), &"02:00:ab:00:00:01".into()));
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_card_too_many_is_refused() {
    let error = play(card(CardEnd::User(Vec::new())), async |qemu| {
        assert_eq!(qemu.obey("netdev_add", "{}").await["type"], "user");
        qemu.refuse("device_add", "in use by another").await;
        qemu.refuse("device_add", "Bus 'port1' not found").await;
        assert_eq!(qemu.obey("netdev_del", "{}").await["id"], "card-0200ab000001");
    });
    let error = error.await.unwrap_err().to_string();
    assert!(error.starts_with("each of the 1 ports of the machine has a network card: stop"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_card_is_gone_when_the_guest_has_let_go_of_it() {
    play(Order::PullCard(MAC), async |qemu| {
        qemu.obey("device_del", "{}").await;
        qemu.say(r#"{"event": "DEVICE_DELETED", "data": {"device": "another"}}"#).await;
        qemu.say(r#"{"event": "DEVICE_DELETED", "data": {"device": "card-0200ab000001"}}"#).await;
        qemu.obey("netdev_del", "{}").await;
    })
    .await
    .unwrap();
    let held = play(Order::PullCard(MAC), async |qemu| drop(qemu.obey("device_del", "{}").await)).await;
    assert_eq!(
        format!("{:#}", held.unwrap_err()),
        "its guest does not let go of the card: nothing came of it for 30 s"
    );
}

#[tokio::test]
async fn memory_comes_in_blocks_and_goes_to_the_balloon() {
    let has = r#"{"base-memory": 536870912, "plugged-memory": 134217728}"#;
    play(Order::Memory(700), async |qemu| {
        qemu.obey("query-memory-size-summary", has).await;
        let object = qemu.obey("object-add", "{}").await;
        assert_eq!((&object["id"], &object["size"]), (&"memory-128-backend".into(), &(128 << 20).into()));
        assert_eq!(qemu.obey("device_add", "{}").await["memdev"], "memory-128-backend");
        assert_eq!(qemu.obey("balloon", "{}").await["value"], 700 << 20);
    })
    .await
    .unwrap();
    play(Order::Memory(256), async |qemu| {
        qemu.obey("query-memory-size-summary", has).await;
        assert_eq!(qemu.obey("balloon", "{}").await["value"], 256 << 20);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn processors_take_the_places_that_are_free() {
    let place = |core: u8, path: &str| {
        format!(
            r#"{{"props": {{"core-id": {core}, "socket-id": 0}}, "type": "host-x86_64-cpu", "vcpus-count": 1{path}}}"#
        )
    };
    let places = format!("[{}, {}, {}]", place(2, ""), place(1, ""), place(0, r#", "qom-path": "/x""#));
    play(Order::Processors(2), async |qemu| {
        qemu.obey("query-hotpluggable-cpus", &places).await;
        let device = qemu.obey("device_add", "{}").await;
        assert_eq!((&device["core-id"], &device["driver"]), (&1.into(), &"host-x86_64-cpu".into()));
    })
    .await
    .unwrap();
    let error =
        play(Order::Processors(4), async |qemu| drop(qemu.obey("query-hotpluggable-cpus", &places).await)).await;
    assert!(error.unwrap_err().to_string().starts_with("the machine has 1 processors, and takes up to 3"));
}
