//! How long does an empty node take to hold everything, durably, beside sending the same bytes?
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]

#[allow(dead_code, reason = "each benchmark uses a part")]
mod support;

use std::time::Instant;

use support::quic::Authority;
use support::stores::{fill, node, until_equal};
use support::{Goal, Turns};

fn main() {
    let options = support::start("How long does an empty node take to hold everything, beside sending the bytes?");
    let products = options.size(100_000, 5_000);
    let root = support::directory();
    support::runtime().block_on(async {
        let authority = Authority::new();
        let plain = authority.connect().await;
        let full = node("full", root.path(), &authority).await;
        fill(&full, products).await;
        let address = full.local_addr().unwrap().to_string();
        let (mut seconds, mut bytes) = (Turns::default(), Turns::default());
        for turn in 0..options.size(5, 1) {
            let empty = node(&format!("empty-{turn}"), root.path(), &authority).await;
            let begun = Instant::now();
            empty.add_peer(&address).unwrap();
            until_equal(&full, &empty).await;
            // Both show the same, perhaps a moment before the last of it is synced. The committer works in order, so
            // when a later write is acknowledged, everything before it is durable.
            empty.product("LAST").unwrap().receive(1).await.unwrap();
            let value = begun.elapsed().as_secs_f64();
            until_equal(&full, &empty).await;
            assert!(empty.status().products >= products as u64);
            let received = empty.status().bytes_received;
            empty.close().await.unwrap();
            seconds.add(value, plain.send(received as usize).await);
            // The keys and four counters, without any structure around them.
            bytes.add(received as f64 / products as f64, 11.0 + 4.0 * 8.0);
        }
        seconds.report(&format!("cold join of {products} products"), "s", Goal::ValueAtMost(2.0));
        bytes.report("cold join, received", "B/product", Goal::None);
        full.close().await.unwrap();
    });
}
