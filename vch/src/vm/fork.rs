//! A machine that goes on where another one was saved: what the other must be like, how it is saved, and what the new one is told.
//!
//! The template is the machine less all that is a container's own: disks, cables, logs, the host's end of the link. So what a clone's kernel knows of its devices
//! fits, and what differs is found by the guest after it has woken. Templates are kept, checked and dropped by [`crate::template`].
//! Source: QEMU, docs/devel/migration.rst, `x-ignore-shared`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::time::{sleep, timeout};
use wire::guestinfo::Generation;
use wire::spec::LinkDevice;

use super::orders::Orders;
use super::qemu::{Files, Process};
use super::{Begins, Boot, Card, CardEnd, LinkEnd, Machine};
use crate::console;
use crate::state;

/// Why a machine has no template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclonable {
    #[error("a machine that boots from an ISO is not cloned: use --boot kernel")]
    Iso,
    #[error(
        "a machine whose link is a vsock is not cloned, as its address is in its memory: use --link virtio or --link serial"
    )]
    Vsock,
    #[error("its spec is larger than the {} KiB that a template keeps free for one", SPEC_SIZE >> 10)]
    Spec,
}

/// The machine that `machine` can be a clone of, with its files in `dir`.
pub fn template_of(machine: &Machine, dir: &Path) -> Result<Machine, Unclonable> {
    if let Boot::Iso(_) = machine.boot {
        return Err(Unclonable::Iso);
    }
    if machine.link == LinkDevice::Vsock || machine.vsock.is_some() {
        return Err(Unclonable::Vsock);
    }
    let card = |number: usize| Card { mac: template_mac(number), end: CardEnd::Nowhere };
    Ok(Machine {
        link_end: LinkEnd::Nobody { grows: machine.grows() },
        console: dir.join("console.log"),
        log: None,
        guestinfo: dir.join("guestinfo"),
        root: None,
        disks: Vec::new(),
        cards: (0..machine.cards.len()).map(card).collect(),
        orders: Some(dir.join("orders")),
        begins: Begins::Template,
        ..machine.clone()
    })
}

/// What a card is called by until its machine is a clone: locally administered, and nobody's.
fn template_mac(number: usize) -> [u8; 6] {
    let number = u8::try_from(number + 1).unwrap_or(u8::MAX);
    [0x02, b't', b'm', b'p', b'l', number]
}

/// Boots a template with its memory in one file, and saves the state of its devices into the other. Both are empty before, and nobody else writes them.
pub async fn save(program: &Path, machine: &Machine, memory: &File, state: &File) -> Result<()> {
    let number = number()?;
    let keys = wire::guestinfo::write_generation(&Generation::Template { number });
    write_keys(&machine.guestinfo, &keys.to_string())?;
    fs::write(&machine.console, "").with_context(|| format!("cannot write {}", machine.console.display()))?;
    let started = Files { memory: Some(memory.try_clone()?), state: None };
    let mut process = Process::start_with(program, machine, started)?;
    let saved = tokio::select! {
        saved = timeout(BOOT_TIME, save_running(machine, state.try_clone()?.into())) => match saved {
            Ok(saved) => saved,
            Err(_) => Err(anyhow::anyhow!("it was not ready within {} s", BOOT_TIME.as_secs())),
        },
        _ = process.wait() => Err(anyhow::anyhow!("it ended before it was ready")),
    };
    process.kill().await;
    match (saved, process.complaint().await) {
        (Ok(()), _) => Ok(()),
        (Err(error), said) => {
            let said = said.or_else(|| console::telling_line(&machine.console));
            Err(error
                .context(said.unwrap_or_else(|| "its guest said nothing".into()))
                .context("the template did not boot"))
        }
    }
}

async fn save_running(machine: &Machine, state: std::os::fd::OwnedFd) -> Result<()> {
    let Some(socket) = &machine.orders else { bail!("it takes no orders") };
    let orders = Orders::connect(socket).await?;
    // what is saved is a guest that does nothing but look whether it is a clone
    while !console::holds(&machine.console, READY) {
        sleep(LOOK).await;
    }
    leave_memory(&orders).await?;
    orders.execute_with("getfd", json!({ "fdname": "state" }), Some(state)).await?;
    orders.execute("migrate", json!({ "uri": "fd:state" })).await?;
    loop {
        let told = orders.execute("query-migrate", json!({})).await?;
        match told["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                bail!("QEMU cannot save it: {}", told["error-desc"].as_str().unwrap_or("it does not say why"))
            }
            _ => sleep(LOOK).await,
        }
    }
}

