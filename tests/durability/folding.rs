//! The journal is folded into snapshots while writes go on (rule D2).

use std::time::Duration;

use stockmesh::{Store, inspect};

use crate::cluster::until;
use crate::faults::Disks;
use crate::model::{Model, Write, add, perform};

/// The size of the journal at which folding begins, and somewhat more.
const FULL: u64 = 16 << 20;

fn batch(units: i64) -> Write {
    (0..4_000).map(|number| add(format!("{number:04}-{}", "f".repeat(120)), units)).collect()
}

/// Writes until the journal was folded. Returns what was acknowledged, and the greatest size that was seen.
async fn fold(store: &Store) -> (Model, u64) {
    let (mut model, mut largest) = (Model::default(), 0);
    for units in 1..100 {
        let write = batch(units);
        perform(store, &write).await.unwrap();
        model.apply(&write);
        let bytes = store.status().journal_bytes;
        if bytes < largest {
            return (model, largest);
        }
        largest = bytes;
    }
    panic!("the journal reached {largest} bytes and was never folded");
}

#[tokio::test]
async fn a_long_journal_is_folded_and_nothing_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("data");
    let open = || Store::builder().data_dir(&directory).shards(8).open();
    let store = open().await.unwrap();
    let (model, largest) = fold(&store).await;
    assert!((FULL..FULL + (6 << 20)).contains(&largest), "{largest}");
    // Folding goes on between commits, also when nobody writes.
    until("the round ends", || store.status().journal_bytes < FULL / 2).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = store.status();
    assert_eq!(Model::of(&store), model);
    store.close().await.unwrap();

    let looked = inspect(&directory).unwrap();
    assert_eq!((looked.damage.len(), looked.fingerprint, looked.products), (0, before.fingerprint, 4_000));
    assert_eq!((looked.journal_bytes, looked.last_batch), (before.journal_bytes, before.last_batch));
    let store = open().await.unwrap();
    let after = store.status();
    assert_eq!((after.replica, after.fingerprint, after.slots), (before.replica, before.fingerprint, before.slots));
    assert_eq!((after.journal_bytes, after.last_batch), (before.journal_bytes, before.last_batch));
    // What is written after a fold joins on to what was folded.
    let write = batch(-1);
    perform(&store, &write).await.unwrap();
    store.close().await.unwrap();
    let store = open().await.unwrap();
    assert_eq!(Model::of(&store), model.with(&[write]));
}

/// The power goes in the middle of a round: what a commit has folded is there, and so is what it has not.
#[tokio::test]
async fn a_loss_of_power_while_shards_are_folded_loses_nothing() {
    let disks = Disks::default();
    let store = disks.open().await.unwrap();
    let (model, _) = fold(&store).await;
    let mut images = 0;
    let mut model = model;
    for number in 0..6 {
        let write = vec![add(format!("AFTER-{number}"), 1)];
        perform(&store, &write).await.unwrap();
        model.apply(&write);
        // Nothing is asked of the store meanwhile, so it may be in the middle of a step of its own.
        let left = disks.left(Some(number));
        let opened = left.open().await.unwrap();
        assert_eq!(Model::of(&opened), model, "power loss {number}");
        perform(&opened, &batch(1)).await.unwrap();
        let again = left.left(Some(number)).open().await.unwrap();
        assert_eq!(Model::of(&again), model.with(&[batch(1)]), "power loss {number}, written on");
        images += 2;
    }
    assert_eq!(images, 12);
}
