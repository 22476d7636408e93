//! How far peers may fill a shard: what is stored must stay readable.

use std::borrow::Cow;

use metrics::counter;
use stockmesh_proto::delta::bytes_max_joined;
use stockmesh_proto::limits::{PRODUCT_BYTES_MAX, REPLICAS_MAX, SESSION_VERSION_ENTRIES_MAX};
use stockmesh_proto::product::Product;
use stockmesh_proto::{Shard, ShardCount, Sku, VersionVector};
use tracing::error;

/// Replicas that claims of peers may bring a version vector to: half of what is read, so that own writes always find
/// room, and no peer makes a node's vectors unreadable with made-up replicas; and no more than a reconciliation of all
/// shards may carry, counted once as summarised and once as sent.
pub(super) fn entries_claimed_max(shards: ShardCount) -> usize {
    (REPLICAS_MAX / 2).min(SESSION_VERSION_ENTRIES_MAX / (2 * usize::from(shards.get())))
}

/// Whether a version vector may be joined with what a peer claims; if not, it is counted and reported.
pub(super) fn has_room(version: &VersionVector, claimed: &VersionVector, entries_max: usize) -> bool {
    if version.len() + claimed.len() <= entries_max {
        return true;
    }
    let new = claimed.iter().filter(|(replica, _)| version.get(*replica) == 0).count();
    let has_room = new == 0 || version.len() + new <= entries_max;
    if !has_room {
        counter!("stockmesh_claims_refused_total").increment(1);
        error!(replicas = version.len(), "a claim was not taken: the version vector would name too many replicas");
    }
    has_room
}

/// The products that fit the shard: a product that would grow beyond what a frame holds is turned away, counted and
/// reported. Replicas that keep to their own limit do not come near; a peer that makes slots up does.
pub(super) fn fitting<'a>(state: &Shard, products: &'a [(Sku, Product)]) -> Cow<'a, [(Sku, Product)]> {
    let fits = |(sku, incoming): &(Sku, Product)| {
        let bytes = state.get(sku.as_str()).map_or(0, |known| bytes_max_joined(sku, known, incoming));
        if bytes > PRODUCT_BYTES_MAX {
            counter!("stockmesh_deltas_refused_total").increment(1);
            error!(%sku, bytes, "slots were turned away: the product would exceed {PRODUCT_BYTES_MAX} bytes");
        }
        bytes <= PRODUCT_BYTES_MAX
    };
    if products.iter().all(fits) {
        return Cow::Borrowed(products);
    }
    products.iter().filter(|product| fits(product)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stockmesh_proto::counter::Counters;
    use stockmesh_proto::product::StockSlot;
    use stockmesh_proto::{Location, ReplicaId};

    fn product(locations: std::ops::Range<u32>) -> Product {
        let slot = |number| StockSlot {
            location: Location::new(&format!("{number:06}")).unwrap(),
            replica: ReplicaId::from_random(1),
            sequence: 1,
            counters: Counters::default(),
        };
        Product::from_slots(locations.map(slot).collect(), Vec::new(), None, None).unwrap()
    }

    #[test]
    fn a_product_beyond_the_limit_is_turned_away_and_its_neighbours_are_not() {
        let (a, b) = (Sku::new("A").unwrap(), Sku::new("B").unwrap());
        let mut state = Shard::new(0);
        // About 73 bytes a slot: 12,000 fit, 24,000 do not.
        let first = [(a.clone(), product(0..12_000))];
        assert_eq!(fitting(&state, &first).len(), 1);
        state.merge(&first);
        let grown = [(a.clone(), product(12_000..24_000)), (b.clone(), product(0..1))];
        assert_eq!(fitting(&state, &grown).iter().map(|(sku, _)| sku).collect::<Vec<_>>(), [&b]);
        // The same slots once more take no more room.
        assert_eq!(fitting(&state, &first).len(), 1);
    }

    #[test]
    fn claims_fill_a_version_vector_up_to_their_limit() {
        let shards = |count| ShardCount::new(count).unwrap();
        assert_eq!((entries_claimed_max(shards(256)), entries_claimed_max(shards(4096))), (2048, 128));
        let vector = |range: std::ops::Range<u64>| -> VersionVector {
            range.map(|replica| (ReplicaId::from_random(replica), 1)).collect()
        };
        assert!(has_room(&vector(1..100), &vector(50..129), 128));
        assert!(!has_room(&vector(1..100), &vector(50..130), 128));
        assert!(has_room(&vector(1..200), &vector(1..200), 128), "what is claimed already may be claimed again");
    }
}
