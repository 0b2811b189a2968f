//! Stop, kill, restart, pause and remove, of machines that this host makes; and what an end of this program has left.
//!
//! It decides how long a guest is waited for before its power is cut: whoever asks for an end gets one, whatever the guest does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use wire::message::{MAIN, Reply, Request};
use wire::spec::STOP_TIMEOUT;

use super::life::lost;
use super::restarts::Policy;
use super::{MakeError, Maker, Started, console};
use crate::containers::{Container, Running, State};
use crate::hub::HubError;
use crate::hypervisor::{Order, Powered};
use crate::image_store::User;
use crate::serve::say;
use crate::signals::SIGKILL;

/// What stop and restart say beyond the spec.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Grace {
    pub(crate) signal: Option<u8>,
    /// Milliseconds; the greatest number is for ever, and none is as long as the spec says.
    pub(crate) grace_ms: Option<u64>,
}

impl Maker {
    /// Ends its process, and waits until its machine is off. False: it did not run.
    pub(crate) async fn stop(self: &Arc<Self>, container: &Arc<Container>, grace: Grace) -> Result<bool, MakeError> {
        let Some(until) = self.until_started(container, patience(container, grace)).await? else {
            // it does not come to run: its time is over
            self.cut(container).await;
            return Ok(true);
        };
        match container.state() {
            State::Running(_) => {}
            State::Restarting(exited) => {
                container.change_power(|power| power.stopped = true);
                self.containers.pass(container, State::Exited(exited));
                self.containers.events.container(container, "stop", &[]);
                return Ok(true);
            }
            State::Created | State::Exited(_) => return Ok(false),
        }
        container.change_power(|power| power.stopped = true);
        let told = grace.signal.unwrap_or_else(|| container.stop_signal());
        self.containers.events.container(container, "kill", &[("signal", told.to_string())]);
        container.stop_asked();
        self.wake(container).await;
        self.end(container, grace, until).await;
        Ok(true)
    }

    /// Waits while it is being started; none: it has not been by the time that is told. The time counts from now on.
    async fn until_started(
        &self,
        container: &Container,
        patience: Option<Duration>,
    ) -> Result<Option<Option<Instant>>, MakeError> {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut now = container.watch_now();
        let mut life = container.watch();
        let started = async {
            tokio::select! {
                _ = now.wait_for(|now| !now.starting) => {}
                _ = life.wait_for(|life| life.removed) => {}
            }
        };
        Ok(match until {
            None => {
                started.await;
                Some(None)
            }
            Some(until) => timeout_at(until, started).await.is_ok().then_some(Some(until)),
        })
    }

    /// Asks the guest for the end, and waits for it; one that does not obey has its power cut.
    async fn end(self: &Arc<Self>, container: &Arc<Container>, grace: Grace, until: Option<Instant>) {
        let mut life = container.watch();
        let exits = life.borrow_and_update().exits;
        let ended = async {
            let Grace { signal, grace_ms } = grace;
            if let Ok(hub) = container.reach().await {
                // how it answers tells nothing: its end does
                let _answer = container.ask(&hub, Request::Stop { signal, grace_ms }).await;
            }
            let _removed = life.wait_for(|life| life.exits > exits || life.is_over()).await;
        };
        let ended = async {
            tokio::select! {
                () = ended => {}
                () = press_unless_heard(container) => {}
            }
        };
        let Some(until) = until else { return ended.await };
        // a machine that is loaded takes its time to go off
        if timeout_at(until + OBEY_TIME, ended).await.is_err() {
            say(&format!("{}: it does not end: its power is cut", container.name()));
            self.cut(container).await;
        }
    }

    /// Cuts its power, and waits until it is off.
    async fn cut(&self, container: &Arc<Container>) {
        container.change_power(|power| power.stopped = true);
        let mut life = container.watch();
        let mut now = container.watch_now();
        let exits = life.borrow_and_update().exits;
        container.change_now(|now| now.cut = true);
        // it may be about to be powered on
        let on = now.wait_for(|now| now.powered.is_some() || !now.starting).await;
        if let Some(powered) = on.ok().and_then(|now| now.powered.clone()) {
            // an error says that it is off by now
            drop(powered.order(Order::PowerOff).await);
            powered.off().await;
            let _removed = life.wait_for(|life| life.exits > exits || life.is_over()).await;
        }
    }

