//! A template, and the first steps of its clones.
//!
//! ```text
//!   boot -- the spec is: wait --> ready, nothing that differs -- waits --> saved by its host
//!                                                                 '--> clone: reseed, clock, the hypervisor's word --> the rest of the boot
//! ```
//!
//! A template runs no container, and there is no way back to it: a clone that is told to wait ends. What a clone must not have in common with others is made after
//! this point: boot id, link key, session keys, host name, addresses. How a machine is copied is decided by its host; the mechanism is [`guest::fork`].

use std::time::Duration;

use guest::clock;
use guest::fork::{Fork, ForkError};
use guest::guestinfo::{Store, StoreError};
use guest::{disks, journal, say};
use wire::guestinfo::{Generation, SpecError, cards, generation, has_more_disks};
use wire::spec::Level;
use wire::status::{Failure, FailureKind};
use wire::vmx::Dictionary;

use crate::boot::{failure, machine};
use crate::network;

/// Why a machine is no template, or a clone does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error(transparent)]
    Fork(#[from] ForkError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keys(#[from] SpecError),
    #[error("this is a clone, and its guestinfo has it wait for being cloned: a clone is no template")]
    Again,
    #[error(
        "this machine was a template, and its guestinfo does not say which clone of it this is: guestinfo.vice./clone/generation is missing, or the template's"
    )]
    NoGeneration,
}

/// A machine that went on as a clone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Woken {
    /// When it did: time since the template's boot, which did not pass while nobody ran.
    pub(crate) at: Duration,
}

/// Waits if this machine is a template, as its keys say: whoever comes back is one of its clones, with other keys. None for a machine that is not.
pub(crate) fn pass(store: &mut dyn Store, keys: &Dictionary) -> Result<Option<Woken>, TemplateError> {
    let Some(Generation::Template { number: ours }) = generation(keys)? else { return Ok(None) };
    let fork = Fork::open()?;
    journal::begin(Level::Info);
    say!(Info, "Waiting for a spec");
    journal::pause();
    let keys = store.freeze()?;
    let at = clock::now();
    let (number, entropy, unix_ns) = match generation(&keys)? {
        Some(Generation::Clone { number, entropy, unix_ns }) => (number, entropy, unix_ns),
        Some(Generation::Template { .. }) => return Err(TemplateError::Again),
        None => return Err(TemplateError::NoGeneration),
    };
    if number == ours {
        return Err(TemplateError::NoGeneration);
    }
    fork.reseed(&entropy)?;
    fork.set_clock(unix_ns)?;
    let done = clock::now();
    fork.confirm()?;
    say!(Info, "goes on as a clone"; seeded_us = (done - at).as_micros(), confirmed_us = (clock::now() - at).as_micros());
    Ok(Some(Woken { at }))
}

/// Gives a clone the devices that are its own, which its host has named.
pub(crate) fn adopt(keys: &Dictionary) -> Result<(), Failure> {
    let cards = cards(keys).map_err(|error| failure(FailureKind::Spec, &error))?;
    network::adopt(&cards).map_err(|error| machine("cannot give the network cards their addresses", &error))?;
    if has_more_disks(keys) {
        disks::rescan();
    }
    Ok(())
}
