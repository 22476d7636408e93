//! The committing thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, histogram};
use stockmesh_proto::check::shows_own_future;
use stockmesh_proto::hlc::Clock;
use stockmesh_proto::operation::Books;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::{ReplicaId, VersionVector};
use tracing::{debug_span, error};

use super::answer::Answer;
use super::batch::Gathered;
use super::fold::Fold;
use super::gathering::Gathering;
use super::room::{entries_claimed_max, fitting, has_room};
use super::side::Trimming;
use super::{
    Claim, Commits, Committer, Durable, Event, OwnWrites, Progress, RemoteDelta, RemoteOutcome, Stopped, Work,
};
use crate::clock::WallClock;
use crate::limits::{COMMIT_QUEUE_MAX, COMMITS_TO_PUSH_MAX, GROUP_BYTES_TARGET, GROUP_WORK_MAX, LAG_BATCHES_MAX};
use crate::retirements::Retirements;
use crate::settings::{self, Stored};
use crate::storage::{Batch, DataDirectory, Engine, StorageError, Transaction};
use crate::subscribe::{Changed, Notice, ProductChange};
use crate::sync::atomic::Ordering;
use crate::sync::{broadcast, mpsc, oneshot, thread};
use crate::table::Table;
use crate::witness::{Incarnation, Witness};

/// Why a new id is taken, in most cases.
pub(super) const OWN_FUTURE: &str = "own writes were seen that this directory never made";

/// The committing thread's own state.
pub(crate) struct Worker {
    pub(super) table: Arc<Table>,
    pub(super) engine: Engine,
    /// Locked until the engine's file is closed.
    directory: Option<DataDirectory>,
    pub(super) clock: Clock,
    pub(super) wall: WallClock,
    pub(super) drift_ms_max: u64,
    pub(super) progress: Arc<Progress>,
    changed: broadcast::Sender<Changed>,
    pub(super) events: broadcast::Sender<Event>,
    pushes: mpsc::Sender<OwnWrites>,
    pub(super) fold: Fold,
    group: u64,
    pub(super) gathering: Gathering,
    pub(super) failed: bool,
    trimming: Trimming,
    /// The settings to store with the next batch: of a new incarnation, or of callers.
    pub(super) settings: Stored,
    /// The id that was left and the new one, to be told once they are durable.
    pub(super) minted: Option<Incarnation>,
}

/// Tells of the thread's end. A panic counts as a failure of the disk: nobody waits for what will never be durable.
pub(super) struct EndGuard(pub(super) Arc<Progress>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.durable.send_replace(Durable::Failed("the committing thread ended in a panic".into()));
        }
        self.0.ended.send_replace(true);
    }
}

/// What became of a group on disk, and what is to be told of it once it is durable.
pub(super) struct Written {
    durable: Result<(), String>,
    products: Vec<ProductChange>,
    own_writes: Option<OwnWrites>,
}

impl Worker {
    /// Starts the thread over a loaded engine and the table that was recovered from it.
    pub(crate) fn start(
        table: Arc<Table>,
        (engine, directory): (Engine, Option<DataDirectory>),
        clock: Clock,
        (wall, drift_ms_max): (WallClock, u64),
        (known, books, retention): ((Vec<ReplicaId>, Retirements), Books, Duration),
    ) -> std::io::Result<(Committer, Commits)> {
        let (work, queue) = mpsc::channel(COMMIT_QUEUE_MAX);
        let (pushes, push_queue) = mpsc::channel(COMMITS_TO_PUSH_MAX);
        let (changed, events) = (broadcast::Sender::new(LAG_BATCHES_MAX), broadcast::Sender::new(16));
        let progress = Arc::new(Progress::new(known, books));
        let (changed_weak, events_sender) = (changed.downgrade(), events.clone());
        let fold = Fold::new(&table);
        let worker = Self {
            table,
            engine,
            directory,
            clock,
            wall,
            drift_ms_max,
            progress: Arc::clone(&progress),
            changed,
            events,
            pushes,
            fold,
            group: 0,
            gathering: Gathering::default(),
            failed: false,
            trimming: Trimming::new(retention),
            settings: Stored::new(),
            minted: None,
        };
        worker.note_figures();
        worker.start_serving(queue)?;
        Ok((Committer { work, progress, changed: changed_weak, events: events_sender }, push_queue))
    }

