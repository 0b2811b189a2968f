//! Docker update: what a container may use, and when it is started again, changed while it runs or before it does.
//!
//! It decides which of it is the machine's and which its guest's: more memory and more processors are plugged in, less of them is a limit within the guest. The
//! next start makes the machine as it was asked for.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use bollard_stubs::models::{ContainerUpdateBody, HostConfig, RestartPolicyNameEnum};
use wire::message::{Reply, Request, SpecText};

use super::machine::Planned;
use super::{Made, MakeError, Maker};
use crate::containers::Container;
use crate::hypervisor::Order;

impl Maker {
    pub(crate) async fn update(
        self: &Arc<Self>,
        container: &Arc<Container>,
        asked: ContainerUpdateBody,
    ) -> Result<(), MakeError> {
        let _turn = container.turn().await;
        let Some(before) = container.made() else { return Err(anyhow!("its machine is not made here").into()) };
        if container.now().removing {
            let id = &container.id;
            let why = format!("Cannot update container {id}: container is marked for removal and cannot be \"update\"");
            return Err(MakeError::Conflict(why));
        }
        let mut made = Made::clone(&before);
        change(made.asked.host_config.get_or_insert_default(), asked).map_err(MakeError::Conflict)?;
        // what the next start could not do is refused now
        let made = Arc::new(made);
        let (old, new) = (self.planned(container, before).await?, self.planned(container, made.clone()).await?);
        if container.state().is_running() {
            self.change_machine(container, &old, &new).await?;
        }
        container.set_made(made);
        container.save().await.map_err(anyhow::Error::from)?;
        self.containers.events.container(container, "update", &[]);
        Ok(())
    }

    async fn planned(self: &Arc<Self>, container: &Arc<Container>, made: Arc<Made>) -> Result<Planned, MakeError> {
        let (maker, of) = (self.clone(), container.clone());
        let planned = tokio::task::spawn_blocking(move || {
            let joined = of.joined().unwrap_or_default();
            maker.plan(&of.id, &of.name(), &made, &joined, of.created_ns())
        });
        planned.await.map_err(anyhow::Error::from)?
    }

    async fn change_machine(&self, container: &Arc<Container>, old: &Planned, new: &Planned) -> Result<(), MakeError> {
        let Some(told) = container.told() else { return Err(anyhow!("its guest has yet to tell what it is").into()) };
        let Some(powered) = container.powered() else {
            return Err(MakeError::Conflict(format!("Container {} is not running", container.id)));
        };
        let size =
            |planned: &Planned| (planned.args.machine.memory.mebibytes(), planned.args.machine.cpus.processors());
        let ((memory, processors), (more_memory, more_processors)) = (size(old), size(new));
        let (before, after) = (&old.plan.spec.machine, &new.plan.spec.machine);
        let mut spec = told.spec.clone();
        if (more_memory, after.memory) != (memory, before.memory) {
            spec.machine.memory = after.memory.or((more_memory < memory).then_some(more_memory << 20));
        }
        if (more_processors, after.cpus) != (processors, before.cpus) {
            spec.machine.cpus =
                after.cpus.or((more_processors < processors).then_some(u32::from(more_processors) * 1000));
        }
        spec.machine.pids = after.pids;
        let grows = more_memory > memory || more_processors > processors;
        if container.state().is_paused() && (grows || spec.machine != told.spec.machine) {
            let id = &container.id;
            let why =
                format!("Cannot update container {id}: it is paused, and its guest has a part in it: unpause it first");
            return Err(MakeError::Conflict(why));
        }
        if more_memory > memory {
            powered.order(Order::Memory(more_memory)).await.context("cannot plug in memory")?;
        }
        if more_processors > processors {
            powered.order(Order::Processors(more_processors)).await.context("cannot plug in processors")?;
        }
        if spec.machine == told.spec.machine {
            return Ok(());
        }
        let key = self.key.link_key(&container.id);
        spec.link.key = key.clone();
        let mut keys = wire::guestinfo::write(&spec);
        wire::guestinfo::write_about(&told.about, &mut keys);
        let hub = container.reach().await.map_err(|error| MakeError::Conflict(error.to_string()))?;
        let reload = Request::Reload { keys: SpecText(keys.to_string()) };
        match container.ask(&hub, reload).await.map_err(anyhow::Error::from)? {
            Reply::Done => {}
            Reply::Refused { reason } => {
                return Err(anyhow!("Cannot update container {}: {reason}", container.id).into());
            }
            _ => return Err(anyhow!("the guest gave an answer to another question").into()),
        }
        container.set_told(&wire::guestinfo::without_key(&keys, &key).map_err(anyhow::Error::from)?.0);
        Ok(())
    }
}

