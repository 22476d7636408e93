//! Fills the nodes' tables of members: what one node knows, those that are linked with it learn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stockmesh::{LinkState, MemberState, ReplicaId, Store};
use tokio::task::JoinSet;

use super::address;

/// Where a node is, and its location.
type Known = BTreeMap<ReplicaId, (std::net::SocketAddr, String)>;

/// Members of some nodes, until it is dropped.
#[derive(Default)]
pub(crate) struct Exchange {
    nodes: Arc<Mutex<BTreeMap<ReplicaId, (Store, Known)>>>,
    tasks: JoinSet<()>,
}

impl Exchange {
    pub(crate) fn start() -> Self {
        let mut exchange = Self::default();
        let nodes = Arc::clone(&exchange.nodes);
        exchange.tasks.spawn(async move {
            loop {
                step(&mut nodes.lock());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        exchange
    }

    pub(crate) fn add(&self, store: &Store) {
        let own = (address(store), store.status().location.to_string());
        let known = Known::from([(store.replica_id(), own)]);
        self.nodes.lock().insert(store.replica_id(), (store.clone(), known));
    }

    /// The others are told that it does not answer any more.
    pub(crate) fn remove(&self, store: &Store) {
        self.nodes.lock().remove(&store.replica_id());
    }
}

fn step(nodes: &mut BTreeMap<ReplicaId, (Store, Known)>) {
    let known: BTreeMap<ReplicaId, Known> = nodes.iter().map(|(id, (_, known))| (*id, known.clone())).collect();
    let live: Vec<ReplicaId> = nodes.keys().copied().collect();
    for (own, (store, learnt)) in nodes {
        for peer in store.status().peers.into_iter().filter(|peer| peer.state == LinkState::Up) {
            learnt.extend(peer.replica.and_then(|replica| known.get(&replica)).cloned().unwrap_or_default());
        }
        for (replica, (address, location)) in learnt.iter().filter(|(replica, _)| *replica != own) {
            let state = if live.contains(replica) { MemberState::Alive } else { MemberState::Down };
            store.learn_member(*replica, *address, location, state);
        }
    }
}
