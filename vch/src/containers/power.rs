//! What this host knows of a machine that it powers on and off itself: who changes its life just now, whether it is on, and how its process has ended before it
//! went off.
//!
//! It decides what is remembered and who waits for whom. When a machine is powered on or off is [`crate::maker`]'s.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};

use super::container::Container;
use super::record::Power;
use super::state::{Exited, State};
use crate::hypervisor::Powered;
use crate::maker::Made;

/// A container's machine, in this host's hands.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// One change of its life at a time.
    turn: Mutex<()>,
    now: watch::Sender<Now>,
}

/// How far it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Now {
    /// The machine, while it is on.
    pub(crate) powered: Option<Powered>,
    /// It is being powered on, or is on and its process has yet to run.
    pub(crate) starting: bool,
    /// Links that are listened to: each of them tells an end.
    keepers: usize,
    /// How its process has ended. Docker's users hear of it when the machine is off, and its disks are free.
    pub(crate) ending: Option<Exited>,
    /// This host has cut its power, because its user wanted it to end.
    pub(crate) cut: bool,
    /// Its user has it restarted: it is not removed, nor started by itself.
    pub(crate) held: bool,
    /// How long it rested before it was started again last.
    pub(crate) rest: Duration,
    /// It is being removed.
    pub(crate) removing: bool,
}

/// A link of a made container's machine is listened to.
pub(super) struct Listens<'a>(&'a Container);

impl Drop for Listens<'_> {
    fn drop(&mut self) {
        self.0.change_now(|now| now.keepers -= 1);
    }
}

impl Container {
    /// Waits for the turn to change its life.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.desk.turn.lock().await
    }

    /// How far its machine is.
    pub(crate) fn now(&self) -> Now {
        self.desk.now.borrow().clone()
    }

    /// How far its machine is, now and from now on.
    pub(crate) fn watch_now(&self) -> watch::Receiver<Now> {
        self.desk.now.subscribe()
    }

    pub(crate) fn change_now(&self, change: impl FnOnce(&mut Now)) {
        self.desk.now.send_modify(change);
    }

    /// Its machine, while it is on and this host has made it.
    pub(crate) fn powered(&self) -> Option<Powered> {
        self.desk.now.borrow().powered.clone()
    }

    /// It is removed by whoever hears true.
    pub(crate) fn begin_removal(&self) -> bool {
        self.desk.now.send_if_modified(|now| !std::mem::replace(&mut now.removing, true))
    }

    // -- its links

    pub(super) fn listens(&self) -> Listens<'_> {
        self.change_now(|now| now.keepers += 1);
        Listens(self)
    }

    /// Returns when its machine has been on, and is off.
    pub(super) async fn machine_gone(&self) {
        let mut now = self.watch_now();
        // who asks has the container, and it has the sender
        drop(now.wait_for(|now| now.powered.is_some()).await);
        drop(now.wait_for(|now| now.powered.is_none()).await);
    }

    /// How its process is, for what its guest tells next: one that ended in an earlier boot is as good as new.
    pub(super) fn state_of_boot(&self) -> State {
        let state = self.state();
        let is_new = self.made().is_some() && self.desk.now.borrow().ending.is_none();
        match state {
            State::Exited(_) | State::Restarting(_) if is_new => State::Created,
            state => state,
        }
    }

    /// Its process has been seen to run, or to have run.
    pub(super) fn runs(self: &Arc<Self>) {
        self.change_now(|now| now.starting = false);
        // written with the state that follows
        self.with_record(|record| (record.power.starting, record.power.has_run) = (false, true));
    }

    /// Its process has ended: that lasts from now on, and is told when the machine is off.
    pub(super) fn end_told(self: &Arc<Self>, exited: Exited) {
        let is_news = self.desk.now.send_if_modified(|now| {
            // a link that is heard after its machine has gone tells of nothing
            let is_news = now.powered.is_some() && now.ending.is_none();
            if is_news {
                now.ending = Some(exited.clone());
            }
            is_news
        });
        if is_news {
            self.remember(State::Exited(exited));
            self.save();
        }
    }

    /// How its process ended, once all of its links have told what they know; none of them may have known.
    pub(crate) async fn ending(&self) -> Option<Exited> {
        let mut now = self.watch_now();
        let told = now.wait_for(|now| now.ending.is_some() || now.keepers == 0).await;
        told.ok().and_then(|now| now.ending.clone())
    }

    // -- what is remembered

    /// Its machine is made of this from the next start on.
    pub(crate) fn set_made(&self, made: Arc<Made>) {
        self.with_record(|record| record.made = Some(made));
    }

    pub(crate) fn power(&self) -> Power {
        self.with_record(|record| record.power.clone())
    }

    /// What is remembered of its machine is another from now on.
    pub(crate) fn change_power(self: &Arc<Self>, change: impl FnOnce(&mut Power)) {
        let is_news = self.with_record(|record| {
            let before = record.power.clone();
            change(&mut record.power);
            record.power != before
        });
        if is_news {
            self.save();
        }
    }

    /// How often it was started again since its user started it.
    pub(crate) fn restarts(&self) -> u32 {
        self.power().restarts
    }
}
