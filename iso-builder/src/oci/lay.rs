//! All layers of an image, read at the same time and laid over one another in their order.
//!
//! Threads read ahead; what they find waits for its turn in memory, which [`Limits`](super::Limits) bound. Decides who reads what when, not what it means.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::layer::{Batch, LayerError, Shared};
use super::limits::Budget;
use super::merge::Merge;
use super::{Error, Image, Progress};

/// What a reader has to say.
enum News {
    Entries(Batch),
    Ended(Result<(), LayerError>),
}

impl Image {
    /// Lays layer over layer; `laid` is told when one is done, by its number from 0.
    pub(super) fn lay<E: From<Error>>(
        &self,
        merge: &mut Merge,
        spool: &Path,
        progress: &mut dyn FnMut(Progress),
        laid: &mut dyn FnMut(usize, &Merge) -> Result<(), E>,
    ) -> Result<(), E> {
        let shared =
            Shared { spool, budget: Budget::new(self.limits), read: AtomicU64::new(0), stop: AtomicBool::new(false) };
        let next = AtomicUsize::new(0);
        let (senders, receivers): (Vec<_>, Vec<_>) = self.layers.iter().map(|_| channel()).unzip();
        thread::scope(|scope| {
            let stop = Stop(&shared.stop);
            for _ in 0..readers().min(self.layers.len()) {
                let (senders, shared, next) = (senders.clone(), &shared, &next);
                thread::Builder::new()
                    .name("layer".to_owned())
                    .spawn_scoped(scope, move || self.read_layers(next, shared, &senders))
                    .map_err(|source| Error::Read { path: self.path.clone(), source })?;
            }
            drop(senders);
            for (number, news) in receivers.iter().enumerate() {
                self.lay_one(number, news, merge, &shared, progress)?;
                laid(number, merge)?;
            }
            drop(stop);
            Ok(())
        })
    }

    /// Reads one layer after the other of those that nobody has begun.
    fn read_layers(&self, next: &AtomicUsize, shared: &Shared<'_>, senders: &[Sender<News>]) {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let (Some(layer), Some(sender)) = (self.layers.get(number), senders.get(number)) else { return };
            let ended = match shared.stop.load(Ordering::Relaxed) {
                true => return,
                false => layer.read(shared, &mut |batch| drop(sender.send(News::Entries(batch)))),
            };
            drop(sender.send(News::Ended(ended)));
        }
    }

    fn lay_one(
        &self,
        number: usize,
        news: &Receiver<News>,
        merge: &mut Merge,
        shared: &Shared<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let (layer, layers) = (number + 1, self.layers.len());
        let size = self.layers.iter().map(|layer| layer.blob.len).sum();
        let mut merged = Ok(());
        merge.next_layer();
        let ended = loop {
            match news.recv() {
                // an entry that does not fit is told only once the layer is known to be the right one
                Ok(News::Entries(batch)) if merged.is_ok() => {
                    merged = batch.into_iter().try_for_each(|(entry, content)| merge.lay(entry, content));
                }
                Ok(News::Entries(_)) => {}
                Ok(News::Ended(ended)) => break ended,
                // its reader has panicked, which is told when threads are joined
                Err(_) => break Ok(()),
            }
            progress(Progress { layer, layers, read: shared.read.load(Ordering::Relaxed), size });
        };
        ended.and(merged.map_err(LayerError::from)).map_err(|error| match error {
            // that is not the layer's fault
            LayerError::Spool(error) => error.into(),
            source => Error::Layer { path: self.path.clone(), number: layer, count: layers, source },
        })
    }
}

/// Tells the readers to stop, once it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Layers that are read at once. Each has a decoder with its window and two megabytes of tar on their way.
fn readers() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(4)
}
