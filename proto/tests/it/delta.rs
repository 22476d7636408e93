//! Delta extraction is what its definition says, in chunks of any size, with writes in between.

use std::ops::Bound;

use proptest::collection::vec;
use proptest::prelude::*;
use stockmesh_proto::counter::Counters;
use stockmesh_proto::delta::{bytes_max, bytes_max_joined, slot_count};
use stockmesh_proto::product::{GrantSlot, InheritanceSlot, Product, StockSlot, Taken};
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::wire::{Message, Part};
use stockmesh_proto::{Shard, ShardIndex, Sku, VersionVector};

use crate::support::conversation::reconcile;
use crate::support::generate::{operations, products, version};
use crate::support::oracle::Log;
use crate::support::replica::Replica;
use crate::support::{config, location, replica_id, shard_count, sku};

/// The definition: every slot whose dot the vector does not cover, by SKU.
fn lacking(shard: &Shard, covered: &VersionVector) -> Vec<(Sku, Product)> {
    let products = shard.range(Bound::Unbounded).map(|keyed| {
        let (sku, product) = (&keyed.sku, &keyed.product);
        let slots = |slot: stockmesh_proto::product::SlotRef<'_>| slot.dot().sequence > covered.get(slot.dot().replica);
        (sku.clone(), product.filtered(&mut |slot| slots(slot)))
    });
    products.filter(|(_, product)| !product.is_empty()).collect()
}

fn chunks(shard: &Shard, covered: &VersionVector, bytes_target: usize) -> Vec<Vec<(Sku, Product)>> {
    let mut chunks = Vec::new();
    let mut next: Option<Sku> = None;
    loop {
        let from = next.as_ref().map_or(Bound::Unbounded, |sku| Bound::Included(sku.as_str()));
        let chunk = shard.extract(covered, from, bytes_target);
        assert_eq!(chunk.version, *shard.version());
        chunks.push(chunk.products);
        match chunk.next {
            Some(sku) => next = Some(sku),
            None => return chunks,
        }
    }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn extraction_is_its_definition_for_any_chunk_size(
        states in vec(products(), 0..4),
        claims in version(),
        covered in version(),
        bytes_target in prop_oneof![Just(0_usize), 1_usize..2_000, Just(usize::MAX)],
    ) {
        let mut shard = Shard::new(3);
        for state in &states {
            shard.merge(state);
        }
        shard.claim(&claims);
        let wanted = lacking(&shard, &covered);
        let chunks = chunks(&shard, &covered, bytes_target);
        prop_assert_eq!(chunks.concat(), wanted.clone());
        for chunk in &chunks {
            let bytes: usize = chunk.iter().map(|(sku, product)| bytes_max(sku, product)).sum();
            prop_assert!(bytes <= bytes_target || chunk.len() == 1 || wanted.is_empty());
            prop_assert!(!chunk.is_empty() || wanted.is_empty(), "no chunk is closed empty");
        }
        prop_assert_eq!(slot_count(&chunks.concat()), slot_count(&wanted));
    }

    /// The estimate by which chunks are closed is never too low, so a chunk always fits its frame.
    #[test]
    fn the_estimate_of_bytes_is_never_too_low(products in products(), version in version()) {
        let estimate: usize = products.iter().map(|(sku, product)| bytes_max(sku, product)).sum();
        let entries = version.len() * 19;
        let part = Part { shard: ShardIndex(4095), version: Some(version), products, full: true, last: true };
        let bytes = Message::Part(part).encode().unwrap().len();
        // Length, kind, headers, shard, flags and the three lists of names and products.
        prop_assert!(bytes <= estimate + entries + 32, "{bytes} bytes, {estimate} estimated");
    }
}

/// What happens at the sender between two chunks.
#[derive(Clone, Debug)]
enum Between {
    Write(Vec<stockmesh_proto::operation::Operation>),
    /// Another replica writes, and the sender reconciles with it: slots are superseded under the sender's feet.
    Learn(Vec<stockmesh_proto::operation::Operation>),
}

