//! Three nodes share the stock of P001: received on one, sold on another, read on all. Real QUIC on loopback, with
//! certificates of an authority that lives as long as this program.
//!
//! `cargo run --example availability --features certificates`

use std::error::Error;
use std::time::{Duration, Instant};

use stockmesh::certificates::{Authority, Validity};
use stockmesh::{Identity, Reason, Store};

const WITHIN: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let authority = Authority::new("availability", Validity::from_days(60)?)?;
    let (berlin, paris, rome) =
        (node("berlin", &authority).await?, node("paris", &authority).await?, node("rome", &authority).await?);
    let nodes = [&berlin, &paris, &rome];
    link(&nodes)?;

    berlin.product("P001")?.receive(100).await?;
    // Not known to be durable elsewhere until the others say so.
    berlin.await_replicated(2, WITHIN).await?;
    all_read(&nodes, 100).await?;

    paris.product("P001")?.adjust(-30, Reason::Sold).await?;
    all_read(&nodes, 70).await?;

    // Sold on both sides of a cut: both sales count once it heals.
    rome.go_offline();
    rome.product("P001")?.adjust(-5, Reason::Sold).await?;
    berlin.product("P001")?.adjust(-1, Reason::Sold).await?;
    assert_eq!((berlin.get("P001")?.on_hand(), rome.get("P001")?.on_hand()), (69, 65));
    rome.go_online();
    all_read(&nodes, 64).await?;

    for (location, stock) in rome.get("P001")?.by_location() {
        println!("of this counted in {location}: {}", stock.on_hand);
    }
    let closed = tokio::join!(berlin.close(), paris.close(), rome.close());
    closed.0.and(closed.1).and(closed.2)?;
    Ok(())
}

async fn node(name: &str, authority: &Authority) -> Result<Store, Box<dyn Error>> {
    let issued = authority.issue(name, &[], Validity::from_days(60)?)?;
    let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    let identity = Identity::from_pem_bytes(authority.certificate_pem().as_bytes(), certificate, key)?;
    Ok(Store::builder().in_memory().location(name).listen("127.0.0.1:0".parse()?).identity(identity).open().await?)
}

fn link(nodes: &[&Store]) -> Result<(), Box<dyn Error>> {
    for (index, node) in nodes.iter().enumerate() {
        for other in nodes.iter().skip(index + 1) {
            node.add_peer(other.local_addr().ok_or("a node does not listen")?.to_string())?;
        }
    }
    Ok(())
}

async fn all_read(nodes: &[&Store], units: i128) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    while !nodes.iter().all(|node| node.get("P001").is_ok_and(|product| product.available() == units)) {
        if begun.elapsed() > WITHIN {
            return Err(format!("not all nodes read P001: {units} within {WITHIN:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("all nodes read P001: {units} after {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    Ok(())
}
