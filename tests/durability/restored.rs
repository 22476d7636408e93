//! Data directories that were restored from an old copy, or cloned (rule I2).
//!
//! What holds always: the nodes converge, the copy goes on under a new id and says so, no write of any other replica is
//! lost, and none that is made after the new id was minted. What cannot hold: two histories that used one id and wrote the
//! same counter of the same product at the same place since the copy was made. Of these two increments the greater
//! remains, since a counter is joined by maximum. Writes to different products, or one in and one out, both remain.

use std::path::PathBuf;

use stockmesh::{ReplicaId, Store};

use crate::cluster::{converged, copy, link, node, node_at, restore, until, was_logged};
use crate::model::{Change, Model, Write, add, perform};

struct Places {
    _root: tempfile::TempDir,
    data: PathBuf,
    copied: PathBuf,
}

/// A node with some history, closed and copied.
async fn copied(history: &Write) -> (Places, ReplicaId) {
    let root = tempfile::tempdir().unwrap();
    let places = Places { data: root.path().join("data"), copied: root.path().join("copied"), _root: root };
    let store = node_at("copied", &places.data).await;
    perform(&store, history).await.unwrap();
    let id = store.replica_id();
    store.close().await.unwrap();
    copy(&places.data, &places.copied);
    (places, id)
}

fn is_new(store: &Store, old: ReplicaId) -> bool {
    store.replica_id() != old && store.status().former_replicas == [old]
}

async fn minted(store: &Store, old: ReplicaId) {
    until("a new id is minted", || store.replica_id() != old).await;
    assert_eq!(store.status().former_replicas, [old], "one new id, not several");
    assert!(was_logged(&format!("former={old}")), "it must be said at the level of errors");
}

