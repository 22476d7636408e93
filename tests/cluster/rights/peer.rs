//! A peer by hand that is asked for rights, and answers as the test wants.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream};
use stockmesh::{ReplicaId, Store};
use stockmesh_proto::counter::Counters;
use stockmesh_proto::product::{GrantSlot, Product, StockSlot};
use stockmesh_proto::wire::{Ask, Granted, Hello, Message, Push, PushShard};
use stockmesh_proto::{Location, ShardCount, ShardIndex, Sku};
use tokio::task::JoinSet;

use super::{MUG, SHOP};
use crate::support::raw::{Raw, hello, read, write};
use crate::support::{Mesh, SHARDS, address, on_hand, wait_until};

/// Bytes with which a question is answered, and after which time; nothing leaves it open.
pub(crate) type Answer = Option<(Duration, Vec<u8>)>;
pub(crate) type Answering = dyn Fn(&Ask) -> Answer + Send + Sync;

/// A hand-made peer with rights.
pub(crate) struct Peer {
    pub(super) raw: Raw,
    pub(super) asks: Arc<Mutex<Vec<Ask>>>,
    _serving: JoinSet<()>,
}

pub(super) fn shard_of(sku: &str) -> ShardIndex {
    ShardCount::new(SHARDS).unwrap().shard_of(&Sku::new(sku).unwrap())
}

/// The slot of so many units that came in.
pub(super) fn stock(replica: ReplicaId, sequence: u64, added: u64) -> Product {
    let counters = Counters { added, ..Counters::default() };
    Product::of_stock(StockSlot { location: Location::new(SHOP).unwrap(), replica, sequence, counters })
}

/// The slot of so many rights that were given in all.
pub(super) fn grant(from: ReplicaId, to: ReplicaId, sequence: u64, units: u64) -> Product {
    Product::of_grant(GrantSlot { location: Location::new(SHOP).unwrap(), from, to, sequence, units })
}

/// A push of one write of `origin`.
pub(super) fn push_of(origin: ReplicaId, sku: &str, sequence: u64, product: Product) -> Vec<u8> {
    let products = vec![(Sku::new(sku).unwrap(), product)];
    let shards = vec![PushShard { shard: shard_of(sku), from: sequence, to: sequence, products }];
    Message::Push(Push { origin, told: Vec::new(), shards }).encode().unwrap()
}

/// An answer that gives rights by this slot, among others.
pub(super) fn granted(units: u64, sequence: u64, product: Product) -> Granted {
    let products = vec![(Sku::new(MUG).unwrap(), product)];
    Granted { units, sequence, shard: shard_of(MUG), products }
}

/// Answered at once.
pub(super) fn encoded(granted: Granted) -> Answer {
    Some((Duration::ZERO, Message::Granted(granted).encode().unwrap()))
}

/// A hello of a peer that answers questions for rights.
pub(super) async fn linked(mesh: &Mesh, store: &Store, replica: Option<ReplicaId>) -> (Raw, Option<Message>) {
    let mut raw = Raw::silent(mesh, address(store)).await;
    raw.replica = replica.unwrap_or(raw.replica);
    let (mut send, mut receive) = raw.connection.open_bi().await.unwrap();
    write(&mut send, &Message::Hello(Hello { features_known: 1, ..hello(raw.replica) })).await;
    let answer = read(&mut receive).await;
    if let Some(Message::Hello(hello)) = &answer {
        raw.node = Some(hello.replica);
    }
    (raw, answer)
}

/// Asks a node for rights. Returns its answer.
pub(super) async fn ask(raw: &Raw, ask: Ask) -> Option<Granted> {
    let (mut send, mut receive) = raw.connection.open_bi().await.ok()?;
    write(&mut send, &Message::Ask(ask)).await;
    let _ = send.finish();
    match read(&mut receive).await? {
        Message::Granted(granted) => Some(granted),
        other => panic!("a question was answered with {other:?}"),
    }
}

/// A question for so many units.
pub(super) fn question(sku: &str, needed: u64) -> Ask {
    let (sku, location) = (Sku::new(sku).unwrap(), Location::new(SHOP).unwrap());
    Ask { sku, location, needed, rights: 0, per_hour: 0 }
}

impl Peer {
    /// Links to `store` as a node that received so many units, and answers its questions in this way.
    pub(crate) async fn start(mesh: &Mesh, store: &Store, units: u64, answering: Arc<Answering>) -> Self {
        let (raw, answer) = linked(mesh, store, None).await;
        assert!(matches!(answer, Some(Message::Hello(_))), "{answer:?}");
        let asks = Arc::new(Mutex::new(Vec::new()));
        let mut serving = JoinSet::new();
        serving.spawn(serve(raw.connection.clone(), Arc::clone(&asks), answering));
        let before = on_hand(store, MUG);
        raw.push_bytes(&push_of(raw.replica, MUG, 1, stock(raw.replica, 1, units)), false).await;
        wait_until("the peer's stock arrives", || on_hand(store, MUG) == before + i128::from(units)).await;
        Self { raw, asks, _serving: serving }
    }

    /// Questions in need.
    pub(crate) fn in_need(&self) -> Vec<Ask> {
        self.asks.lock().iter().filter(|ask| ask.needed > 0).cloned().collect()
    }
}

async fn serve(connection: Connection, asks: Arc<Mutex<Vec<Ask>>>, answering: Arc<Answering>) {
    let mut streams = JoinSet::new();
    while let Ok((send, receive)) = connection.accept_bi().await {
        streams.spawn(serve_stream(send, receive, Arc::clone(&asks), Arc::clone(&answering)));
    }
}

/// Reconciliations are left open, as by a peer that is slow.
async fn serve_stream(
    mut send: SendStream,
    mut receive: RecvStream,
    asks: Arc<Mutex<Vec<Ask>>>,
    answering: Arc<Answering>,
) {
    if let Some(Message::Ask(ask)) = read(&mut receive).await {
        let answer = answering(&ask);
        asks.lock().push(ask);
        if let Some((after, bytes)) = answer {
            tokio::time::sleep(after).await;
            let _ = send.write_all(&bytes).await;
            let _ = send.finish();
        }
    }
    // Open until the link ends.
    let _ = send.stopped().await;
    std::future::pending::<()>().await;
}
