//! The smallest use: one store in a directory, no network. What was written is there again after a reopen.
//!
//! `cargo run --example embed`

use std::error::Error;
use std::path::Path;

use stockmesh::{Currency, GetError, Price, Reason, Store};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    trade(directory.path()).await?;

    let store = Store::builder().data_dir(directory.path()).location("berlin").open().await?;
    for product in store.query().iter() {
        let price = product.price().map_or("no price".into(), |price| price.to_string());
        println!("{}: {} on hand, {price}", product.sku(), product.on_hand());
    }
    let mug = store.get("MUG-01")?;
    assert_eq!(mug.on_hand(), 97);
    assert_eq!(mug.price().map(|price| price.to_string()).as_deref(), Some("9.99 EUR"));
    assert_eq!(store.get("PLATE-07")?.on_hand(), 40);
    assert!(matches!(store.get("BOWL-01"), Err(GetError::Unknown { .. })));
    store.close().await?;
    Ok(())
}

async fn trade(directory: &Path) -> Result<(), Box<dyn Error>> {
    let store = Store::builder().data_dir(directory).location("berlin").open().await?;
    // Each call returns once it is durable.
    let mug = store.product("MUG-01")?;
    mug.receive(100).await?;
    mug.adjust(-3, Reason::Sold).await?;
    mug.set_price(Price::new("9.99".parse()?, Currency::EUR)?).await?;
    // A batch is durable whole, or nothing of it happened.
    store.batch().receive("PLATE-07", 50)?.adjust("PLATE-07", -10, Reason::Sold)?.commit().await?;
    store.close().await?;
    Ok(())
}
