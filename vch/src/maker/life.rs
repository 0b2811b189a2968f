//! Create and start, and what follows when a machine goes off.
//!
//! ```text
//! docker start ──> boot ──> machine on ──(its link tells: runs)──> machine off ──> settle ── removed, started again, or just over
//! ```
//!
//! It decides when a machine is powered on, and when its end is told: not before its disks are free. Who asks for an end: [`super::endings`].

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use bollard_stubs::models::ContainerCreateBody;
use tokio::time::sleep;

use super::machine::CONSOLE;
use super::mounts::Settled;
use super::restarts::Policy;
use super::{Made, MakeError, Maker, console};
use crate::console::telling_line;
use crate::containers::{Container, Exited, Life, State};
use crate::hypervisor::{Off, Order, Powered};
use crate::ids;
use crate::networks::Turn;
use crate::serve::say;
use crate::state;
use crate::timestamp::now_ns;
use crate::volumes::Held;

/// What a start has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    Now,
    /// It ran before.
    Before,
}

impl Maker {
    /// Writes a container down. Its machine is made when it is started.
    pub(crate) async fn create(
        self: &Arc<Self>,
        name: Option<&str>,
        asked: ContainerCreateBody,
    ) -> Result<Arc<Container>, MakeError> {
        let image = self.images.find(asked.image.as_deref().unwrap_or_default())?;
        let joined = self.networks.joins(&asked, &image.config.exposed_ports)?;
        let (id, created_ns) = (state::new_id()?, now_ns());
        let name = name.map_or_else(|| ids::short(&id).to_owned(), |name| name.trim_start_matches('/').to_owned());
        self.containers.check_name(&name)?;
        let maker = self.clone();
        // a client that goes away leaves all of it, or nothing
        let created = tokio::task::spawn_blocking(move || {
            let Settled { mounts, new } = maker.settle_mounts(&asked, &image.config)?;
            let made = Made { asked, image_id: image.id.clone(), mounts };
            let written = || {
                let keys = maker.plan(&id, &name, &made, &joined, created_ns)?.keys();
                let told = wire::guestinfo::without_key(&keys, &maker.key.link_key(&id));
                // whoever would remove it now finds this container of it
                let _kept = maker.images.keep(&image.id)?;
                maker.containers.create(&id, &name, made, &told.map_err(anyhow::Error::from)?.0)
            };
            let container = written().inspect_err(|_| maker.unmake(&new))?;
            container.set_joined(joined);
            for volume in &new {
                maker.containers.events.volume(volume, "create", &[]);
            }
            maker.containers.events.container(&container, "create", &[]);
            Ok(container)
        });
        created.await.map_err(anyhow::Error::from)?
    }

    /// Powers its machine on, and waits until its process runs or cannot. Who comes second waits for the first.
    pub(crate) async fn start(self: &Arc<Self>, container: &Arc<Container>) -> Result<Started, MakeError> {
        let (maker, container) = (self.clone(), container.clone());
        // a client that goes away does not take the start with it
        let started = tokio::spawn(async move {
            let _turn = container.turn().await;
            maker.start_in_turn(&container).await
        });
        started.await.map_err(anyhow::Error::from)?
    }

    /// The same, for who has the turn.
    pub(super) async fn start_in_turn(self: &Arc<Self>, container: &Arc<Container>) -> Result<Started, MakeError> {
        if container.now().removing || container.watch().borrow().removed {
            let id = &container.id;
            return Err(MakeError::Conflict(format!("container {id} is marked for removal and cannot be started")));
        }
        if container.state().is_paused() {
            return Err(MakeError::Conflict("cannot start a paused container, try unpause instead".into()));
        }
        if container.state().is_active() {
            return Ok(Started::Before);
        }
        if container.powered().is_some() && self.joins(container).await {
            return Ok(Started::Before);
        }
        container.change_now(|now| now.rest = Duration::ZERO);
        container.change_power(|power| (power.stopped, power.restarts) = (false, 0));
        let result = self.boot(container).await;
        if result.is_err() {
            // who waits for its removal hears of it
            self.remove_if_asked(container).await;
        }
        result.map(|()| Started::Now)
    }

    /// Waits for a machine that an earlier serve has left: true, if that comes to run; or else it is off.
    async fn joins(&self, container: &Arc<Container>) -> bool {
        let mut life = container.watch();
        let exits = life.borrow_and_update().exits;
        let is_starting = container.now().starting;
        let over = |life: &Life| life.removed || life.exits > exits || is_starting && life.state.is_running();
        drop(life.wait_for(over).await);
        let life = life.borrow();
        let has_ended = life.exits > exits && life.last.as_ref().is_some_and(|last| last.started_ns != 0);
        is_starting && (life.state.is_running() || has_ended)
    }