    fn start_serving(self, queue: mpsc::Receiver<Work>) -> std::io::Result<()> {
        #[cfg(feature = "testing")]
        if crate::simulation::is_running() {
            tokio::spawn(self.serve_as_task(queue));
            return Ok(());
        }
        thread::Builder::new().name("stockmesh-commit".into()).spawn(move || self.run(queue))?;
        Ok(())
    }

    fn run(self, queue: mpsc::Receiver<Work>) {
        let _guard = EndGuard(Arc::clone(&self.progress));
        // A call of its own, so that also in a panic the file is closed before the guard tells of the end.
        self.serve(queue);
    }

    fn serve(mut self, mut queue: mpsc::Receiver<Work>) {
        let mut closing = false;
        while !closing {
            // A round of folding goes on between commits, also when nothing else is to be done.
            let first =
                if self.fold.is_under_way() && !self.failed { queue.try_recv().ok() } else { queue.blocking_recv() };
            match first {
                Some(first) => closing = self.run_group(first, &mut queue),
                None if self.fold.is_under_way() && !queue.is_closed() => self.fold_alone(),
                None => break,
            }
        }
        queue.close();
        // Blocking, for those who were given room in the queue and have not used it yet.
        while let Some(work) = queue.blocking_recv() {
            self.refuse(work);
        }
        self.end();
    }

    pub(super) fn end(self) {
        // The file is closed before anybody is told, so that the directory can be opened again at once.
        let Self { engine, directory, progress, changed, failed, .. } = self;
        drop(engine);
        drop(directory);
        drop(changed);
        if !failed {
            progress.durable.send_replace(Durable::Closed);
        }
    }

    /// Applies, commits and answers one group. Returns whether the store is being closed.
    fn run_group(&mut self, first: Work, queue: &mut mpsc::Receiver<Work>) -> bool {
        let span = debug_span!("commit", group = self.group + 1).entered();
        let (gathered, answers, closing) = self.gather(first, queue);
        let written = self.write(gathered);
        self.tell(written, answers);
        drop(span);
        closing
    }

    /// Takes what has queued up and applies it to the table. Tells too whether the store is being closed.
    pub(super) fn gather(&mut self, first: Work, queue: &mut mpsc::Receiver<Work>) -> (Gathered, Vec<Answer>, bool) {
        self.group += 1;
        // Set before anything of the group can be read: whoever reads it then waits for its barrier.
        self.progress.applied.store(self.group, Ordering::SeqCst);
        let (mut gathered, mut answers, mut closing) = (Gathered::default(), Vec::new(), false);
        let mut next = Some(first);
        let mut gathering = self.gathering.begin();
        while let Some(work) = next {
            match work {
                Work::Own { request, reply } => self.apply_own(&request, reply, &mut gathered, &mut answers),
                Work::Grant { asked, reply } => self.apply_grant(&asked, reply, &mut gathered, &mut answers),
                Work::Remote { deltas, source, applied, reply } => {
                    self.apply_remote((&deltas, &source.witness), reply, &mut gathered, &mut answers);
                    drop(source.room);
                    let _ = applied.map(|applied| applied.send(()));
                }
                Work::OwnFuture { replica, shard, sequence, from } => {
                    self.check_own_future(replica, (shard, sequence), &from);
                }
                Work::IdTaken { replica } if replica == self.table.own() && !self.failed => {
                    self.mint_incarnation("another node is linked under this replica's id", None);
                }
                Work::IdTaken { .. } => {}
                Work::Settings { stored, reply } => self.apply_settings(stored, reply, &mut answers),
                Work::CatchingUp { is_so } => self.settings.extend(settings::catching_up(is_so)),
                Work::Fence { retired, claim, reply } => self.apply_fence(retired, &claim, reply, &mut answers),
                Work::RetiredHere { replica } => self.heed_retirement(replica),
                Work::Ledger { reply } => answers.push(Answer::Ledger(reply)),
                Work::Close => closing = true,
            }
            let count = gathering.count_one();
            let has_room = !closing && count < GROUP_WORK_MAX && gathered.bytes() < GROUP_BYTES_TARGET;
            next = if has_room { gathering.next(|| queue.try_recv().ok(), crate::sync::now) } else { None };
        }
        self.gathering = gathering.end();
        (gathered, answers, closing)
    }

