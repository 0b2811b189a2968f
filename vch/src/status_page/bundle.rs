//! The log bundle: a tar archive in gzip, made while it is sent. What is in memory of it at any time is one part of one log.
//!
//! ```text
//! vch-logs/status.json                  what the page shows
//! vch-logs/vch.log                      what serve has said lately
//! vch-logs/appliance/NAME.log           in the appliance: what its services have said
//! vch-logs/containers/NAME-ID/inspect.json
//! vch-logs/containers/NAME-ID/log.txt   each line with its time and stream; a long log goes on in log-2.txt and so on
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{Stream, stream};
use tar::{Builder, Header};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::details::shown_spec;
use super::html::file_name;
use super::lines::Text;
use super::own_log;
use crate::containers::Container;
use crate::timestamp::now_ns;

/// What goes into it.
pub(super) struct Contents {
    pub(super) containers: Vec<Arc<Container>>,
    /// `status.json`
    pub(super) status: Vec<u8>,
}

/// Makes it, on a thread of its own, as fast as it is taken. The place is taken until its end.
pub(super) fn stream(contents: Contents, place: OwnedSemaphorePermit) -> impl Stream<Item = Result<Bytes, io::Error>> {
    let (pieces, taken) = mpsc::channel(PIECES);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let sender = Sender { pieces: pieces.clone(), runtime: runtime.clone(), buffer: Vec::with_capacity(PIECE) };
        if let Err(error) = write(&contents, Path::new(APPLIANCE_LOGS), sender, &runtime) {
            // the archive is not whole, and the client sees that its transfer was broken off
            let _gone = runtime.block_on(timeout(STALL, pieces.send(Err(error))));
        }
        drop(place);
    });
    stream::unfold(taken, async |mut taken| taken.recv().await.map(|piece| (piece, taken)))
}

fn write(contents: &Contents, appliance: &Path, out: impl Write, runtime: &Handle) -> io::Result<()> {
    let mut archive = Builder::new(GzEncoder::new(out, Compression::fast()));
    add(&mut archive, "status.json", &contents.status)?;
    add(&mut archive, "vch.log", own_log::text().as_bytes())?;
    // elsewhere there are none
    for entry in fs::read_dir(appliance).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_log =
            path.extension().is_some_and(|end| end == "log") && entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_log && let Ok(bytes) = end_of(&path) {
            add(&mut archive, &format!("appliance/{}", file_name(&name)), &bytes)?;
        }
    }
    for container in &contents.containers {
        // two may have had one name
        let dir = format!("containers/{}-{}", file_name(&container.name()), container.id.get(..12).unwrap_or_default());
        let spec = serde_json::to_vec_pretty(&shown_spec(container)).unwrap_or_default();
        add(&mut archive, &format!("{dir}/inspect.json"), &spec)?;
        add_log(&mut archive, &dir, container, runtime)?;
    }
    archive.into_inner()?.finish()?.flush()
}

/// A log in parts, since a part's length stands before it.
fn add_log<W: Write>(archive: &mut Builder<W>, dir: &str, container: &Container, runtime: &Handle) -> io::Result<()> {
    let mut text = Text::of(&container.journal);
    let (mut part, mut number) = (Vec::new(), 1);
    loop {
        let more = runtime.block_on(text.next());
        let is_end = more.is_none();
        part.extend(more.unwrap_or_default());
        if part.len() >= PART || (is_end && (number == 1 || !part.is_empty())) {
            let name = if number == 1 { "log.txt".into() } else { format!("log-{number}.txt") };
            add(archive, &format!("{dir}/{name}"), &part)?;
            part.clear();
            number += 1;
        }
        if is_end {
            return Ok(());
        }
    }
}

fn add<W: Write>(archive: &mut Builder<W>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(now_ns() / 1_000_000_000);
    archive.append_data(&mut header, format!("vch-logs/{path}"), bytes)
}

/// A file's last bytes.
fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    use io::Seek as _;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(length.saturating_sub(PART as u64)))?;
    let mut bytes = Vec::new();
    file.take(PART as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is written goes to the client in pieces.
struct Sender {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
    buffer: Vec<u8>,
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        match self.runtime.block_on(timeout(STALL, self.pieces.send(Ok(piece.into())))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Where the appliance's first process writes down what its services say.
const APPLIANCE_LOGS: &str = "/run/log";
/// A part of a log, in bytes.
const PART: usize = 4 << 20;
/// What is sent at once, and how much of it waits to be sent.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 4;
/// A client that takes nothing for so long gets no more.
const STALL: Duration = Duration::from_secs(60);
