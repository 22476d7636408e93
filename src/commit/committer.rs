//! The callers' side of the committer.

use super::{Asked, Durable, Event, FenceOutcome, Given, Merged, Progress, RemoteDelta, Source, Stopped, Work};
use crate::error::WriteError;
use crate::retirements::{HeirClaim, Retirements};
use crate::settings::Stored;
use crate::storage::{LedgerView, StorageError, check_setting};
use crate::subscribe::{Changed, Watchers};
use crate::sync::atomic::Ordering;
use crate::sync::{broadcast, mpsc, oneshot};
use crate::watch;
use crate::witness::{Incarnation, Witness};
use std::sync::{Arc, Weak};
use stockmesh_proto::operation::{Books, Outcome, Request};
use stockmesh_proto::{ReplicaId, ShardIndex};

/// The callers' side of the committer.
#[derive(Clone, Debug)]
pub(crate) struct Committer {
    pub(super) work: mpsc::Sender<Work>,
    pub(super) progress: Arc<Progress>,
    pub(super) changed: broadcast::WeakSender<Changed>,
    pub(super) events: broadcast::Sender<Event>,
}

impl Committer {
    /// Commits a request, all or nothing. Resolves once it is durable. Dropping the future does not undo it.
    pub(crate) async fn write(&self, request: Request) -> Result<Vec<Outcome>, WriteError> {
        let (reply, answer) = oneshot::channel();
        if self.work.send(Work::Own { request, reply }).await.is_err() {
            return Err(self.why_refused());
        }
        // The thread answers everything it takes; it drops an answer only by ending in the middle of a panic.
        let lost = || WriteError::Indeterminate { cause: "the committing thread ended".into() };
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Gives rights to a peer, as many as are wanted or as there are. Resolves once they are durable, so that the peer
    /// can be told (rule B3).
    pub(crate) async fn grant(&self, asked: Asked) -> Result<Given, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.work.send(Work::Grant { asked, reply }).await.map_err(|_| Stopped)?;
        answer.await.unwrap_or(Err(Stopped))
    }

    /// Stores settings, or deletes those without a value, beside what else the group holds. Resolves once it is durable.
    /// Keys of the directory's own (see `settings`) are not for callers to change.
    ///
    /// # Errors
    /// If a key or value is too long, which changes nothing; or if the store is closed, or its disk failed.
    pub(crate) async fn store_settings(&self, stored: Stored) -> Result<(), StorageError> {
        // Refused here: in the committing thread it would cost the whole group.
        for (key, value) in &stored {
            check_setting(key, value.as_ref().map_or(0, Vec::len))?;
        }
        let (reply, answer) = oneshot::channel();
        self.work.send(Work::Settings { stored, reply }).await.map_err(|_| StorageError::Closed)?;
        answer.await.unwrap_or(Err(StorageError::Closed))
    }

    /// A view of the ledger as it is on disk.
    pub(crate) async fn ledger(&self) -> Result<LedgerView, StorageError> {
        let (reply, answer) = oneshot::channel();
        self.work.send(Work::Ledger { reply }).await.map_err(|_| StorageError::Closed)?;
        answer.await.unwrap_or(Err(StorageError::Closed))
    }

    /// The same committer, without keeping its thread alive.
    pub(crate) fn downgrade(&self) -> WeakCommitter {
        let (progress, changed) = (Arc::downgrade(&self.progress), self.changed.clone());
        WeakCommitter { work: self.work.downgrade(), progress, changed, events: self.events.clone() }
    }

    /// When the next hold expires, in milliseconds since 1970.
    pub(crate) fn next_expiry_ms(&self) -> watch::Receiver<Option<u64>> {
        self.progress.next_expiry_ms.subscribe()
    }

    /// Looks at holds and references as they are in memory: up to one sync ahead of the disk.
    pub(crate) fn books<T>(&self, look: impl FnOnce(&Books) -> T) -> T {
        look(&self.progress.books.read())
    }

