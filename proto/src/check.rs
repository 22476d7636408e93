//! What is checked of a delta from elsewhere before anything of it is applied.

use crate::hlc::Stamp;
use crate::id::{ReplicaId, ShardCount, ShardIndex, Sku};
use crate::product::{GrantSlot, Product};
use crate::shard::Shard;
use crate::version::VersionVector;
use crate::wire::{Ask, Granted};

/// A delta that is not merged. Nothing of it was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaRefused {
    /// The shard does not exist in this cluster.
    #[error("shard {0} does not exist; nothing was applied")]
    UnknownShard(ShardIndex),
    /// A product lies in another shard.
    #[error("product {sku} does not lie in shard {shard}; nothing was applied")]
    ForeignProduct {
        /// The product.
        sku: Sku,
        /// The shard it came with.
        shard: ShardIndex,
    },
    /// A stamp runs further ahead of this node's clock than the drift bound (rule C4).
    #[error(
        "product {sku} carries a stamp {ahead_ms} ms ahead of this clock, {drift_ms_max} ms are allowed; nothing was applied"
    )]
    Drift {
        /// The product.
        sku: Sku,
        /// How far the stamp runs ahead.
        ahead_ms: u64,
        /// The drift bound.
        drift_ms_max: u64,
    },
    /// The shards of a push are not in rising order, or one comes twice.
    #[error("the shards of a push are not in rising order; nothing was applied")]
    ShardsDisordered,
    /// A push names a range of writes whose last it does not carry. Every write leaves a slot, so no honest push does
    /// that; and what is claimed without its slots would never be sent again.
    #[error("a push names the writes {from} to {to} of shard {shard} and does not carry the last; nothing was applied")]
    RangeWithoutWrite {
        /// The shard.
        shard: ShardIndex,
        /// The first sequence number that it names.
        from: u64,
        /// The last.
        to: u64,
    },
    /// An answer to a question for rights is about something else, or names a grant that it does not carry.
    #[error("product {sku}: an answer does not carry the grant that it names; nothing was applied")]
    NotGranted {
        /// The product that was asked for.
        sku: Sku,
    },
    /// A push carries a slot that is not its origin's, or is out of the range it names.
    #[error("product {sku} carries a write that its push does not name; nothing was applied")]
    OutOfRange {
        /// The product.
        sku: Sku,
    },
}

impl DeltaRefused {
    /// Whether the peer broke a rule, rather than a clock being off: such a peer loses its link.
    pub fn is_violation(&self) -> bool {
        !matches!(self, Self::Drift { .. })
    }
}

/// The clock that stamps are held against.
#[derive(Clone, Copy, Debug)]
pub struct DriftCheck {
    /// The wall clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// The drift bound.
    pub drift_ms_max: u64,
}

impl DriftCheck {
    /// How far `stamp` is beyond the bound's reach: its lead over the clock, if that exceeds the bound.
    pub fn excess_ms(&self, stamp: Stamp) -> Option<u64> {
        Some(stamp.ahead_ms(self.now_ms)).filter(|ahead_ms| *ahead_ms > self.drift_ms_max)
    }
}

/// Checks that every product lies in `shard` and no stamp runs ahead too far (rules S1, C4).
///
/// # Errors
/// At the first slot that breaks a rule.
pub fn check_products(
    shards: ShardCount,
    shard: ShardIndex,
    products: &[(Sku, Product)],
    drift: DriftCheck,
) -> Result<(), DeltaRefused> {
    if shards.index(shard.0).is_none() {
        return Err(DeltaRefused::UnknownShard(shard));
    }
    for (sku, product) in products {
        if shards.shard_of(sku) != shard {
            return Err(DeltaRefused::ForeignProduct { sku: sku.clone(), shard });
        }
        let excess_ms =
            product.slots().filter_map(|slot| slot.stamp()).filter_map(|stamp| drift.excess_ms(stamp)).max();
        if let Some(ahead_ms) = excess_ms {
            return Err(DeltaRefused::Drift { sku: sku.clone(), ahead_ms, drift_ms_max: drift.drift_ms_max });
        }
    }
    Ok(())
}

/// Checks an answer of `from` to what `own` asked (rule B5): it is about that product and place alone, and carries the
/// grant that it names.
///
/// # Errors
/// If it breaks a rule. Nothing of it may be applied then.
pub fn check_granted(
    granted: &Granted,
    ask: &Ask,
    (from, own): (ReplicaId, ReplicaId),
    shards: ShardCount,
) -> Result<(), DeltaRefused> {
    let not_granted = || DeltaRefused::NotGranted { sku: ask.sku.clone() };
    if granted.shard != shards.shard_of(&ask.sku) {
        return Err(DeltaRefused::ForeignProduct { sku: ask.sku.clone(), shard: granted.shard });
    }
    let is_asked = |(sku, product): &(Sku, Product)| {
        let in_place = product.stock().iter().all(|slot| slot.location == ask.location)
            && product.grants().iter().all(|slot| slot.location == ask.location)
            && product.inheritances().iter().all(|slot| slot.location == ask.location);
        *sku == ask.sku && in_place && product.price().is_none() && product.listed().is_none()
    };
    if granted.products.len() > 1 || !granted.products.iter().all(is_asked) {
        return Err(not_granted());
    }
    if granted.units == 0 {
        return Ok(());
    }
    let names_it = |grant: &GrantSlot| {
        (grant.from, grant.to) == (from, own) && grant.sequence == granted.sequence && grant.units >= granted.units
    };
    let carried = granted.products.first().is_some_and(|(_, product)| product.grants().iter().any(names_it));
    if carried && granted.sequence > 0 { Ok(()) } else { Err(not_granted()) }
}

/// Whether a delta shows a write of `own` that this shard does not hold (rule I2): a dot ahead of the vector, or an
/// own slot that the delta would change. Then the directory was restored from an old copy, or cloned.
pub fn shows_own_future(
    shard: &Shard,
    own: ReplicaId,
    products: &[(Sku, Product)],
    claim: Option<&VersionVector>,
) -> bool {
    let written = shard.version().get(own);
    if claim.is_some_and(|claim| claim.get(own) > written) {
        return true;
    }
    products.iter().any(|(sku, product)| {
        let own_slots = product.filtered(&mut |slot| slot.dot().replica == own);
        if own_slots.is_empty() {
            return false;
        }
        let ahead = own_slots.slots().any(|slot| slot.dot().sequence > written);
        ahead || changes_product(shard, sku, &own_slots)
    })
}

/// Whether a delta shows that `own` was retired: another replica took its place at some location (rule E6). What `own`
/// writes from then on counts for nothing there; it must take a new id at once.
pub fn shows_retirement(own: ReplicaId, products: &[(Sku, Product)]) -> bool {
    products.iter().any(|(_, product)| product.inheritances().iter().any(|slot| slot.from == own))
}

fn changes_product(shard: &Shard, sku: &Sku, incoming: &Product) -> bool {
    let mut copy = shard.get(sku.as_str()).map(|product| Product::clone(product)).unwrap_or_default();
    let mut changed = false;
    copy.join(incoming, sku.as_str(), &mut |_| changed = true);
    changed
}
