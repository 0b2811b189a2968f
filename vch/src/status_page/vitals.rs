//! What guests use of their machines, as they answered last. A guest is asked when somebody looks, one question at a time, and nobody waits for it for long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use wire::message::{Reply, Request};
use wire::vitals::Stats;

use crate::containers::Container;
use crate::lock::locked;
use crate::timestamp::now_ns;

/// An answer, and when it came.
#[derive(Clone, Debug)]
pub(super) struct Vital {
    pub(super) stats: Arc<Stats>,
    /// Nanoseconds since 1970.
    pub(super) at_ns: u64,
}

/// Answers, by the containers' ids.
#[derive(Debug, Default)]
pub(super) struct Vitals(Mutex<BTreeMap<String, Asked>>);

#[derive(Debug, Default)]
struct Asked {
    last: Option<Vital>,
    /// There is no answer yet to the question before.
    waits: bool,
}

impl Vitals {
    /// Asks those that can be asked, and waits a moment for their answers.
    pub(super) async fn refresh(self: &Arc<Self>, containers: &[Arc<Container>]) {
        let questions: Vec<_> = containers.iter().filter_map(|container| self.ask(container)).collect();
        // an answer that comes later is for the next who looks
        let _late = timeout(MOMENT, join_all(questions)).await.is_err();
    }

    /// The last answer of a container's guest in this boot.
    pub(super) fn last(&self, id: &str) -> Option<Vital> {
        locked(&self.0).get(id).and_then(|asked| asked.last.clone())
    }

    fn ask(self: &Arc<Self>, container: &Arc<Container>) -> Option<tokio::task::JoinHandle<()>> {
        let mut all = locked(&self.0);
        // over a cut link the question would wait for the guest
        let hub = match container.hub() {
            Ok(hub) => hub,
            Err(_) => {
                all.remove(&container.id);
                return None;
            }
        };
        let asked = all.entry(container.id.clone()).or_default();
        let is_fresh = asked.last.as_ref().is_some_and(|last| now_ns().saturating_sub(last.at_ns) < FRESH_NS);
        if is_fresh || asked.waits || !container.is_connected() {
            return None;
        }
        asked.waits = true;
        let (vitals, container) = (self.clone(), container.clone());
        Some(tokio::spawn(async move {
            let reply = container.ask(&hub, Request::Stats).await;
            let mut all = locked(&vitals.0);
            let asked = all.entry(container.id.clone()).or_default();
            asked.waits = false;
            match reply {
                Ok(Reply::Stats(stats)) => asked.last = Some(Vital { stats: stats.into(), at_ns: now_ns() }),
                Ok(_) => {}
                // its machine is gone
                Err(_) => drop(all.remove(&container.id)),
            }
        }))
    }
}

/// So long a page waits for guests.
const MOMENT: Duration = Duration::from_secs(1);
/// So long an answer is not asked for again.
const FRESH_NS: u64 = 1_000_000_000;
