//! A disk that fails under sales and holds: what was done is there with its hold, its reference and its movement, or
//! nothing of it is.

use std::time::Duration;

use stockmesh::storage::FaultMode;
use stockmesh::{HoldState, Store, WriteError};

use crate::faults::Disks;
use crate::movements::check_books;

const HOUR: Duration = Duration::from_secs(3_600);

/// The orders of the script: each is one request under its name, and changes on hand and held so.
const ORDERS: [(&str, i128, i128); 5] =
    [("receive", 20, 0), ("sell", -2, 0), ("hold", 0, 5), ("batch", -1, 3), ("transfer", 0, 0)];

async fn order(store: &Store, name: &str) -> Result<(), WriteError> {
    let mug = store.product("MUG").unwrap().reference(name).unwrap();
    match name {
        "receive" => mug.receive(20).await,
        "sell" => mug.try_sell(2).await,
        "hold" => mug.hold(5, HOUR).await.map(drop),
        "transfer" => mug.transfer("main", "cellar", 4).await,
        _ => {
            let batch = store.batch().reference(name).unwrap().sell("MUG", 1).unwrap();
            batch.hold("MUG", 3, HOUR).unwrap().commit().await.map(drop)
        }
    }
}

fn stock(store: &Store) -> (i128, i128) {
    store.get("MUG").map(|view| (view.on_hand(), view.held())).unwrap_or_default()
}

/// The orders that the ledger names.
async fn in_ledger(store: &Store) -> Vec<String> {
    let movements = store.ledger().collect().await.unwrap();
    let mut names: Vec<String> = movements.iter().map(|one| one.reference.as_ref().unwrap().to_string()).collect();
    names.dedup();
    names
}

/// Each order is there with all that belongs to it, or not at all; and made again, all of them are there, once.
async fn check_whole(disks: &Disks, acknowledged: &[&str], indeterminate: Option<&str>, context: &str) {
    let store = disks.open().await.unwrap_or_else(|error| panic!("{context}: {error}"));
    let names = in_ledger(&store).await;
    let sure: Vec<&str> = acknowledged.to_vec();
    let either = [sure.clone(), sure.into_iter().chain(indeterminate).collect()];
    assert!(either.iter().any(|either| *either == names), "{context}: {names:?}, {either:?}");
    let sums = |names: &[String]| {
        let there = ORDERS.iter().filter(|(name, ..)| names.iter().any(|there| there == name));
        there.fold((0, 0), |sums, (_, on_hand, held)| (sums.0 + on_hand, sums.1 + held))
    };
    assert_eq!(stock(&store), sums(&names), "{context}: {names:?}");
    let held: u64 = store.holds().iter().map(stockmesh::Hold::units).sum();
    assert_eq!(i128::from(held), stock(&store).1, "{context}: the holds and what is held");
    assert!(store.holds().iter().all(|hold| hold.state() == HoldState::Active));
    for name in ORDERS.map(|order| order.0) {
        order(&store, name).await.unwrap_or_else(|error| panic!("{context}: {name} again: {error}"));
    }
    assert_eq!((stock(&store), store.holds().len()), ((17, 8), 2), "{context}: all once");
    check_books(&store, context).await;
    store.close().await.unwrap();
}

/// The disk fails at each of its operations under sales, holds and batches. Who waits is told that it is indeterminate,
/// later calls that nothing was changed, and a reopen shows each request whole or not at all.
#[tokio::test]
async fn a_request_is_there_with_hold_reference_and_movement_or_not_at_all() {
    let mut unsure = 0;
    for mode in [FaultMode::Once, FaultMode::Forever, FaultMode::ShortWrite] {
        for nth in 1.. {
            let disks = Disks::default();
            disks.open().await.unwrap().close().await.unwrap();
            let store = disks.open().await.unwrap();
            let last = disks.store.operations() + nth;
            disks.store.fail_at(nth, mode);
            let (mut acknowledged, mut indeterminate) = (Vec::new(), None);
            for name in ORDERS.map(|order| order.0) {
                match order(&store, name).await {
                    Ok(()) => acknowledged.push(name),
                    Err(WriteError::Indeterminate { .. }) => assert!(indeterminate.replace(name).is_none()),
                    Err(WriteError::Poisoned { .. }) => assert!(indeterminate.is_some()),
                    Err(error) => panic!("{error}"),
                }
            }
            let reached = disks.store.operations() >= last;
            drop(store.close().await);
            disks.store.heal();
            if !reached {
                break;
            }
            unsure += usize::from(indeterminate.is_some());
            for left in [None, Some(nth), Some(nth + 1_000)] {
                let context = format!("operation {nth} fails, {mode:?}, {left:?}");
                check_whole(&disks.left(left), &acknowledged, indeterminate, &context).await;
            }
        }
    }
    assert!(unsure > 30, "{unsure} indeterminate");
}
