//! How many bytes does a changed slot take on the wire and in the journal, beside its key and counters?
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]

#[allow(dead_code, reason = "each benchmark uses a part")]
mod support;

use std::collections::BTreeMap;

use stockmesh::Store;
use stockmesh_proto::counter::Counters;
use stockmesh_proto::delta::Products;
use stockmesh_proto::product::{Product, StockSlot};
use stockmesh_proto::wire::{Message, Part, Push, PushShard};
use stockmesh_proto::{Location, ReplicaId, ShardCount, ShardIndex, Sku, VersionVector};
use support::stores::{fill, receive, sku};
use support::{Goal, Random, Turns};

/// Slots of one batch.
const SLOTS: usize = 100;

fn main() {
    let options = support::start("How many bytes does a changed slot take, beside its key and counters?");
    let mut random = Random(3);
    let products: Products = {
        let numbers: std::collections::BTreeSet<usize> =
            std::iter::repeat_with(|| random.below(100_000)).take(SLOTS * 2).collect();
        numbers.into_iter().take(SLOTS).map(|number| changed(number, &mut random)).collect()
    };
    let plain = plain_bytes(&products) / SLOTS as f64;
    let per_slot = |message: &Message| {
        let frame = message.encode().unwrap();
        assert_eq!(Message::decode(&frame[4..]).unwrap(), *message);
        Turns::of(frame.len() as f64 / SLOTS as f64, plain)
    };
    let goal = Goal::ValueAtMost(40.0);
    per_slot(&part(&products)).report("delta of one shard, 100 slots", "B/slot", goal);
    for shards in [1, 16, 256] {
        let push = push(&products, ShardCount::new(shards).unwrap());
        let name = format!("push of 100 slots over {shards} shards");
        // With 256 shards, the default, nearly each slot lies alone in its shard and pays for its names.
        per_slot(&push).report(&name, "B/slot", goal);
    }
    journal(options.size(200, 20), options.size(100_000, 5_000), plain);
}

/// A slot as it looks after some business: counters of two bytes or so.
fn changed(number: usize, random: &mut Random) -> (Sku, Product) {
    let counters = Counters {
        added: 1_000 + random.below(4_000) as u64,
        removed: random.below(1_000) as u64,
        ..Counters::default()
    };
    let sequence = 1_000 + random.below(50_000) as u64;
    let (location, replica) = (Location::new("berlin").unwrap(), replica());
    (Sku::new(&sku(number)).unwrap(), Product::of_stock(StockSlot { location, replica, sequence, counters }))
}

fn replica() -> ReplicaId {
    ReplicaId::from_random(0xfedc_ba98_7654_3210)
}

/// The least: each SKU's bytes, and each counter in as many bytes as it needs.
fn plain_bytes(products: &Products) -> f64 {
    let shortest = |number: u64| (64 - number.leading_zeros()).div_ceil(8).max(1) as usize;
    let counters = |Counters { added, removed, held, released }| -> usize {
        [added, removed, held, released].into_iter().map(shortest).sum()
    };
    let of_product = |(sku, product): &(Sku, Product)| {
        sku.as_str().len() + product.stock().iter().map(|slot| counters(slot.counters)).sum::<usize>()
    };
    products.iter().map(of_product).sum::<usize>() as f64
}

fn part(products: &Products) -> Message {
    let version: VersionVector = [(replica(), 60_000)].into_iter().collect();
    let products = products.clone();
    Message::Part(Part { shard: ShardIndex(3), version: Some(version), products, full: false, last: true })
}

fn push(products: &Products, count: ShardCount) -> Message {
    let mut shards: BTreeMap<ShardIndex, Products> = BTreeMap::new();
    for (sku, product) in products {
        shards.entry(count.shard_of(sku)).or_default().push((sku.clone(), product.clone()));
    }
    let shards = shards.into_iter().map(|(shard, products)| {
        let from = products.iter().flat_map(|(_, product)| product.slots()).map(|slot| slot.dot().sequence).min();
        PushShard { shard, from: from.unwrap(), to: 60_000, products }
    });
    Message::Push(Push { origin: replica(), told: Vec::new(), shards: shards.collect() })
}

/// What batches of 100 random slots take in the journal of a real store, engine's overhead aside.
fn journal(batches: usize, products: usize, plain: f64) {
    support::runtime().block_on(async {
        let store = Store::builder().in_memory().location("berlin").open().await.unwrap();
        fill(&store, products).await;
        let before = store.status().journal_bytes;
        let mut random = Random(4);
        for _ in 0..batches {
            let numbers: Vec<usize> = (0..SLOTS).map(|_| random.below(products)).collect();
            receive(&store, &numbers).await;
        }
        let bytes = store.status().journal_bytes.checked_sub(before).unwrap();
        let per_slot = bytes as f64 / (batches * SLOTS) as f64;
        Turns::of(per_slot, plain).report("journal, batches of 100 slots over 256 shards", "B/slot", Goal::None);
        assert!(bytes > 0);
    });
}
