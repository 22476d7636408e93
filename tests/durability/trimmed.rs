//! The ledger and its references when clocks are set: what was dated far ahead is dropped like what is old.

use std::path::Path;
use std::time::Duration;

use stockmesh::{Builder, Movement, MovementKind, Store};

const HOUR: Duration = Duration::from_secs(3_600);
/// A clock that was set to the wrong century.
const FAR: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);

/// A store that keeps the ledger for an hour, with its clock so far ahead.
fn ahead(path: &Path, ahead: Duration) -> Builder {
    let offset_ms = i64::try_from(ahead.as_millis()).unwrap();
    Store::builder().data_dir(path).shards(4).ledger_retention(HOUR).clock_offset_ms(offset_ms)
}

async fn sell(store: &Store, units: u64) {
    store.product("MUG").unwrap().try_sell(units).await.unwrap();
}

async fn order(store: &Store, name: &str, units: u64) {
    store.product("MUG").unwrap().reference(name).unwrap().try_sell(units).await.unwrap();
}

fn on_hand(store: &Store) -> i128 {
    store.get("MUG").unwrap().on_hand()
}

/// The units of what the ledger keeps, oldest first: each movement of these tests has its own.
async fn kept(store: &Store) -> Vec<i64> {
    let movements: Vec<Movement> = store.ledger().collect().await.unwrap();
    let is_known = |movement: &Movement| matches!(movement.kind, MovementKind::Received | MovementKind::Sold);
    assert!(movements.iter().all(is_known), "{movements:?}");
    movements.iter().map(|movement| movement.quantity).collect()
}

/// Entries that a clock dated far ahead are dropped once it is right again, with those behind them as they grow old;
/// what is younger than the retention stays.
#[tokio::test]
async fn what_was_dated_far_ahead_does_not_stop_trimming() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    let store = ahead(&path, FAR).open().await.unwrap();
    store.product("MUG").unwrap().receive(1_000).await.unwrap();
    sell(&store, 1).await;
    store.close().await.unwrap();

    // The first commit after an open looks at what need not be kept.
    let store = ahead(&path, Duration::ZERO).open().await.unwrap();
    assert_eq!(kept(&store).await, [1_000, 1]);
    sell(&store, 2).await;
    assert_eq!(kept(&store).await, [2]);
    store.close().await.unwrap();
    let store = ahead(&path, HOUR / 2).open().await.unwrap();
    sell(&store, 3).await;
    assert_eq!(kept(&store).await, [2, 3]);
    store.close().await.unwrap();
    let store = ahead(&path, HOUR + HOUR / 4).open().await.unwrap();
    sell(&store, 4).await;
    assert_eq!(kept(&store).await, [3, 4]);
    assert_eq!(on_hand(&store), 1_000 - 10);
    store.close().await.unwrap();
}

/// With no retention at all, all that is there from before goes with the next look.
#[tokio::test]
async fn without_retention_the_ledger_keeps_what_is_new() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    let none = |later: u64| ahead(&path, Duration::from_secs(later)).ledger_retention(Duration::ZERO);
    let store = none(0).open().await.unwrap();
    store.product("MUG").unwrap().receive(1_000).await.unwrap();
    store.close().await.unwrap();
    for (later, units) in [(10, 1), (5, 2), (20, 3)] {
        // Also with a clock that was set back.
        let store = none(later).open().await.unwrap();
        sell(&store, units).await;
        assert_eq!(kept(&store).await, [i64::try_from(units).unwrap()]);
        store.close().await.unwrap();
    }
}

/// What references need is kept, however it is dated: until they are forgotten themselves, which those that were dated
/// far ahead are when the next one comes.
#[tokio::test]
async fn what_references_need_is_kept_however_it_is_dated() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    let store = ahead(&path, FAR).open().await.unwrap();
    store.product("MUG").unwrap().receive(1_000).await.unwrap();
    order(&store, "far", 1).await;
    sell(&store, 2).await;
    store.close().await.unwrap();
    for (round, kept_now) in [(3, &[1, 2, 3][..]), (4, &[1, 2, 3, 4])] {
        let store = ahead(&path, Duration::ZERO).open().await.unwrap();
        sell(&store, round).await;
        let before = on_hand(&store);
        order(&store, "far", 1).await;
        assert_eq!(on_hand(&store), before, "it is remembered");
        assert_eq!(kept(&store).await, kept_now);
        store.close().await.unwrap();
    }
    let store = ahead(&path, Duration::ZERO).open().await.unwrap();
    order(&store, "near", 5).await;
    store.close().await.unwrap();
    let store = ahead(&path, HOUR / 2).open().await.unwrap();
    sell(&store, 6).await;
    assert_eq!(kept(&store).await, [3, 4, 5, 6], "without what was dated far ahead");
    let before = on_hand(&store);
    order(&store, "near", 5).await;
    assert_eq!(on_hand(&store), before, "it is remembered");
    store.close().await.unwrap();
    // Older than the retention, but needed.
    let store = ahead(&path, 2 * HOUR).open().await.unwrap();
    sell(&store, 7).await;
    assert_eq!(kept(&store).await, [5, 6, 7]);
    store.close().await.unwrap();
}

/// A clock that lost its battery says nothing about what is old: neither the ledger nor a reference is let go of by it, and
/// what is done meanwhile is remembered too.
#[tokio::test]
async fn a_clock_that_fell_back_to_its_beginning_forgets_nothing() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    let store = ahead(&path, Duration::ZERO).open().await.unwrap();
    store.product("MUG").unwrap().receive(1_000).await.unwrap();
    order(&store, "before", 1).await;
    store.close().await.unwrap();

    let since_1970 = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let store = ahead(&path, Duration::ZERO).clock_offset_ms(-since_1970).open().await.unwrap();
    for number in 2..20 {
        order(&store, &format!("meanwhile-{number}"), number).await;
    }
    order(&store, "before", 1).await;
    store.close().await.unwrap();

    let store = ahead(&path, Duration::ZERO).open().await.unwrap();
    for number in 20..30 {
        order(&store, &format!("after-{number}"), number).await;
    }
    order(&store, "before", 1).await;
    for number in 2..20 {
        order(&store, &format!("meanwhile-{number}"), number).await;
    }
    assert_eq!(on_hand(&store), 1_000 - (1..30).sum::<i128>(), "each is done once");
    assert_eq!(kept(&store).await.len(), 30, "nothing of it is old");
    store.close().await.unwrap();
}