/// Writes to many products, so that every shard is written to.
fn spread(prefix: &str, units: i64) -> Write {
    (0..32).map(|number| add(format!("{prefix}-{number}"), units)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_copy_goes_on_under_a_new_id_and_nothing_is_lost() {
    let history = [spread("OLD", 3), vec![add("MUG", 10), Change::Price("MUG".into(), 100)]].concat();
    let (places, id) = copied(&history).await;
    let peer = node("peer").in_memory().open().await.unwrap();
    let mut model = Model::default().with(&[history]);

    let store = node_at("copied", &places.data).await;
    link(&store, &peer);
    for write in [spread("OLD", 4), spread("LATER", 5), vec![add("MUG", -6), Change::Price("MUG".into(), 200)]] {
        perform(&store, &write).await.unwrap();
        model.apply(&write);
    }
    converged(&[&store, &peer]).await;
    store.close().await.unwrap();

    restore(&places.copied, &places.data);
    let store = node_at("copied", &places.data).await;
    assert_eq!(store.replica_id(), id, "a copy cannot know of itself that it is one");
    let write = vec![add("MUG", 1), add("PEER", 1)];
    perform(&peer, &write).await.unwrap();
    model.apply(&write);
    let mut changes = store.subscribe(stockmesh::Filter::prefix("no product begins so"));
    link(&store, &peer);
    minted(&store, id).await;
    let told = async {
        loop {
            match changes.next().await {
                // Of members something is told meanwhile.
                Some(stockmesh::Change::Member(_)) => {}
                Some(stockmesh::Change::NewIncarnation { former, own, .. }) => return (former, own),
                other => panic!("{other:?}"),
            }
        }
    };
    let (former, own) = tokio::time::timeout(std::time::Duration::from_secs(10), told).await.unwrap();
    assert_eq!((former, own), (id, store.replica_id()));
    assert_eq!(converged(&[&store, &peer]).await, model);

    for write in [spread("OLD", 1), spread("NEW", 2), vec![add("MUG", 5)]] {
        perform(&store, &write).await.unwrap();
        model.apply(&write);
    }
    assert_eq!(converged(&[&store, &peer]).await, model);
    let new = store.replica_id();
    store.close().await.unwrap();

    // The new id is as durable as what was written under it.
    let store = node_at("copied", &places.data).await;
    assert!(store.replica_id() == new && is_new(&store, id));
    assert_eq!(Model::of(&store), model);
    link(&store, &peer);
    let write = spread("OLD", 1);
    perform(&store, &write).await.unwrap();
    assert_eq!(converged(&[&store, &peer]).await, model.with(&[write]));
    assert!(is_new(&store, id), "and no further id is minted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_copy_that_writes_before_it_meets_a_peer_loses_only_what_shares_a_counter() {
    let (places, id) = copied(&spread("OLD", 3)).await;
    let peer = node("peer").in_memory().open().await.unwrap();
    let store = node_at("copied", &places.data).await;
    link(&store, &peer);
    let lost_here = [spread("LOST", 4), vec![add("IN", 7), add("IN-OUT", 7)]];
    for write in &lost_here {
        perform(&store, write).await.unwrap();
    }
    converged(&[&store, &peer]).await;
    store.close().await.unwrap();

    restore(&places.copied, &places.data);
    let store = node_at("copied", &places.data).await;
    let before_meeting = [spread("FRESH", 6), spread("OLD", 1), vec![add("IN", 5), add("IN-OUT", -2)]];
    for write in &before_meeting {
        perform(&store, write).await.unwrap();
    }
    let at_peer = vec![add("PEER", 9), add("IN", 100), add("FRESH-1", 1000)];
    perform(&peer, &at_peer).await.unwrap();
    link(&store, &peer);
    minted(&store, id).await;

    let after = [spread("FRESH", 1), spread("LOST", 1), vec![add("IN", 1)]];
    for write in &after {
        perform(&store, write).await.unwrap();
    }
    let all =
        [vec![spread("OLD", 3)], lost_here.to_vec(), before_meeting.to_vec(), vec![at_peer], after.to_vec()].concat();
    let mut expected = Model::default().with(&all);
    // 7 came in by the history that was lost here, and 5 by the copy, on one counter: the greater remains.
    expected.0.get_mut("IN").unwrap().on_hand -= 5;
    assert_eq!(converged(&[&store, &peer]).await, expected);
    let third = node("third").in_memory().open().await.unwrap();
    link(&third, &peer);
    assert_eq!(converged(&[&store, &peer, &third]).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_that_both_write_converge_and_one_of_them_says_so() {
    let history = [spread("OLD", 3), vec![add("IN", 50)]].concat();
    let (places, id) = copied(&history).await;
    let (first, second) = (node_at("first", &places.data).await, node_at("second", &places.copied).await);
    let third = node("third").in_memory().open().await.unwrap();
    assert_eq!((first.replica_id(), second.replica_id()), (id, id));

    // Linked to each other they are refused (rule H2), and both are told why.
    link(&first, &second);
    let told =
        |store: &Store| store.status().refusals.iter().any(|refused| refused.reason.contains("is a copy of the other"));
    until("both are told of the copy", || told(&first) && told(&second)).await;

    let by_first = [spread("FIRST", 1), vec![add("IN", 5), add("IN-OUT", 3)]];
    let by_second = [spread("SECOND", 2), vec![add("IN", 7), add("IN-OUT", -2)]];
    for (store, writes) in [(&first, &by_first), (&second, &by_second)] {
        for write in writes {
            perform(store, write).await.unwrap();
        }
    }
    link(&first, &third);
    link(&second, &third);
    until("one of the clones mints a new id", || is_new(&first, id) || is_new(&second, id)).await;
    assert!(was_logged(&format!("former={id}")));
    let after = [(&first, vec![add("IN", 1)]), (&second, vec![add("IN", 2)]), (&third, vec![add("IN", 4)])];
    let mut expected = Model::default().with(&[vec![history], by_first.to_vec(), by_second.to_vec()].concat());
    expected.0.get_mut("IN").unwrap().on_hand -= 5;
    assert_eq!(converged(&[&first, &second, &third]).await, expected, "before they go on");
    assert_ne!(first.replica_id(), second.replica_id());
    for (store, write) in &after {
        perform(store, write).await.unwrap();
        expected.apply(write);
    }
    assert_eq!(converged(&[&first, &second, &third]).await, expected, "and after");
}
