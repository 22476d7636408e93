//! What the models put in the place of locks, channels and clock: each use lets the scheduler choose who goes on.
//!
//! Locks, atomics and threads are shuttle's. The channels are tokio's own, with a choice before each use of them; what
//! happens within one use is not taken apart, that is what tokio's own tests are for.

use std::cell::Cell;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use shuttle::current::TaskId;
use shuttle::sync::atomic::{AtomicBool, Ordering};

pub(crate) use shuttle::sync::RwLockWriteGuard;

/// Lets whoever calls a method of the channel within choose first.
macro_rules! chooses {
    ($outer:ident, $inner:ty) => {
        impl<T> std::ops::Deref for $outer<T> {
            type Target = $inner;
            fn deref(&self) -> &$inner {
                super::choose();
                &self.0
            }
        }
    };
}

/// tokio's channels can be shown whatever goes through them.
macro_rules! shows {
    ($($outer:ident)*) => {$(
        impl<T> std::fmt::Debug for $outer<T> {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.debug_struct(stringify!($outer)).finish_non_exhaustive()
            }
        }
    )*};
}

macro_rules! chooses_mut {
    ($outer:ident) => {
        impl<T> std::ops::DerefMut for $outer<T> {
            fn deref_mut(&mut self) -> &mut Self::Target {
                super::choose();
                &mut self.0
            }
        }
    };
}

pub(crate) mod broadcast;
pub(crate) mod mpsc;
pub(crate) mod oneshot;
pub(crate) mod watch;

pub(crate) use broadcast::BroadcastStream;

/// Lets the scheduler choose who goes on.
pub(crate) fn choose() {
    if shuttle::current::try_get_current_task().is_some() && !std::thread::panicking() {
        // Any use of a shared atomic is a choice.
        AtomicBool::new(false).load(Ordering::SeqCst);
    }
}

thread_local! {
    static CLOCK: (Instant, Cell<u32>) = (Instant::now(), Cell::new(0));
}

/// A clock on which a microsecond passes at each look, so that a schedule can be played again.
pub(crate) fn now() -> Instant {
    CLOCK.with(|(begun, looks)| {
        looks.set(looks.get().wrapping_add(1));
        *begun + Duration::from_micros(looks.get().into())
    })
}

/// A mutex that no panic poisons, as those of production.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock that no panic poisons, as those of production.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T> {
    lock: shuttle::sync::RwLock<T>,
    readers: Readers,
}

/// Who reads. Those of production keep new readers waiting behind a writer that waits, so that a thread which reads twice
/// may wait for itself; shuttle's let it in.
type Readers = Arc<std::sync::Mutex<Vec<Option<TaskId>>>>;

fn with_readers<T>(readers: &Readers, look: impl FnOnce(&mut Vec<Option<TaskId>>) -> T) -> T {
    look(&mut readers.lock().unwrap_or_else(PoisonError::into_inner))
}

pub(crate) struct RwLockReadGuard<'a, T> {
    guard: shuttle::sync::RwLockReadGuard<'a, T>,
    readers: &'a Readers,
    reader: Option<TaskId>,
}

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { lock: shuttle::sync::RwLock::new(value), readers: Readers::default() }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        let reader = shuttle::current::try_get_current_task();
        let reads = with_readers(&self.readers, |readers| readers.contains(&reader));
        assert!(!reads, "a thread takes a lock for reading twice");
        let guard = self.lock.read().unwrap_or_else(PoisonError::into_inner);
        with_readers(&self.readers, |readers| readers.push(reader));
        RwLockReadGuard { guard, readers: &self.readers, reader }
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.lock.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> std::ops::Deref for RwLockReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        with_readers(self.readers, |readers| readers.retain(|reader| *reader != self.reader));
    }
}
