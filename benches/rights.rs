//! What does a sale within rights cost beside a plain adjustment, and how long does it take to get rights from a peer?
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]

#[allow(dead_code, reason = "each benchmark uses a part")]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use stockmesh::{LinkState, NeedOnly, Reason, Store, WriteError};
use stockmesh_proto::movement::{Movement, MovementKind};
use stockmesh_proto::wire::{LedgerPart, LedgerRecord, LedgerRequest};
use stockmesh_proto::{Location, ReplicaId, Sku};
use support::quic::Authority;
use support::stores::{Bare, durable};
use support::{Goal, Random, Turns, quantile};

const HOT: &str = "SKU-0000001";
const SELLERS: usize = 64;
/// Many short turns, so that both of a pair meet the same load of the machine.
const TURNS: usize = 40;
/// Where the stock of the cluster lies.
const SHOP: &str = "shop";

fn main() {
    let options = support::start("What does a sale within rights cost, and how long does it take to get rights?");
    let recorder = DebuggingRecorder::new();
    let counters = recorder.snapshotter();
    recorder.install().unwrap();
    let runtime = support::runtime();
    let root = support::directory();
    runtime.block_on(async {
        one_seller(root.path(), options.size(50, 5)).await;
        many_sellers(root.path(), options.size(25, 4)).await;
        obtained(root.path(), options.size(500, 20)).await;
        hot_product(root.path(), &counters, options.size(10_000, 500)).await;
    });
}

