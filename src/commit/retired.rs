//! Fences: no more is taken of a retired replica, and it is stored who takes over for it (rules Q1, Q2, Q6).

use std::collections::{BTreeMap, BTreeSet};

use metrics::counter;
use stockmesh_proto::product::Product;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::{ReplicaId, Sku};

use super::answer::Answer;
use super::{Event, FenceOutcome, Stopped, Worker};
use crate::limits::RETIRED_MAX;
use crate::retirements::{HeirClaim, given_up, named_heir, note, row};
use crate::sync::oneshot;

impl Worker {
    /// Fences a replica, or notes that its fence is closed. The answer comes once it is durable.
    pub(super) fn apply_fence(
        &mut self,
        retired: ReplicaId,
        claim: &HeirClaim,
        reply: oneshot::Sender<Result<FenceOutcome, Stopped>>,
        answers: &mut Vec<Answer>,
    ) {
        if self.failed {
            let _ = reply.send(Err(Stopped));
            return;
        }
        let outcome = self.note_retired(retired, claim);
        answers.push(Answer::Fence(reply, outcome));
    }

    fn note_retired(&mut self, retired: ReplicaId, claim: &HeirClaim) -> FenceOutcome {
        if retired == self.table.own() {
            return FenceOutcome::Own;
        }
        let (rows, named) = {
            let mut retirements = self.progress.retired.write();
            if !retirements.contains_key(&retired) && retirements.len() >= RETIRED_MAX {
                return FenceOutcome::Full;
            }
            let own = self.table.own();
            // Nobody waits for an answer to what slots show, and there can be many of them.
            let named = match claim {
                HeirClaim::TookOver { heir } => *heir,
                HeirClaim::Asks { .. } | HeirClaim::Closes { .. } => named_heir(&retirements, retired, claim, own),
            };
            (note(&mut retirements, retired, claim, own), named)
        };
        if rows.is_empty() {
            return FenceOutcome::Fenced(named);
        }
        for (replica, retirement) in rows {
            self.settings.extend(row(replica, retirement));
        }
        self.note_retirement_news();
        counter!("stockmesh_fences_total").increment(1);
        let _ = self.events.send(Event::Retired(retired));
        FenceOutcome::Fenced(named)
    }

    /// Wakes up whoever takes over for the retired.
    pub(super) fn note_retirement_news(&self) {
        self.progress.retirement_news.send_modify(|count| *count += 1);
    }

    /// Learns from slots that came in who was retired, and whether there is anything to take over.
    pub(super) fn learn_retirements<'a>(&mut self, products: impl Iterator<Item = &'a (Sku, Product)> + Clone) {
        // Others only bring what had been missing. Of two heirs that are new the lower id counts, and the other one tells whether it
        // goes on for that one.
        let heirs = products.clone().flat_map(|(_, product)| product.inheritances()).filter(|slot| slot.taken.is_heir);
        let mut learnt: BTreeMap<ReplicaId, BTreeSet<ReplicaId>> = BTreeMap::new();
        for slot in heirs {
            learnt.entry(slot.from).or_default().insert(slot.to);
        }
        // Also of replicas that were known to be retired: one that returned brought what it alone had.
        let mut is_news = !learnt.is_empty();
        for (retired, heirs) in learnt {
            if retired == self.table.own() {
                self.mint_incarnation(RETIRED_HERE, None);
            }
            for heir in heirs {
                self.note_retired(retired, &HeirClaim::TookOver { heir });
            }
        }
        if !is_news {
            let retired = self.progress.retired.read();
            let of_retired = |(_, product): &(Sku, Product)| {
                let granted = product.grants().iter().any(|grant| retired.contains_key(&grant.to));
                let inherited = product.inheritances().iter().any(|slot| retired.contains_key(&slot.from));
                granted || inherited || product.slots().any(|slot| retired.contains_key(&slot.dot().replica))
            };
            is_news = !retired.is_empty() && products.clone().any(of_retired);
        }
        if is_news {
            self.note_retirement_news();
        }
    }

    /// The peers say that this replica was retired (rule Q6).
    pub(super) fn heed_retirement(&mut self, replica: ReplicaId) {
        if replica == self.table.own() && !self.failed {
            self.mint_incarnation(RETIRED_HERE, None);
            self.note_given_up(replica);
            self.note_retirement_news();
        }
    }

    /// Who took over is known by a slot alone, and there may be none (rule Q6).
    fn note_given_up(&mut self, former: ReplicaId) {
        let mut retirements = self.progress.retired.write();
        if retirements.len() < RETIRED_MAX && !retirements.contains_key(&former) {
            retirements.insert(former, given_up(former));
            self.settings.extend(row(former, given_up(former)));
        }
    }
}

/// Why a new id is taken by a replica that was retired.
const RETIRED_HERE: &str = "the cluster retired this replica while it was away";
