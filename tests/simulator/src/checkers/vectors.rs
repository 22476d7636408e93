//! A version vector claims no more than there is: whose vector covers all that a replica wrote has the same counts of it.

use std::collections::BTreeMap;

use stockmesh::{ReplicaId, Store};

use super::{Checker, counts};
use crate::world::World;

pub(super) struct Vectors;

fn of(store: &Store, replica: ReplicaId) -> Vec<u64> {
    let of_shard = |vector: BTreeMap<ReplicaId, u64>| vector.get(&replica).copied().unwrap_or_default();
    store.version_vectors().into_iter().map(of_shard).collect()
}

/// Each node against the next one, so that many nodes do not take long.
fn look(world: &World) -> Result<(), String> {
    let nodes = world.up();
    let next = nodes.iter().cycle().skip(1);
    for ((writer, store), (holder, other)) in nodes.iter().zip(next) {
        // Two histories of one id may differ where their numbers are the same.
        if world.nodes.iter().any(|node| node.number == *writer && node.was_set_back) {
            continue;
        }
        let replica = store.replica_id();
        if of(store, replica) == of(other, replica) {
            let (written, held) = (counts(store, replica), counts(other, replica));
            if written != held {
                return Err(format!("node {holder} claims all of node {writer}: {held:?} in place of {written:?}"));
            }
        }
    }
    Ok(())
}

impl Checker for Vectors {
    fn name(&self) -> &'static str {
        "vectors"
    }

    fn now_and_then(&mut self, world: &World) -> Result<(), String> {
        look(world)
    }

    fn at_end(&mut self, world: &World) -> Result<(), String> {
        look(world)
    }
}
