//! What readers of the table see while it changes.

use std::sync::Arc;

use shuttle::thread;
use stockmesh_proto::counter::Counters;
use stockmesh_proto::delta::Products;
use stockmesh_proto::fingerprint::FingerprintTree;
use stockmesh_proto::product::{Product, StockSlot};
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::{Fingerprint, ReplicaId, Shard, ShardCount, ShardIndex, VersionVector};

use super::support::{Node, elsewhere, explore, here, receive, sku, units, write};
use crate::table::Table;

const WRITES: u64 = 3;
const SHARD: ShardIndex = ShardIndex(0);

fn slots(number: u64) -> Products {
    let counters = Counters { added: number, ..Counters::default() };
    let slot = StockSlot { location: here(), replica: elsewhere(), sequence: number, counters };
    vec![(sku(SHARD.0), Product::of_stock(slot))]
}

/// Writes as the committer does: in each write the units rise to its number.
fn write_on(table: &Table) {
    for number in 1..=WRITES {
        table.write_all(std::iter::once(SHARD), |states| {
            let (_, state) = states.first_mut().unwrap();
            state.merge(&slots(number));
            assert!(state.claim_range(elsewhere(), number, number));
        });
    }
}

/// The fingerprint after each write.
fn fingerprints() -> Vec<Fingerprint> {
    let mut state = Shard::new(0);
    let after = |number| {
        state.merge(&slots(number));
        state.fingerprint()
    };
    std::iter::once(Fingerprint::EMPTY).chain((1..=WRITES).map(after)).collect()
}

fn table() -> Arc<Table> {
    Arc::new(Table::new(ShardCount::new(1).unwrap(), ReplicaId::from_random(1), 0))
}

fn with_readers(readers: [fn(&Table); 2]) {
    let table = table();
    let reading = readers.map(|read| {
        let table = Arc::clone(&table);
        thread::spawn(move || (0..2).for_each(|_| read(&table)))
    });
    write_on(&table);
    reading.into_iter().for_each(|reading| reading.join().unwrap());
    let expected = fingerprints().last().copied().unwrap();
    assert_eq!(table.summary(SHARD).fingerprint, expected);
    assert_eq!(table.tree().leaf(SHARD), expected);
}

fn claimed(version: &VersionVector) -> usize {
    usize::try_from(version.get(elsewhere())).unwrap()
}

#[test]
fn a_delta_is_of_the_moment_of_its_vector() {
    fn read(table: &Table) {
        let chunk = table.extract(SHARD, &VersionVector::new(), None, usize::MAX);
        let held: i128 =
            chunk.products.iter().flat_map(|(_, product)| product.stock()).map(|slot| slot.counters.on_hand()).sum();
        assert_eq!(i128::try_from(claimed(&chunk.version)).unwrap(), held, "claimed and held");
    }
    explore("a delta and its vector", || with_readers([read, read]));
}

#[test]
fn a_summary_is_of_one_moment() {
    fn summary(table: &Table) {
        let summary = table.summary(SHARD);
        assert_eq!(fingerprints()[claimed(&summary.version)], summary.fingerprint);
    }
    fn recomputed(table: &Table) {
        table.read(SHARD, |state| assert_eq!(state.fingerprint(), state.fingerprint_recomputed()));
    }
    explore("a summary", || with_readers([summary, recomputed]));
}

/// A shard that looks the same in the tree is left out of a reconciliation: the tree must not lag behind what a reader
/// of the shard saw, and not run ahead of it.
#[test]
fn the_tree_keeps_up_with_the_shards() {
    fn read(table: &Table) {
        let before = claimed(&table.summary(SHARD).version);
        let tree: FingerprintTree = table.tree();
        let after = claimed(&table.summary(SHARD).version);
        let between = &fingerprints()[before..=after];
        assert!(between.contains(&tree.leaf(SHARD)), "of the states {before} to {after}");
    }
    explore("the tree", || with_readers([read, read]));
}

/// Each batch counts one unit into both products, in two shards: who sees it in one sees it in the other.
#[test]
fn a_batch_is_seen_whole() {
    explore("a batch over two shards", || {
        let (node, _commits) = Node::open();
        let read = |first: u16, second: u16| {
            let table = Arc::clone(&node.table);
            thread::spawn(move || {
                for _ in 0..3 {
                    let (earlier, later) = (units(&table, &sku(first)), units(&table, &sku(second)));
                    assert!(earlier <= later, "{earlier} units of one product, then {later} of the other");
                }
            })
        };
        let reading = [read(0, 1), read(1, 0)];
        for _ in 0..2 {
            write(&node.committer, vec![receive(&sku(0), 1), receive(&sku(1), 1)]).unwrap();
        }
        reading.into_iter().for_each(|reading| reading.join().unwrap());
        node.close();
    });
}
