//! What a machine needs that is to begin as a clone, beside what every machine does.
//!
//! It decides how long its keys lie on disk, and that a template which cannot be had is not tried for again and again. Where templates come from: [`crate::template`].

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::Instant;

use crate::lock::locked;
use crate::template::{self, kept::Template};
use crate::vm::Machine;

/// The file that tells a clone what it is: as secret as the spec, which is in it. QEMU reads it before it takes orders; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct Keys(PathBuf);

impl Keys {
    /// Those of the machine whose files are in `dir`.
    pub(super) fn of(dir: &Path) -> Keys {
        Keys(dir.join(KEYS))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // most often there are none; what stays is in the container's own directory, and is removed with it
        let _gone = fs::remove_file(&self.0);
    }
}

/// The templates of this host's machines.
#[derive(Debug, Default)]
pub(super) struct Templates(Mutex<Option<Failed>>);

/// One that could not be had.
#[derive(Debug)]
struct Failed {
    kind: String,
    when: Instant,
    why: String,
}

impl Templates {
    /// The one that fits the machine.
    pub(super) async fn have(&self, program: &Path, machine: &Machine) -> Result<Template> {
        let kind = template::kind(program, machine)?;
        self.unless_failed(kind, template::have(program, machine)).await
    }

    /// A template that does not boot may take a minute to say so: machines that want it next boot without waiting for that.
    async fn unless_failed<T>(&self, kind: String, having: impl Future<Output = Result<T>>) -> Result<T> {
        let lately = |failed: &&Failed| failed.kind == kind && failed.when.elapsed() < AGAIN;
        if let Some(failed) = locked(&self.0).as_ref().filter(lately) {
            return Err(anyhow!("{}", failed.why));
        }
        let had = having.await;
        if let Err(error) = &had {
            *locked(&self.0) = Some(Failed { kind, when: Instant::now(), why: format!("{error:#}") });
        }
        had
    }
}

/// In the container's directory.
const KEYS: &str = "guestinfo.clone";
/// Until a template is tried for again: what it lacked may be there by then.
const AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_template_that_failed_is_not_tried_for_again_at_once() {
        let templates = Templates::default();
        let have = async |kind: &str, had: Result<u8>| {
            let had = templates.unless_failed(kind.into(), async { had }).await;
            had.map_err(|error| error.to_string())
        };
        assert_eq!(have("a", Err(anyhow!("no room").context("it did not boot"))).await, Err("it did not boot".into()));
        assert_eq!(have("a", Ok(1)).await, Err("it did not boot: no room".into()));
        assert_eq!(have("b", Ok(2)).await, Ok(2));
        tokio::time::advance(AGAIN).await;
        assert_eq!(have("a", Ok(3)).await, Ok(3));
    }

    #[test]
    fn keys_go_when_they_are_of_no_use() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::of(dir.path());
        fs::write(keys.path(), "secret").unwrap();
        drop(keys);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
