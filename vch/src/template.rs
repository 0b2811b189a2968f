//! Templates: which one a machine needs, and where it comes from. A template is a machine that has booted to where all machines of its kind are alike, saved; a clone goes on there.
//!
//! How a template is saved, and a clone made: [`crate::vm::fork`]. What it is while it is kept, and what makes it unfit: [`kept`]. Who keeps it, and until when: [`keeper`], `pressure`.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use crate::state;
use crate::vm::fork::{self, Unclonable};
use crate::vm::qemu;
use crate::vm::{Boot, Machine};

pub mod keeper;
pub mod kept;
mod pressure;

use self::kept::Template;

/// A template that fits the machine, which is of this [`kind`]: the one that is kept, else a new one, which is kept from then on.
pub async fn have(program: &Path, machine: &Machine, kind: &str) -> Result<Template> {
    let dir = keeper::dir()?;
    if let Some(template) = keeper::take(&dir, kind).await? {
        return Ok(template);
    }
    // of several that want one, the first makes it, and the others have it as soon as it is kept
    let _lock = tokio::select! {
        kept = kept_by_another(&dir, kind) => return kept,
        lock = keeper::lock(&dir, kind) => lock?,
    };
    if let Some(template) = keeper::take(&dir, kind).await? {
        return Ok(template);
    }
    let template = make(program, machine, kind).await?;
    keeper::start(&template, &dir).await?;
    Ok(template)
}

/// Waits until somebody keeps one.
async fn kept_by_another(dir: &Path, kind: &str) -> Result<Template> {
    loop {
        if let Some(template) = keeper::take(dir, kind).await? {
            return Ok(template);
        }
        sleep(LOOK).await;
    }
}

async fn make(program: &Path, machine: &Machine, kind: &str) -> Result<Template> {
    let dir = state::socket_dir()?;
    let machine = fork::template_of(machine, dir.path())?;
    let memory = Template::new_memory(machine.memory_mib << 20)?;
    let state = Template::new_state()?;
    fork::save(program, &machine, &memory, &state).await?;
    Template::seal(memory, state, kind)
}

/// What has to be the same: QEMU, what it boots, and the machine. A name of 64 hexadecimal digits.
pub fn kind(program: &Path, machine: &Machine) -> Result<String> {
    let template = fork::template_of(machine, Path::new(""))?;
    let Boot::Kernel { kernel, initramfs } = &template.boot else { return Err(Unclonable::Iso.into()) };
    let mut digest = Sha256::new();
    for file in [program, kernel, initramfs] {
        let meta = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
        let what =
            (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        digest.update(format!("{what:?}\n"));
    }
    for word in qemu::arguments(&template) {
        digest.update(word.as_bytes());
        digest.update([0]);
    }
    Ok(state::hex(&digest.finalize()))
}

/// Between two looks for a template that another one makes.
const LOOK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::qemu::tests::machine;
    use crate::vm::{Card, CardEnd, LinkEnd};

    #[test]
    fn a_kind_is_what_clones_have_in_common() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            fs::write(&path, name).unwrap();
            path
        };
        let (qemu, kernel, initramfs) = (file("qemu"), file("kernel"), file("initramfs"));
        let boot = |kernel: &Path| Boot::Kernel { kernel: kernel.to_owned(), initramfs: initramfs.clone() };
        let first = Machine { boot: boot(&kernel), ..machine() };
        let of = |machine: &Machine| kind(&qemu, machine).unwrap();
        let same = Machine {
            link_end: LinkEnd::Own("/another/link".into()),
            console: "/another/console".into(),
            guestinfo: "/another/guestinfo".into(),
            root: None,
            ..first.clone()
        };
        let before = of(&first);
        assert_eq!(before, of(&same));
        assert_eq!(before.len(), 64);
        let card = Card { mac: [2, 0, 0, 0, 0, 1], end: CardEnd::Nowhere };
        for other in [
            Machine { memory_mib: 1024, ..first.clone() },
            Machine { cpus: 3, ..first.clone() },
            Machine { cards: vec![card], ..first.clone() },
            Machine { link_end: LinkEnd::Host("/l".into()), ..first.clone() },
            Machine { boot: boot(&file("another kernel")), ..first.clone() },
        ] {
            assert_ne!(of(&first), of(&other), "{other:?}");
        }
        assert_ne!(of(&first), kind(&file("another QEMU"), &first).unwrap());
        fs::write(&kernel, "a newer one").unwrap();
        assert_ne!(before, of(&first), "the file is another one");
    }
}