/// Memory is in a file of its own, and not a part of the state.
async fn leave_memory(orders: &Orders) -> Result<()> {
    let capabilities = json!([{ "capability": "x-ignore-shared", "state": true }]);
    orders.execute("migrate-set-capabilities", json!({ "capabilities": capabilities })).await.map(drop)
}

/// The file that tells a clone what it is: as secret as the spec, which is in it. QEMU reads it before it takes orders; it goes when this is dropped.
#[derive(Debug)]
pub struct Keys(PathBuf);

impl Keys {
    /// Those of the machine whose files are in `dir`.
    pub fn of(dir: &Path) -> Keys {
        Keys(dir.join(KEYS))
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // most often there are none; what stays is in the container's own directory, and is removed with it
        let _gone = fs::remove_file(&self.0);
    }
}

/// The machine as a clone, and the keys of its guest, beside those that it would boot with.
pub fn clone_of(machine: &Machine) -> Result<(Machine, Keys)> {
    let keys = Keys::of(machine.guestinfo.parent().unwrap_or(Path::new("")));
    let mut text = told(machine)?;
    text += &fs::read_to_string(&machine.guestinfo)
        .with_context(|| format!("cannot read {}", machine.guestinfo.display()))?;
    write_keys(&keys.0, &text)?;
    Ok((Machine { begins: Begins::Clone, guestinfo: keys.0.clone(), ..machine.clone() }, keys))
}

/// The keys that come first.
fn told(machine: &Machine) -> Result<String> {
    let (first, second) = (state::random()?, state::random()?);
    let mut entropy = Box::new([0; 64]);
    entropy[..32].copy_from_slice(&first);
    entropy[32..].copy_from_slice(&second);
    let then = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + START;
    let generation = Generation::Clone { number: number()?, entropy, unix_ns: i64::try_from(then.as_nanos()).ok() };
    let mut text = wire::guestinfo::write_generation(&generation).to_string();
    let cards: Vec<_> =
        machine.cards.iter().enumerate().map(|(number, card)| (template_mac(number), card.mac)).collect();
    let mut keys = wire::vmx::Dictionary::default();
    wire::guestinfo::write_cards(&cards, &mut keys);
    wire::guestinfo::write_more_disks(!machine.disks.is_empty(), &mut keys);
    text += &keys.to_string();
    Ok(text)
}

fn number() -> Result<[u8; 16]> {
    let mut number = [0; 16];
    number.copy_from_slice(&state::random()?[..16]);
    Ok(number)
}

/// Writes keys into a file of the one size that a guest's kernel has seen: what it does not hold is zeros.
fn write_keys(path: &Path, text: &str) -> Result<()> {
    let mut bytes = text.as_bytes().to_vec();
    if bytes.len() >= SPEC_SIZE {
        return Err(Unclonable::Spec.into());
    }
    bytes.resize(SPEC_SIZE, 0);
    state::write_private(path, &bytes)
}

/// Has a clone read the state on its standard input, and waits until it runs; an error says why it does not.
pub async fn resume(socket: &Path) -> Result<()> {
    resume_by(&Orders::connect(socket).await?).await
}

/// The same, for who gives it orders already.
pub async fn resume_by(orders: &Orders) -> Result<()> {
    leave_memory(orders).await?;
    orders.execute("migrate-incoming", json!({ "uri": "fd:0" })).await?;
    until_it_runs(orders).await
}

/// Has a machine go on whose host may have ended at any moment of that. One that has booted, or goes on already, is let be.
pub(crate) async fn finish_resume(orders: &Orders) -> Result<()> {
    if orders.execute("query-status", json!({})).await?["status"] != "inmigrate" {
        return Ok(());
    }
    match orders.execute("query-migrate", json!({})).await?["status"].as_str() {
        None | Some("none") => resume_by(orders).await,
        Some(_) => until_it_runs(orders).await,
    }
}