    /// Powers a machine on that is off, and waits until its process runs, or has run, or cannot.
    pub(super) async fn boot(self: &Arc<Self>, container: &Arc<Container>) -> Result<(), MakeError> {
        let Some(made) = container.made() else { return Err(anyhow!("its machine is not made here").into()) };
        let place = self.boots.place().await;
        let mut life = container.watch();
        let exits = life.borrow_and_update().exits;
        container.change_now(|now| (now.ending, now.cut, now.starting) = (None, false, true));
        container.change_power(|power| power.starting = true);
        container.journal.resume();
        let (powered, held, turn) = match self.power_on(container, made).await {
            Ok(powered) => powered,
            Err(error) => {
                container.change_now(|now| now.starting = false);
                container.change_power(|power| power.starting = false);
                // whoever listens hears that nothing comes
                container.journal.finish();
                match error {
                    MakeError::Network(_) => unconnected(container, &error),
                    _ => self.failed(container, &error),
                }
                return Err(error);
            }
        };
        self.attend(container, powered, Some(held), turn);
        let over = |life: &Life| life.state.is_running() || life.exits > exits || life.removed;
        let seen = async { life.wait_for(over).await.map(|life| life.state.clone()) };
        match place.keep_during(seen).await {
            Ok(State::Exited(exited)) if exited.started_ns == 0 => Err(match exited.error.is_empty() {
                true => MakeError::Conflict(format!("container {} was ended before it ran", container.id)),
                false => MakeError::Unstartable(exited.error),
            }),
            _ => Ok(()),
        }
    }

    /// Its disks and networks first: they are given back where the machine does not come on.
    async fn power_on(
        self: &Arc<Self>,
        container: &Arc<Container>,
        made: Arc<Made>,
    ) -> Result<(Powered, Held, Turn), MakeError> {
        let exposed = self.images.of_container(&made.image_id)?.config.exposed_ports.clone();
        let held = self.hold(container, &made.mounts).await?;
        let (cards, turn) = self.networks.join(container, &exposed).await?;
        let (maker, of) = (self.clone(), container.clone());
        let machine = tokio::task::spawn_blocking(move || maker.assemble(&of, &made, cards));
        let powered = async {
            let machine = machine.await.map_err(anyhow::Error::from)??;
            Ok::<_, MakeError>(self.begin(container, machine).await?)
        };
        let powered = powered.await.inspect_err(|_| self.networks.leave(container, turn))?;
        Ok((powered, held, turn))
    }

    /// No machine was powered on: docker shows why at the container.
    fn failed(&self, container: &Arc<Container>, error: &MakeError) {
        let (finished_ns, error) = (now_ns(), error.to_string());
        let exited = Exited { started_ns: 0, finished_ns, code: NOT_STARTED, oom: false, error };
        self.containers.pass(container, State::Exited(exited));
    }

    /// Sees a machine through until it is off.
    pub(super) fn attend(
        self: &Arc<Self>,
        container: &Arc<Container>,
        powered: Powered,
        held: Option<Held>,
        turn: Turn,
    ) {
        container.change_now(|now| now.powered = Some(powered.clone()));
        let (maker, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            let off = tokio::select! {
                off = off_with_trouble(&container, &powered) => off,
                () = over_and_on(&container) => {
                    // an error says that it is off by now
                    drop(powered.order(Order::PowerOff).await);
                    powered.off().await
                }
                never = console::keep_short(container.dir()) => match never {},
            };
            // whoever hears of its end finds its disks, addresses and ports free
            drop(held);
            maker.networks.leave(&container, turn);
            if let Err(error) = maker.hypervisor.forget(container.dir()) {
                say(&format!("{}: {error:#}", container.name()));
            }
            // its link hears that nothing more comes, and tells what it knows
            container.change_now(|now| now.powered = None);
            let exited = how_it_ended(&container, &off).await;
            // what it has said since the last look, before the next machine says more
            let dir = container.dir().to_owned();
            let _kept = tokio::task::spawn_blocking(move || console::shorten(&dir)).await;
            maker.settle(&container, exited).await;
        });
    }

    /// A machine is off, and how its process ended is known: tells, and sees to what follows.
    pub(super) async fn settle(self: &Arc<Self>, container: &Arc<Container>, exited: Exited) {
        let power = container.power();
        container.change_now(|now| now.starting = false);
        container.change_power(|power| power.starting = false);
        let ran = Duration::from_nanos(exited.finished_ns.saturating_sub(exited.started_ns));
        let policy = Policy::of(container);
        let held = container.now().held;
        if exited.started_ns != 0 && !held && !power.stopped && policy.again(exited.code, power.restarts, false) {
            self.containers.pass(container, State::Restarting(exited));
            self.start_again(container, ran);
            return;
        }
        let has_started = exited.started_ns != 0;
        self.containers.pass(container, State::Exited(exited));
        // of a start that fails, who asked for it sees to that
        if has_started && !held {
            self.remove_if_asked(container).await;
        }
    }

    /// `docker run --rm`
    pub(super) async fn remove_if_asked(self: &Arc<Self>, container: &Arc<Container>) {
        if container.made().is_some_and(|made| made.removes_itself())
            && container.begin_removal()
            && let Err(error) = self.forget(container, true).await
        {
            say(&format!("{}: {error:#}", container.name()));
        }
    }
}

