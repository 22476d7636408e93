//! What became of a request: whether the second opinion agrees, and what kind of case it was. And the break that no
//! request makes.

use stockmesh_proto::ReplicaId;
use stockmesh_proto::operation::{Evaluation, Operation, OperationRefused, Outcome};
use stockmesh_proto::product::{GrantSlot, Product};

use super::node::Node;
use super::spec::Expected;

/// In what the naive model and the core differ, if they do.
pub(super) fn disagreement(
    expected: &Result<Expected, OperationRefused>,
    done: &Result<Evaluation, OperationRefused>,
) -> Option<String> {
    let (expected, done) = match (expected, done) {
        (Ok(expected), Ok(done)) => (expected, done),
        (Err(expected), Err(done)) if expected == done => return None,
        (Err(expected), done) => return Some(format!("refused with {expected:?} expected, not {done:?}")),
        (expected, Err(done)) => return Some(format!("{expected:?} expected, not refused with {done:?}")),
    };
    let writes = done.shards.iter().map(|(shard, writes)| {
        (
            *shard,
            (
                writes.from,
                writes.to,
                writes.products.iter().map(|(sku, product)| (sku.clone(), product.clone())).collect(),
            ),
        )
    });
    let is_same = expected.outcomes == done.outcomes
        && expected.writes == writes.collect()
        && expected.holds.values().eq(&done.holds);
    (!is_same).then(|| format!("{expected:?} expected, not {done:?}"))
}

/// What a request came to, in a word or two.
pub(super) fn kind(first: Option<&Operation>, done: &Result<Evaluation, OperationRefused>) -> &'static str {
    use OperationRefused as Refused;
    match (first, done) {
        (_, Err(Refused::Insufficient { shortfalls })) => {
            let total_alone = shortfalls.iter().any(|lacks| lacks.lacking() == 0);
            if total_alone { "refused for the total alone" } else { "refused for lack of rights" }
        }
        (_, Err(Refused::HoldElsewhere { .. })) => "hold elsewhere",
        (_, Err(Refused::HoldUnknown { .. })) => "hold unknown",
        (_, Err(Refused::HoldResolved { .. })) => "hold resolved",
        (_, Err(Refused::HoldTooSmall { .. })) => "hold too small",
        (_, Err(Refused::ReferenceReused { .. })) => "reference reused",
        (_, Err(Refused::Retired { .. })) => "refused to the retired",
        (_, Err(_)) => "refused otherwise",
        (_, Ok(evaluation)) if evaluation.repeated => "repeated",
        (Some(Operation::Sell { .. }), _) => "sold",
        (Some(Operation::Hold { .. }), _) => "held",
        (Some(Operation::CommitHold { .. }), Ok(evaluation)) if !evaluation.holds.is_empty() => "committed",
        (Some(Operation::ReleaseHold { .. }), Ok(evaluation)) if !evaluation.holds.is_empty() => "released",
        (Some(Operation::ExpireHold { .. }), Ok(evaluation)) if !evaluation.holds.is_empty() => "expired",
        (Some(Operation::Grant { .. }), Ok(evaluation)) if !evaluation.movements.is_empty() => "granted",
        (Some(Operation::Transfer { .. }), _) => "transferred",
        (Some(Operation::Inherit { .. }), Ok(evaluation)) => match evaluation.outcomes.first() {
            Some(Outcome::Inherited { held: 1.., .. }) => "inherited with holds",
            Some(Outcome::Inherited { units, .. }) if *units > 0 => "inherited",
            Some(Outcome::Inherited { units, .. }) if *units < 0 => "inherited a deficit",
            _ if evaluation.shards.is_empty() => "nothing to inherit",
            _ => "froze",
        },
        (Some(Operation::Reapply { .. }), Ok(evaluation)) if !evaluation.shards.is_empty() => "reapplied",
        _ => "anything else",
    }
}

/// The break: rights of the former id, handed on.
pub(super) fn inherit(node: &mut Node, before: ReplicaId) {
    let products: Vec<_> = node.products().cloned().collect();
    for keyed in products {
        for slot in keyed.stock().iter().filter(|slot| slot.replica == before) {
            let units = u64::try_from(keyed.rights(&slot.location, before).max(0)).unwrap();
            let location = slot.location.clone();
            let grant = GrantSlot { location, from: before, to: node.id, sequence: slot.sequence, units };
            let shard = node.count.shard_of(&keyed.sku);
            node.merge(shard, &[(keyed.sku.clone(), Product::of_grant(grant))]);
        }
    }
}
