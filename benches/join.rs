//! How long does an empty node take to hold everything, durably, beside sending the same bytes?
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]

#[allow(dead_code, reason = "each benchmark uses a part")]
mod support;

use std::path::Path;
use std::time::Instant;

use stockmesh::Store;
use support::quic::{Authority, Plain};
use support::stores::{fill, node, until_equal};
use support::{Goal, Turns};

/// Peers of the second part.
const PEERS: usize = 3;

/// What a join is measured with.
struct Setting<'a> {
    root: &'a Path,
    authority: &'a Authority,
    plain: &'a Plain,
    products: usize,
}

fn main() {
    let options = support::start("How long does an empty node take to hold everything, beside sending the bytes?");
    let products = options.size(100_000, 5_000);
    let root = support::directory();
    support::runtime().block_on(async {
        let authority = Authority::new();
        let plain = authority.connect().await;
        let setting = Setting { root: root.path(), authority: &authority, plain: &plain, products };
        let mut full = vec![node("full", root.path(), &authority).await];
        fill(&full[0], products).await;
        let turns = options.size(5, 1);
        let (seconds, bytes) = join(&full, turns, &setting).await;
        seconds.report(&format!("cold join of {products} products"), "s", Goal::ValueAtMost(2.0));
        bytes.report("cold join, received", "B/product", Goal::None);
        for number in 1..PEERS {
            let store = node(&format!("full-{number}"), root.path(), &authority).await;
            store.add_peer(full[0].local_addr().unwrap().to_string()).unwrap();
            full.push(store);
        }
        for store in &full {
            until_equal(&full[0], store).await;
        }
        let (seconds, bytes) = join(&full, turns, &setting).await;
        seconds.report(&format!("cold join of {products} products from {PEERS} peers"), "s", Goal::ValueAtMost(2.0));
        bytes.report(&format!("cold join from {PEERS} peers, received"), "B/product", Goal::None);
        for store in full {
            store.close().await.unwrap();
        }
    });
}

/// Joins an empty node to these so many times. Returns the seconds, and the bytes that it received for each product.
async fn join(full: &[Store], turns: usize, setting: &Setting<'_>) -> (Turns, Turns) {
    let Setting { root, authority, plain, products } = setting;
    let (mut seconds, mut bytes) = (Turns::default(), Turns::default());
    for turn in 0..turns {
        let empty = node(&format!("empty-{}-{turn}", full.len()), root, authority).await;
        let begun = Instant::now();
        for store in full {
            empty.add_peer(store.local_addr().unwrap().to_string()).unwrap();
        }
        until_equal(&full[0], &empty).await;
        // Both show the same, perhaps a moment before the last of it is synced. The committer works in order, so
        // when a later write is acknowledged, everything before it is durable.
        empty.product("LAST").unwrap().receive(1).await.unwrap();
        let value = begun.elapsed().as_secs_f64();
        for store in full {
            until_equal(store, &empty).await;
        }
        assert!(empty.status().products >= *products as u64);
        let received = empty.status().bytes_received;
        empty.close().await.unwrap();
        seconds.add(value, plain.send(received as usize).await);
        // The keys and four counters, without any structure around them.
        bytes.add(received as f64 / *products as f64, 11.0 + 4.0 * 8.0);
    }
    (seconds, bytes)
}
