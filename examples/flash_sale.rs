//! A flash sale over five nodes: 100 units, ten times as many customers, and two nodes cut off in the middle of it.
//! Exactly 100 are sold, with no coordinator. Real QUIC on loopback, with certificates of an authority that lives as
//! long as this program.
//!
//! `cargo run --example flash_sale --features certificates`

use std::error::Error;
use std::time::{Duration, Instant};

use stockmesh::certificates::{Authority, Validity};
use stockmesh::{Filter, Identity, LinkState, Store, WriteError};
use tokio::task::JoinSet;

const SKU: &str = "CONSOLE-01";
const STOCK: u64 = 100;
const NODES: usize = 5;
/// Where the stock lies, and from where every node sells.
const PLACE: &str = "online";
const CUSTOMERS_PER_NODE: usize = 200;
const WITHIN: Duration = Duration::from_secs(20);

/// What became of the customers.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    sold: u64,
    denied: u64,
    /// Denied although the node knew of enough stock, which it could not reach.
    denied_though_in_stock: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let authority = Authority::new("flash sale", Validity::from_days(60)?)?;
    let mut nodes = Vec::new();
    for number in 1..=NODES {
        nodes.push(node(&format!("node-{number}"), &authority).await?);
    }
    link(&nodes).await?;
    let mut events = nodes[1].subscribe(Filter::prefix(SKU).below(10).events_only());

    // All of it comes in at one node; the others get rights to sell it as their customers come.
    nodes[0].product(SKU)?.receive(STOCK).await?;
    nodes[0].await_replicated(NODES - 1, WITHIN).await?;

    let mut customers = JoinSet::new();
    for node in &nodes {
        for _ in 0..CUSTOMERS_PER_NODE {
            customers.spawn(buy(node.clone(), Duration::from_millis(rand::random_range(0..400))));
        }
    }
    tokio::time::sleep(Duration::from_millis(60)).await;
    nodes[3].go_offline();
    nodes[4].go_offline();
    tokio::time::sleep(Duration::from_millis(200)).await;
    nodes[3].go_online();
    nodes[4].go_online();
    let mut tally = Tally::default();
    while let Some(bought) = customers.join_next().await {
        let bought = bought??;
        tally.sold += bought.sold;
        tally.denied += bought.denied;
        tally.denied_though_in_stock += bought.denied_though_in_stock;
    }
    assert!(tally.sold <= STOCK, "never more than there is");
    println!("{tally:?}");

    // What is left, any node can sell once all are linked again.
    link(&nodes).await?;
    let rest = until_known(&nodes[2], STOCK - tally.sold).await?;
    for _ in 0..rest {
        nodes[2].product(SKU)?.sell(1).deadline(WITHIN).await?;
    }
    assert!(matches!(nodes[2].product(SKU)?.sell(1).await, Err(WriteError::Insufficient { .. })));
    println!("sold {} of {STOCK}, {rest} of them after the cut had healed", tally.sold + rest);
    println!(
        "first told: {:?}",
        events.next().await.map(|event| format!("{event:?}").chars().take(40).collect::<String>())
    );
    for node in &nodes {
        node.close().await?;
    }
    Ok(())
}

/// One customer, who comes after a while and wants one unit.
async fn buy(store: Store, after: Duration) -> Result<Tally, WriteError> {
    tokio::time::sleep(after).await;
    match store.product(SKU)?.sell(1).await {
        Ok(()) => Ok(Tally { sold: 1, ..Tally::default() }),
        Err(WriteError::Insufficient { here, elsewhere, unreachable, .. }) => {
            let denied_though_in_stock = u64::from(here + elsewhere + unreachable > 0);
            Ok(Tally { denied: 1, denied_though_in_stock, ..Tally::default() })
        }
        Err(error) => Err(error),
    }
}

async fn node(name: &str, authority: &Authority) -> Result<Store, Box<dyn Error>> {
    let issued = authority.issue(name, &[], Validity::from_days(60)?)?;
    let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    let identity = Identity::from_pem_bytes(authority.certificate_pem().as_bytes(), certificate, key)?;
    Ok(Store::builder().in_memory().location(PLACE).listen("127.0.0.1:0".parse()?).identity(identity).open().await?)
}

/// Links every node with every other, and waits until all links are up.
async fn link(nodes: &[Store]) -> Result<(), Box<dyn Error>> {
    for (index, node) in nodes.iter().enumerate() {
        for other in nodes.iter().skip(index + 1) {
            node.add_peer(other.local_addr().ok_or("a node does not listen")?.to_string())?;
        }
    }
    let links = |node: &Store| node.status().peers.iter().filter(|peer| peer.state == LinkState::Up).count();
    let begun = Instant::now();
    while !nodes.iter().all(|node| links(node) + 1 >= nodes.len()) {
        if begun.elapsed() > WITHIN {
            return Err("not all nodes are linked".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Waits until a node knows of all sales.
async fn until_known(node: &Store, units: u64) -> Result<u64, Box<dyn Error>> {
    let begun = Instant::now();
    while node.get(SKU)?.available() != i128::from(units) {
        if begun.elapsed() > WITHIN {
            return Err(format!("the node does not learn that {units} are left").into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(units)
}
