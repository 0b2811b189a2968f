//! Orders to a machine that is on, and what it tells: QEMU's QMP. Which orders there are, and what they are for, is decided elsewhere.
//!
//! Every order has a number, by which its answer is found again: several may be under way, and events come in between. Who drops the last [`Orders`] hangs up.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;

/// Why a machine went off: `SHUTDOWN` in QEMU's QMP reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Off {
    /// Its guest powered it off.
    Guest,
    /// Something else, in a sentence; none when QEMU said nothing.
    Other(Option<String>),
}

/// A connection to a machine's orders.
#[derive(Clone, Debug)]
pub struct Orders {
    asked: mpsc::Sender<Asked>,
    events: broadcast::Sender<Event>,
    off: watch::Receiver<Told>,
}

/// What a machine tells unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

/// What was told of its end.
#[derive(Clone, Debug, Default)]
struct Told {
    why: Option<Off>,
    hung_up: bool,
}

#[derive(Debug)]
struct Asked {
    command: &'static str,
    arguments: Value,
    /// A file that goes with it.
    file: Option<OwnedFd>,
    answer: oneshot::Sender<Result<Value, String>>,
}

/// A line of QEMU's: a greeting, an answer or an event. Fields that are not named here are passed over.
#[derive(Debug, Deserialize)]
struct Said {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    id: Option<u64>,
    #[serde(rename = "return")]
    done: Option<Value>,
    error: Option<Refused>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
}

#[derive(Debug, Deserialize)]
struct Refused {
    desc: String,
}

