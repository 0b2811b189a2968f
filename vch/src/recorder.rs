//! Keeps what a main process writes.

use tokio::time::{Duration, timeout};
use wire::message::MAIN;

use crate::hub::{AttachOptions, Hub, Offsets, Output, Stream};
use crate::journal::Journal;
use crate::serve::say;
use crate::timestamp::now_ns;

/// Records until the process has ended.
pub(crate) async fn record(hub: Hub, journal: Journal, name: String) {
    if let Err(error) = recorded(&hub, &journal).await {
        say(&format!("{name}: its output is not recorded: {error:#}"));
    }
    journal.finish();
}

async fn recorded(hub: &Hub, journal: &Journal) -> anyhow::Result<()> {
    let boot = hub.watch().borrow().boot.unwrap_or_default();
    let from = journal.offsets(boot);
    let options = AttachOptions { stdin: false, stdout: true, stderr: true, from };
    let mut attachment = hub.attach(MAIN, options).await?;
    if from.is_none() {
        journal.begin(boot, Offsets { stdin: 0, ..attachment.offsets }).await?;
    }
    loop {
        let output = match timeout(Duration::from_millis(50), attachment.next()).await {
            Ok(Some(output)) => output,
            Ok(None) => return Ok(()),
            Err(_) => {
                let at = journal.sync().await?;
                attachment.taken(Stream::Stdout, at.stdout);
                attachment.taken(Stream::Stderr, at.stderr);
                match attachment.next().await {
                    Some(output) => output,
                    None => return Ok(()),
                }
            }
        };
        match output {
            Output::Stdout { bytes, .. } => journal.append(Stream::Stdout, now_ns(), &bytes)?,
            Output::Stderr { bytes, .. } => journal.append(Stream::Stderr, now_ns(), &bytes)?,
            Output::StdinTaken(_) => {}
            Output::Ended(_) | Output::Detached(_) => {
                journal.sync().await?;
                return Ok(());
            }
        }
    }
}
