//! The price 99.99 gossips: in each round one random node meets another one, until all have the price. Met nodes stay
//! linked, so what one learns goes on to all that it is linked with, over however many hops.
//!
//! `cargo run --example price_gossip --features certificates`

use std::error::Error;
use std::time::{Duration, Instant};

use stockmesh::certificates::{Authority, Validity};
use stockmesh::{Currency, Identity, Price, Store};

const NODES: usize = 8;
const ROUNDS_MAX: usize = 500;
/// Pause between two rounds: news travels while the next two nodes get to know each other.
const PAUSE: Duration = Duration::from_millis(20);
const WITHIN: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let authority = Authority::new("price gossip", Validity::from_days(60)?)?;
    let mut nodes = Vec::new();
    for number in 1..=NODES {
        nodes.push(node(&format!("shop-{number}"), &authority).await?);
    }
    let price = Price::new("99.99".parse()?, Currency::EUR)?;
    nodes[0].product("P001")?.set_price(price).await?;

    let has_price = |node: &Store| node.get("P001").is_ok_and(|product| product.price() == Some(price));
    let informed = |nodes: &[Store]| nodes.iter().filter(|node| has_price(node)).count();
    let (begun, mut rounds) = (Instant::now(), 0);
    while informed(&nodes) < NODES && rounds < ROUNDS_MAX {
        rounds += 1;
        let caller = rand::random_range(0..NODES);
        let called = (caller + rand::random_range(1..NODES)) % NODES;
        nodes[caller].add_peer(nodes[called].local_addr().ok_or("a node does not listen")?.to_string())?;
        tokio::time::sleep(PAUSE).await;
        println!("round {rounds}: shop-{} met shop-{}, {} know", caller + 1, called + 1, informed(&nodes));
    }
    // All are connected by now; the last hops may still be under way.
    while informed(&nodes) < NODES {
        if begun.elapsed() > WITHIN {
            return Err(format!("{} of {NODES} nodes know the price", informed(&nodes)).into());
        }
        tokio::time::sleep(PAUSE).await;
    }
    println!("all {NODES} nodes have P001: {price} after {rounds} rounds, {:.0?}", begun.elapsed());

    let fingerprint = nodes[0].status().fingerprint;
    assert!(nodes.iter().all(|node| node.status().fingerprint == fingerprint), "one price, but unequal states");
    let mut closing = tokio::task::JoinSet::new();
    for node in nodes {
        closing.spawn(async move { node.close().await });
    }
    closing.join_all().await.into_iter().collect::<Result<(), _>>()?;
    Ok(())
}

async fn node(name: &str, authority: &Authority) -> Result<Store, Box<dyn Error>> {
    let issued = authority.issue(name, &[], Validity::from_days(60)?)?;
    let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    let identity = Identity::from_pem_bytes(authority.certificate_pem().as_bytes(), certificate, key)?;
    Ok(Store::builder().in_memory().location(name).listen("127.0.0.1:0".parse()?).identity(identity).open().await?)
}