    fn apply_remote(
        &mut self,
        (deltas, from): (&[RemoteDelta], &Witness),
        reply: oneshot::Sender<Result<RemoteOutcome, Stopped>>,
        gathered: &mut Gathered,
        answers: &mut Vec<Answer>,
    ) {
        // Whatever a retired replica had on its way to here: from the fence on nothing more of it counts (rule Q2).
        if self.failed || self.progress.retired.read().contains_key(&from.replica) {
            let _ = reply.send(Err(Stopped));
            return;
        }
        let mut outcome = RemoteOutcome::default();
        for delta in deltas {
            self.apply_delta((delta, from), gathered, &mut outcome);
        }
        counter!("stockmesh_slots_merged_total").increment(outcome.slots_changed);
        if outcome.slots_repaired > 0 {
            counter!("stockmesh_slots_repaired_total").increment(outcome.slots_repaired);
            error!(slots = outcome.slots_repaired, "slots were repaired that this replica had claimed to hold");
        }
        answers.push(Answer::Remote(reply, outcome));
    }

    fn apply_delta(
        &mut self,
        (delta, from): (&RemoteDelta, &Witness),
        gathered: &mut Gathered,
        outcome: &mut RemoteOutcome,
    ) {
        let RemoteDelta { shard, products, claim } = delta;
        let claimed: Option<VersionVector> = match claim {
            Claim::Nothing => None,
            Claim::Version(version) => Some(version.clone()),
            Claim::Range { origin, to, .. } => Some([(*origin, *to)].into_iter().collect()),
        };
        let own = self.table.own();
        let future = self.table.read(*shard, |state| shows_own_future(state, own, products, claimed.as_ref()));
        if future == Some(true) {
            self.mint_incarnation(OWN_FUTURE, Some(from));
        }
        let products = self.table.read(*shard, |state| fitting(state, products)).unwrap_or_default();
        // What was turned away is not claimed: it will come again, and be turned away again.
        let refused = products.len() < delta.products.len();
        outcome.shards_refused.extend(refused.then_some(*shard));
        let products = &*products;
        let watchers = self.progress.watchers.read();
        if *watchers > 0 {
            gathered.note_before(products, &self.table);
        }
        let limit = entries_claimed_max(self.table.count());
        let mut merged = stockmesh_proto::shard::Merged::default();
        let mut advanced = None;
        self.table.write_all(std::iter::once(*shard), |states| {
            let Some((_, state)) = states.first_mut() else { return };
            merged = state.merge(products);
            let before = state.version().clone();
            let joins_on = match claim {
                Claim::Nothing => true,
                // Not to claim is always sound: it costs repeated deltas, nothing else.
                _ if refused || claimed.as_ref().is_some_and(|claimed| !has_room(state.version(), claimed, limit)) => {
                    return;
                }
                Claim::Version(version) => {
                    state.claim(version);
                    true
                }
                Claim::Range { origin, from, to } => state.claim_range(*origin, *from, *to),
            };
            if !joins_on {
                outcome.gaps.push(*shard);
            }
            // A vector only grows, in production too: to lose a claim would be to lose writes.
            assert!(state.version().dominates(&before), "a version vector went back");
            advanced = claimed.filter(|_| joins_on && *state.version() != before);
        });
        drop(watchers);
        self.clock.observe(merged.stamp_max);
        outcome.slots_changed += merged.slots_changed;
        outcome.slots_repaired += merged.slots_repaired;
        if merged.slots_repaired > 0 {
            self.progress.repaired.lock().insert(*shard);
        }
        if !merged.changed.is_empty() {
            self.learn_retirements(products.iter().filter(|(sku, _)| merged.changed.binary_search(sku).is_ok()));
            let news = products.iter().filter(|(sku, _)| merged.changed.binary_search(sku).is_ok());
            gathered.add_slots(*shard, news.map(|(sku, product)| (sku, product)));
        }
        if let Some(version) = advanced {
            gathered.add_claim(*shard, &version);
        }
    }

