//! How soon after its acknowledgement is a write visible at a third node, beside half a QUIC round trip?
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]

#[allow(dead_code, reason = "each benchmark uses a part")]
mod support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use stockmesh::{Change, Filter, LinkState, Store};
use support::quic::Authority;
use support::stores::{fill, node, sku, units, until_equal};
use support::{Goal, Turns, quantile};

/// Few enough to be idle between two writes.
const PRODUCTS: usize = 1_000;
/// Writes, and echoes after them, of one turn.
const TURN_WRITES: usize = 50;
/// Lets everything that follows a write end, so that the next one finds idle nodes.
const PAUSE: Duration = Duration::from_millis(2);

fn main() {
    let options =
        support::start("How soon is an acknowledged write visible at a third node, beside half a round trip?");
    let root = support::directory();
    let runtime = support::runtime();
    runtime.block_on(async {
        let authority = Authority::new();
        let plain = authority.connect().await;
        let mut nodes = Vec::new();
        for name in ["one", "two", "three"] {
            nodes.push(node(name, root.path(), &authority).await);
        }
        link(&nodes).await;
        fill(&nodes[0], PRODUCTS).await;
        for other in &nodes[1..] {
            until_equal(&nodes[0], other).await;
        }
        let mut watch = Watch::start(nodes[2].clone());
        let (mut times, mut floors_us) = (Vec::new(), Vec::new());
        for turn in 0..options.size(24, 1) {
            for number in turn * TURN_WRITES..(turn + 1) * TURN_WRITES {
                times.push(watch.time(&nodes[0], number).await);
                tokio::time::sleep(PAUSE).await;
            }
            floors_us.extend(plain.echo(TURN_WRITES).await.into_iter().map(|round_trip_us| round_trip_us / 2.0));
        }
        let mut durable_us = Vec::new();
        for number in 0..options.size(300, 20) {
            durable_us.push(time_durable(&nodes[0], &nodes[2], number).await);
            tokio::time::sleep(PAUSE).await;
        }
        report(&times, &durable_us, &floors_us);
        until_equal(&nodes[0], &nodes[2]).await;
        for node in &nodes {
            node.close().await.unwrap();
        }
    });
}

/// The goal is held against the time from the call, which includes the writer's sync and so is never less than the
/// time from the acknowledgement. That one cannot be had exactly from outside: where the writing task is woken late, the
/// acknowledgement seems late and the rest too short, now and then shorter than a datagram can travel.
fn report(times: &[Times], durable_us: &[f64], floors_us: &[f64]) {
    let visible_us: Vec<f64> = times.iter().map(|times| times.call_to_visible_us).collect();
    let acknowledged_us: Vec<f64> = times.iter().map(|times| times.ack_to_visible_us).collect();
    for (name, share, goal) in [("p50", 0.5, Goal::ValueAtMost(1_000.0)), ("p99", 0.99, Goal::None)] {
        let floor_us = quantile(floors_us, share);
        let line = |what: &str, figures_us: &[f64], goal| {
            Turns::of(quantile(figures_us, share), floor_us).report(&format!("{what}, {name}"), "us", goal);
        };
        line("call to visible at a third node", &visible_us, goal);
        line("ack, as the caller saw it, to visible", &acknowledged_us, Goal::None);
        line("call to durable at a third node", durable_us, Goal::None);
    }
    let floor_us = quantile(floors_us, 0.1);
    let too_short = acknowledged_us.iter().filter(|time_us| **time_us < floor_us).count();
    println!("({too_short} of {} acknowledgements were seen too late to measure from)", times.len());
}

/// Links every node with every other.
async fn link(nodes: &[Store]) {
    for node in nodes {
        for peer in nodes.iter().filter(|peer| peer.replica_id() != node.replica_id()) {
            node.add_peer(peer.local_addr().unwrap().to_string()).unwrap();
        }
    }
    let is_up = |node: &Store| node.status().peers.iter().filter(|peer| peer.state == LinkState::Up).count() >= 2;
    while !nodes.iter().all(is_up) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A thread that reads one product again and again until it shows what is expected.
///
/// A subscription would be no measure of this: it tells of a change once it is durable, a sync later. The thread
/// yields between reads, as the two processors are also what the nodes run on; it costs some microseconds.
struct Watch {
    expected: Sender<(String, i128)>,
    seen: Receiver<Instant>,
}

impl Watch {
    fn start(store: Store) -> Self {
        let (expected, expectations) = channel::<(String, i128)>();
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            for (sku, on_hand) in expectations {
                while store.get(&sku).unwrap().on_hand() != on_hand {
                    std::thread::yield_now();
                }
                if sender.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        Self { expected, seen }
    }

    /// Writes, and returns when the thread saw it. The task runs on the nodes' own threads, which wake it soonest.
    async fn time(&mut self, writer: &Store, number: usize) -> Times {
        let product = sku(number % PRODUCTS);
        let on_hand = writer.get(&product).unwrap().on_hand() + 1;
        self.expected.send((product.clone(), on_hand)).unwrap();
        let product = writer.product(&product).unwrap();
        let writing = async move {
            let called = Instant::now();
            product.receive(1).await.unwrap();
            (called, Instant::now())
        };
        let (called, acknowledged) = tokio::spawn(writing).await.unwrap();
        let seen = tokio::task::block_in_place(|| self.seen.recv_timeout(Duration::from_secs(10)).unwrap());
        let since = |begin: Instant| seen.saturating_duration_since(begin).as_secs_f64() * 1e6;
        Times { call_to_visible_us: since(called), ack_to_visible_us: since(acknowledged) }
    }
}

/// How long one write took.
struct Times {
    call_to_visible_us: f64,
    ack_to_visible_us: f64,
}

/// The same until a subscription tells of it, that is, until it is synced at the third node as well.
async fn time_durable(writer: &Store, reader: &Store, number: usize) -> f64 {
    let product = sku(number % PRODUCTS);
    let mut changes = reader.subscribe(Filter::prefix(product.clone()));
    let called = Instant::now();
    writer.product(&product).unwrap().receive(1).await.unwrap();
    let Some(Change::Product(view)) = changes.next().await else { panic!("the subscription ended") };
    assert!(view.on_hand() > i128::from(units(number % PRODUCTS)));
    called.elapsed().as_secs_f64() * 1e6
}
