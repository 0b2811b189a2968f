//! Files that vCenter transfers: the sessions of a host, and what they have open. How files are reached, and what is never touched: [`guest::transfer`].

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use guest::toolbox::hgfs::{Answer, Call, How, Packet, Status, Target};
use guest::toolbox::{Outcome, VixError, file};
use guest::transfer::{self, Spot, Upload};
use guest::{clock, say};
use nix::errno::Errno;

/// The most sessions: a transfer has one.
const MOST_SESSIONS: usize = 4;
/// The most files that they have open.
const MOST_OPEN: usize = 8;
/// A session that is silent for so long makes room for another.
const FORGOTTEN: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Files {
    /// And when each was used last.
    sessions: Vec<(u64, Duration)>,
    open: Vec<Open>,
    /// How many files have been opened.
    count: u32,
}

struct Open {
    session: u64,
    handle: u32,
    path: String,
    file: File,
    /// It is being written.
    upload: Option<Upload>,
}

/// Whether vCenter may read it, and what it is.
pub(crate) fn download(root: &Path, path: &str) -> Outcome {
    let attributes = transfer::open(root, path).and_then(|file| transfer::attributes(&file));
    attributes.map(|attributes| file(path, &attributes)).map_err(refused)
}

/// Whether it may write there.
pub(crate) fn upload(root: &Path, path: &str, overwrite: bool) -> Outcome {
    Spot::find(root, path, !overwrite).map(|_| Vec::new()).map_err(refused)
}

fn refused(errno: Errno) -> VixError {
    VixError::from(&std::io::Error::from(errno))
}

impl Files {
    /// The answer to a packet.
    #[inline(never)]
    pub(crate) fn answer(&mut self, root: &Path, packet: &Packet, now: Duration) -> Vec<u8> {
        let outcome = match &packet.call {
            Ok(call) => self.serve(root, packet.session, call, now).map_err(Status::from),
            Err(status) => Err(*status),
        };
        packet.answer(&outcome)
    }

    fn serve(&mut self, root: &Path, session: u64, call: &Call, now: Duration) -> nix::Result<Answer> {
        if *call == Call::CreateSession {
            return self.create(now);
        }
        self.sessions.iter_mut().find(|known| known.0 == session).ok_or(Errno::ESTALE)?.1 = now;
        match call {
            Call::CreateSession => {}
            Call::DestroySession => {
                self.sessions.retain(|known| known.0 != session);
                self.forget();
            }
            Call::Open { path, how } => return self.open(root, session, path, *how),
            Call::Attributes(target) => {
                let file = self.file(root, session, target)?;
                return Ok(Answer::Attributes(transfer::attributes(&file)?));
            }
            Call::SetAttributes(target, changes) => transfer::change(&self.file(root, session, target)?, changes)?,
            Call::Read { handle, offset, count } => {
                let (_, open) = self.find(session, *handle)?;
                return Ok(Answer::Read(transfer::read(&open.file, *offset, *count)?));
            }
            Call::Write { handle, offset, data } => {
                let (at, open) = self.find(session, *handle)?;
                if open.upload.is_none() {
                    return Err(Errno::EACCES);
                }
                if let Err(errno) = transfer::write(&open.file, *offset, data) {
                    // what lacks a part is never to be complete
                    self.open.remove(at);
                    return Err(errno);
                }
                return Ok(Answer::Written(data.len()));
            }
            Call::Close { handle } => {
                let (at, _) = self.find(session, *handle)?;
                let Open { path, upload, .. } = self.open.remove(at);
                if let Some(upload) = upload {
                    upload.finish()?;
                    say!(Info, "vCenter has brought a file"; path = path);
                }
            }
        }
        Ok(Answer::Done)
    }

    fn create(&mut self, now: Duration) -> nix::Result<Answer> {
        self.sessions.retain(|known| now.saturating_sub(known.1) < FORGOTTEN);
        self.forget();
        if self.sessions.len() >= MOST_SESSIONS {
            return Err(Errno::EUSERS);
        }
        // not one of before a restart, which the host may still go on with
        let newest = self.sessions.last().map_or(0, |known| known.0);
        let id = clock::wall_nanos().max(newest + 1);
        self.sessions.push((id, now));
        Ok(Answer::Session(id))
    }

    /// Closes what belongs to no session. What was to be closed by its host is not complete.
    fn forget(&mut self) {
        self.open.retain(|open| self.sessions.iter().any(|known| known.0 == open.session));
    }

    fn open(&mut self, root: &Path, session: u64, path: &str, how: How) -> nix::Result<Answer> {
        if self.open.len() >= MOST_OPEN {
            return Err(Errno::EMFILE);
        }
        self.count += 1;
        let handle = self.count;
        let (upload, file) = match how {
            How::Read => (None, transfer::open(root, path)?),
            How::Write { mode, fresh } => {
                let (upload, file) = Upload::begin(Spot::find(root, path, fresh)?, mode, handle)?;
                (Some(upload), file)
            }
        };
        self.open.push(Open { session, handle, path: path.to_owned(), file, upload });
        Ok(Answer::Opened(handle))
    }

    fn find(&self, session: u64, handle: u32) -> nix::Result<(usize, &Open)> {
        let is_it = |(_, open): &(usize, &Open)| open.handle == handle && open.session == session;
        self.open.iter().enumerate().find(is_it).ok_or(Errno::EBADF)
    }

    /// One that is open, or can be: by its path, the one that is being written to be there.
    fn file(&self, root: &Path, session: u64, target: &Target) -> nix::Result<File> {
        let open = match target {
            Target::Handle(handle) => self.find(session, *handle)?.1,
            Target::Path(path) => {
                let is_it = |open: &&Open| open.upload.is_some() && open.session == session && open.path == *path;
                match self.open.iter().find(is_it) {
                    Some(open) => open,
                    None => return transfer::open(root, path),
                }
            }
        };
        open.file.try_clone().map_err(|_| Errno::EMFILE)
    }
}

#[cfg(test)]
mod tests;
