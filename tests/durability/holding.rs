//! Holds over restarts: they are kept, their time goes on, and what became of them stays known.

use std::path::Path;
use std::time::Duration;

use stockmesh::{HoldId, HoldState, MovementKind, OperationRefused, Store, WriteError};

use crate::cluster::until;
use crate::faults::Disks;

const MINUTE: Duration = Duration::from_secs(60);

/// Opens the directory with a clock that is so far ahead.
async fn open_later(path: &Path, later: Duration) -> Store {
    let offset_ms = later.as_millis() as i64;
    Store::builder().data_dir(path).shards(4).clock_offset_ms(offset_ms).open().await.unwrap()
}

fn stock(store: &Store) -> (i128, i128) {
    let view = store.get("MUG").unwrap();
    (view.on_hand(), view.held())
}

fn is_expired(store: &Store, id: HoldId) -> bool {
    matches!(store.hold(id).unwrap().state(), HoldState::Expired { .. })
}

/// How often the ledger says that a hold expired.
async fn expiries(store: &Store, id: HoldId) -> usize {
    let movements = store.ledger().collect().await.unwrap();
    movements.iter().filter(|movement| movement.kind == MovementKind::Expired(id)).count()
}

/// Holds are there after a restart with the time that they have left. One that ran out meanwhile is released at open, and
/// one that runs out then is released then; each once, also if the store is opened again and again.
#[tokio::test]
async fn holds_are_kept_and_their_time_goes_on_while_the_store_is_closed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    let store = open_later(&path, Duration::ZERO).await;
    let mug = store.product("MUG").unwrap();
    mug.receive(100).await.unwrap();
    let [short, long] = [10, 60].map(|minutes| mug.hold(minutes, u32::try_from(minutes).unwrap() * MINUTE));
    let (short, long) = (short.await.unwrap(), long.await.unwrap());
    store.close().await.unwrap();

    let store = open_later(&path, 5 * MINUTE).await;
    let held: Vec<_> = store.holds().iter().map(|hold| (hold.id(), hold.units(), hold.expires_at())).collect();
    assert_eq!(held, [(short.id(), 10, short.expires_at()), (long.id(), 60, long.expires_at())]);
    assert_eq!(stock(&store), (100, 70));
    store.close().await.unwrap();
    for _ in 0..3 {
        let store = open_later(&path, 11 * MINUTE).await;
        until("the first is released", || is_expired(&store, short.id())).await;
        assert_eq!((stock(&store), expiries(&store, short.id()).await), ((100, 60), 1));
        let answer = store.hold(short.id()).unwrap().commit().await;
        assert!(matches!(answer, Err(WriteError::Refused(OperationRefused::HoldResolved { .. }))), "{answer:?}");
        assert_eq!(store.hold(short.id()).unwrap().release().await.unwrap().released, 10);
        store.close().await.unwrap();
    }
    // A second before its time.
    let store = open_later(&path, 60 * MINUTE - Duration::from_secs(1)).await;
    until("the second is released while the store is open", || is_expired(&store, long.id())).await;
    assert_eq!((stock(&store), expiries(&store, long.id()).await), ((100, 0), 1));
    assert!(store.holds().is_empty());
    store.product("MUG").unwrap().try_sell(100).await.unwrap();
    store.close().await.unwrap();
}

/// What became of a hold is known after a restart: the same again returns the same, anything else is refused.
#[tokio::test]
async fn resolved_holds_stay_resolved_after_a_restart() {
    let disks = Disks::default();
    let store = disks.open().await.unwrap();
    let mug = store.product("MUG").unwrap();
    mug.receive(100).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(mug.hold(10, MINUTE).await.unwrap());
    }
    ids[0].commit().await.unwrap();
    ids[1].commit_part(4).await.unwrap();
    ids[2].release().await.unwrap();
    let ids: Vec<HoldId> = ids.iter().map(stockmesh::Hold::id).collect();
    // Closed, killed, and after a loss of power.
    for (number, left) in [None, None, Some(1), Some(2)].into_iter().enumerate() {
        let copied = disks.left(left);
        let store = copied.open().await.unwrap();
        assert_eq!(stock(&store), (86, 10), "{number}");
        let [sold, part, free, active] = [0, 1, 2, 3].map(|index: usize| store.hold(ids[index]).unwrap());
        let fingerprint = store.status().fingerprint;
        let answers = [sold.commit().await, part.commit_part(4).await, free.release().await];
        let answers = answers.map(|answer| answer.map(|resolved| (resolved.sold, resolved.released)).unwrap());
        assert_eq!(answers, [(10, 0), (4, 6), (0, 10)], "{number}");
        for other in [sold.release().await, part.commit().await, free.commit().await] {
            assert!(matches!(other, Err(WriteError::Refused(OperationRefused::HoldResolved { .. }))), "{other:?}");
        }
        assert_eq!(store.status().fingerprint, fingerprint, "{number}");
        assert_eq!(active.commit().await.unwrap().sold, 10);
        assert_eq!(stock(&store), (76, 0), "{number}");
    }
}
