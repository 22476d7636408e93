//! What callers are told of their work.

use metrics::counter;
use stockmesh_proto::operation::Outcome;
use tracing::error;

use super::worker::Worker;
use super::{Durable, FenceOutcome, Given, RemoteOutcome, Stopped, Work};
use crate::error::WriteError;
use crate::storage::{LedgerView, StorageError};
use crate::sync::oneshot;

/// An answer that is given once the group is durable.
pub(super) enum Answer {
    Own(oneshot::Sender<Result<Vec<Outcome>, WriteError>>, Vec<Outcome>),
    Grant(oneshot::Sender<Result<Given, Stopped>>, Given),
    Remote(oneshot::Sender<Result<RemoteOutcome, Stopped>>, RemoteOutcome),
    Settings(oneshot::Sender<Result<(), StorageError>>),
    Fence(oneshot::Sender<Result<FenceOutcome, Stopped>>, FenceOutcome),
    /// Read behind the group, so that the ledger is never behind what the asker saw of the counters.
    Ledger(oneshot::Sender<Result<LedgerView, StorageError>>),
}

impl Worker {
    pub(super) fn answer(&self, answers: Vec<Answer>, durable: Result<(), &str>) {
        for answer in answers {
            match answer {
                Answer::Own(reply, outcomes) => {
                    let indeterminate = |cause: &str| WriteError::Indeterminate { cause: cause.to_owned() };
                    let _ = reply.send(durable.map(|()| outcomes).map_err(indeterminate));
                }
                Answer::Grant(reply, given) => {
                    let _ = reply.send(durable.map(|()| given).map_err(|_| Stopped));
                }
                Answer::Settings(reply) => {
                    let lost = |cause: &str| StorageError::Indeterminate { cause: cause.to_owned() };
                    let _ = reply.send(durable.map_err(lost));
                }
                Answer::Remote(reply, outcome) => {
                    let _ = reply.send(durable.map(|()| outcome).map_err(|_| Stopped));
                }
                Answer::Fence(reply, outcome) => {
                    let _ = reply.send(durable.map(|()| outcome).map_err(|_| Stopped));
                }
                Answer::Ledger(reply) => {
                    let _ = reply.send(self.engine.ledger());
                }
            }
        }
    }

    /// After a failed write nothing is known of the file. Reads go on, writes are refused, and nothing is sent.
    pub(super) fn fail(&mut self, cause: &str) {
        self.failed = true;
        error!(cause, "the disk failed: the store takes no more writes until it is opened anew");
        counter!("stockmesh_disk_failures_total").increment(1);
        self.progress.durable.send_replace(Durable::Failed(cause.to_owned()));
    }

    pub(super) fn poisoned(&self) -> WriteError {
        match &*self.progress.durable.borrow() {
            Durable::Failed(cause) => WriteError::Poisoned { cause: cause.clone() },
            Durable::Group(_) | Durable::Closed => WriteError::Closed,
        }
    }

    pub(super) fn refuse(&self, work: Work) {
        match work {
            Work::Own { reply, .. } => {
                let _ = reply.send(Err(self.poisoned()));
            }
            Work::Remote { reply, .. } => {
                let _ = reply.send(Err(Stopped));
            }
            Work::Grant { reply, .. } => {
                let _ = reply.send(Err(Stopped));
            }
            Work::Settings { reply, .. } => {
                let _ = reply.send(Err(StorageError::Closed));
            }
            Work::Ledger { reply } => {
                let _ = reply.send(Err(StorageError::Closed));
            }
            Work::Fence { reply, .. } => {
                let _ = reply.send(Err(Stopped));
            }
            Work::OwnFuture { .. }
            | Work::IdTaken { .. }
            | Work::RetiredHere { .. }
            | Work::CatchingUp { .. }
            | Work::Close => {}
        }
    }
}