/// A container gets no network: as with docker, it is as it was before, shows why, and nothing of it has died.
fn unconnected(container: &Arc<Container>, error: &MakeError) {
    let (started_ns, finished_ns, code) = match container.state() {
        State::Exited(before) | State::Restarting(before) => (before.started_ns, before.finished_ns, before.code),
        State::Created | State::Running(_) => (0, 0, 0),
    };
    let code = if code == 0 { NOT_STARTED } else { code };
    container.set_state(State::Exited(Exited { started_ns, finished_ns, code, oom: false, error: error.to_string() }));
    container.save();
}

/// Waits until a machine is off; tells what this host could not do for it, once.
async fn off_with_trouble(container: &Container, powered: &Powered) -> Off {
    if let Some(trouble) = powered.troubled().await {
        say(&format!("{}: {trouble}", container.name()));
    }
    powered.off().await
}

/// Returns when a process has ended, and its machine stays on for longer than it should.
async fn over_and_on(container: &Container) {
    let mut now = container.watch_now();
    let ended = now.wait_for(|now| now.ending.is_some()).await.is_ok_and(|now| {
        // nothing has run: there is nothing that had to be written, or heard
        now.ending.as_ref().is_some_and(|ending| ending.started_ns != 0)
    });
    if ended {
        sleep(POWER_OFF_TIME).await;
    }
}

/// What is known of how the process of a machine ended that is off.
async fn how_it_ended(container: &Container, off: &Off) -> Exited {
    let told = container.ending().await;
    // that it was lost is what a link tells when it knows nothing
    if let Some(exited) = told.filter(|exited| exited.code != LOST || exited.error.is_empty()) {
        return exited;
    }
    let started_ns = match container.state() {
        State::Running(running) => running.started_ns,
        _ => 0,
    };
    let dir = container.dir().to_owned();
    let read = move || (console::ending(&dir), telling_line(&dir.join(CONSOLE)));
    let (said, line) = tokio::task::spawn_blocking(read).await.unwrap_or_default();
    let why = gone(off, started_ns != 0, line);
    lost(started_ns, said, container.now().cut, why)
}

/// Why a machine is off, as far as its hypervisor and the telling line of its console say.
fn gone(off: &Off, has_run: bool, line: Option<String>) -> String {
    match (off, line) {
        // a guest that gives up before there is a link says why on its console
        (Off::Guest, Some(line)) if !has_run => format!("its machine gave up; its console says: {line}"),
        (Off::Guest, _) => "its machine powered itself off".to_owned(),
        (Off::Other(reason), line) => {
            let panic = line.filter(|line| line.contains("Kernel panic"));
            let said = panic.map(|line| format!("; its console says: {line}")).unwrap_or_default();
            format!("its machine went off: {}{said}", reason.as_deref().unwrap_or("QEMU ended"))
        }
    }
}

/// How a process ended of which no link has told: what its machine's console says, or what can be supposed.
pub(super) fn lost(started_ns: u64, said: Option<console::Ending>, cut: bool, why: String) -> Exited {
    let finished_ns = now_ns();
    let exited = |started_ns, code, oom, error| Exited { started_ns, finished_ns, code, oom, error };
    match said {
        // one that nobody saw began about when it was over
        Some(console::Ending { code, oom }) => {
            exited(if started_ns == 0 { finished_ns } else { started_ns }, code, oom, String::new())
        }
        // its user wanted that
        None if cut => exited(started_ns, KILLED, false, String::new()),
        None => exited(started_ns, LOST, false, why),
    }
}

/// From the end of a process to the end of its machine.
const POWER_OFF_TIME: Duration = Duration::from_secs(10);
/// The exit code of a container of which nobody knows how it ended.
const LOST: u8 = 255;
/// Docker's exit code of what SIGKILL has ended.
const KILLED: u8 = 137;
/// Docker's exit code of a container whose start failed for no reason of its process's.
const NOT_STARTED: u8 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_heard_where_it_says_more_than_the_hypervisor() {
        let panic = || Some("Kernel panic - not syncing: Fatal exception".to_owned());
        let other = || Some("tether: error: no spec".to_owned());
        let ended = Off::Other(Some("QEMU was killed".into()));
        for (off, has_run, line, words) in [
            (&Off::Guest, false, other(), "its machine gave up; its console says: tether: error: no spec"),
            // its process has ended, and that is told already
            (&Off::Guest, true, other(), "its machine powered itself off"),
            (&ended, true, None, "its machine went off: QEMU was killed"),
            (&ended, true, other(), "its machine went off: QEMU was killed"),
            (
                &Off::Other(None),
                true,
                panic(),
                "its machine went off: QEMU ended; its console says: Kernel panic - not syncing: Fatal exception",
            ),
        ] {
            assert_eq!(gone(off, has_run, line), words);
        }
    }
}
