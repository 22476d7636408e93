//! Holds in a cluster: seen everywhere, resolved once and where they were given, and refused with a reason.

use std::time::Duration;

use stockmesh::{HoldId, HoldState, NeedOnly, OperationRefused, Resolved, Store, WriteError};

use super::{assert_shared_out, available, giver_and_asker, is_insufficient, mug, own_rights};
use crate::support::{Mesh, PATIENCE, wait_converged, wait_until};

const HOUR: Duration = Duration::from_secs(3_600);

/// On hand, held and available at every node.
async fn wait_stock(stores: &[Store], on_hand: i128, held: i128) {
    let expected = (on_hand, held, on_hand - held);
    let what = format!("on hand, held and available are {expected:?} at all nodes");
    let seen = |store: &Store| store.get(super::MUG).map(|view| (view.on_hand(), view.held(), view.available()));
    wait_until(&what, || stores.iter().all(|store| seen(store) == Ok(expected))).await;
}

fn resolved(answer: Result<Resolved, WriteError>) -> (u64, u64) {
    let Resolved { sold, released, .. } = answer.unwrap();
    (sold, released)
}

/// The refusal, whose text must say that nothing was changed.
fn refusal<T: std::fmt::Debug>(answer: Result<T, WriteError>) -> OperationRefused {
    let error = answer.unwrap_err();
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    match error {
        WriteError::Refused(refused) => refused,
        other => panic!("expected a refusal, not {other:?}"),
    }
}

/// Units that are held are seen as held everywhere, and can be sold nowhere else; committed, in part or whole, or
/// released, they count as sold or available everywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_are_seen_at_all_nodes_and_so_is_what_became_of_them() {
    let mesh = Mesh::new();
    let (stores, _) = giver_and_asker(&mesh, 100).await;
    let [giver, asker] = &stores;
    // With rights of its own, and with rights that it has to get.
    let first = mug(giver).hold(30, HOUR).await.unwrap();
    let second = mug(asker).hold(70, HOUR).deadline(PATIENCE).await.unwrap();
    wait_stock(&stores, 100, 100).await;
    for store in &stores {
        assert!(is_insufficient(&mug(store).sell(1).await));
    }
    let listed: Vec<HoldId> = stores.iter().flat_map(|store| store.holds()).map(|hold| hold.id()).collect();
    assert_eq!(listed, [first.id(), second.id()]);
    assert_eq!((second.units(), second.location().as_str(), second.state()), (70, super::SHOP, HoldState::Active));

    assert_eq!(resolved(first.commit().await), (30, 0));
    assert_eq!(resolved(second.commit_part(50).await), (50, 20));
    wait_stock(&stores, 20, 0).await;
    let third = mug(asker).hold(5, HOUR).await.unwrap();
    wait_stock(&stores, 20, 5).await;
    assert_eq!(resolved(third.release().await), (0, 5));
    wait_stock(&stores, 20, 0).await;
    assert!(stores.iter().all(|store| store.holds().is_empty()));
    mug(asker).sell(20).deadline(PATIENCE).await.unwrap();
    wait_stock(&stores, 0, 0).await;
}

/// What was done with a hold is done: the same again returns the same and changes nothing, anything else is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_is_resolved_once() {
    let mesh = Mesh::new();
    let (stores, _) = giver_and_asker(&mesh, 100).await;
    let store = &stores[0];
    let [sold, part, free] = [10, 20, 30].map(|units| mug(store).hold(units, HOUR));
    let (sold, part, free) = (sold.await.unwrap(), part.await.unwrap(), free.await.unwrap());
    assert_eq!(resolved(sold.commit().await), (10, 0));
    assert_eq!(resolved(part.commit_part(5).await), (5, 15));
    assert_eq!(resolved(free.release().await), (0, 30));
    let fingerprint = store.status().fingerprint;
    assert_eq!(resolved(sold.commit().await), (10, 0));
    assert_eq!(resolved(part.commit_part(5).await), (5, 15));
    assert_eq!(resolved(free.release().await), (0, 30));
    for answer in [sold.commit_part(9).await, sold.release().await, part.commit().await, free.commit().await] {
        assert!(matches!(refusal(answer), OperationRefused::HoldResolved { .. }));
    }
    let held = mug(store).hold(3, HOUR).await.unwrap();
    let small = refusal(held.commit_part(4).await);
    assert_eq!(small, OperationRefused::HoldTooSmall { id: held.id(), held: 3, wanted: 4 });
    assert!(matches!(held.commit_part(0).await, Err(WriteError::Invalid(_))));
    assert_eq!(resolved(held.release().await), (0, 3));
    let unchanged = store.get(super::MUG).unwrap();
    assert_eq!((unchanged.on_hand(), unchanged.held()), (85, 0));
    assert_ne!(store.status().fingerprint, fingerprint, "the last hold left its mark");
    let state = store.hold(part.id()).unwrap().state();
    assert!(matches!(state, HoldState::Committed { units: 5, .. }), "{state:?}");
    assert_eq!(part.state(), HoldState::Active, "a handle shows what was when it was made");
}

