//! Rows that parts of the running store keep in the side table.

use std::borrow::Cow;
use std::time::Duration;

use super::super::*;
use super::wanted;
use crate::clock::WallClock;
use crate::commit::{Committer, Worker};
use crate::settings::Stored;
use crate::storage::{FaultMode, FaultyDisk, Refusal, SETTING_VALUE_BYTES_MAX};

fn start(store: &FaultyDisk, mark: &FaultyDisk, is_new: bool) -> (Committer, BTreeMap<String, Vec<u8>>) {
    let disks = (Box::new(store.clone()), Box::new(mark.clone()));
    let engine = if is_new {
        Engine::create(disks.0, disks.1, Mark::default()).unwrap()
    } else {
        Engine::open(disks.0, disks.1).unwrap()
    };
    let Recovered { table, engine, clock, settings, rows, books, .. } =
        super::super::recover(engine, &wanted()).unwrap();
    let rest = ((settings.former, settings.retired), books, Duration::MAX);
    let (committer, _) = Worker::start(table, (engine, None), clock, (WallClock::default(), 60_000), rest).unwrap();
    (committer, rows)
}

fn row(key: &'static str, value: Option<&[u8]>) -> Stored {
    vec![(Cow::Borrowed(key), value.map(<[u8]>::to_vec))]
}

#[tokio::test]
async fn rows_of_the_running_store_are_durable_and_found_at_the_next_open() {
    let (store, mark) = (FaultyDisk::new(), FaultyDisk::new());
    let (committer, rows) = start(&store, &mark, true);
    assert!(!rows.contains_key("test.a"));
    committer.store_settings(row("test.a", Some(b"1"))).await.unwrap();
    committer.store_settings(row("test.b", Some(b"2"))).await.unwrap();
    committer.store_settings(row("test.a", None)).await.unwrap();
    // What was confirmed survives a loss of power at once.
    let (store, mark) = (store.crash(1), mark.crash(1));
    let (store, mark) = (FaultyDisk::from_image(store), FaultyDisk::from_image(mark));
    committer.close().await;
    let (_, rows) = start(&store, &mark, false);
    assert_eq!((rows.get("test.a"), rows.get("test.b")), (None, Some(&b"2".to_vec())));
}

#[tokio::test]
async fn a_row_that_cannot_be_stored_costs_nothing_else() {
    let (store, mark) = (FaultyDisk::new(), FaultyDisk::new());
    let (committer, _) = start(&store, &mark, true);
    let long = vec![0; SETTING_VALUE_BYTES_MAX + 1];
    for refused in [row("test.a", Some(&long)), row("", Some(b"1")), row("storage.a", Some(b"1"))] {
        let error = committer.store_settings(refused).await.unwrap_err();
        assert!(matches!(error, StorageError::Refused(Refusal::TooLarge(_) | Refusal::Key(_))), "{error}");
    }
    committer.store_settings(row("test.a", Some(b"1"))).await.unwrap();
    store.fail_at(1, FaultMode::Forever);
    let lost = committer.store_settings(row("test.a", Some(b"2"))).await.unwrap_err();
    assert!(matches!(lost, StorageError::Indeterminate { .. }), "{lost}");
    let later = committer.store_settings(row("test.a", Some(b"3"))).await.unwrap_err();
    assert!(matches!(later, StorageError::Poisoned { .. }), "{later}");
    committer.close().await;
    let closed = committer.store_settings(row("test.a", Some(b"4"))).await.unwrap_err();
    assert!(matches!(closed, StorageError::Closed), "{closed}");
}
