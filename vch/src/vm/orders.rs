//! Orders to a machine that is on, and why it went off: QEMU's QMP, of which this speaks three words. What they are for is decided elsewhere.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Why a machine went off: `SHUTDOWN` in QEMU's QMP reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Off {
    /// Its guest powered it off.
    Guest,
    /// Something else, in QEMU's word; none when QEMU was killed.
    Other(Option<String>),
}

/// A connection to a machine's orders.
#[derive(Debug)]
pub struct Orders {
    said: Lines<BufReader<OwnedReadHalf>>,
    out: OwnedWriteHalf,
    off: Off,
}

/// A line of QEMU's: a greeting, an answer or an event. Fields that are not named here are passed over.
#[derive(Debug, Deserialize)]
struct Said {
    event: Option<String>,
    data: Option<Reason>,
    error: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Reason {
    reason: Option<String>,
}

impl Orders {
    /// Connects as soon as QEMU listens, which it does before its machine runs.
    pub async fn connect(socket: &Path) -> Result<Orders> {
        let stream = loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        };
        let (said, out) = stream.into_split();
        let mut orders = Orders { said: BufReader::new(said).lines(), out, off: Off::Other(None) };
        orders.order("qmp_capabilities").await?;
        Ok(orders)
    }

    /// Presses the power button.
    pub async fn press_power_button(&mut self) -> Result<()> {
        self.order("system_powerdown").await
    }

    /// Ends QEMU now, and the machine with it.
    pub async fn quit(&mut self) -> Result<()> {
        self.order("quit").await
    }

    async fn order(&mut self, command: &str) -> Result<()> {
        let line = format!("{{\"execute\": \"{command}\"}}\n");
        self.out.write_all(line.as_bytes()).await.with_context(|| format!("QEMU does not take the order {command}"))
    }

    /// Listens until QEMU has ended. When it is dropped before that, nothing is lost that was said meanwhile.
    pub async fn off(&mut self) -> Result<Off> {
        while let Ok(Some(line)) = self.said.next_line().await {
            if let Some(off) = read(&line)? {
                self.off = off;
            }
        }
        Ok(self.off.clone())
    }
}

/// Whether a line tells that the machine goes off.
fn read(line: &str) -> Result<Option<Off>> {
    let said: Said = serde_json::from_str(line).with_context(|| format!("QEMU said {line:?}"))?;
    if let Some(error) = said.error {
        bail!("QEMU refuses an order: {error}");
    }
    if said.event.as_deref() != Some("SHUTDOWN") {
        return Ok(None);
    }
    let reason = said.data.and_then(|data| data.reason);
    Ok(Some(if reason.as_deref() == Some("guest-shutdown") { Off::Guest } else { Off::Other(reason) }))
}

/// Between two looks whether QEMU listens by now.
const RETRY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_says() {
        let shutdown = |reason: &str| {
            format!(
                r#"{{"timestamp": {{"seconds": 1}}, "event": "SHUTDOWN", "data": {{"guest": true, "reason": "{reason}"}}}}"#
            )
        };
        assert_eq!(read(&shutdown("guest-shutdown")).unwrap(), Some(Off::Guest));
        assert_eq!(read(&shutdown("host-signal")).unwrap(), Some(Off::Other(Some("host-signal".into()))));
        for line in [r#"{"QMP": {"capabilities": ["oob"]}}"#, r#"{"return": {}}"#, r#"{"event": "POWERDOWN"}"#] {
            assert_eq!(read(line).unwrap(), None, "{line}");
        }
        let error = read(r#"{"error": {"class": "CommandNotFound", "desc": "x"}}"#).unwrap_err().to_string();
        assert!(error.contains("CommandNotFound"), "{error}");
        assert!(read("nonsense").is_err());
    }
}