    /// Sends a signal. After one that nobody can refuse, the machine is off when this returns.
    pub(crate) async fn kill(self: &Arc<Self>, container: &Arc<Container>, signal: u8) -> Result<(), MakeError> {
        let is_last = signal == SIGKILL;
        if is_last || signal == container.stop_signal() {
            container.change_power(|power| power.stopped = true);
            self.wake(container).await;
        }
        let mut life = container.watch();
        let exits = life.borrow_and_update().exits;
        let asked = async {
            let hub = container.reach().await.map_err(|error| error.to_string())?;
            match container.ask(&hub, Request::Signal { session: MAIN, signal }).await {
                Ok(Reply::Done) => Ok(()),
                Ok(Reply::Refused { reason }) => Err(reason),
                Ok(_) => Err("the guest gave an answer to another question".into()),
                Err(HubError::Lost(_)) if is_last => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        };
        let deadline = Instant::now() + OBEY_TIME;
        let answer = timeout_at(deadline, asked).await;
        match answer {
            Ok(Err(reason)) if !is_last => {
                return Err(MakeError::Conflict(format!("cannot kill container: {}: {reason}", container.id)));
            }
            Err(_) if !is_last => {
                let reason = "its guest does not answer: docker kill, without a signal, cuts its power";
                return Err(anyhow::anyhow!("cannot kill container: {}: {reason}", container.id).into());
            }
            _ => {}
        }
        self.containers.events.container(container, "kill", &[("signal", signal.to_string())]);
        if is_last {
            let ended = life.wait_for(|life| life.exits > exits || life.is_over());
            if timeout_at(deadline, ended).await.is_err() {
                self.cut(container).await;
            }
        }
        Ok(())
    }

    /// Ends it if it runs, and starts it.
    pub(crate) async fn restart(self: &Arc<Self>, container: &Arc<Container>, grace: Grace) -> Result<(), MakeError> {
        let (maker, container) = (self.clone(), container.clone());
        let restarted = tokio::spawn(async move {
            // one that is to be removed at its end is not at this one
            container.change_now(|now| now.held = true);
            let result = async {
                maker.stop(&container, grace).await?;
                let _turn = container.turn().await;
                maker.start_in_turn(&container).await
            };
            let result = result.await;
            container.change_now(|now| now.held = false);
            if result.is_ok() {
                maker.containers.events.container(&container, "restart", &[]);
            }
            result
        });
        restarted.await.map_err(anyhow::Error::from)?.map(|_: Started| ())
    }

    // -- pause

    pub(crate) async fn pause(&self, container: &Arc<Container>) -> Result<(), MakeError> {
        let _turn = container.turn().await;
        let id = &container.id;
        let State::Running(running) = container.state() else {
            return Err(MakeError::Conflict(match container.state() {
                State::Restarting(_) => format!("Container {id} is restarting, wait until the container is running"),
                _ => format!("Container {id} is not running"),
            }));
        };
        if running.paused {
            return Err(MakeError::Conflict(format!("Container {id} is already paused")));
        }
        self.set_paused(container, running, true).await
    }

    pub(crate) async fn unpause(&self, container: &Arc<Container>) -> Result<(), MakeError> {
        let _turn = container.turn().await;
        let State::Running(running @ Running { paused: true, .. }) = container.state() else {
            return Err(MakeError::Conflict(format!("Container {} is not paused", container.id)));
        };
        self.set_paused(container, running, false).await
    }

    async fn set_paused(&self, container: &Arc<Container>, running: Running, paused: bool) -> Result<(), MakeError> {
        let Some(powered) = container.powered().filter(|powered| !powered.is_off()) else {
            return Err(MakeError::Conflict(format!("Container {} is not running", container.id)));
        };
        powered.order(if paused { Order::Pause } else { Order::Resume }).await?;
        // it may have ended meanwhile
        if container.state().is_running() {
            container.set_state(State::Running(Running { paused, ..running }));
            let _written = container.save().await;
            self.containers.events.container(container, if paused { "pause" } else { "unpause" }, &[]);
        }
        Ok(())
    }

    /// Whether a machine that was found stands still is its own to say: this program may have ended before it could write what it had done.
    pub(super) fn learn_pause(&self, container: &Arc<Container>, powered: &Powered) {
        let (container, powered) = (container.clone(), powered.clone());
        tokio::spawn(async move {
            let _turn = container.turn().await;
            let Ok(Some(paused)) = timeout(OBEY_TIME, powered.stood_still()).await else { return };
            match container.state() {
                State::Running(running) if running.paused != paused => {
                    container.set_state(State::Running(Running { paused, ..running }));
                    container.save();
                }
                // nobody knows that it runs: it goes on, and tells
                State::Created | State::Exited(_) | State::Restarting(_) if paused => {
                    // an error says that it is off by now
                    drop(powered.order(Order::Resume).await);
                }
                _ => {}
            }
        });
    }

    /// A process that stands still hears no signal.
    async fn wake(&self, container: &Arc<Container>) {
        if container.state().is_paused()
            && let Err(error) = self.unpause(container).await
        {
            say(&format!("{}: it is not resumed: {error}", container.name()));
        }
    }

    // -- remove

    /// Removes it, by force also when it runs.
    pub(crate) async fn remove(
        self: &Arc<Self>,
        container: &Arc<Container>,
        force: bool,
        volumes: bool,
    ) -> Result<(), MakeError> {
        let id = &container.id;
        // whoever starts it just now comes first
        let turn = if force { None } else { Some(container.turn().await) };
        let active = match container.state() {
            State::Running(running) if running.paused => Some("paused and must be unpaused first"),
            State::Running(_) => Some("running: stop the container before removing or force remove"),
            State::Restarting(_) => Some("restarting: stop the container before removing or force remove"),
            State::Created | State::Exited(_) => None,
        };
        if let Some(active) = active.filter(|_| !force) {
            return Err(MakeError::Conflict(format!(
                "cannot remove container {:?}: container is {active}",
                container.name()
            )));
        }
        if !container.begin_removal() {
            return Err(MakeError::Conflict(format!("removal of container {id} is already in progress")));
        }
        drop(turn);
        if force {
            self.end_for_good(container).await;
        }
        self.forget(container, volumes).await.map_err(MakeError::from)
    }

    /// Ends what there is of it, at once.
    async fn end_for_good(self: &Arc<Self>, container: &Arc<Container>) {
        container.change_power(|power| power.stopped = true);
        match container.state() {
            State::Running(_) => {
                // an error is no reason to keep it
                let _reason = self.kill(container, SIGKILL).await;
            }
            State::Restarting(exited) => self.containers.pass(container, State::Exited(exited)),
            State::Created | State::Exited(_) => {}
        }
        if container.now().starting || container.powered().is_some() {
            self.cut(container).await;
        }
    }

    /// Forgets it and all that is its own, for who has begun its removal. Its machine is off.
    pub(super) async fn forget(self: &Arc<Self>, container: &Arc<Container>, volumes: bool) -> Result<()> {
        // who waits for its end finds nothing of it
        if volumes {
            self.remove_own(container).await;
        }
        let removed = self.containers.remove(container).await;
        if removed.is_err() {
            container.change_now(|now| now.removing = false);
        }
        // an image that was removed by force goes with its last container
        if self.images.has_hidden() {
            let maker = self.clone();
            let forgotten =
                tokio::task::spawn_blocking(move || maker.images.forget_unused(|| User::all(&maker.containers))).await;
            if let Ok(Err(error)) = forgotten {
                say(&format!("an image that nobody has any more stays: {error:#}"));
            }
        }
        removed
    }

    // -- what an end of this program has left

    /// A container whose machine is off: it may have ended while nobody looked, and may be wanted again.
    pub(super) async fn resume(self: &Arc<Self>, container: &Arc<Container>) {
        if let Err(error) = self.hypervisor.forget(container.dir()) {
            say(&format!("{}: {error:#}", container.name()));
        }
        let (power, state) = (container.power(), container.state());
        let started_ns = match &state {
            State::Running(running) => Some(running.started_ns),
            _ if power.starting => Some(0),
            _ => None,
        };
        if let Some(started_ns) = started_ns {
            let dir = container.dir().to_owned();
            let read = move || {
                // what cannot be done is no reason not to read it
                let _kept = console::shorten(&dir);
                console::ending(&dir)
            };
            let said = tokio::task::spawn_blocking(read).await.ok().flatten();
            // one that was about to be started, and never ran, is as it was
            if said.is_some() || started_ns != 0 {
                let why = "its machine went off while this host was away".to_owned();
                self.containers.pass(container, State::Exited(lost(started_ns, said, power.stopped, why)));
            }
            container.change_power(|power| power.starting = false);
        }
        let power = container.power();
        let code = container.watch().borrow().last.as_ref().map_or(0, |last| last.code);
        if power.has_run && Policy::of(container).again(code, power.restarts, power.stopped) {
            let (maker, container) = (self.clone(), container.clone());
            tokio::spawn(async move {
                let _turn = container.turn().await;
                if container.state().is_running() || container.now().removing {
                    return;
                }
                // docker's daemon counts from the beginning when it begins, and forgets who was stopped
                container.change_power(|power| (power.stopped, power.restarts) = (false, 0));
                if let Err(error) = maker.boot(&container).await {
                    say(&format!("{}: it is not started again: {error}", container.name()));
                }
            });
        } else if let State::Restarting(exited) = container.state() {
            self.containers.pass(container, State::Exited(exited));
        } else if power.has_run {
            self.remove_if_asked(container).await;
        }
    }
}

/// A guest whose link stays away is asked as any computer is: it then does what its spec says of its end. It does not return.
async fn press_unless_heard(container: &Container) {
    sleep(LINK_TIME).await;
    if let Some(powered) = container.powered().filter(|_| !container.is_connected()) {
        say(&format!("{}: its link is not there: its power button is pressed", container.name()));
        // an error says that it is off by now, or that its power is all that is left
        drop(powered.order(Order::PressPowerButton).await);
    }
    std::future::pending().await
}

/// How long its end may take, by what its user said or its spec; none: for ever.
fn patience(container: &Container, grace: Grace) -> Option<Duration> {
    match grace.grace_ms {
        Some(u64::MAX) => None,
        Some(millis) => Some(Duration::from_millis(millis)),
        None => container.told().map_or(Some(STOP_TIMEOUT), |told| told.spec.main.stop_timeout),
    }
}

/// For so long a link may be away that comes back by itself: QEMU connects again each second.
const LINK_TIME: Duration = Duration::from_secs(3);
/// What a guest may take to do what it must, beyond the time that its process has.
const OBEY_TIME: Duration = Duration::from_secs(10);
