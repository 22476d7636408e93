//! How many bytes a changed slot takes.

use stockmesh_proto::ShardIndex;
use stockmesh_proto::delta::Products;
use stockmesh_proto::product::Product;
use stockmesh_proto::wire::{Message, Part, Push, PushShard};

use crate::values::{NORTH, SOUTH, replica, sku, stock, version};

/// Bytes per changed slot of 100 products with SKUs of 8 bytes, at one location, by one replica, as a part and as a push.
fn bytes_per_slot(first_sequence: u64, counters: impl Fn(u64) -> [u64; 4]) -> (f64, f64) {
    let products: Products = (0..100)
        .map(|n| {
            let slot = stock("berlin", NORTH, first_sequence + n, counters(n));
            (sku(&format!("SKU{n:05}")), Product::of_stock(slot))
        })
        .collect();
    let to = first_sequence + 99;
    let vector = Some(version(&[(NORTH, to)]));
    let part = Part { shard: ShardIndex(5), version: vector, products: products.clone(), full: false, last: true };
    let shards = vec![PushShard { shard: ShardIndex(5), from: first_sequence, to, products }];
    let push = Push { origin: replica(NORTH), told: vec![replica(SOUTH)], shards };
    let per_slot = |message: Message| f64::from(u32::try_from(message.encode().unwrap().len()).unwrap()) / 100.0;
    (per_slot(Message::Part(part)), per_slot(Message::Push(push)))
}

#[test]
fn a_changed_slot_takes_at_most_40_bytes() {
    // Values of up to five digits, spread evenly; sequence numbers of a shard in its first 65,000 writes.
    let usual = bytes_per_slot(40_000, |n| [n * 1_000 + 999, n * 500, 0, 0]);
    let with_holds = bytes_per_slot(40_000, |n| [n * 1_000 + 999, n * 900, n * 600, n * 500]);
    let largest = bytes_per_slot(1, |_| [99_999; 4]);
    // Printed only: all four counters above 65,535 and a late sequence number take half a byte more than 40.
    let (part, push) = bytes_per_slot(40_000, |_| [99_999; 4]);
    println!("largest, later writes: {part:.2} B per slot in a part, {push:.2} B in a push");
    for (name, (part, push)) in [("usual", usual), ("with holds", with_holds), ("largest, first writes", largest)] {
        println!("{name}: {part:.2} B per slot in a part, {push:.2} B in a push");
        assert!(part <= 40.0 && push <= 40.0, "{name}: {part:.2} B per slot in a part, {push:.2} B in a push");
    }
}
