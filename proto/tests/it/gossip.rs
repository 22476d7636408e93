//! Pushes: how batches are packed, and who is told.

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use stockmesh_proto::counter::Counters;
use stockmesh_proto::delta::bytes_max;
use stockmesh_proto::gossip::{choose, note_told, pack};
use stockmesh_proto::limits::{FRAME_BYTES_MAX, PUSH_BYTES_MAX, PUSH_TOLD_MAX};
use stockmesh_proto::product::{Product, StockSlot};
use stockmesh_proto::wire::{Message, Push, PushShard};
use stockmesh_proto::{ReplicaId, ShardIndex};

use crate::support::{config, location, replica_id, sku};

fn push(origin: u64, told: &BTreeSet<u64>) -> Push {
    let told = told.iter().copied().map(replica_id).collect();
    Push { origin: replica_id(origin), told, shards: Vec::new() }
}

/// A shard's writes: so many products, each with one slot of the greatest size.
fn part(shard: usize, count: usize) -> PushShard {
    let counters = Counters { added: u64::MAX, removed: u64::MAX, held: u64::MAX, released: u64::MAX };
    let (replica, sequence) = (replica_id(u64::MAX), u64::MAX);
    let slot = StockSlot { location: location(&"x".repeat(64)), replica, sequence, counters };
    let product = |number: usize| (sku(&format!("{number:0128}")), Product::of_stock(slot.clone()));
    let shard = ShardIndex(u16::try_from(shard).unwrap());
    PushShard { shard, from: 1, to: u64::MAX, products: (0..count).map(product).collect() }
}

fn estimate(part: &PushShard) -> usize {
    part.products.iter().map(|(sku, product)| bytes_max(sku, product)).sum()
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn the_told_are_not_told_again_and_the_rest_is_up_to_the_fan_out(
        linked in btree_set(1_u64..20, 0..15),
        told in btree_set(1_u64..20, 0..10),
        fan_out in 0_usize..8,
        draws in vec(any::<u64>(), 8),
    ) {
        let push = push(1, &told);
        let linked: Vec<ReplicaId> = linked.into_iter().map(replica_id).collect();
        let mut draws = draws.into_iter();
        let chosen = choose(&linked, &push, fan_out, &mut || draws.next().unwrap());
        let eligible = linked.iter().filter(|replica| **replica != push.origin && !push.told.contains(replica)).count();
        prop_assert_eq!(chosen.len(), eligible.min(fan_out));
        let distinct: BTreeSet<_> = chosen.iter().collect();
        prop_assert_eq!(distinct.len(), chosen.len());
        for replica in &chosen {
            prop_assert!(linked.contains(replica) && *replica != push.origin && !push.told.contains(replica));
        }
    }

    #[test]
    fn the_list_of_the_told_is_bounded_and_has_nobody_twice(groups in vec(btree_set(1_u64..200, 0..60), 0..4)) {
        let mut noted = push(1, &BTreeSet::new());
        for group in &groups {
            let group: Vec<ReplicaId> = group.iter().copied().map(replica_id).collect();
            note_told(&mut noted, &group);
            note_told(&mut noted, &group);
        }
        let distinct: BTreeSet<_> = noted.told.iter().collect();
        let all: BTreeSet<_> = groups.iter().flatten().collect();
        prop_assert_eq!(distinct.len(), noted.told.len());
        prop_assert_eq!(noted.told.len(), all.len().min(PUSH_TOLD_MAX));
    }

}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn a_batch_is_packed_once_into_pushes_that_fit_a_frame(
        sizes in vec(prop_oneof![6 => 1_usize..100, 2 => 500_usize..2_000], 0..12),
    ) {
        let parts: Vec<PushShard> = sizes.iter().enumerate().map(|(shard, slots)| part(shard, *slots)).collect();
        let fitting: Vec<PushShard> = parts.iter().filter(|part| estimate(part) <= PUSH_BYTES_MAX).cloned().collect();
        let pushes = pack(replica_id(1), parts);
        for push in &pushes {
            prop_assert!(!push.shards.is_empty() && push.told.is_empty() && push.origin == replica_id(1));
            prop_assert!(push.shards.iter().map(estimate).sum::<usize>() <= PUSH_BYTES_MAX);
            prop_assert!(Message::Push(push.clone()).encode().unwrap().len() <= FRAME_BYTES_MAX);
        }
        let packed: Vec<PushShard> = pushes.into_iter().flat_map(|push| push.shards).collect();
        prop_assert_eq!(packed, fitting, "each part once, in order; what fits no push is left to reconciliation");
    }
}

/// Every eligible peer can be drawn.
#[test]
fn the_choice_reaches_everybody() {
    let linked: Vec<ReplicaId> = (2..10).map(replica_id).collect();
    let push = push(1, &BTreeSet::new());
    let reached: BTreeSet<ReplicaId> = (0..8_u64).flat_map(|draw| choose(&linked, &push, 1, &mut || draw)).collect();
    assert_eq!(reached.len(), linked.len());
}