fn between() -> impl Strategy<Value = Between> {
    prop_oneof![operations().prop_map(Between::Write), operations().prop_map(Between::Learn)]
}

proptest! {
    #![proptest_config(config(150))]

    /// Rule R3: the vector read with the first chunk may be claimed after the last, whatever was written in between.
    #[test]
    fn the_vector_of_the_first_chunk_stays_sound(
        before in vec(between(), 1..6),
        known in 0_usize..6,
        interleaved in vec(between(), 0..6),
    ) {
        let count = shard_count(1);
        let shard = ShardIndex(0);
        let mut sender = Replica::new(replica_id(1), count);
        let mut other = Replica::new(replica_id(2), count);
        let mut receiver = Replica::new(replica_id(3), count);
        let mut log = Log::default();
        let mut now_ms = 1_000;
        let mut happen = |step: &Between, sender: &mut Replica, log: &mut Log| {
            now_ms += 1;
            match step {
                Between::Write(operations) => log.note(sender.id, &sender.write(operations, now_ms).0),
                Between::Learn(operations) => {
                    log.note(other.id, &other.write(operations, now_ms).0);
                    reconcile(sender, &mut other, now_ms);
                }
            }
        };
        for (number, step) in before.iter().enumerate() {
            happen(step, &mut sender, &mut log);
            if number == known {
                reconcile(&mut receiver, &mut sender, 1_000);
            }
        }
        let covered = receiver.summary(shard).version;
        let mut steps = interleaved.iter();
        let mut from = None;
        let mut claim = None;
        loop {
            // A target of zero makes each product its own chunk.
            let chunk = sender.extract(shard, &covered, from.as_ref(), 0);
            claim.get_or_insert(chunk.version);
            receiver.merge(shard, &chunk.products);
            prop_assert_eq!(log.missing(&receiver), None);
            match chunk.next {
                Some(next) => from = Some(next),
                None => break,
            }
            if let Some(step) = steps.next() {
                happen(step, &mut sender, &mut log);
            }
        }
        receiver.shard_mut(shard).claim(&claim.unwrap());
        prop_assert_eq!(log.missing(&receiver), None);
        reconcile(&mut receiver, &mut sender, 1_000_000);
        prop_assert_eq!(receiver.contents(), sender.contents());
        prop_assert_eq!(receiver.slots_repaired + sender.slots_repaired, 0);
    }
}

/// Slots of one kind with numbers at their limits, each with names of its own.
fn largest(kind: u64, numbers: std::ops::Range<u64>) -> Product {
    let mut product = Product::default();
    for number in numbers {
        let location = location(&format!("{kind}{number:063}"));
        let [from, to] = [1, 2].map(|side| replica_id(u64::MAX - 2 * number - side));
        let (sequence, most) = (u64::MAX, u64::MAX);
        product.absorb(&match kind {
            0 => {
                let counters = Counters { added: most, removed: most, held: most, released: most };
                Product::of_stock(StockSlot { location, replica: from, sequence, counters })
            }
            1 => Product::of_grant(GrantSlot { location, from, to, sequence, units: most }),
            _ => {
                let taken = Taken { added: most, removed: most, rights: most, owed: most, is_heir: true };
                Product::of_inheritance(InheritanceSlot { location, from, to, sequence, taken })
            }
        });
    }
    product
}

/// What closes chunks and turns products away (rule M1).
#[test]
fn the_estimate_of_bytes_fits_the_largest_slots() {
    let sku = sku("A");
    for kind in 0..3 {
        let (known, more) = (largest(kind, 0..200), largest(kind, 100..400));
        let mut all = known.clone();
        all.absorb(&more);
        let estimated = bytes_max(&sku, &all);
        assert_eq!(bytes_max_joined(&sku, &known, &more), estimated, "kind {kind}");
        let products = vec![(sku.clone(), all)];
        let part = Part { shard: ShardIndex(0), version: None, products, full: false, last: true };
        let bytes = Message::Part(part).encode().unwrap().len();
        assert!((bytes..bytes * 5 / 4).contains(&estimated), "kind {kind}: {bytes} bytes, {estimated} estimated");
    }
}
