//! A subscription: views of products as they change, until the store closes.
//!
//! `cargo run --example watch`

use std::error::Error;
use std::time::Duration;

use stockmesh::{Change, Changes, Filter, Reason, Store};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = Store::builder().in_memory().location("berlin").open().await?;
    let reader = tokio::spawn(watch(store.subscribe(Filter::prefix("MUG"))));

    store.product("MUG-01")?.receive(12).await?;
    store.product("PLATE-07")?.receive(50).await?;
    for _ in 0..10 {
        store.product("MUG-01")?.adjust(-1, Reason::Sold).await?;
    }
    store.close().await?;

    let (seen, last) = tokio::time::timeout(Duration::from_secs(10), reader).await??;
    println!("{seen} changes seen, {last} mugs left");
    // Changes that follow closely may come as one, but the last one always comes, and the plates never do.
    assert!((1..=11).contains(&seen));
    assert_eq!(last, 2);
    Ok(())
}

/// Counts the changes, and returns what is left after the last one.
async fn watch(mut changes: Changes) -> (u32, i128) {
    let (mut seen, mut left) = (0, 0);
    while let Some(change) = changes.next().await {
        match change {
            Change::Product(product) => {
                println!("{}: {} available", product.sku(), product.available());
                if product.available() < 5 {
                    println!("{}: order more", product.sku());
                }
                assert!(product.sku().as_str().starts_with("MUG"));
                (seen, left) = (seen + 1, product.available());
            }
            // This reader was too slow. The present view of every product that it watches follows.
            Change::Lagged { missed } => println!("{missed} batches missed"),
            _ => {}
        }
    }
    (seen, left)
}
