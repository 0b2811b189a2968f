//! How many machines boot at once: as many as this host has processors, and two at least.
//!
//! A boot keeps a processor busy from its first instruction to the first of its process. More of them at a time take each other's caches: ten on two processors
//! cost 27 s of CPU time together, and 15 s when two boot at a time (QEMU, TCG). One that does not come up keeps its place for some seconds, and is not waited for.

use std::pin::pin;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// The places of a host. Who comes first is first.
#[derive(Debug)]
pub(super) struct Boots(Semaphore);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Place<'a>(#[expect(dead_code, reason = "held, and never used")] Option<SemaphorePermit<'a>>);

impl Boots {
    pub(super) fn of_this_host() -> Boots {
        Boots::new(available_parallelism().map_or(LEAST, usize::from))
    }

    fn new(processors: usize) -> Boots {
        Boots(Semaphore::new(processors.max(LEAST)))
    }

    /// Waits for one that is free.
    pub(super) async fn place(&self) -> Place<'_> {
        // nobody closes it
        Place(self.0.acquire().await.ok())
    }
}

impl Place<'_> {
    /// Keeps it while a machine boots, if that does not take too long.
    pub(super) async fn keep_during<T>(self, boot: impl Future<Output = T>) -> T {
        let mut boot = pin!(boot);
        if let Ok(done) = timeout(MOST, &mut boot).await {
            return done;
        }
        drop(self);
        boot.await
    }
}

/// One that waits for its disks leaves room for another, on however small a host.
const LEAST: usize = 2;
/// Several times what a boot takes where all places are taken.
const MOST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_boot_at_once_and_one_that_does_not_come_up_makes_room() {
        let boots = Arc::new(Boots::new(3));
        let begun = Instant::now();
        let stuck = boots.clone();
        let stuck = tokio::spawn(async move { stuck.place().await.keep_during(pending::<()>()).await });
        tokio::task::yield_now().await;
        let (one, other) = (boots.place().await, boots.place().await);
        assert!(boots.place().now_or_never().is_none());
        drop(one);
        let third = boots.place().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        // the one that is stuck
        let fourth = boots.place().await;
        assert_eq!(begun.elapsed(), MOST);
        assert_eq!(fourth.keep_during(async { 7 }).await, 7);
        assert!(boots.place().now_or_never().is_some());
        drop((other, third));
        stuck.abort();
    }

    #[test]
    fn the_smallest_host_has_two_places() {
        assert_eq!(Boots::new(1).0.available_permits(), 2);
        assert_eq!(Boots::new(8).0.available_permits(), 8);
    }
}