impl Orders {
    /// Connects as soon as QEMU listens, which it does before its machine runs.
    pub async fn connect(socket: &Path) -> Result<Orders> {
        loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => return Orders::over(stream).await,
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Takes orders over a connection, as soon as QEMU greets: it does so when it has hung up on whoever was there before.
    pub async fn over(stream: UnixStream) -> Result<Orders> {
        let (from, to) = stream.into_split();
        let mut said = Reader { from: BufReader::new(from), line: Vec::new() };
        let greeting = said.next().await?.context("QEMU hung up before it greeted")?;
        if greeting.greeting.is_none() {
            bail!("what listens there is not QEMU");
        }
        let (asked, taken) = mpsc::channel(8);
        let (ended, off) = watch::channel(Told::default());
        let events = broadcast::Sender::new(EVENTS);
        tokio::spawn(speak(said, to, taken, events.clone(), ended));
        let orders = Orders { asked, events, off };
        orders.execute("qmp_capabilities", json!({})).await?;
        Ok(orders)
    }

    /// Has a command carried out. An error is in QEMU's own words.
    pub async fn execute(&self, command: &'static str, arguments: Value) -> Result<Value> {
        self.execute_with(command, arguments, None).await
    }

    /// The same; a file goes with it.
    pub async fn execute_with(&self, command: &'static str, arguments: Value, file: Option<OwnedFd>) -> Result<Value> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { command, arguments, file, answer };
        let carried_out = async {
            self.asked.send(asked).await.ok()?;
            answered.await.ok()
        };
        match timeout(ANSWER_TIME, carried_out).await {
            Ok(Some(Ok(value))) => Ok(value),
            Ok(Some(Err(reason))) => Err(anyhow!("QEMU refuses {command}: {reason}")),
            Ok(None) => Err(anyhow!("the machine is off")),
            Err(_) => Err(anyhow!("QEMU has not answered {command} for {} s", ANSWER_TIME.as_secs())),
        }
    }

    /// What it tells from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Presses the power button.
    pub async fn press_power_button(&self) -> Result<()> {
        self.execute("system_powerdown", json!({})).await.map(drop)
    }

    /// Listens until QEMU has hung up, and tells why it did.
    pub async fn off(&self) -> Off {
        let mut off = self.off.clone();
        // who dropped it has hung up, too
        let told = off.wait_for(|told| told.hung_up).await.map(|told| told.why.clone());
        told.ok().flatten().or_else(|| self.off.borrow().why.clone()).unwrap_or(Off::Other(None))
    }
}

/// Carries orders there and answers back, until one side hangs up.
async fn speak(
    mut said: Reader,
    mut to: OwnedWriteHalf,
    mut taken: mpsc::Receiver<Asked>,
    events: broadcast::Sender<Event>,
    ended: watch::Sender<Told>,
) {
    let mut waiting = BTreeMap::new();
    let mut number = 0;
    loop {
        tokio::select! {
            line = said.next() => match line {
                Ok(Some(line)) => hear(line, &mut waiting, &events, &ended),
                // what it says is nonsense: nothing can be had of it any more
                Ok(None) | Err(_) => break,
            },
            asked = taken.recv() => {
                let Some(Asked { command, arguments, file, answer }) = asked else { break };
                number += 1;
                let line = format!("{}\n", json!({ "execute": command, "arguments": arguments, "id": number }));
                if write(&mut to, line.as_bytes(), file).await.is_err() {
                    break;
                }
                waiting.insert(number, answer);
            }
        }
    }
    ended.send_modify(|told| told.hung_up = true);
}

/// Hands on what QEMU said to whom it concerns.
fn hear(
    said: Said,
    waiting: &mut BTreeMap<u64, oneshot::Sender<Result<Value, String>>>,
    events: &broadcast::Sender<Event>,
    ended: &watch::Sender<Told>,
) {
    if let Some(name) = said.event {
        if name == "SHUTDOWN" {
            let why = why_off(said.data.get("reason").and_then(Value::as_str).unwrap_or_default());
            ended.send_modify(|told| told.why = Some(why));
        }
        // nobody may listen
        let _heard = events.send(Event { name, data: said.data });
    } else if let Some(answer) = said.id.and_then(|id| waiting.remove(&id)) {
        let result = match said.error {
            Some(refused) => Err(refused.desc),
            None => Ok(said.done.unwrap_or_default()),
        };
        // who asked may have gone
        let _told = answer.send(result);
    }
}

/// A reason of QEMU's, as a user understands it.
fn why_off(reason: &str) -> Off {
    let words = match reason {
        "guest-shutdown" => return Off::Guest,
        "guest-panic" => "its guest's kernel panicked",
        // a machine of ours does not boot twice, and a kernel that panics asks for nothing else
        "guest-reset" => "its guest's kernel panicked, or wanted to boot again",
        "host-signal" => "a signal of the host's ended QEMU",
        "host-qmp-quit" => "its host switched it off",
        "host-qmp-system-reset" => "its host reset it",
        "host-error" => "QEMU could not go on",
        other => other,
    };
    Off::Other(Some(words.to_owned()).filter(|words| !words.is_empty()))
}

/// Writes a line, and passes a file with its first bytes.
async fn write(to: &mut OwnedWriteHalf, line: &[u8], file: Option<OwnedFd>) -> std::io::Result<()> {
    let Some(file) = file else { return to.write_all(line).await };
    let stream: &UnixStream = to.as_ref();
    let sent = stream.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut passed = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        passed.push(SendAncillaryMessage::ScmRights(&files));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(rustix::net::sendmsg(stream, &[std::io::IoSlice::new(line)], &mut passed, flags)?)
    });
    let sent = sent.await?;
    to.write_all(line.get(sent..).unwrap_or_default()).await
}

/// What QEMU says, line by line.
#[derive(Debug)]
struct Reader {
    from: BufReader<OwnedReadHalf>,
    /// So much of a line as has come. It is kept when [`Reader::next`] is given up.
    line: Vec<u8>,
}

impl Reader {
    /// The next one; none when QEMU has hung up.
    async fn next(&mut self) -> Result<Option<Said>> {
        let most = MOST.saturating_sub(self.line.len() as u64);
        (&mut self.from).take(most).read_until(b'\n', &mut self.line).await?;
        match self.line.last() {
            None => Ok(None),
            Some(b'\n') => {
                let line = std::mem::take(&mut self.line);
                let said = serde_json::from_slice(&line);
                said.with_context(|| format!("QEMU said {:?}", String::from_utf8_lossy(&line))).map(Some)
            }
            Some(_) => bail!("QEMU broke off in the middle of a line"),
        }
    }
}

/// Between two looks whether QEMU listens by now.
const RETRY: Duration = Duration::from_millis(20);
/// QEMU answers at once, or never. A busy host is slow.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Bytes of a line: an answer to what we ask takes some thousands. A guest may have taken over its QEMU.
const MOST: u64 = 1 << 20;
/// Events that one who listens slowly may be behind.
const EVENTS: usize = 32;

#[cfg(test)]
pub(crate) mod tests;
