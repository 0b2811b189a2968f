//! The last few of something that is dear to make: tables and unpacked grains of a disk that is read.

use std::sync::{Arc, Mutex, PoisonError};

/// Keeps the `limit` that were asked for last.
#[derive(Debug)]
pub(super) struct Recent<T> {
    limit: usize,
    /// The last one asked for is the last.
    kept: Mutex<Vec<Kept<T>>>,
}

/// Of which extent, and its number there.
type Key = (usize, u64);
type Kept<T> = (Key, Arc<T>);

impl<T> Recent<T> {
    pub(super) fn new(limit: usize) -> Recent<T> {
        Recent { limit, kept: Mutex::default() }
    }

    /// The value of `key`, which is made if it is not kept. Others are not held up while it is made: two may make the same one.
    pub(super) fn get<E>(&self, key: Key, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = lock();
        if let Some(place) = kept.iter().rposition(|(of, _)| *of == key) {
            kept[place..].rotate_left(1);
            return Ok(Arc::clone(&kept[kept.len() - 1].1));
        }
        drop(kept);
        let made = Arc::new(make()?);
        let mut kept = lock();
        if kept.len() == self.limit {
            kept.remove(0);
        }
        kept.push((key, Arc::clone(&made)));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept() {
        let recent = Recent::new(2);
        let made = std::cell::Cell::new(0);
        let get = |key| {
            let make = || {
                made.set(made.get() + 1);
                Ok::<_, ()>(key * 2)
            };
            *recent.get((0, key), make).unwrap()
        };
        assert_eq!([get(1), get(2), get(1), get(3), get(1), get(2)], [2, 4, 2, 6, 2, 4]);
        assert_eq!(made.get(), 4, "2 was made twice");
        assert!(recent.get((1, 1), || Err("failed")).is_err());
    }
}
