//! Documents and blobs of one image, from a registry into the store: whole, verified, and from where an earlier try broke off.

use std::io::{ErrorKind, Read as _};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{Failure, Reason};
use super::http::{Answer, Ask, broken};
use super::name::Version;
use super::retry::Retry;
use super::session::{GivenUp, Request, Session, Source};
use crate::content::document::{DOCUMENT_LIMIT, Descriptor};
use crate::content::{Claim, Finished, Partial, Store};
use crate::oci::Digest;

impl Session<'_> {
    /// The digest that a tag has now, if the registry says so without sending what it is of: such requests do not count against Docker Hub's limit.
    pub(super) fn peek(&self) -> Option<Digest> {
        let path = format!("manifests/{}", self.name.version());
        let request = Request { ask: Ask::Head, path: &path, headers: &[("accept", ACCEPT)], verified: false };
        let peek = &mut |source: &Source, _: &mut Retry| {
            let answer = self.request(source, request)?;
            Ok(answer.header("docker-content-digest").and_then(Digest::parse))
        };
        self.anywhere(peek).ok().flatten()
    }

    /// What the name leads to: an index or a manifest, put into the store.
    pub(super) fn top(&self, store: &Store) -> Result<Descriptor, GivenUp> {
        self.document(self.name.version(), store)
    }

    /// An index or a manifest, put into the store.
    pub(super) fn document(&self, version: &Version, store: &Store) -> Result<Descriptor, GivenUp> {
        let path = format!("manifests/{version}");
        let expected = match version {
            Version::Digest(digest) => Some(*digest),
            Version::Tag(_) => None,
        };
        let headers = [("accept", ACCEPT)];
        let request = Request { ask: Ask::Get, path: &path, headers: &headers, verified: expected.is_some() };
        self.anywhere(&mut |source, _| {
            let answer = self.request(source, request)?;
            let media_type = answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default();
            let media_type = media_type.trim().to_owned();
            let told = answer.header("docker-content-digest").and_then(Digest::parse);
            let bytes = answer.read_up_to(DOCUMENT_LIMIT)?;
            let bytes = bytes.ok_or_else(|| Failure::malformed("its manifest has no end: more than 4 MiB came"))?;
            let digest = Digest::of(&bytes);
            if let Some(expected) = expected.or(told).filter(|&expected| expected != digest) {
                return Err(Failure::Final(wrong("the manifest", &digest.to_string(), expected)));
            }
            store.put(&digest, &bytes)?;
            let size = bytes.len() as u64;
            Ok(Descriptor { media_type, digest, size, platform: None, annotations: Default::default() })
        })
    }

    /// Gets a blob into the store. `read` counts bytes that are there, of all blobs together.
    pub(super) fn blob(&self, wanted: &Descriptor, store: &Store, read: &AtomicU64) -> Result<(), GivenUp> {
        let claim = store.claim(&wanted.digest, wanted.size).map_err(|error| GivenUp::Because(error.into()))?;
        let mut partial = match claim {
            Claim::There => {
                read.fetch_add(wanted.size, Ordering::Relaxed);
                return Ok(());
            }
            Claim::Mine(partial) => partial,
        };
        read.fetch_add(partial.len(), Ordering::Relaxed);
        // what an earlier process left may be damaged; what comes now is not excused
        let mut left = !partial.is_empty();
        self.anywhere(&mut |source, retry| {
            if partial.len() < partial.size() {
                self.go_on(source, wanted.digest, &mut partial, retry, read)?;
            }
            let size = partial.size();
            match partial.finish()? {
                Finished::Kept => Ok(()),
                Finished::Wrong(found) => {
                    read.fetch_sub(size, Ordering::Relaxed);
                    let reason = wrong("a blob", &found, wanted.digest);
                    match std::mem::take(&mut left) {
                        true => Err(Failure::Temporary { reason, after: Some(std::time::Duration::ZERO) }),
                        false => Err(Failure::Final(reason)),
                    }
                }
            }
        })
    }

    /// Fetches what is missing of a blob.
    fn go_on(
        &self,
        source: &Source,
        digest: Digest,
        partial: &mut Partial,
        retry: &mut Retry,
        read: &AtomicU64,
    ) -> Result<(), Failure> {
        let path = format!("blobs/{digest}");
        let range = format!("bytes={}-", partial.len());
        let headers: &[(&str, &str)] = if partial.is_empty() { &[] } else { &[("range", &range)] };
        let answer = match self.request(source, Request { ask: Ask::Get, path: &path, headers, verified: true }) {
            Err(Failure::Final(Reason::Status { code: 416, .. })) => {
                forget(partial, read)?;
                let reason = Reason::Malformed("it does not have the range of a blob that it should have".to_owned());
                return Err(Failure::Temporary { reason, after: None });
            }
            answer => answer?,
        };
        if answer.status() == 206 {
            if first_byte(&answer) != Some(partial.len()) {
                return Err(Failure::malformed("it sends another part of a blob than it was asked for"));
            }
        } else if !partial.is_empty() {
            // it does not know ranges: all over again
            forget(partial, read)?;
        }
        let missing = partial.size() - partial.len();
        if let Some(length) = answer.length().filter(|&length| length != missing) {
            let what = format!("it has {} bytes of a blob that has {}", partial.len() + length, partial.size());
            return Err(Failure::malformed(what));
        }
        self.take(answer, partial, retry, read)
    }

    fn take(&self, answer: Answer, partial: &mut Partial, retry: &mut Retry, read: &AtomicU64) -> Result<(), Failure> {
        let mut reader = answer.into_reader();
        let mut chunk = vec![0; CHUNK];
        let mut came = 0;
        loop {
            if self.check().is_err() {
                return Err(Failure::Stopped);
            }
            let len = match reader.read(&mut chunk) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(error, self.settings.timeout)),
            };
            let missing = partial.size() - partial.len();
            if len == 0 && missing == 0 {
                return Ok(());
            }
            if len == 0 {
                let reason = Reason::Cut(format!("{missing} bytes of a blob are missing"));
                return Err(Failure::Temporary { reason, after: None });
            }
            if len as u64 > missing {
                return Err(Failure::malformed(format!("it sends more of a blob than its {} bytes", partial.size())));
            }
            partial.append(&chunk[..len])?;
            read.fetch_add(len as u64, Ordering::Relaxed);
            came += len;
            if came >= PROGRESS {
                retry.progressed();
            }
        }
    }
}

fn forget(partial: &mut Partial, read: &AtomicU64) -> Result<(), Failure> {
    read.fetch_sub(partial.len(), Ordering::Relaxed);
    Ok(partial.restart()?)
}

fn first_byte(answer: &Answer) -> Option<u64> {
    answer.header("content-range")?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

fn wrong(what: &'static str, found: &str, expected: Digest) -> Reason {
    Reason::Digest { what, found: found.to_owned(), expected: expected.to_string() }
}

/// Without them registries turn what they have into older forms, with other digests.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// Bytes of one try that count as progress: a connection that breaks after fewer is no better than none.
const PROGRESS: usize = 64 << 10;
