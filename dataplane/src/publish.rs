//! Hands immutable values from the control thread to the workers.
//!
//! A worker looks for news once per turn, by one acquire load, and takes them between bursts: whatever their
//! size, that is a pointer, two counts of owners and no system call. Old values are freed by the publisher when
//! every worker reported a newer one, never by a worker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread;

use crossbeam::utils::CachePadded;

struct Shared<T> {
    /// Generation of `latest`. Written by the publisher only, after `latest`.
    generation: CachePadded<AtomicU64>,
    latest: Mutex<(u64, Arc<T>)>,
    /// The generation each reader uses. Written by that reader only.
    adopted: Box<[CachePadded<AtomicU64>]>,
}

/// The control thread's end.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
    /// Values that readers may still use, oldest first.
    kept: Vec<Arc<T>>,
}

/// A worker's end.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    number: usize,
    seen: u64,
    current: Arc<T>,
}

/// Publishes a first value to `readers` workers; generations count from 1.
pub fn channel<T>(first: T, readers: usize) -> (Publisher<T>, Vec<Reader<T>>) {
    let first = Arc::new(first);
    let shared = Arc::new(Shared {
        generation: CachePadded::new(AtomicU64::new(1)),
        latest: Mutex::new((1, Arc::clone(&first))),
        adopted: (0..readers).map(|_| CachePadded::new(AtomicU64::new(1))).collect(),
    });
    let reader =
        |number| Reader { shared: Arc::clone(&shared), number, seen: 1, current: Arc::clone(&first) };
    let readers = (0..readers).map(reader).collect();
    (Publisher { shared, kept: vec![first] }, readers)
}

impl<T> Publisher<T> {
    /// Publishes a value; returns its generation.
    pub fn publish(&mut self, value: T) -> u64 {
        let value = Arc::new(value);
        let generation = self.generation() + 1;
        self.kept.push(Arc::clone(&value));
        *self.lock() = (generation, value);
        self.shared.generation.store(generation, Ordering::Release);
        generation
    }

    /// Waits for a worker that is just taking a value by looking again and again: if it slept, the worker would
    /// have to wake it, by a system call.
    fn lock(&self) -> MutexGuard<'_, (u64, Arc<T>)> {
        loop {
            match self.shared.latest.try_lock() {
                Ok(latest) => return latest,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => thread::yield_now(),
            }
        }
    }

    /// The last published value.
    pub fn latest(&self) -> Option<&T> {
        self.kept.last().map(|latest| &**latest)
    }

    /// Generation of the last published value.
    pub fn generation(&self) -> u64 {
        // Written by this thread only.
        self.shared.generation.load(Ordering::Relaxed)
    }

    /// The newest generation that every worker uses, or a newer one. What a worker did with an older
    /// value is visible to the caller.
    pub fn in_force(&self) -> u64 {
        let adopted = self.shared.adopted.iter().map(|seen| seen.load(Ordering::Acquire));
        adopted.min().unwrap_or_else(|| self.generation())
    }

    /// The generation that one worker uses.
    pub fn adopted_by(&self, reader: usize) -> u64 {
        self.shared.adopted[reader].load(Ordering::Acquire)
    }

    /// Frees the values that no worker uses any more.
    pub fn reclaim(&mut self) {
        // A value with one owner left is used by nobody, and only the latest can be taken anew. So a worker
        // that stalls keeps one value alive, not all that came after it.
        self.kept.retain(|value| Arc::strong_count(value) > 1);
    }
}

impl<T> Reader<T> {
    /// Takes the latest value if it is new; returns whether it was.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        if self.shared.generation.load(Ordering::Acquire) == self.seen {
            return false;
        }
        self.adopt()
    }

    #[cold]
    fn adopt(&mut self) -> bool {
        // The publisher holds the lock for a pointer's move only; if it does so now, the next turn will do.
        let Ok(latest) = self.shared.latest.try_lock() else { return false };
        let (generation, value) = (latest.0, Arc::clone(&latest.1));
        drop(latest);
        // Dropping the old value frees nothing: the publisher keeps it as long as somebody else does.
        self.current = value;
        self.seen = generation;
        self.shared.adopted[self.number].store(generation, Ordering::Release);
        true
    }

    /// Generation of the value in use.
    pub fn generation(&self) -> u64 {
        self.seen
    }

    /// The value in use.
    #[inline]
    pub fn current(&self) -> &T {
        &self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_force_when_all_took_it_and_freed_by_the_publisher() {
        let first = Arc::new(());
        let (mut publisher, mut readers) = channel(Arc::clone(&first), 2);
        assert_eq!(publisher.publish(Arc::new(())), 2);
        assert!(readers[0].refresh());
        assert!(!readers[0].refresh());
        assert_eq!((publisher.in_force(), publisher.adopted_by(0)), (1, 2));
        publisher.reclaim();
        assert_eq!(Arc::strong_count(&first), 2);
        assert!(readers[1].refresh());
        assert_eq!(Arc::strong_count(&first), 2, "a worker must not free");
        assert_eq!(publisher.in_force(), 2);
        publisher.reclaim();
        assert_eq!(Arc::strong_count(&first), 1);
    }

    #[test]
    fn a_worker_that_takes_a_value_is_waited_for() {
        let (mut publisher, mut readers) = channel(0, 1);
        let shared = Arc::clone(&publisher.shared);
        let taking = shared.latest.lock().unwrap();
        let publishing = thread::spawn(move || (publisher.publish(1), publisher));
        thread::yield_now();
        assert_eq!((taking.0, readers[0].refresh()), (1, false));
        drop(taking);
        let (generation, publisher) = publishing.join().unwrap();
        assert!(readers[0].refresh());
        assert_eq!((generation, publisher.in_force(), *readers[0].current()), (2, 2, 1));
    }

    /// Notes the thread that frees it.
    struct Freed(Arc<Mutex<Vec<std::thread::ThreadId>>>);

    impl Drop for Freed {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(std::thread::current().id());
        }
    }

    #[test]
    fn no_worker_frees_a_value_even_if_it_is_the_last_that_used_it() {
        let by = Arc::new(Mutex::new(Vec::new()));
        let value = || Freed(Arc::clone(&by));
        let (mut publisher, mut readers) = channel(value(), 1);
        let mut reader = readers.remove(0);
        for _ in 0..10 {
            publisher.publish(value());
            publisher.reclaim();
            reader = std::thread::spawn(move || {
                assert!(reader.refresh());
                reader
            })
            .join()
            .unwrap();
            assert!(publisher.latest().is_some());
        }
        publisher.reclaim();
        assert_eq!(*by.lock().unwrap(), [std::thread::current().id(); 10]);
    }

    #[test]
    fn readers_on_threads_see_values_in_order() {
        let (mut publisher, readers) = channel(0u64, 2);
        std::thread::scope(|scope| {
            for mut reader in readers {
                scope.spawn(move || {
                    let mut last = 0;
                    while last < 100 {
                        reader.refresh();
                        assert!(*reader.current() >= last);
                        last = *reader.current();
                    }
                });
            }
            for value in 1..=100 {
                publisher.publish(value);
                publisher.reclaim();
            }
        });
        publisher.reclaim();
        assert_eq!((publisher.in_force(), publisher.kept.len()), (101, 1));
    }
}
