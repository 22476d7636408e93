//! Own requests: evaluated, applied to the table and the books, and gathered for the group's transaction.

use metrics::counter;
use stockmesh_proto::ShardIndex;
use stockmesh_proto::delta::Products;
use stockmesh_proto::operation::{Evaluation, Operation, OperationRefused, Outcome, Request, Writer};
use stockmesh_proto::product::Product;
use stockmesh_proto::reconcile::StateView;
use tokio::sync::oneshot;

use super::batch::Gathered;
use super::worker::Answer;
use super::{Asked, Given, Stopped, Worker};
use crate::error::WriteError;

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
        if from == self.table.own() {
            let grant = Operation::Grant { sku: sku.clone(), location: location.clone(), to, units };
            if let Ok(outcomes) = self.apply_request(&vec![grant].into(), gathered)
                && let Some(Outcome::Granted { units, sequence }) = outcomes.first()
            {
                (given.units, given.sequence) = (*units, *sequence);
            }
        }
        given.products = self.at_location(asked);
        answers.push(Answer::Grant(reply, given));
    }

    fn at_location(&self, asked: &Asked) -> Products {
        let Some(product) = self.table.get(asked.sku.as_str()) else { return Products::new() };
        let stock = product.stock_at(&asked.location).to_vec();
        let grants = product.grants_at(&asked.location).cloned().collect();
        let seen = Product::from_slots(stock, grants, None, None).filter(|seen| !seen.is_empty());
        seen.map(|seen| (asked.sku.clone(), seen)).into_iter().collect()
    }

    fn apply_request(&mut self, request: &Request, gathered: &mut Gathered) -> Result<Vec<Outcome>, OperationRefused> {
        let (own, shards, drift_ms_max) = (self.table.own(), self.table.count(), self.drift_ms_max);
        let writer = Writer { own, shards, drift_ms_max };
        let now_ms = self.wall.now_ms();
        let evaluation = {
            let books = self.progress.books.read();
            writer.evaluate(request, &*self.table, &books, &mut self.clock, now_ms)?
        };
        if evaluation.repeated {
            counter!("stockmesh_requests_repeated_total").increment(1);
            return Ok(evaluation.outcomes);
        }
        self.merge_own(&evaluation, gathered);
        let outcomes = evaluation.outcomes.clone();
        let forgotten = self.progress.books.write().enter(&evaluation, self.next_ledger(), now_ms);
        if !evaluation.holds.is_empty() {
            self.note_next_expiry();
        }
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
    fn merge_own(&mut self, evaluation: &Evaluation, gathered: &mut Gathered) {
        let (own, shards) = (self.table.own(), &evaluation.shards);
        let written: Vec<(ShardIndex, Products, u64)> =
            shards.iter().map(|(shard, writes)| (*shard, writes.clone().into_products(), writes.to)).collect();
        if self.is_watched() {
            written.iter().for_each(|(_, products, _)| gathered.note_before(products, &self.table));
        }
        self.table.write_all(shards.keys().copied(), |states| {
            for ((_, state), (_, products, to)) in states.iter_mut().zip(&written) {
                state.merge(products);
                state.claim(&[(own, *to)].into_iter().collect());
            }
        });
        for ((shard, writes), (_, products, to)) in shards.iter().zip(&written) {
            gathered.add_slots(*shard, products.iter());
            gathered.add_claim(*shard, &[(own, *to)].into_iter().collect());
            self.table.add_own_writes(writes.to - writes.from + 1);
            gathered.add_own(own, *shard, writes.clone());
        }
    }
}
