//! Two peers say hello, a third joins by the address of one of them, a broadcast reaches all, and one leaves. Real QUIC on
//! loopback, with certificates of an authority that lives as long as this program.
//!
//! `cargo run --example messages --features certificates`

use std::error::Error;
use std::time::{Duration, Instant};

use stockmesh::certificates::{Authority, Validity};
use stockmesh::{Delivery, Identity, Store};
use tokio::task::JoinHandle;

const WITHIN: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let authority = Authority::new("messages", Validity::from_days(60)?)?;
    let berlin = node("berlin", &authority, None).await?;
    let paris = node("paris", &authority, Some(&berlin)).await?;
    let readers = [read("berlin", &berlin), read("paris", &paris)];
    until("berlin and paris are linked", || linked(&berlin) == 1 && linked(&paris) == 1).await?;

    let took = berlin.send(paris.replica_id(), "hello, paris").await?;
    println!("berlin: paris got it, {took:?} there and back");
    let took = paris.send(berlin.replica_id(), "hello, berlin").await?;
    println!("paris: berlin got it, {took:?} there and back");

    // One address is enough to join: the others are found by way of it.
    let rome = node("rome", &authority, Some(&paris)).await?;
    let reader = read("rome", &rome);
    until("rome knows both", || linked(&rome) == 2 && linked(&berlin) == 2).await?;
    let broadcast = berlin.broadcast("stocktaking at noon").await?;
    println!("berlin: {} got the broadcast", broadcast.received.len());
    assert_eq!((broadcast.received.len(), broadcast.failed.len()), (2, 0));
    println!("berlin: rome answers within {:?}", berlin.ping(rome.replica_id()).await?);

    rome.leave().await?;
    println!("rome left: it read {} messages", reader.await?);
    until("rome is gone", || linked(&berlin) == 1 && linked(&paris) == 1).await?;
    let broadcast = paris.broadcast("ciao, rome").await?;
    assert_eq!(broadcast.received.len(), 1);
    for store in [&berlin, &paris] {
        store.close().await?;
    }
    for reader in readers {
        println!("{} messages were read", reader.await?);
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

/// Prints what a node is sent until it closes, and counts it.
fn read(name: &'static str, store: &Store) -> JoinHandle<usize> {
    let mut messages = store.messages();
    tokio::spawn(async move {
        let mut count = 0;
        while let Some(delivery) = messages.next().await {
            if let Delivery::Message(message) = delivery {
                count += 1;
                println!("{name}: {} says {:?}", message.location, String::from_utf8_lossy(&message.bytes));
            }
        }
        count
    })
}

fn linked(store: &Store) -> usize {
    store.status().peers.iter().filter(|peer| peer.round_trip.is_some()).count()
}

async fn until(what: &str, reached: impl Fn() -> bool) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    while !reached() {
        if begun.elapsed() > WITHIN {
            return Err(format!("not within {WITHIN:?}: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
