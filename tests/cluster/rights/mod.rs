//! Rights that move between nodes over real links: nothing is sold twice, nothing is lost, and few sales have to ask.

mod again;
mod asked;
mod cancelled;
mod copies;
mod deficits;
mod events;
mod flash;
mod heirs;
mod holds;
mod hostile;
mod leaving;
mod lost;
mod moves;
mod obtaining;
pub(crate) mod peer;
mod references;
mod retired;
mod shares;
mod waiting;
mod wishes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stockmesh::{GrantPolicy, GrantRequest, MovementKind, NeedOnly, Product, ReplicaId, Store, WriteError};

use crate::support::{Mesh, PATIENCE, dial, wait_linked, wait_until};

/// Where all nodes of these tests sell from.
const SHOP: &str = "shop";
const MUG: &str = "MUG-01";

/// A product at the shop.
fn at_shop(store: &Store, sku: &str) -> Product {
    store.product(sku).unwrap().at(SHOP).unwrap()
}

fn mug(store: &Store) -> Product {
    at_shop(store, MUG)
}

/// Units that can be sold as far as a node knows.
fn available(store: &Store) -> i128 {
    store.get(MUG).map(|view| view.available()).unwrap_or_default()
}

/// Rights of one replica at the shop as a node knows them.
fn rights_of(store: &Store, replica: ReplicaId) -> i128 {
    rights_to(store, MUG, replica)
}

fn rights_to(store: &Store, sku: &str, replica: ReplicaId) -> i128 {
    let rights = store.get(sku).map(|view| view.rights_at(SHOP)).unwrap_or_default();
    rights.into_iter().find(|(other, _)| *other == replica).map_or(0, |(_, units)| units)
}

fn own_rights(store: &Store) -> i128 {
    rights_of(store, store.replica_id())
}

/// The sum of all rights is what is available, and nobody has less than none.
fn assert_shared_out(store: &Store) {
    let rights = store.get(MUG).unwrap().rights_at(SHOP);
    assert_eq!(rights.iter().map(|(_, units)| units).sum::<i128>(), available(store), "{rights:?}");
    assert!(rights.iter().all(|(_, units)| *units >= 0), "{rights:?}");
}

async fn wait_available(stores: &[Store], units: i128) {
    let what = format!("{units} units are available at all nodes");
    wait_until(&what, || stores.iter().all(|store| available(store) == units)).await;
}

/// Units that a node's ledger says were sold.
async fn sold_by_ledger(store: &Store) -> i64 {
    let movements = store.movements(MUG).unwrap().collect().await.unwrap();
    let sold = movements.iter().filter(|movement| matches!(movement.kind, MovementKind::Sold));
    sold.map(|movement| movement.quantity).sum()
}

/// Sells so many units, which must be had from others sooner or later: a peer that gave nothing is left alone for a while.
async fn sell_in_time(store: &Store, units: u64) {
    let begun = Instant::now();
    while let Err(error) = mug(store).sell(units).deadline(PATIENCE).await {
        assert!(matches!(error, WriteError::Insufficient { .. }), "{error}");
        assert!(begun.elapsed() < PATIENCE, "{units} units cannot be sold: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_insufficient(answer: &Result<(), WriteError>) -> bool {
    matches!(answer, Err(WriteError::Insufficient { .. }))
}

/// Grants what is needed and no more, and keeps what it was asked.
#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Vec<GrantRequest>>>);

impl GrantPolicy for Recorder {
    fn units(&self, request: &GrantRequest) -> u64 {
        self.0.lock().push(*request);
        NeedOnly.units(request)
    }
}

impl Recorder {
    /// Questions of somebody in need; those ahead of demand do not count.
    fn in_need(&self) -> usize {
        self.0.lock().iter().filter(|request| request.needed > 0).count()
    }
}

/// A node that gives what is needed and no more, and keeps what it was asked.
async fn recording(mesh: &Mesh, name: &str) -> (Store, Recorder) {
    let recorder = Recorder::default();
    (mesh.builder(name).grant_policy(recorder.clone()).open().await.unwrap(), recorder)
}

/// A node with so many units, which gives what is needed and no more, and one with none that is linked to it.
async fn giver_and_asker(mesh: &Mesh, units: u64) -> ([Store; 2], Recorder) {
    let (giver, recorder) = recording(mesh, "giver").await;
    mug(&giver).receive(units).await.unwrap();
    let asker = mesh.builder("asker").grant_policy(NeedOnly).open().await.unwrap();
    dial(&asker, &giver);
    let stores = [giver, asker];
    wait_linked(&stores, 1).await;
    wait_available(&stores, i128::from(units)).await;
    (stores, recorder)
}
