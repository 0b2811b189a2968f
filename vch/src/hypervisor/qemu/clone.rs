//! What a machine needs that is to begin as a clone, beside what every machine does.
//!
//! It decides that a template which cannot be had is not tried for again and again. Where templates come from: [`crate::template`].

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::time::Instant;

use crate::lock::locked;
use crate::template::{self, kept::Template};
use crate::vm::Machine;

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
        self.unless_failed(&kind, template::have(program, machine, &kind)).await
    }

    /// A template that does not boot may take a minute to say so: machines that want it next boot without waiting for that.
    async fn unless_failed<T>(&self, kind: &str, having: impl Future<Output = Result<T>>) -> Result<T> {
        let lately = |failed: &&Failed| failed.kind == kind && failed.when.elapsed() < AGAIN;
        if let Some(failed) = locked(&self.0).as_ref().filter(lately) {
            return Err(anyhow!("{}", failed.why));
        }
        let had = having.await;
        if let Err(error) = &had {
            *locked(&self.0) = Some(Failed { kind: kind.into(), when: Instant::now(), why: format!("{error:#}") });
        }
        had
    }
}

/// Until a template is tried for again: what it lacked may be there by then.
const AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_template_that_failed_is_not_tried_for_again_at_once() {
        let templates = Templates::default();
        let have = async |kind: &str, had: Result<u8>| {
            let had = templates.unless_failed(kind, async { had }).await;
            had.map_err(|error| error.to_string())
        };
        assert_eq!(have("a", Err(anyhow!("no room").context("it did not boot"))).await, Err("it did not boot".into()));
        assert_eq!(have("a", Ok(1)).await, Err("it did not boot: no room".into()));
        assert_eq!(have("b", Ok(2)).await, Ok(2));
        tokio::time::advance(AGAIN).await;
        assert_eq!(have("a", Ok(3)).await, Ok(3));
    }
}