    /// Queues remote deltas that came over one link, to be merged in one step. The answer comes once they are durable.
    pub(crate) async fn merge(&self, deltas: Vec<RemoteDelta>, source: Source) -> Result<Merged, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.work.send(Work::Remote { deltas, source, applied: None, reply }).await.map_err(|_| Stopped)?;
        Ok(answer)
    }

    /// The same, with a first answer when it can be read in the table.
    pub(crate) async fn merge_watched(
        &self,
        deltas: Vec<RemoteDelta>,
        source: Source,
    ) -> Result<(oneshot::Receiver<()>, Merged), Stopped> {
        let ((reply, answer), (applied, readable)) = (oneshot::channel(), oneshot::channel());
        self.work.send(Work::Remote { deltas, source, applied: Some(applied), reply }).await.map_err(|_| Stopped)?;
        Ok((readable, answer))
    }

    /// Tells that a peer claims writes of `replica`, which was this replica's id when the claim was judged, that this
    /// replica never made.
    pub(crate) async fn own_future(
        &self,
        replica: ReplicaId,
        shard: ShardIndex,
        sequence: u64,
        from: &Arc<Witness>,
    ) -> Result<(), Stopped> {
        self.work.send(Work::OwnFuture { replica, shard, sequence, from: Arc::clone(from) }).await.map_err(|_| Stopped)
    }

    /// Tells that another node is linked to a peer under this replica's id.
    pub(crate) async fn id_taken(&self, replica: ReplicaId) -> Result<(), Stopped> {
        self.work.send(Work::IdTaken { replica }).await.map_err(|_| Stopped)
    }

    /// Fences a replica that will never return, or notes how far its heir has come. Resolves once it is durable.
    pub(crate) async fn fence(&self, retired: ReplicaId, claim: HeirClaim) -> Result<FenceOutcome, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.work.send(Work::Fence { retired, claim, reply }).await.map_err(|_| Stopped)?;
        answer.await.unwrap_or(Err(Stopped))
    }

    /// Tells that peers retired this replica, under the id that was told to them.
    pub(crate) async fn retired_here(&self, replica: ReplicaId) -> Result<(), Stopped> {
        self.work.send(Work::RetiredHere { replica }).await.map_err(|_| Stopped)
    }

    /// Looks at the replicas that were retired.
    pub(crate) fn retired<T>(&self, look: impl FnOnce(&Retirements) -> T) -> T {
        look(&self.progress.retired.read())
    }

    /// Held by whoever takes over for a retired replica.
    pub(crate) fn taking_over(&self) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.progress.taking_over)
    }

    /// Changes when there may be something to take over for the retired, or to do again.
    pub(crate) fn retirement_news(&self) -> watch::Receiver<u64> {
        self.progress.retirement_news.subscribe()
    }

    /// Notes in the settings whether this node catches up with its peers, so that it knows after a restart. Should the
    /// queue be full, the note is left out: it costs a mark in the status alone.
    pub(crate) fn note_catching_up(&self, is_so: bool) {
        let _ = self.work.try_send(Work::CatchingUp { is_so });
    }

    /// Waits until everything that could be read of the table before this call is durable (rule R8): to be called
    /// between reading state and sending it.
    pub(crate) async fn barrier(&self) -> Result<(), Stopped> {
        let applied = self.progress.applied.load(Ordering::SeqCst);
        let mut durable = self.progress.durable.subscribe();
        let reached = |state: &Durable| !matches!(state, Durable::Group(group) if *group < applied);
        match durable.wait_for(reached).await.as_deref() {
            Ok(Durable::Group(_)) => Ok(()),
            _ => Err(Stopped),
        }
    }

    /// Number of the group applied last: a point in the order of everything that changes the table.
    pub(crate) fn applied(&self) -> u64 {
        self.progress.applied.load(Ordering::SeqCst)
    }

    /// Number of the last durable group: whoever reads the table after this call reads all of it. Of the group applied
    /// last that cannot be said, since it may be half applied.
    pub(crate) fn durable(&self) -> u64 {
        match &*self.progress.durable.borrow() {
            Durable::Group(group) => *group,
            Durable::Failed(_) | Durable::Closed => 0,
        }
    }

    /// Why the disk failed, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        match &*self.progress.durable.borrow() {
            Durable::Failed(cause) => Some(cause.clone()),
            Durable::Group(_) | Durable::Closed => None,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.progress.durable.borrow() == Durable::Closed
    }

    /// The number of the last durable batch.
    pub(crate) fn last_batch(&self) -> u64 {
        self.progress.last_batch.load(Ordering::Relaxed)
    }

    pub(crate) fn journal_bytes(&self) -> u64 {
        self.progress.journal_bytes.load(Ordering::Relaxed)
    }

    /// From here on no own write is made, or they are again.
    pub(crate) fn set_read_only(&self, read_only: bool) {
        self.progress.read_only.store(read_only, Ordering::SeqCst);
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.progress.read_only.load(Ordering::SeqCst)
    }

    /// The latest changes of the replica id since the store was opened.
    pub(crate) fn incarnations(&self) -> Vec<Incarnation> {
        self.progress.incarnations.lock().iter().cloned().collect()
    }

    pub(crate) fn former_replicas(&self) -> Vec<ReplicaId> {
        self.progress.former.lock().clone()
    }

    /// Shards in which slots were missing that this replica had claimed.
    pub(crate) fn shards_repaired(&self) -> Vec<ShardIndex> {
        self.progress.repaired.lock().iter().copied().collect()
    }

    /// Where changes are told, for as long as the store is open.
    pub(crate) fn changes(&self) -> broadcast::WeakSender<Changed> {
        self.changed.clone()
    }

    /// Counts subscriptions that watch for stock that runs low.
    pub(crate) fn watchers(&self) -> Watchers {
        Arc::clone(&self.progress.watchers)
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Ends the thread once everything queued before is durable. Of several calls each returns when the directory can
    /// be opened again, also one that comes while the thread is ending already.
    pub(crate) async fn close(&self) {
        let _ = self.work.send(Work::Close).await;
        let _ = self.progress.ended.subscribe().wait_for(|ended| *ended).await;
    }

    fn why_refused(&self) -> WriteError {
        self.failure().map_or(WriteError::Closed, |cause| WriteError::Poisoned { cause })
    }
}

/// A committer that ends when nobody else needs it.
#[derive(Debug)]
pub(crate) struct WeakCommitter {
    work: mpsc::WeakSender<Work>,
    progress: Weak<Progress>,
    pub(super) changed: broadcast::WeakSender<Changed>,
    pub(super) events: broadcast::Sender<Event>,
}

impl WeakCommitter {
    /// The committer, if its store is still there.
    pub(crate) fn upgrade(&self) -> Option<Committer> {
        let (work, progress) = (self.work.upgrade()?, self.progress.upgrade()?);
        Some(Committer { work, progress, changed: self.changed.clone(), events: self.events.clone() })
    }
}