/// A hold belongs to the node that gave it. Elsewhere it is refused, and so is one that nobody gave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_node_that_gave_a_hold_resolves_it() {
    let mesh = Mesh::new();
    let (stores, _) = giver_and_asker(&mesh, 100).await;
    let [giver, asker] = &stores;
    let hold = mug(giver).hold(10, HOUR).await.unwrap();
    wait_stock(&stores, 100, 10).await;
    let before = stores.each_ref().map(|store| store.status().fingerprint);
    let elsewhere = OperationRefused::HoldElsewhere { id: hold.id(), own: asker.replica_id() };
    assert_eq!(refusal(asker.batch().commit_hold(hold.id()).unwrap().commit().await), elsewhere);
    assert_eq!(refusal(asker.batch().release_hold(hold.id()).unwrap().commit().await), elsewhere);
    assert!(asker.hold(hold.id()).is_none());
    let unknown = HoldId { sequence: 9_999, ..hold.id() };
    assert_eq!(
        refusal(giver.batch().release_hold(unknown).unwrap().commit().await),
        OperationRefused::HoldUnknown { id: unknown }
    );
    assert_eq!(stores.each_ref().map(|store| store.status().fingerprint), before);
    assert_eq!(resolved(giver.hold(hold.id()).unwrap().commit().await), (10, 0));
    wait_stock(&stores, 90, 0).await;
}

/// A hold that nobody resolves is released when its time has run out, once, and everybody sees it; it can be sold no
/// more, but released as often as one likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_expires_once() {
    let mesh = Mesh::new();
    let (stores, _) = giver_and_asker(&mesh, 100).await;
    let asker = &stores[1];
    let long = mug(asker).hold(20, HOUR).deadline(PATIENCE).await.unwrap();
    let short = mug(asker).hold(40, Duration::from_millis(300)).deadline(PATIENCE).await.unwrap();
    wait_stock(&stores, 100, 20).await;
    assert!(matches!(asker.hold(short.id()).unwrap().state(), HoldState::Expired { .. }));
    assert!(matches!(refusal(short.commit().await), OperationRefused::HoldResolved { .. }));
    assert_eq!(resolved(short.release().await), (0, 40));
    assert_eq!(asker.holds().iter().map(|hold| hold.id()).collect::<Vec<_>>(), [long.id()]);
    // Others come and go meanwhile, so that whoever looks after the holds looks more than once.
    for _ in 0..5 {
        let brief = mug(asker).hold(1, Duration::from_millis(1)).await.unwrap();
        wait_until("it expires", || asker.hold(brief.id()).unwrap().state() != HoldState::Active).await;
    }
    let movements = asker.movements(super::MUG).unwrap().collect().await.unwrap();
    let held: i64 = movements.iter().map(stockmesh::Movement::held).sum();
    let released = movements.iter().filter(|movement| movement.hold() == Some(short.id())).count();
    assert_eq!((held, released), (20, 2), "it was given once, and expired once");
    wait_stock(&stores, 100, 20).await;
    wait_converged(&stores).await;
    assert_eq!((own_rights(asker), available(asker)), (40, 80));
    stores.iter().for_each(assert_shared_out);
}

/// Holds that are released at the very time at which they expire: whichever comes first resolves them, and the other finds
/// them resolved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_that_are_released_as_they_expire_are_resolved_once() {
    let mesh = Mesh::new();
    let store = mesh.node("alone").await;
    mug(&store).receive(2_000).await.unwrap();
    for round in 0..5 {
        let ttl = Duration::from_millis(20);
        let mut batch = store.batch().at(super::SHOP).unwrap();
        for _ in 0..200 {
            batch = batch.hold(super::MUG, 2, ttl).unwrap();
        }
        let holds = batch.commit().await.unwrap().holds;
        let mut releases = tokio::task::JoinSet::new();
        for (number, hold) in holds.into_iter().enumerate() {
            releases.spawn(async move {
                // Some a little before, some a little after.
                tokio::time::sleep(ttl - Duration::from_millis(3) + Duration::from_micros(25 * number as u64)).await;
                resolved(hold.release().await)
            });
        }
        assert!(releases.join_all().await.iter().all(|resolved| *resolved == (0, 2)));
        assert_eq!((store.get(super::MUG).unwrap().held(), store.holds().len()), (0, 0), "round {round}");
    }
    wait_until("nothing is under way", || store.get(super::MUG).unwrap().held() == 0).await;
    mug(&store).receive(1).await.unwrap();
    let movements = store.movements(super::MUG).unwrap().collect().await.unwrap();
    assert_eq!(movements.iter().map(stockmesh::Movement::held).sum::<i64>(), 0);
    let of_holds = movements.iter().filter(|movement| movement.hold().is_some()).count();
    assert_eq!(of_holds, 2 * 1_000, "each was given once and resolved once");
}

/// Quantities, times and ids beyond the limits are named, and change nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_arguments_of_holds_are_refused() {
    let mesh = Mesh::new();
    let store = mesh.builder("alone").grant_policy(NeedOnly).open().await.unwrap();
    mug(&store).receive(10).await.unwrap();
    let day = 24 * HOUR;
    let wrong = [
        (0, HOUR),
        (1_000_000_000_001, HOUR),
        (1, Duration::ZERO),
        (1, Duration::from_micros(999)),
        (1, 30 * day + Duration::from_millis(1)),
        (1, Duration::MAX),
    ];
    for (units, ttl) in wrong {
        let answer = mug(&store).hold(units, ttl).await;
        assert!(matches!(answer, Err(WriteError::Invalid(_))), "{units} for {ttl:?}: {answer:?}");
        assert!(store.batch().hold(super::MUG, units, ttl).is_err());
    }
    for wrong in ["", "17-42", "x-1-2", "04hkaw9tspnr7-1-2-3"] {
        assert!(wrong.parse::<HoldId>().is_err(), "{wrong}");
    }
    assert!(store.holds().is_empty());
    let hold = mug(&store).hold(10, 30 * day).await.unwrap();
    assert_eq!(hold.id().to_string().parse(), Ok(hold.id()));
    assert!(matches!(mug(&store).hold(1, HOUR).await, Err(WriteError::Insufficient { here: 0, .. })));
    assert_eq!(store.get(super::MUG).unwrap().held(), 10);
}
