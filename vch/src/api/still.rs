//! The files of a container whose machine is off: this host reads them from its disks, and writes them there.
//!
//! It decides when that may be, and how bytes go between disks and clients. Which files those are: [`crate::root_disk`]. What reads and writes disks runs on
//! threads of its own, as fast as the client reads.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use wire::message::PathInfo;

use super::Api;
use super::aside::{aside, spool};
use super::error::ApiError;
use crate::containers::Container;
use crate::maker::Maker;
use crate::root_disk::{DiskError, Names, PathError, RootDisk, Unpack, pack, path};

/// Its files, read once.
#[derive(Debug)]
pub(super) struct Still {
    maker: Arc<Maker>,
    container: Arc<Container>,
    disk: Arc<RootDisk>,
}

/// Whether its machine is made here, and off; one that is about to be off is waited for.
pub(super) async fn is_still(api: &Api, container: &Container) -> Option<Arc<Maker>> {
    let maker = api.maker.as_ref().filter(|_| container.made().is_some())?;
    if !container.watch().borrow().is_over() && container.powered().is_some() {
        return None;
    }
    if let Some(powered) = container.powered() {
        powered.off().await;
    }
    Some(maker.clone())
}

impl Still {
    /// Reads what it has, with what is mounted over it or without.
    pub(super) async fn open(
        maker: Arc<Maker>,
        container: Arc<Container>,
        with_mounts: bool,
    ) -> Result<Still, ApiError> {
        let (of, by) = (container.clone(), maker.clone());
        let disk = aside(move || {
            let place = by.place(&of)?;
            Ok::<_, ApiError>(if with_mounts { RootDisk::open_with_mounts(place) } else { RootDisk::open(place) }?)
        });
        Ok(Still { maker, container, disk: Arc::new(disk.await??) })
    }

    pub(super) fn disk(&self) -> &RootDisk {
        &self.disk
    }

    /// None where there is nothing.
    pub(super) fn look(&self, path: &str) -> Result<Option<PathInfo>, ApiError> {
        let found = path::find(&self.disk.tree, path).map_err(DiskError::from)?;
        Ok(found.map(|(_, _, id)| path::info(&self.disk.tree, id, path)))
    }

    /// Where a path leads in the end.
    pub(super) fn follow(&self, path: &str) -> Result<String, ApiError> {
        Ok(path::follow(&self.disk.tree, path).map_err(DiskError::from)?)
    }

    /// An archive of what lies at a path. A `/.` at its end means what is in it.
    pub(super) fn pack(&self, path: &str) -> Result<Body, ApiError> {
        let found = path::find(&self.disk.tree, path).map_err(DiskError::from)?;
        let Some((_, _, id)) = found else { return Err(DiskError::from(PathError::Missing(path.into())).into()) };
        let last = path.trim_end_matches('/').rsplit('/').next().filter(|name| !name.is_empty());
        let names = Names::Under(last.unwrap_or(".").into());
        self.send(id, names, path)
    }

    /// An archive of all files.
    pub(super) fn pack_all(&self) -> Result<Body, ApiError> {
        self.send(iso_builder::tree::ROOT, Names::Within, "/")
    }

    fn send(&self, id: iso_builder::tree::NodeId, names: Names, path: &str) -> Result<Body, ApiError> {
        crate::root_disk::is_packable(&self.disk.tree, id, path)?;
        let (pieces, taken) = mpsc::channel(PIECES);
        let (disk, container) = (self.disk.clone(), self.container.clone());
        spawn_blocking(move || {
            let mut out = io::BufWriter::with_capacity(PIECE, Pieces(pieces));
            let packed = pack(&disk.tree, id, &names, &mut out).and_then(|()| out.flush());
            let packed = match container.powered() {
                // its guest may have written over what was read
                Some(_) => Err(io::Error::other("the container was started while its files were read: copy again")),
                None => packed,
            };
            if let Err(error) = packed {
                // nobody is there any more, or the archive breaks off
                drop(out.get_ref().0.blocking_send(Err(error)));
            }
        });
        let stream = stream::unfold(taken, async |mut taken| taken.recv().await.map(|piece| (piece, taken)));
        Ok(Body::from_stream(stream))
    }

    /// Takes an archive, and puts what is in it in a directory: all of it, or nothing.
    pub(super) async fn unpack(self, dir: String, how: Unpack, body: &mut BodyDataStream) -> Result<(), ApiError> {
        let Still { maker, container, disk } = self;
        drop(disk);
        let dir_of = container.dir().to_owned();
        let archive = Arc::new(spool(move || tempfile::tempfile_in(dir_of), body).await?);
        // nobody starts it meanwhile, nor removes it
        let _turn = container.turn().await;
        if container.powered().is_some() || container.watch().borrow().removed {
            let name = container.name();
            return Err(ApiError::conflict(format!("container {name} was started or removed meanwhile: copy again")));
        }
        let _held = maker.hold_below(&container, &dir).await?;
        let of = container.clone();
        aside(move || {
            let mut place = maker.place(&of)?;
            for mount in &mut place.mounts {
                mount.held = Path::new(&dir).starts_with(&mount.destination);
            }
            Ok(RootDisk::open_with_mounts(place)?.unpack(&dir, &archive, how)?)
        })
        .await?
    }
}

/// What is written, a piece at a time to whoever takes it.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<DiskError> for ApiError {
    fn from(error: DiskError) -> ApiError {
        let message = error.to_string();
        match error {
            DiskError::Path(PathError::Missing(_)) => ApiError::not_found(message),
            DiskError::Path(_)
            | DiskError::Archive(_)
            | DiskError::Refused { .. }
            | DiskError::ReadOnlyRoot
            | DiskError::ReadOnlyVolume
            | DiskError::Unheld(_)
            | DiskError::Memory(_) => ApiError::bad_parameter(message),
            _ => ApiError::internal(message),
        }
    }
}

/// Bytes that are sent at once, and how many of those wait for a slow client.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 4;
