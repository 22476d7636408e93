//! Own requests: evaluated, applied to the table and the books, and gathered for the group's transaction.

use std::collections::BTreeMap;

use metrics::counter;
use stockmesh_proto::ShardIndex;
use stockmesh_proto::operation::{Operation, OperationRefused, Outcome, Request, ShardWrites, Writer};
use stockmesh_proto::reconcile::StateView;

use super::answer::Answer;
use super::batch::Gathered;
use super::{Asked, Given, Stopped, Worker};
use crate::clock::time_to_remember;
use crate::error::WriteError;
use crate::retirements::last_heir;
use crate::settings::Stored;
use crate::storage::StorageError;
use crate::sync::atomic::Ordering;
use crate::sync::oneshot;

impl Worker {
    pub(super) fn apply_own(
        &mut self,
        request: &Request,
        reply: oneshot::Sender<Result<Vec<Outcome>, WriteError>>,
        gathered: &mut Gathered,
        answers: &mut Vec<Answer>,
    ) {
        if self.failed {
            let _ = reply.send(Err(self.poisoned()));
            return;
        }
        // Here and not only where requests come in: what was queued before the role changed is refused too.
        if self.is_read_only() {
            let _ = reply.send(Err(WriteError::ReadOnly));
            return;
        }
        match self.apply_request(request, gathered) {
            Err(refused) => {
                counter!("stockmesh_operations_refused_total").increment(1);
                let _ = reply.send(Err(refused.into()));
            }
            Ok(outcomes) => {
                let operations = u64::try_from(request.operations.len()).unwrap_or(u64::MAX);
                counter!("stockmesh_operations_total").increment(operations);
                answers.push(Answer::Own(reply, outcomes));
            }
        }
    }

    /// Takes settings of a caller into the group.
    pub(super) fn apply_settings(
        &mut self,
        stored: Stored,
        reply: oneshot::Sender<Result<(), StorageError>>,
        answers: &mut Vec<Answer>,
    ) {
        if self.failed {
            let cause = self.poisoned().to_string();
            let _ = reply.send(Err(StorageError::Poisoned { cause }));
            return;
        }
        self.settings.extend(stored);
        answers.push(Answer::Settings(reply));
    }

    /// Gives rights to a peer, and shows it the product as it is then: whoever asks must see that there is stock.
    pub(super) fn apply_grant(
        &mut self,
        asked: &Asked,
        reply: oneshot::Sender<Result<Given, Stopped>>,
        gathered: &mut Gathered,
        answers: &mut Vec<Answer>,
    ) {
        if self.failed {
            let _ = reply.send(Err(Stopped));
            return;
        }
        let Asked { sku, location, to, from, units } = asked.clone();
        let mut given = Given::default();
        // Under an id that the peer does not know the rights would be out of its reach.
        if from == self.table.own() && !self.is_read_only() {
            let grant = Operation::Grant { sku: sku.clone(), location: location.clone(), to, units };
            if let Ok(outcomes) = self.apply_request(&vec![grant].into(), gathered)
                && let Some(Outcome::Granted { units, sequence }) = outcomes.first()
            {
                (given.units, given.sequence) = (*units, *sequence);
            }
        }
        given.products = self.table.at_location(&asked.sku, &asked.location);
        answers.push(Answer::Grant(reply, given));
    }

    fn is_read_only(&self) -> bool {
        self.progress.read_only.load(Ordering::SeqCst)
    }

    /// Only the last heir takes over, or who has done so at this place before (rules E4, E7, Q4). It is looked at here, where
    /// fences are noted too: so what is written before this node's word for another heir is shown to that one, and after it
    /// nothing more is written.
    fn check_heirs(&self, request: &Request) -> Result<(), OperationRefused> {
        let own = self.table.own();
        for operation in &request.operations {
            let Operation::Inherit { sku, location, from } = operation else { continue };
            let settles =
                self.table.get(sku.as_str()).is_some_and(|product| product.heir(location, *from) == Some(own));
            if !settles && last_heir(*from, &self.progress.retired.read()) != Some(own) {
                let (sku, location) = (sku.clone(), location.clone());
                return Err(OperationRefused::NotTheHeir { sku, location, retired: *from });
            }
        }
        Ok(())
    }

    fn apply_request(&mut self, request: &Request, gathered: &mut Gathered) -> Result<Vec<Outcome>, OperationRefused> {
        self.check_heirs(request)?;
        let (own, shards, drift_ms_max) = (self.table.own(), self.table.count(), self.drift_ms_max);
        let writer = Writer { own, shards, drift_ms_max };
        let now_ms = self.wall.now_ms();
        let mut evaluation = {
            let books = self.progress.books.read();
            writer.evaluate(request, &*self.table, &books, &mut self.clock, now_ms)?
        };
        if evaluation.repeated {
            counter!("stockmesh_requests_repeated_total").increment(1);
            return Ok(evaluation.outcomes);
        }
        self.merge_own(std::mem::take(&mut evaluation.shards), gathered);
        let forgotten = {
            let ledger = self.next_ledger();
            let mut books = self.progress.books.write();
            let remembered_ms = time_to_remember(now_ms, &books);
            books.enter(&evaluation, ledger, remembered_ms)
        };
        if !evaluation.holds.is_empty() {
            self.note_next_expiry();
        }
        let is_remembered = evaluation.reference.is_some();
        let outcomes =
            if is_remembered { evaluation.outcomes.clone() } else { std::mem::take(&mut evaluation.outcomes) };
        gathered.add_side(writer.own, evaluation, forgotten, now_ms);
        Ok(outcomes)
    }

    /// The number of the group's entry in the ledger, if it gets one.
    pub(super) fn next_ledger(&self) -> u64 {
        self.engine.figures().last_ledger.saturating_add(1)
    }

    pub(super) fn note_next_expiry(&self) {
        let next = self.progress.books.read().next_expiry().map(|(expires_ms, _)| expires_ms);
        self.progress.next_expiry_ms.send_if_modified(|known| std::mem::replace(known, next) != next);
    }

    /// Applies the slots that a request writes, all in one step for readers.
    fn merge_own(&mut self, shards: BTreeMap<ShardIndex, ShardWrites>, gathered: &mut Gathered) {
        let own = self.table.own();
        let watchers = self.progress.watchers.read();
        if *watchers > 0 {
            for writes in shards.values() {
                gathered.note_before(&writes.products.as_products(), &self.table);
            }
        }
        self.table.write_all(shards.keys().copied(), |states| {
            for ((_, state), writes) in states.iter_mut().zip(shards.values()) {
                state.merge(&writes.products.as_products());
                let joins_on = state.claim_range(own, writes.from, writes.to);
                // A gap in the own numbers would keep peers from ever claiming what follows.
                assert!(joins_on, "an own write left a gap");
            }
        });
        drop(watchers);
        for (shard, writes) in shards {
            gathered.add_slots(shard, writes.products.iter());
            gathered.add_claim_of(shard, own, writes.to);
            self.table.add_own_writes(writes.to - writes.from + 1);
            gathered.add_own(own, shard, writes);
        }
    }
}
