//! A peer with a good certificate that breaks the rules: its link is closed, with a reason that is counted and kept;
//! memory stays bounded, and a healthy pair of nodes does not notice.

mod claims;
mod flood;
mod hello;
mod impostor;
mod pacing;
mod pushes;
mod sessions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stockmesh::{ReplicaId, Store};
use stockmesh_proto::counter::Counters;
use stockmesh_proto::product::{Product, StockSlot};
use stockmesh_proto::wire::{Push, PushShard};
use stockmesh_proto::{Location, ShardCount, Sku};
use tokio::task::JoinSet;

use crate::support::alone::alone;
use crate::support::raw::Raw;
use crate::support::writers::Ledger;
use crate::support::{Mesh, SHARDS, dial, metrics, on_hand, resident_bytes, wait_linked, wait_until, wait_within};

/// What the attacks together may add to this process's memory. All cases run at once, each on a link that may hold a
/// window of 16 MiB, besides the frames that are being decoded.
const MEMORY_MAX: u64 = 300 << 20;

/// A node under attack, and a healthy peer of it.
#[derive(Clone)]
struct Stage {
    mesh: Arc<Mesh>,
    victim: Store,
    healthy: Store,
}

impl Stage {
    async fn start() -> Self {
        metrics::record();
        let mesh = Arc::new(Mesh::new());
        let (victim, healthy) = (mesh.node("victim").await, mesh.node("healthy").await);
        dial(&victim, &healthy);
        wait_linked(&[victim.clone(), healthy.clone()], 1).await;
        Self { mesh, victim, healthy }
    }

    async fn linked(&self) -> Raw {
        Raw::linked(&self.mesh, self.victim.local_addr().unwrap()).await
    }

    /// The link was closed for a reason with this word, which the victim keeps with the peer's address.
    async fn assert_closed(&self, raw: &Raw, word: &str) {
        let reason = raw.closed().await;
        assert!(reason.contains(word), "closed for {reason:?}, expected {word:?}");
        let address = raw.address();
        wait_until(&format!("{word:?} is kept among the refusals"), || {
            let refusals = self.victim.status().refusals;
            refusals.iter().any(|refused| refused.address == address && refused.reason.contains(word))
        })
        .await;
    }

    /// The link is up and still takes pushes.
    async fn assert_alive(&self, raw: &Raw) {
        let sku = format!("ALIVE-{}", raw.replica);
        let push = push_of(raw.replica, &sku, 1, 1);
        raw.push_bytes(&stockmesh_proto::wire::Message::Push(push).encode().unwrap(), false).await;
        wait_until("the peer's push arrives", || on_hand(&self.victim, &sku) == 1).await;
        assert!(raw.connection.close_reason().is_none());
    }
}

/// The slot of one replica at one place.
pub(crate) fn stock(replica: ReplicaId, sequence: u64, added: u64) -> Product {
    let counters = Counters { added, ..Counters::default() };
    Product::of_stock(StockSlot { location: Location::new("raw").unwrap(), replica, sequence, counters })
}

fn shard_count() -> ShardCount {
    ShardCount::new(SHARDS).unwrap()
}

/// An honest push of one write.
pub(crate) fn push_of(origin: ReplicaId, sku: &str, sequence: u64, units: u64) -> Push {
    let sku = Sku::new(sku).unwrap();
    let shard = shard_count().shard_of(&sku);
    let products = vec![(sku, stock(origin, sequence, units))];
    let shards = vec![PushShard { shard, from: sequence, to: sequence, products }];
    Push { origin, told: Vec::new(), shards }
}

/// All attacks at once against one node, which must close each link for its reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_rule_that_is_broken_costs_its_breaker_the_link() {
    alone!(each_rule_that_is_broken_costs_its_breaker_the_link);
    let stage = Stage::start().await;
    let memory = resident_bytes();
    let violations = metrics::counter("stockmesh_violations_total");
    let refused = metrics::counter("stockmesh_links_refused_total");
    let over = Arc::new(AtomicBool::new(false));
    let ledger = Ledger::default();
    let pinging = tokio::spawn(ping(stage.clone(), ledger.clone(), Arc::clone(&over)));

    let mut cases: JoinSet<&'static str> = JoinSet::new();
    let mut names = BTreeMap::new();
    hello::spawn(&stage, &mut cases, &mut names);
    pushes::spawn(&stage, &mut cases, &mut names);
    sessions::spawn(&stage, &mut cases, &mut names);
    let mut failed = Vec::new();
    while let Some(ended) = cases.join_next_with_id().await {
        if let Err(error) = ended {
            failed.push(names.get(&error.id()).copied().unwrap_or_default());
        }
    }
    assert!(failed.is_empty(), "these cases failed: {failed:?}; refusals: {:#?}", stage.victim.status().refusals);

    over.store(true, Ordering::SeqCst);
    let pings = pinging.await.unwrap();
    assert!(pings > 20, "the healthy pair went on: {pings} writes");
    assert!(metrics::counter("stockmesh_violations_total") >= violations + 15);
    assert!(metrics::counter("stockmesh_links_refused_total") >= refused + 4);
    let grown = resident_bytes().saturating_sub(memory);
    assert!(grown < MEMORY_MAX, "memory grew by {} MiB", grown >> 20);
    ledger.assert_whole(&[stage.victim, stage.healthy]).await;
}

/// Writes at the victim reach its healthy peer soon, all the time.
async fn ping(stage: Stage, ledger: Ledger, over: Arc<AtomicBool>) -> i128 {
    let mut pings = 0;
    while !over.load(Ordering::SeqCst) {
        ledger.receive(&stage.victim, "PING", 1).await.unwrap();
        pings += 1;
        let arrived = || on_hand(&stage.healthy, "PING") == pings;
        wait_within(Duration::from_secs(2), "a write passes between the healthy nodes", arrived).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    pings
}

/// Adds a named case to a set.
macro_rules! case {
    ($stage:expr, $cases:expr, $names:expr, $run:ident) => {
        let stage = $stage.clone();
        let handle = $cases.spawn(async move {
            $run(stage).await;
            stringify!($run)
        });
        $names.insert(handle.id(), stringify!($run));
    };
}
use case;
