//! Whatever leaves the node, or is acknowledged, is durable (rules D1 and R8).

use std::collections::BTreeMap;
use std::sync::Arc;

use shuttle::future::block_on;
use shuttle::thread;
use stockmesh_proto::counter::Counters;
use stockmesh_proto::product::{Product, StockSlot};
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::{ShardIndex, VersionVector};

use super::support::{Disks, Node, elsewhere, explore, here, receive, sku, units, write};
use crate::certificate::CertificateFingerprint;
use crate::commit::{Claim, Commits, Committer, RemoteDelta, Source};
use crate::table::Table;
use crate::witness::Witness;

/// Reads as a session does, and looks at the disk at the moment at which it would send.
pub(super) fn send_deltas(table: &Table, committer: &Committer, disks: &Disks) {
    for _ in 0..2 {
        let chunk = table.extract(ShardIndex(0), &VersionVector::new(), None, usize::MAX);
        if block_on(committer.barrier()).is_err() {
            return;
        }
        let durable = disks.durable();
        for (sku, product) in &chunk.products {
            let read: i128 = product.stock().iter().map(|slot| slot.counters.on_hand()).sum();
            assert!(units(&durable, sku) >= read, "{read} units of {sku} leave before they are durable");
        }
        let version = durable.summary(ShardIndex(0)).version;
        assert!(version.dominates(&chunk.version), "{:?} leaves, {version:?} is durable", chunk.version);
    }
}

/// Looks at the disk at the moment at which a batch would be pushed.
pub(super) fn push(mut commits: Commits, disks: &Disks) -> u64 {
    let mut pushed = BTreeMap::new();
    while let Some(writes) = block_on(commits.recv()) {
        let durable = disks.durable();
        for part in writes.shards {
            let before = pushed.insert((writes.origin, part.shard), part.to).unwrap_or_default();
            assert_eq!(part.from, before + 1, "a push joins on to the one before");
            let claimed = durable.summary(part.shard).version.get(writes.origin);
            assert!(claimed >= part.to, "write {} is pushed, {claimed} is durable", part.to);
        }
    }
    pushed.values().sum()
}

#[test]
fn what_is_acknowledged_sent_or_pushed_is_durable() {
    explore("what leaves", || {
        let (Node { table, committer, disks }, commits) = Node::open();
        let pushing = {
            let disks = disks.clone();
            thread::spawn(move || push(commits, &disks))
        };
        let sending = {
            let (table, committer, disks) = (Arc::clone(&table), committer.clone(), disks.clone());
            thread::spawn(move || send_deltas(&table, &committer, &disks))
        };
        let another = {
            let committer = committer.clone();
            thread::spawn(move || write(&committer, vec![receive(&sku(0), 1)]).unwrap())
        };
        for written in 1..=2 {
            write(&committer, vec![receive(&sku(0), 1)]).unwrap();
            assert!(units(&disks.durable(), &sku(0)) >= written, "acknowledged before it is durable");
        }
        another.join().unwrap();
        sending.join().unwrap();
        block_on(committer.close());
        drop(committer);
        assert_eq!(pushing.join().unwrap(), 3);
        assert_eq!(units(&table, &sku(0)), 3);
    });
}

pub(super) fn source() -> Source {
    let certificate = CertificateFingerprint::of_der(&[]);
    let address = ([127, 0, 0, 1], 1).into();
    Source::of(&Arc::new(Witness { replica: elsewhere(), address, certificate, node: None }))
}

pub(super) fn from_elsewhere(number: u64) -> Vec<RemoteDelta> {
    let counters = Counters { added: number, ..Counters::default() };
    let slot = StockSlot { location: here(), replica: elsewhere(), sequence: number, counters };
    let claim = Claim::Range { origin: elsewhere(), from: number, to: number };
    vec![RemoteDelta { shard: ShardIndex(0), products: vec![(sku(0), Product::of_stock(slot))], claim }]
}

/// What came from elsewhere can be read when that is told, and is durable when that is told, beside own writes.
#[test]
fn what_is_merged_is_readable_then_durable() {
    explore("merging", || {
        let (node, _commits) = Node::open();
        let merging = {
            let (table, committer, disks) = (Arc::clone(&node.table), node.committer.clone(), node.disks.clone());
            thread::spawn(move || {
                for number in 1..=2 {
                    let merged = committer.merge_watched(from_elsewhere(number), source());
                    let (readable, durable) = block_on(merged).unwrap();
                    block_on(readable).unwrap();
                    let seen = table.summary(ShardIndex(0)).version.get(elsewhere());
                    assert!(seen >= number, "told of write {number}, {seen} can be read");
                    let outcome = block_on(durable).unwrap().unwrap();
                    assert_eq!((outcome.slots_changed, outcome.gaps.len()), (1, 0));
                    let on_disk = disks.durable().summary(ShardIndex(0)).version.get(elsewhere());
                    assert!(on_disk >= number, "told of write {number}, {on_disk} is durable");
                }
            })
        };
        let sending = {
            let (table, committer, disks) = (Arc::clone(&node.table), node.committer.clone(), node.disks.clone());
            thread::spawn(move || send_deltas(&table, &committer, &disks))
        };
        write(&node.committer, vec![receive(&sku(0), 5)]).unwrap();
        merging.join().unwrap();
        sending.join().unwrap();
        node.close();
        assert_eq!(units(&node.table, &sku(0)), 7);
        node.table.read(ShardIndex(0), |state| assert_eq!(state.fingerprint(), state.fingerprint_recomputed()));
    });
}
