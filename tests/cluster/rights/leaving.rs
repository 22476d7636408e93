//! Nodes that leave for good: their rights and holds stay within reach.

use std::time::Duration;

use stockmesh::{HoldsAtLeave, LeaveError, LinkState, NeedOnly, OversellPolicy, Store, WriteError};

use super::{MUG, mug, own_rights, rights_of, wait_available};
use crate::support::{Mesh, PATIENCE, full_mesh, on_hand, wait_converged, wait_linked, wait_until};

const HOUR: Duration = Duration::from_secs(3_600);

async fn three(mesh: &Mesh) -> [Store; 3] {
    let mut stores = Vec::new();
    for name in ["a", "b", "c"] {
        stores.push(mesh.builder(name).grant_policy(NeedOnly).open().await.unwrap());
    }
    full_mesh(&stores);
    wait_linked(&stores, 2).await;
    stores.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_hands_over_rights_and_holds() {
    let mesh = Mesh::new();
    let [a, b, c] = three(&mesh).await;
    mug(&c).receive(50).await.unwrap();
    let at_cellar = c.product(MUG).unwrap().at("cellar").unwrap();
    at_cellar.receive(4).await.unwrap();
    c.product("OWED").unwrap().at("shop").unwrap().sell(2).policy(OversellPolicy::Backorder).await.unwrap();
    let reserved = mug(&c).hold(5, HOUR).await.unwrap();
    let resolved = mug(&c).hold(6, HOUR).await.unwrap();
    resolved.commit().await.unwrap();
    wait_available(&[a.clone(), b.clone()], 43).await;

    let id = c.replica_id();
    let left = c.leave().heir(a.replica_id()).held_by(2).deadline(PATIENCE).await.unwrap();
    // Of the units, five came with the hold.
    assert_eq!((left.heir, left.units), (Some(a.replica_id()), 39 + 4));
    assert_eq!(left.holds.len(), 1);
    assert_eq!(left.holds[0].0, reserved.id());
    let taken = a.hold(left.holds[0].1.unwrap()).unwrap();
    let remaining = taken.expires_at().duration_since(std::time::SystemTime::now()).unwrap();
    assert!(taken.units() == 5 && remaining < HOUR && remaining > HOUR / 2, "{remaining:?}");
    // Both others hold all of it already.
    for store in [&a, &b] {
        assert_eq!((on_hand(store, MUG), rights_of(store, id)), (48, 0));
    }
    // What the heir holds on is a write of its own, which the other may get later.
    wait_available(&[a.clone(), b.clone()], 43).await;
    assert!(matches!(mug(&c).receive(1).await, Err(WriteError::Closed)), "the store is closed");
    wait_converged(&[a.clone(), b.clone()]).await;
    assert_eq!(rights_of(&b, a.replica_id()), 39, "at the shop, besides what is held");
    taken.commit().await.unwrap();
    mug(&a).try_sell(39).await.unwrap();
    assert_eq!(own_rights(&a), 0);
    let up = a.status().peers.into_iter().filter(|peer| peer.state == LinkState::Up);
    assert_eq!(up.count(), 1, "the link to who left is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_leave_goes_on() {
    let mesh = Mesh::new();
    let alone = mesh.node("alone").await;
    mug(&alone).receive(5).await.unwrap();
    assert!(matches!(alone.leave().await, Err(LeaveError::NobodyLinked)));
    mug(&alone).try_sell(1).await.unwrap();

    let [a, b, c] = three(&mesh).await;
    mug(&c).receive(5).await.unwrap();
    let hold = mug(&c).hold(2, HOUR).await.unwrap();
    let error = c.leave().holds(HoldsAtLeave::RunOut).deadline(Duration::from_secs(3)).await.unwrap_err();
    assert!(matches!(error, LeaveError::Held { holds: 1 }), "{error}");
    mug(&c).try_sell(1).await.unwrap();
    hold.commit_part(1).await.unwrap();
    let error = c.leave().held_by(3).deadline(Duration::from_secs(3)).await.unwrap_err();
    assert!(matches!(&error, LeaveError::Unfinished { left, .. } if left.units == 3), "{error}");
    mug(&c).receive(1).await.unwrap();
    // A future that is dropped leaves the node as it was, too.
    let dropped = tokio::time::timeout(Duration::from_millis(50), c.leave().held_by(3).into_future()).await;
    assert!(dropped.is_err());
    mug(&c).receive(1).await.unwrap();

    let left = c.leave().holds(HoldsAtLeave::RunOut).held_by(2).deadline(PATIENCE).await.unwrap();
    assert!(left.holds.is_empty());
    wait_available(&[a.clone(), b.clone()], 5).await;
    mug(&a).sell(5).deadline(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_store_without_a_network_cannot_leave() {
    let store = Store::builder().in_memory().open().await.unwrap();
    assert!(matches!(store.leave().await, Err(LeaveError::NoNetwork)));
    store.product("MUG").unwrap().receive(1).await.unwrap();
}

/// While holds run out they can be resolved, and nothing else is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_are_resolved_while_their_node_waits_to_leave() {
    let mesh = Mesh::new();
    let [a, b, c] = three(&mesh).await;
    mug(&c).receive(9).await.unwrap();
    let holds = [mug(&c).hold(2, HOUR).await.unwrap(), mug(&c).hold(3, HOUR).await.unwrap()];
    wait_available(&[a.clone(), b.clone()], 4).await;
    let leaving = tokio::spawn(c.leave().holds(HoldsAtLeave::RunOut).deadline(PATIENCE).into_future());
    let refused = || async { matches!(mug(&c).receive(1).await, Err(WriteError::Leaving)) };
    let begun = std::time::Instant::now();
    while !refused().await {
        assert!(begun.elapsed() < PATIENCE, "it takes writes still");
    }
    assert!(matches!(mug(&c).sell(1).await, Err(WriteError::Leaving)));
    holds[0].commit().await.unwrap();
    holds[1].release().await.unwrap();
    let left = leaving.await.unwrap().unwrap();
    assert!(left.holds.is_empty());
    wait_available(&[a, b], left.units as i128).await;
}

/// Nodes that leave at the same time do not take over from each other: whoever asks first goes first, or both stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_leave_at_once_leave_nothing_with_each_other() {
    let mesh = Mesh::new();
    let [a, b, c] = three(&mesh).await;
    mug(&b).receive(5).await.unwrap();
    mug(&c).receive(7).await.unwrap();
    wait_available(&[a.clone(), b.clone(), c.clone()], 12).await;
    let (first, second) = tokio::join!(b.leave().into_future(), c.leave().into_future());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.heir, second.heir), (Some(a.replica_id()), Some(a.replica_id())));
    wait_until("the heir has all", || own_rights(&a) == 12).await;
    mug(&a).try_sell(12).await.unwrap();
}
