//! A read-only member puts a full member's shard in place of its own (rule K9).

use std::ops::Bound;

use metrics::counter;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::{Shard, Sku};
use tracing::{error, warn};

use super::answer::Answer;
use super::batch::Gathered;
use super::room::{entries_claimed_max, fitting, has_room};
use super::{Replacement, Stopped, Worker};
use crate::sync::atomic::Ordering;
use crate::sync::oneshot;
use crate::witness::Witness;

impl Worker {
    pub(super) fn apply_replacement(
        &mut self,
        (replacement, from): (&Replacement, &Witness),
        reply: oneshot::Sender<Result<(), Stopped>>,
        gathered: &mut Gathered,
        answers: &mut Vec<Answer>,
    ) {
        if self.failed || !self.may_let_go(replacement) || self.progress.retired.read().contains_key(&from.replica) {
            let _ = reply.send(Err(Stopped));
            return;
        }
        let Replacement { shard, chunks, version } = replacement;
        let mut fresh = Shard::new(crate::chance::random());
        let mut is_whole = true;
        for chunk in chunks {
            let products = fitting(&fresh, chunk);
            is_whole &= products.len() == chunk.len();
            let merged = fresh.merge(&products);
            self.clock.observe(merged.stamp_max);
            self.learn_retirements(products.iter());
        }
        // What was turned away is not claimed.
        if is_whole && has_room(fresh.version(), version, entries_claimed_max(self.table.count())) {
            fresh.claim(version);
        }
        let changed = self.table.read(*shard, |state| differing(state, &fresh)).unwrap_or_default();
        let watchers = self.progress.watchers.read();
        if *watchers > 0 {
            gathered.note_before(changed.iter(), &self.table);
        }
        self.table.write_all(std::iter::once(*shard), |states| {
            if let Some((_, state)) = states.first_mut() {
                **state = fresh;
            }
        });
        drop(watchers);
        self.replaced.insert(*shard, self.group);
        counter!("stockmesh_shards_replaced_total").increment(1);
        warn!(%shard, peer = %from, products = changed.len(), "this read-only member held writes that no full member has: they died with their writer, and the shard was taken anew");
        gathered.add_replaced(*shard, changed);
        answers.push(Answer::Replaced(reply));
    }

    /// Whether nothing can be lost by it: a full member takes nothing back, and own writes are nobody else's to judge.
    fn may_let_go(&self, replacement: &Replacement) -> bool {
        let former = self.progress.former.lock().clone();
        let own = std::iter::once(self.table.own()).chain(former);
        let writes = |replica| self.table.read(replacement.shard, |state| state.version().get(replica));
        let has_own = own.filter_map(writes).any(|sequence| sequence > 0);
        let is_reader = self.progress.read_only.load(Ordering::SeqCst);
        if has_own {
            error!(shard = %replacement.shard, "this read-only member holds own writes, from when it was none: no full member has all of them, or writes that died with their writer are beside them");
        }
        is_reader && !has_own
    }
}

/// The products that are not the same in both.
fn differing(state: &Shard, fresh: &Shard) -> Vec<Sku> {
    let all = |shard: &Shard| shard.range(Bound::Unbounded).cloned().collect::<Vec<_>>();
    let mut skus: Vec<Sku> = all(state)
        .into_iter()
        .filter(|product| fresh.get(product.sku.as_str()) != Some(product))
        .chain(all(fresh).into_iter().filter(|product| state.get(product.sku.as_str()).is_none()))
        .map(|product| product.sku.clone())
        .collect();
    skus.sort();
    skus
}
