//! Nodes join and leave while goods come in and are sold: each that leaves hands over what it may sell, one dies and is
//! retired, and in the end every unit is accounted for. Real QUIC on loopback, with certificates of an authority that
//! lives as long as this program.
//!
//! `cargo run --example churn --features certificates`

use std::error::Error;
use std::time::{Duration, Instant};

use stockmesh::certificates::{Authority, Validity};
use stockmesh::{Identity, Store};

const SKU: &str = "MUG-01";
/// Where the stock lies, and from where every node sells.
const PLACE: &str = "online";
const ROUNDS: u64 = 6;
const WITHIN: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let authority = Authority::new("churn", Validity::from_days(60)?)?;
    let mut nodes = vec![node("node-0", &authority, None).await?];
    let (mut received, mut sold) = (0_u64, 0_u64);
    for round in 1..=ROUNDS {
        // One joins, by any address; goods come in there; everybody sells.
        let peer = usize::try_from(round)? % nodes.len();
        let new = node(&format!("node-{round}"), &authority, Some(&nodes[peer])).await?;
        mug(&new)?.receive(10).await?;
        received += 10;
        nodes.push(new);
        agree(&nodes).await?;
        for store in &nodes {
            if mug(store)?.sell(1).deadline(Duration::from_secs(2)).await.is_ok() {
                sold += 1;
            }
        }
        if nodes.len() > 3 {
            let leaving = nodes.remove(0);
            let left = leaving.leave().await?;
            println!("round {round}: a node left, {} units passed to {:?}", left.units, left.heir);
        }
        println!("round {round}: {} nodes, {received} received, {sold} sold", nodes.len());
    }

    // One dies without a word: its units are out of reach until it is retired.
    agree(&nodes).await?;
    let dead = nodes.remove(1);
    let id = dead.replica_id();
    drop(dead);
    let retired = retire(&nodes[0], id).await?;
    println!("retired {id}: {} units passed to {}", retired.units, retired.heir);

    agree(&nodes).await?;
    let rest = received - sold;
    let view = nodes[0].get(SKU)?;
    assert_eq!(view.available(), i128::from(rest));
    assert!(
        view.rights_at(PLACE)
            .iter()
            .all(|(replica, units)| *units == 0 || nodes.iter().any(|store| store.replica_id() == *replica))
    );
    println!("{rest} units are left, all within reach of the {} nodes that are", nodes.len());
    for store in &nodes {
        store.close().await?;
    }
    Ok(())
}

async fn node(name: &str, authority: &Authority, peer: Option<&Store>) -> Result<Store, Box<dyn Error>> {
    let issued = authority.issue(name, &[], Validity::from_days(30)?)?;
    let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    let identity = Identity::from_pem_bytes(authority.certificate_pem().as_bytes(), certificate, key)?;
    let mut builder = Store::builder().in_memory().location(name).listen("127.0.0.1:0".parse()?).identity(identity);
    if let Some(address) = peer.and_then(Store::local_addr) {
        builder = builder.peer(address.to_string());
    }
    Ok(builder.open().await?)
}

fn mug(store: &Store) -> Result<stockmesh::Product, stockmesh::InvalidInput> {
    store.product(SKU)?.at(PLACE)
}

/// Waits until all hold the same.
async fn agree(nodes: &[Store]) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let same = || nodes.windows(2).all(|pair| pair[0].status().fingerprint == pair[1].status().fingerprint);
    while !same() {
        if begun.elapsed() > WITHIN {
            return Err(format!("the nodes do not agree within {WITHIN:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Retires a dead replica as soon as nobody takes it for alive any more.
async fn retire(heir: &Store, dead: stockmesh::ReplicaId) -> Result<stockmesh::Retired, Box<dyn Error>> {
    let begun = Instant::now();
    loop {
        match heir.retire(dead).await {
            Err(stockmesh::RetireError::Alive { .. }) if begun.elapsed() < WITHIN => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            result => return Ok(result?),
        }
    }
}