    /// Makes a group durable.
    pub(super) fn write(&mut self, mut gathered: Gathered) -> Written {
        if self.failed {
            let durable = Err("the disk failed earlier".into());
            return Written { durable, products: Vec::new(), own_writes: None };
        }
        let is_heard = self.changed.receiver_count() > 0;
        let products = if is_heard { gathered.changed(&self.table) } else { Vec::new() };
        let own_writes = gathered.own_writes();
        Written { durable: self.make_durable(gathered), products, own_writes }
    }

    /// Tells everybody what became of a group.
    pub(super) fn tell(&mut self, written: Written, answers: Vec<Answer>) {
        let Written { durable, products, own_writes } = written;
        if let Err(cause) = durable {
            if !self.failed {
                self.fail(&cause);
            }
            self.answer(answers, Err(&cause));
            return;
        }
        self.progress.durable.send_replace(Durable::Group(self.group));
        self.answer(answers, Ok(()));
        // Reconciliation brings what is not pushed (rule P5).
        if let Some(own_writes) = own_writes
            && self.pushes.try_send(own_writes).is_err()
        {
            counter!("stockmesh_pushes_dropped_total").increment(1);
        }
        let incarnation = self.minted.take();
        if !products.is_empty() || incarnation.is_some() {
            let _ = self.changed.send(Arc::new(Notice { products, incarnation, ..Notice::default() }));
        }
    }

    /// Appends the group to the journal and syncs. Whatever fails here, the group is not acknowledged.
    fn make_durable(&mut self, mut gathered: Gathered) -> Result<(), String> {
        let mut transaction = Transaction::default();
        let oldest = self.progress.books.read().ledger_from();
        let side = std::mem::take(&mut gathered.side);
        side.write(self.next_ledger(), oldest, &mut transaction).map_err(|error| error.to_string())?;
        // Behind the holds, since it may delete what the same group gave.
        transaction.settings.append(&mut self.settings);
        // To read the ledger is not to trim it.
        if !(gathered.is_empty() && transaction.is_empty()) {
            transaction.drop_ledger_through = self.trimming.due(&self.engine, oldest, self.wall.now_ms());
        }
        let mut last_batch = self.engine.figures().last_batch;
        if !gathered.is_empty() {
            last_batch += 1;
            let record = gathered.record(last_batch, self.clock.latest(), &self.table);
            record.shards.iter().for_each(|shard| self.fold.touch(shard.shard));
            let payload = record.encode().map_err(|error| error.to_string())?;
            transaction.batch = Some(Batch { number: last_batch, payload });
        }
        self.fold.step(&self.table, last_batch, &mut transaction).map_err(|error| error.to_string())?;
        if transaction.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let figures = self.engine.commit(&transaction).map_err(|error: StorageError| error.to_string())?;
        histogram!("stockmesh_commit_seconds").record(begun.elapsed());
        counter!("stockmesh_commits_total").increment(1);
        self.fold.begin_if_due(figures.journal_bytes, figures.last_batch, &self.table);
        self.note_figures();
        Ok(())
    }

    fn fold_alone(&mut self) {
        let written = self.fold_on();
        self.tell(written, Vec::new());
    }

    /// Writes the next part of a round of folding, as a group of its own.
    pub(super) fn fold_on(&mut self) -> Written {
        self.group += 1;
        self.progress.applied.store(self.group, Ordering::SeqCst);
        self.write(Gathered::default())
    }

    fn note_figures(&self) {
        let figures = self.engine.figures();
        self.progress.last_batch.store(figures.last_batch, Ordering::Relaxed);
        self.progress.journal_bytes.store(figures.journal_bytes, Ordering::Relaxed);
    }
}
