//! Physical facts that take more than there are rights: the deficit shows, stops sales, and is paid back first.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stockmesh::{GrantPolicy, GrantRequest, NeedOnly, OversellPolicy, Reason, Store};

use super::{MUG, SHOP, available, giver_and_asker, is_insufficient, mug, own_rights, wait_available};
use crate::support::{Mesh, PATIENCE, dial, wait_converged, wait_linked};

/// Gives nothing, and keeps what was asked for.
#[derive(Clone, Debug, Default)]
struct Miser(Arc<Mutex<Vec<u64>>>);

impl GrantPolicy for Miser {
    fn units(&self, request: &GrantRequest) -> u64 {
        self.0.lock().push(request.needed);
        0
    }
}

/// A node with so many units, which gives none of them, and one with none that is linked to it: whatever that one comes to
/// owe stays for as long as a test looks at it.
async fn miser_and_asker(mesh: &Mesh, units: u64) -> ([Store; 2], Miser) {
    let miser = Miser::default();
    let giver = mesh.builder("giver").grant_policy(miser.clone()).open().await.unwrap();
    mug(&giver).receive(units).await.unwrap();
    let stores = [giver, mesh.builder("asker").grant_policy(NeedOnly).open().await.unwrap()];
    dial(&stores[1], &stores[0]);
    wait_linked(&stores, 1).await;
    wait_available(&stores, i128::from(units)).await;
    (stores, miser)
}

fn oversold(store: &Store) -> i128 {
    store.get(MUG).unwrap().oversold()
}

/// A loss beyond a node's rights is recorded all the same. It shows as oversold, the node sells nothing, and what it
/// receives pays it back first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_beyond_rights_shows_and_is_paid_back_first() {
    let mesh = Mesh::new();
    let (stores, miser) = miser_and_asker(&mesh, 20).await;
    let asker = &stores[1];
    mug(asker).adjust(-30, Reason::Lost).await.unwrap();
    wait_converged(&stores).await;
    for store in &stores {
        let view = store.get(MUG).unwrap();
        assert_eq!((view.on_hand(), view.available(), view.oversold()), (-10, -10, 30));
        assert_eq!(view.by_location()[0].1.oversold, 30);
        assert!(is_insufficient(&mug(store).sell(1).await), "nobody sells what the total does not cover");
    }
    // Whatever the loss alone has asked for since.
    assert!(miser.0.lock().iter().all(|needed| *needed == 30), "nobody is asked for what is not there: {miser:?}");
    mug(asker).receive(12).await.unwrap();
    assert_eq!((oversold(asker), own_rights(asker), available(asker)), (18, -18, 2));
    assert!(is_insufficient(&mug(asker).try_sell(1).await), "what came in paid back first");
    mug(asker).receive(19).await.unwrap();
    assert_eq!((oversold(asker), own_rights(asker), available(asker)), (0, 1, 21));
    mug(asker).try_sell(1).await.unwrap();
    wait_converged(&stores).await;
    mug(&stores[0]).sell(20).deadline(PATIENCE).await.unwrap();
    assert!(is_insufficient(&mug(&stores[0]).sell(1).await));
}

/// One node has rights enough, another has lost as much: the total does not cover a sale, so it is refused once the loss
/// is known; rights alone would allow it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_surplus_here_does_not_hide_a_loss_there() {
    let mesh = Mesh::new();
    let (stores, _) = miser_and_asker(&mesh, 20).await;
    mug(&stores[1]).adjust(-15, Reason::Damaged).await.unwrap();
    wait_converged(&stores).await;
    let giver = &stores[0];
    assert_eq!((own_rights(giver), available(giver)), (20, 5));
    assert!(is_insufficient(&mug(giver).try_sell(6).await));
    assert!(is_insufficient(&mug(giver).hold(6, Duration::from_secs(60)).await.map(drop)));
    assert!(is_insufficient(&mug(giver).transfer(SHOP, "cellar", 6).await));
    mug(giver).try_sell(5).await.unwrap();
    assert!(is_insufficient(&mug(giver).try_sell(1).await));
    wait_converged(&stores).await;
    assert_eq!(stores.each_ref().map(available), [0, 0]);
}

/// A count that finds fewer is a fact too, and one that finds more gives rights.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_makes_and_heals_a_deficit() {
    let mesh = Mesh::new();
    let (stores, _) = miser_and_asker(&mesh, 20).await;
    assert_eq!(mug(&stores[1]).stocktake(8).await.unwrap(), -12);
    wait_converged(&stores).await;
    assert_eq!((oversold(&stores[0]), available(&stores[0]), own_rights(&stores[1])), (12, 8, -12));
    assert_eq!(mug(&stores[1]).stocktake(25).await.unwrap(), 17);
    assert_eq!((oversold(&stores[1]), own_rights(&stores[1])), (0, 5));
    mug(&stores[1]).try_sell(5).await.unwrap();
    wait_converged(&stores).await;
    assert_eq!(stores.each_ref().map(available), [20, 20]);
}

/// A sale that may be backordered first asks for rights like any other, and goes below zero only for what cannot be had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backorder_asks_first_and_then_goes_below_zero() {
    let mesh = Mesh::new();
    let (stores, recorder) = giver_and_asker(&mesh, 20).await;
    let asker = &stores[1];
    let backorder = |units| mug(asker).sell(units).policy(OversellPolicy::Backorder);
    backorder(15).deadline(PATIENCE).await.unwrap();
    assert_eq!((recorder.in_need(), oversold(asker), own_rights(asker)), (1, 0, 0));
    backorder(8).deadline(PATIENCE).await.unwrap();
    assert_eq!((available(asker), oversold(asker), own_rights(asker)), (-3, 8, -8));
    wait_converged(&stores).await;
    assert!(is_insufficient(&mug(&stores[0]).try_sell(1).await), "the others see that all is promised");
    mug(&stores[0]).receive(4).await.unwrap();
    assert_eq!(available(&stores[0]), 1);
    mug(&stores[0]).try_sell(1).await.unwrap();
}
