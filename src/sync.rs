//! Locks, atomics, channels and threads of the table, the committer and the subscriptions, all from here: the models of
//! `tests/concurrency` put others in their place, whose order a scheduler decides.

#[cfg(all(test, stockmesh_shuttle))]
mod scheduled;

#[cfg(all(test, stockmesh_shuttle))]
pub(crate) use scheduled::{
    BroadcastStream, Mutex, RwLock, RwLockWriteGuard, broadcast, choose, mpsc, now, oneshot, watch,
};
#[cfg(all(test, stockmesh_shuttle))]
pub(crate) use shuttle::{sync::atomic, thread};

#[cfg(not(all(test, stockmesh_shuttle)))]
pub(crate) use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
#[cfg(not(all(test, stockmesh_shuttle)))]
pub(crate) use std::{sync::atomic, thread};
#[cfg(not(all(test, stockmesh_shuttle)))]
pub(crate) use tokio::sync::{broadcast, mpsc, oneshot};
#[cfg(not(all(test, stockmesh_shuttle)))]
pub(crate) use tokio_stream::wrappers::BroadcastStream;

/// The clock of short waits.
#[cfg(not(all(test, stockmesh_shuttle)))]
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}