/// A sale beside an adjustment of the same product, one after the other.
async fn one_seller(root: &Path, commits: usize) {
    let store = durable(&root.join("one")).open().await.unwrap();
    let hot = store.product(HOT).unwrap();
    hot.receive(1_000_000).await.unwrap();
    let (mut sales_us, mut adjustments_us) = (Vec::new(), Vec::new());
    for _ in 0..TURNS * commits {
        let begun = Instant::now();
        hot.adjust(-1, Reason::Sold).await.unwrap();
        adjustments_us.push(begun.elapsed().as_secs_f64() * 1e6);
        let begun = Instant::now();
        hot.sell(1).await.unwrap();
        sales_us.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    for (name, share, goal) in [("p50", 0.5, Goal::RatioAtMost(1.2)), ("p99", 0.99, Goal::None)] {
        let turns = Turns::of(quantile(&sales_us, share), quantile(&adjustments_us, share));
        turns.report(&format!("sell beside adjust, 1 seller, {name}"), "us", goal);
    }
    assert_eq!(store.get(HOT).unwrap().on_hand(), 1_000_000 - (2 * TURNS * commits) as i128);
    store.close().await.unwrap();
}

/// 64 sellers of one product at once, beside as many who adjust it, and beside the bare engine.
async fn many_sellers(root: &Path, commits: usize) {
    let mut bare = Bare::open(&root.join("engine"));
    let store = durable(&root.join("many")).open().await.unwrap();
    store.product(HOT).unwrap().receive(100_000_000).await.unwrap();
    let (mut beside_adjust, mut beside_engine, mut groups) = (Turns::default(), Turns::default(), Turns::default());
    let operations = (SELLERS * commits) as f64;
    for _ in 0..TURNS {
        let before = store.status();
        let sold = operations / run_sellers(&store, commits, true).await;
        let now = store.status();
        let batches = (now.last_batch - before.last_batch) as f64;
        let bytes = (now.journal_bytes - before.journal_bytes) as f64 / batches;
        let adjusted = operations / run_sellers(&store, commits, false).await;
        beside_adjust.add(sold, adjusted);
        groups.add(operations / batches, SELLERS as f64);
        // The bare engine gets full groups: what the journal and the ledger take for 64 sales, in one row.
        let payload_bytes = bytes as usize + ledger_bytes(SELLERS);
        let begun = Instant::now();
        for _ in 0..commits {
            bare.commit(payload_bytes);
        }
        beside_engine.add(sold, operations / begun.elapsed().as_secs_f64());
    }
    beside_adjust.report("sell beside adjust, 64 sellers of one product", "sales/s", Goal::RatioAtLeast(1.0 / 1.2));
    beside_engine.report("sell, 64 sellers of one product, beside the engine", "sales/s", Goal::RatioAtLeast(0.5));
    groups.report("sell, 64 sellers of one product, group size", "sales", Goal::None);
    let expected = 100_000_000 - (2 * TURNS * SELLERS * commits) as i128;
    assert_eq!(store.get(HOT).unwrap().on_hand(), expected);
    store.close().await.unwrap();
}

async fn run_sellers(store: &Store, commits: usize, sells: bool) -> f64 {
    let sell = |_| {
        let hot = store.product(HOT).unwrap();
        tokio::spawn(async move {
            for _ in 0..commits {
                if sells {
                    hot.sell(1).await.unwrap();
                } else {
                    hot.adjust(-1, Reason::Sold).await.unwrap();
                }
            }
        })
    };
    let begun = Instant::now();
    let sellers: Vec<_> = (0..SELLERS).map(sell).collect();
    for seller in sellers {
        seller.await.unwrap();
    }
    begun.elapsed().as_secs_f64()
}

/// What a group of so many sales takes in the ledger.
fn ledger_bytes(sales: usize) -> usize {
    let (sku, location) = (Sku::new(HOT).unwrap(), Location::new("berlin").unwrap());
    let movement = Movement { sku, location, kind: MovementKind::Sold, quantity: 1 };
    let request = LedgerRequest { reference: None, content: None, outcomes: Vec::new(), movements: vec![movement] };
    let part = LedgerPart { replica: ReplicaId::from_random(u64::MAX), requests: vec![request; sales] };
    LedgerRecord { time_ms: 1 << 40, references_back: 0, parts: vec![part] }.encode().unwrap().len()
}

/// Nodes that are all linked, in directories of their own.
async fn linked(root: &Path, name: &str, count: usize, need_only: bool) -> Vec<Store> {
    let authority = Authority::new();
    let mut nodes = Vec::new();
    for number in 0..count {
        let builder = durable(&root.join(format!("{name}-{number}"))).location(SHOP);
        let builder = if need_only { builder.grant_policy(NeedOnly) } else { builder };
        let listening = builder.listen("127.0.0.1:0".parse().unwrap()).identity(authority.identity());
        nodes.push(listening.open().await.unwrap());
    }
    for (number, node) in nodes.iter().enumerate() {
        nodes[..number].iter().for_each(|peer| node.add_peer(peer.local_addr().unwrap().to_string()).unwrap());
    }
    let is_up =
        |node: &Store| node.status().peers.iter().filter(|peer| peer.state == LinkState::Up).count() + 1 == count;
    while !nodes.iter().all(is_up) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    nodes
}

/// Sales that each need one unit of rights from a peer, beside two syncs and a round trip.
async fn obtained(root: &Path, sales: usize) {
    let nodes = linked(root, "obtained", 2, true).await;
    let plain = Authority::new().connect().await;
    let bare = durable(&root.join("floor")).open().await.unwrap();
    nodes[0].product(HOT).unwrap().receive(sales as u64 * 2).await.unwrap();
    while nodes[1].get(HOT).map_or(0, |view| view.available()) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (mut times_us, mut floors_us) = (Vec::new(), Vec::new());
    let (hot, written) = (nodes[1].product(HOT).unwrap(), bare.product(HOT).unwrap());
    for _ in 0..sales {
        let begun = Instant::now();
        hot.sell(1).await.unwrap();
        times_us.push(begun.elapsed().as_secs_f64() * 1e6);
        // The pushes that follow end before the floor is measured.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let begun = Instant::now();
        written.receive(1).await.unwrap();
        written.receive(1).await.unwrap();
        floors_us.push(begun.elapsed().as_secs_f64() * 1e6 + plain.echo(1).await[0]);
    }
    for (name, share, goal) in [("p50", 0.5, Goal::ValueAtMost(2_000.0)), ("p99", 0.99, Goal::None)] {
        let turns = Turns::of(quantile(&times_us, share), quantile(&floors_us, share));
        turns.report(&format!("sell with rights of a peer, {name}"), "us", goal);
    }
    for node in &nodes {
        node.close().await.unwrap();
    }
}

/// One hot product over five nodes, of which one has four fifths of the customers, until nothing is left.
async fn hot_product(root: &Path, counters: &Snapshotter, stock: u64) {
    let nodes = linked(root, "hot", 5, false).await;
    nodes[4].product(HOT).unwrap().receive(stock).await.unwrap();
    for node in &nodes {
        while node.get(HOT).map_or(0, |view| view.available()) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let _ = sales_of(counters);
    let mut random = Random(7);
    let (mut sold, mut early_denials, mut attempts, mut late_denials) = (0, 0_u64, 0_u64, 0_u64);
    // A customer after the other, so that what was left somewhere when one was sent away is known.
    while sold < stock && late_denials < 100 {
        let node = if random.below(10) < 8 { 0 } else { 1 + random.below(4) };
        attempts += 1;
        match nodes[node].product(HOT).unwrap().sell(1).await {
            Ok(()) => sold += 1,
            Err(WriteError::Insufficient { .. }) if sold < stock - stock / 50 => early_denials += 1,
            Err(WriteError::Insufficient { .. }) => late_denials += 1,
            Err(error) => panic!("{error}"),
        }
    }
    let (local, helped) = sales_of(counters);
    let share = |part: u64, whole: u64| 100.0 * part as f64 / whole as f64;
    let line = |name: &str, value: f64, goal: Goal| Turns::of(value, 100.0).report(name, "%", goal);
    line(
        "hot product, 5 nodes, 80/20: sales without a message",
        share(local, local + helped),
        Goal::RatioAtLeast(0.95),
    );
    line(
        "the same: denied though there was stock, before the last 2 %",
        share(early_denials, attempts),
        Goal::ValueAtMost(1.0),
    );
    println!("({sold} of {stock} sold, {helped} with help, {late_denials} denied among the last 2 %)");
    assert_eq!(local + helped, sold);
    for node in &nodes {
        node.close().await.unwrap();
    }
}

/// Sales since the last call, with rights at hand and with help.
fn sales_of(counters: &Snapshotter) -> (u64, u64) {
    let (mut local, mut helped) = (0, 0);
    for (key, _, _, value) in counters.snapshot().into_vec() {
        let DebugValue::Counter(count) = value else { continue };
        if key.key().name() == "stockmesh_sales_total" {
            let is_local = key.key().labels().any(|label| label.value() == "local");
            *if is_local { &mut local } else { &mut helped } += count;
        }
    }
    (local, helped)
}