/// What is asked for, over what was: docker's client leaves out what stays, or says 0.
fn change(host: &mut HostConfig, asked: ContainerUpdateBody) -> Result<(), String> {
    if let Some(policy) = asked.restart_policy {
        match policy.name {
            None | Some(RestartPolicyNameEnum::EMPTY) => {}
            Some(name) => {
                if host.auto_remove.unwrap_or_default() && name != RestartPolicyNameEnum::NO {
                    return Err(
                        "Restart policy cannot be updated because AutoRemove is enabled for the container".into()
                    );
                }
                host.restart_policy = Some(policy);
            }
        }
    }
    let nano = asked.nano_cpus.filter(|&nano| nano != 0);
    let quota = asked.cpu_quota.filter(|&quota| quota != 0);
    if nano.is_some() && (quota.is_some() || asked.cpu_period.is_some_and(|period| period != 0)) {
        return Err("Conflicting options: Nano CPUs and CPU Period cannot both be set.".into());
    }
    if nano.is_some() {
        // the later word counts
        (host.cpu_quota, host.cpu_period) = (None, None);
    }
    if quota.is_some() {
        host.nano_cpus = None;
    }
    set(&mut host.memory, asked.memory);
    set(&mut host.memory_swap, asked.memory_swap);
    set(&mut host.memory_reservation, asked.memory_reservation);
    set(&mut host.nano_cpus, asked.nano_cpus);
    set(&mut host.cpu_period, asked.cpu_period);
    set(&mut host.cpu_quota, asked.cpu_quota);
    set(&mut host.cpu_shares, asked.cpu_shares);
    set(&mut host.pids_limit, asked.pids_limit);
    Ok(())
}

fn set(now: &mut Option<i64>, asked: Option<i64>) {
    if let Some(asked) = asked.filter(|&asked| asked != 0) {
        *now = Some(asked);
    }
}

#[cfg(test)]
mod tests {
    use bollard_stubs::models::RestartPolicy;

    use super::*;

    #[test]
    fn what_is_not_asked_for_stays() {
        let mut host = HostConfig { memory: Some(1), pids_limit: Some(9), cpu_quota: Some(5), ..HostConfig::default() };
        let restart_policy =
            Some(RestartPolicy { name: Some(RestartPolicyNameEnum::EMPTY), maximum_retry_count: None });
        let asked = ContainerUpdateBody { memory: Some(0), nano_cpus: Some(7), restart_policy, ..Default::default() };
        change(&mut host, asked).unwrap();
        assert_eq!((host.memory, host.pids_limit, host.nano_cpus, host.cpu_quota), (Some(1), Some(9), Some(7), None));
        assert_eq!(host.restart_policy, None);
    }

    #[test]
    fn what_removes_itself_is_not_started_again() {
        let mut host = HostConfig { auto_remove: Some(true), ..HostConfig::default() };
        let policy = RestartPolicy { name: Some(RestartPolicyNameEnum::ALWAYS), maximum_retry_count: None };
        let asked = ContainerUpdateBody { restart_policy: Some(policy), ..Default::default() };
        assert!(change(&mut host, asked).unwrap_err().contains("AutoRemove"));
    }
}
