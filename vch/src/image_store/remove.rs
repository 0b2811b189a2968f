//! Images that go: a name after the other, and the image with its last, by docker's rules of what stands in the way.
//!
//! An image that containers need stays for them when it is removed by force, unseen. A child does not need its parent: each image has all of its layers.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard};

use anyhow::Result;
use iso_builder::content::Named;
use iso_builder::oci::Digest;

use super::names::{normal, repository};
use super::{ImageStore, REMOVED, StoredImage, UnknownImage, familiar};
use crate::containers::{Container, Containers};
use crate::ids::short;
use crate::lock::locked;

/// A container, as far as an image is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) container: String,
    /// Of the image.
    pub(crate) image: String,
    pub(crate) is_running: bool,
}

impl User {
    pub(crate) fn all(containers: &Containers) -> Vec<User> {
        containers.list().iter().filter_map(|container| User::of(container)).collect()
    }

    /// None where its machine is made elsewhere.
    pub(crate) fn of(container: &Container) -> Option<User> {
        let image = container.made()?.image_id.clone();
        Some(User { container: container.id.clone(), image, is_running: container.state().is_running() })
    }
}

/// What went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// A name, of the image of that id.
    Untagged { name: String, id: String },
    /// An image.
    Deleted(String),
    /// A layer that no other image has.
    Layer(String),
}

