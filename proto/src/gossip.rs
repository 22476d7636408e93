//! Pushes: a committed batch goes out at once, to all linked peers or to a random part of them, and is forwarded
//! while it is news (rules P1 to P5). Losing any or all pushes costs time, never convergence.

use crate::check::{DeltaRefused, DriftCheck, check_products};
use crate::delta::bytes_max;
use crate::id::{ReplicaId, ShardCount};
use crate::limits::{PUSH_BYTES_MAX, PUSH_TOLD_MAX};
use crate::wire::{Push, PushShard};

/// Packs the writes of one committed batch into pushes that each fit a frame. A shard's writes that fit none are left
/// out: reconciliation brings them.
pub fn pack(origin: ReplicaId, shards: Vec<PushShard>) -> Vec<Push> {
    let mut pushes: Vec<Push> = Vec::new();
    let mut bytes = 0;
    for shard in shards {
        let size: usize = shard.products.iter().map(|(sku, product)| bytes_max(sku, product)).sum();
        if size > PUSH_BYTES_MAX {
            continue;
        }
        bytes += size;
        match pushes.last_mut() {
            Some(push) if bytes <= PUSH_BYTES_MAX => push.shards.push(shard),
            _ => {
                bytes = size;
                pushes.push(Push { origin, told: Vec::new(), shards: vec![shard] });
            }
        }
    }
    pushes
}

/// Picks whom to tell: all linked peers not told yet if there are at most `fan_out`, else a random choice of them.
/// `random` draws 64 random bits.
pub fn choose(linked: &[ReplicaId], push: &Push, fan_out: usize, random: &mut dyn FnMut() -> u64) -> Vec<ReplicaId> {
    let told = |replica: &ReplicaId| *replica == push.origin || push.told.contains(replica);
    let mut candidates: Vec<ReplicaId> = linked.iter().copied().filter(|replica| !told(replica)).collect();
    candidates.sort_unstable();
    if candidates.len() <= fan_out {
        return candidates;
    }
    // The first steps of a Fisher-Yates shuffle.
    for place in 0..fan_out {
        let rest = candidates.len() - place;
        let step = usize::try_from(random() % u64::try_from(rest).unwrap_or(u64::MAX)).unwrap_or_default();
        candidates.swap(place, place + step);
    }
    candidates.truncate(fan_out);
    candidates
}

/// Notes in a push whom it is sent to, as far as the list has room (rule P4).
pub fn note_told(push: &mut Push, replicas: &[ReplicaId]) {
    for replica in replicas {
        if push.told.len() < PUSH_TOLD_MAX && !push.told.contains(replica) {
            push.told.push(*replica);
        }
    }
}

/// Checks a push from a peer (rule P2): every slot is its origin's, within the range it names, in its shard, no stamp
/// runs ahead too far, and the last write of the range is there.
///
/// # Errors
/// At the first slot that breaks a rule. Nothing of the push may be applied then.
pub fn check_push(push: &Push, shards: ShardCount, drift: DriftCheck) -> Result<(), DeltaRefused> {
    if !push.shards.is_sorted_by(|left, right| left.shard < right.shard) {
        return Err(DeltaRefused::ShardsDisordered);
    }
    for part in &push.shards {
        check_products(shards, part.shard, &part.products, drift)?;
        let mut last = 0;
        for (sku, product) in &part.products {
            last = product.slots().map(|slot| slot.dot().sequence).fold(last, u64::max);
            let named = product.slots().all(|slot| {
                let dot = slot.dot();
                dot.replica == push.origin && (part.from..=part.to).contains(&dot.sequence)
            });
            if !named {
                return Err(DeltaRefused::OutOfRange { sku: sku.clone() });
            }
        }
        if part.from == 0 || part.from > part.to || last != part.to {
            return Err(DeltaRefused::RangeWithoutWrite { shard: part.shard, from: part.from, to: part.to });
        }
    }
    Ok(())
}