async fn until_it_runs(orders: &Orders) -> Result<()> {
    loop {
        let told = orders.execute("query-status", json!({})).await?;
        match told["status"].as_str() {
            Some("running") => return tell_size(orders).await,
            Some("inmigrate" | "prelaunch") => sleep(LOOK).await,
            other => bail!("QEMU does not go on with it: it is {}", other.unwrap_or("in no state")),
        }
    }
}

/// Has the guest of a clone look how large its root's disk is: the template's was another.
async fn tell_size(orders: &Orders) -> Result<()> {
    let told = orders.execute("query-block", json!({})).await?;
    let root = told.as_array().into_iter().flatten().find(|drive| drive["device"] == "root");
    let Some(size) = root.and_then(|root| root["inserted"]["image"]["virtual-size"].as_u64()) else { return Ok(()) };
    orders.execute("block_resize", json!({ "device": "root", "size": size })).await.map(drop)
}

/// From here to a clone's first instruction, as long as QEMU takes to start. On a busy host it is longer, and the clock is behind until the link tells the time.
const START: Duration = Duration::from_millis(60);
/// In the container's directory.
const KEYS: &str = "guestinfo.clone";
/// What a template says when it is ready.
const READY: &[u8] = b"Waiting for a spec";
/// Bytes of guestinfo that a template has.
pub const SPEC_SIZE: usize = 64 << 10;
/// A busy host takes long to boot a machine.
const BOOT_TIME: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::orders::tests::Double;
    use crate::vm::qemu::tests::machine;
    use crate::vm::{Disk, Format, Vsock};

    fn line(machine: &Machine) -> String {
        let words = super::super::qemu::arguments(machine);
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_template_has_nothing_of_its_clones() {
        let card = Card { mac: [0x52, 0x54, 0, 0, 0, 7], end: CardEnd::User(Vec::new()) };
        let disk = Disk {
            file: "/c/layer".into(),
            format: Format::Raw,
            serial: Some("layer".into()),
            read_only: true,
            transient: false,
        };
        let own = Machine { cards: vec![card], disks: vec![disk], log: Some("/c/output.log".into()), ..machine() };
        let template = line(&template_of(&own, Path::new("/t")).unwrap());
        for of_the_container in ["/c/", "/s/link", "52:54:00:00:00:07", "netdev user", "layer"] {
            assert!(!template.contains(of_the_container), "{of_the_container} is in {template}");
        }
        for part in [
            "share=on,size=512M,mem-path=/proc/self/fd/1 -machine memory-backend=mem",
            "-kernel /k -initrd /i",
            "-chardev file,id=link,path=/dev/null -device virtserialport,chardev=link",
            "driver=null-co,node-name=root",
            "-device virtio-scsi-pci,id=scsi",
            "-netdev hubport,",
            "mac=02:74:6d:70:6c:01",
            "-device virtio-balloon-pci -device vmgenid,guid=auto",
        ] {
            assert!(template.contains(part), "{part} is not in {template}");
        }
        let clone = line(&Machine { begins: Begins::Clone, ..own });
        for part in ["share=off,", "-incoming defer", "linuxboot_dma", "file=/c/disk.qcow2", "chardev socket,id=link"] {
            assert!(clone.contains(part), "{part} is not in {clone}");
        }
        for part in ["-kernel", "-initrd", "free-page-reporting", "/q.rom"] {
            assert!(!clone.contains(part), "{part} is in {clone}");
        }
        // what the guest knows of is there in both, in the same order
        let devices = |line: &str| -> Vec<String> {
            let words: Vec<&str> = line.split(' ').collect();
            let named = words.windows(2).filter(|pair| pair[0] == "-device").map(|pair| pair[1].split(',').next());
            named.flatten().filter(|name| *name != "scsi-hd").map(str::to_owned).collect()
        };
        assert_eq!(devices(&template), devices(&clone));
    }

    #[test]
    fn what_cannot_be_cloned_is_told() {
        let of = |machine: Machine| template_of(&machine, Path::new("")).map(drop);
        assert_eq!(of(machine()), Ok(()));
        assert_eq!(of(Machine { boot: Boot::Iso("/b.iso".into()), ..machine() }), Err(Unclonable::Iso));
        let vsock = Some(Vsock::Kernel { cid: 7 });
        assert_eq!(of(Machine { link: LinkDevice::Vsock, vsock, ..machine() }), Err(Unclonable::Vsock));
        let dir = tempfile::tempdir().unwrap();
        let guestinfo = dir.path().join("guestinfo");
        fs::write(&guestinfo, "x".repeat(SPEC_SIZE)).unwrap();
        let large = clone_of(&Machine { guestinfo, ..machine() }).unwrap_err();
        assert_eq!(large.to_string(), "its spec is larger than the 64 KiB that a template keeps free for one");
    }

    #[test]
    fn a_clone_is_told_first_what_makes_it_one() {
        let dir = tempfile::tempdir().unwrap();
        let guestinfo = dir.path().join("guestinfo");
        let key = "guestinfo.vice./common/id";
        fs::write(&guestinfo, wire::vmx::line(key, "3f0c") + "\n").unwrap();
        let card = Card { mac: [0x52, 0x54, 0, 0, 0, 7], end: CardEnd::User(Vec::new()) };
        let own = Machine { guestinfo, cards: vec![card; 8], ..machine() };
        let read = || {
            let (clone, _keys) = clone_of(&own).unwrap();
            assert_eq!(clone.begins, Begins::Clone);
            let bytes = fs::read(&clone.guestinfo).unwrap();
            assert_eq!(bytes.len(), SPEC_SIZE);
            String::from_utf8(bytes).unwrap()
        };
        let (first, second) = (read(), read());
        // the guest looks at so many bytes again and again, and at the whole lines in them
        let parse = |text: &str| wire::vmx::Dictionary::parse(text).unwrap();
        let head = parse(first[..512].rsplit_once('\n').unwrap().0);
        let generation = |keys| wire::guestinfo::generation(keys).unwrap().unwrap();
        assert!(matches!(generation(&head), Generation::Clone { unix_ns: Some(_), .. }));
        let whole = parse(first.trim_end_matches('\0'));
        assert_eq!(whole.get(key), Some("3f0c"));
        assert_eq!(wire::guestinfo::cards(&whole).unwrap().len(), 8);
        assert!(!wire::guestinfo::has_more_disks(&whole));
        let (Generation::Clone { entropy: one, .. }, Generation::Clone { entropy: other, .. }) =
            (generation(&head), generation(&parse(second.trim_end_matches('\0'))))
        else {
            panic!("both are clones");
        };
        assert!(one != other && one[..32] != one[32..]);
    }

    #[tokio::test]
    async fn a_clone_goes_on_from_wherever_its_host_has_left_it() {
        const WAITS: &str = r#"{"status": "inmigrate"}"#;
        let begin = [("query-migrate", "{}"), ("migrate-set-capabilities", "{}"), ("migrate-incoming", "{}")];
        let end = [("query-status", r#"{"status": "running"}"#), ("query-block", "[]")];
        let under_way = [("query-migrate", r#"{"status": "active"}"#), ("query-status", WAITS)];
        let failed = ("query-status", r#"{"status": "paused"}"#);
        for (told, error) in [
            (vec![("query-status", r#"{"status": "paused"}"#)], None),
            ([&[("query-status", WAITS)][..], &begin, &end].concat(), None),
            ([&[("query-status", WAITS)][..], &under_way, &end].concat(), None),
            (
                [&[("query-status", WAITS)][..], &begin, &[failed]].concat(),
                Some("QEMU does not go on with it: it is paused"),
            ),
        ] {
            let (mut double, orders) = Double::greeted().await;
            let (went_on, ()) = tokio::join!(finish_resume(&orders), async {
                for (command, answer) in &told {
                    double.obey(command, answer).await;
                }
            });
            let why = went_on.err().map(|error| error.to_string());
            assert_eq!(why.as_deref(), error, "{told:?}");
        }
    }

    #[test]
    fn keys_go_when_they_are_of_no_use() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::of(dir.path());
        fs::write(&keys.0, "secret").unwrap();
        drop(keys);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