/// Why an image stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoveError {
    #[error(transparent)]
    Unknown(#[from] UnknownImage),
    #[error(
        "conflict: unable to remove repository reference {name:?} (must force) - container {container} is using its referenced image {image}"
    )]
    Named { name: String, container: String, image: String },
    #[error("conflict: unable to delete {image} ({force}) - {why}")]
    Used { image: String, force: &'static str, why: String },
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl ImageStore {
    /// `docker rmi`. It blocks. `users` are asked for while nothing else changes: see [`ImageStore::keep`].
    pub(crate) fn remove(
        &self,
        wanted: &str,
        force: bool,
        users: impl FnOnce() -> Vec<User>,
    ) -> Result<Vec<Removal>, RemoveError> {
        let _changes = locked(&self.changes);
        let users = users();
        let image = self.find(wanted)?;
        let references: Vec<&String> = image.names.iter().chain(&image.digests).collect();
        let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        let full = normal(wanted).filter(|full| references.contains(&&familiar(full)));
        let users: Vec<&User> = users.iter().filter(|user| user.image == image.id).collect();
        // one tag, or none, and all in one repository
        let repositories: BTreeSet<&str> = references.iter().map(|name| repository(name)).collect();
        let single = image.names.len() <= 1 && repositories.len() <= 1;
        let mut gone = match full {
            Some(full) => {
                if let Some(user) = users.first().filter(|_| !force && single) {
                    return Err(RemoveError::Named {
                        name: wanted.to_owned(),
                        container: short(&user.container).to_owned(),
                        image: short(image.digits()).to_owned(),
                    });
                }
                self.untag(&image, &familiar(&full))?
            }
            None => {
                debug_assert!(image.digits().starts_with(digits));
                if !single && !force {
                    return Err(used(&image, MUST, "image is referenced in multiple repositories".into()));
                }
                check(&image, &users, force)?;
                Vec::new()
            }
        };
        let image = self.of_container(&image.id)?;
        let left = image.names.len() + image.digests.len();
        if !gone.is_empty() && left > 0 {
            return Ok(gone);
        }
        // its last name went, as was asked; what runs goes on
        if let Err(error) = check(&image, &users, force) {
            return if gone.is_empty() { Err(error) } else { Ok(gone) };
        }
        gone.extend(self.delete(&image, !users.is_empty())?);
        Ok(gone)
    }

    /// Removes an image that nothing stands in the way of, with its names. It blocks.
    pub(crate) fn prune(
        &self,
        image: &StoredImage,
        users: impl FnOnce() -> Vec<User>,
    ) -> Result<Vec<Removal>, RemoveError> {
        let _changes = locked(&self.changes);
        let image = self.find(&image.id)?;
        if users().iter().any(|user| user.image == image.id) {
            return Ok(Vec::new());
        }
        Ok(self.delete(&image, false)?)
    }

    /// Nobody removes an image while a container of it is written down: it is there as long as this is held. It blocks.
    pub(crate) fn keep(&self, id: &str) -> Result<MutexGuard<'_, ()>, UnknownImage> {
        let changes = locked(&self.changes);
        self.find(id).map(|_| changes)
    }

    /// Something was removed by force that containers had.
    pub(crate) fn has_hidden(&self) -> bool {
        locked(&self.all).values().any(|image| image.removed)
    }

    /// Forgets what was removed by force, and what was for containers alone that are gone now. It blocks.
    pub(crate) fn forget_unused(&self, users: impl FnOnce() -> Vec<User>) -> Result<()> {
        let _changes = locked(&self.changes);
        let users = users();
        let all = locked(&self.all).clone();
        for image in all.values().filter(|image| image.removed) {
            if !users.iter().any(|user| user.image == image.id) {
                self.delete(image, false)?;
            }
        }
        self.collect()
    }

    /// Takes a name away; with the last tag in its repository go the digests of the same.
    fn untag(&self, image: &StoredImage, shown: &str) -> Result<Vec<Removal>> {
        let mut gone = vec![shown.to_owned()];
        let of = repository(shown);
        let others = image.names.iter().any(|name| name != shown && repository(name) == of);
        if !shown.contains('@') && !others {
            gone.extend(image.digests.iter().filter(|digest| repository(digest) == of).cloned());
        }
        self.edit(|index| index.retain(|named| !gone.contains(&familiar(&named.name))))?;
        Ok(gone.into_iter().map(|name| Removal::Untagged { name, id: image.id.clone() }).collect())
    }

    /// Takes an image away, or out of sight, and then the disks that nobody else has.
    fn delete(&self, image: &Arc<StoredImage>, is_needed: bool) -> Result<Vec<Removal>> {
        let names = image.names.iter().chain(&image.digests).cloned();
        let mut gone: Vec<Removal> = names.map(|name| Removal::Untagged { name, id: image.id.clone() }).collect();
        self.edit(|index| {
            let is_its_name = |named: &Named| {
                named.descriptor.digest == image.manifest.digest && Digest::parse(&named.name).is_none()
            };
            index.retain(|named| !is_its_name(named) && (is_needed || named.name != image.id));
            for named in index.iter_mut().filter(|named| named.name == image.id) {
                named.descriptor.annotations.insert(REMOVED.to_owned(), "by force".to_owned());
            }
        })?;
        gone.push(Removal::Deleted(image.id.clone()));
        let others = locked(&self.all).clone();
        let kept: BTreeSet<&Digest> = others.values().flat_map(|other| &other.chain).collect();
        let unused: Vec<&Digest> = image.chain.iter().filter(|layer| !kept.contains(layer)).collect();
        gone.extend(unused.iter().rev().map(|layer| Removal::Layer(layer.to_string())));
        self.drop_disks(image.disk_names());
        self.collect()?;
        Ok(gone)
    }
}

/// Docker's rules: what runs cannot be forced, what is stopped must be.
fn check(image: &StoredImage, users: &[&User], force: bool) -> Result<(), RemoveError> {
    if let Some(user) = users.iter().find(|user| user.is_running) {
        let why = format!("image is being used by running container {}", short(&user.container));
        return Err(used(image, CANNOT, why));
    }
    match users.first() {
        Some(user) if !force => {
            let why = format!("image is being used by stopped container {}", short(&user.container));
            Err(used(image, MUST, why))
        }
        _ => Ok(()),
    }
}

fn used(image: &StoredImage, force: &'static str, why: String) -> RemoveError {
    RemoveError::Used { image: short(image.digits()).to_owned(), force, why }
}

const MUST: &str = "must be forced";
const CANNOT: &str = "cannot be forced";
