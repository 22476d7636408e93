//! Rights are had from those who have them: whom is asked, how many, and what is said if it does not suffice.

use std::time::{Duration, Instant};

use stockmesh::{Store, WriteError};

use super::waiting::ASK_TIME;
use super::{
    assert_shared_out, available, giver_and_asker, is_insufficient, mug, own_rights, recording, rights_of,
    wait_available,
};
use crate::support::proxy::{Proxy, Weather};
use crate::support::{
    Mesh, PATIENCE, address, dial, full_mesh, links_up, metrics, wait_converged, wait_linked, wait_until,
};

/// The figures of a sale that was refused for want of rights.
fn figures(answer: Result<(), WriteError>) -> (u64, u64, u64) {
    match answer {
        Err(WriteError::Insufficient { here, elsewhere, unreachable, .. }) => (here, elsewhere, unreachable),
        other => panic!("expected a lack of rights, not {other:?}"),
    }
}

/// A sale without rights asks the peer with by far the most, and no other; the rights are gone there and the sum stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peer_with_the_most_rights_is_asked() {
    // More than once, since the machine may stall within so short a time.
    for _ in 0..10 {
        if is_the_one_with_the_most_asked().await {
            return;
        }
    }
    panic!("no sale took less than {ASK_TIME:?}");
}

/// Returns false if the sale took so long that another may have been asked as well.
async fn is_the_one_with_the_most_asked() -> bool {
    let mesh = Mesh::new();
    let ((few, asked_few), (many, asked_many)) = (recording(&mesh, "few").await, recording(&mesh, "many").await);
    let stores = [few, many, mesh.node("asker").await];
    full_mesh(&stores);
    wait_linked(&stores, 2).await;
    mug(&stores[0]).receive(10).await.unwrap();
    mug(&stores[1]).receive(1_000).await.unwrap();
    wait_available(&stores, 1_010).await;

    let begun = Instant::now();
    mug(&stores[2]).sell(5).deadline(PATIENCE).await.unwrap();
    if begun.elapsed() >= ASK_TIME {
        return false;
    }
    assert_eq!((asked_few.in_need(), asked_many.in_need()), (0, 1));
    wait_converged(&stores).await;
    for store in &stores {
        assert_eq!((available(store), rights_of(store, stores[1].replica_id())), (1_005, 995));
        assert_shared_out(store);
    }
    true
}

/// Of two peers with as many rights the one that is nearer is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_have_as_many_the_nearer_is_asked() {
    let mesh = Mesh::new();
    let ((far, asked_far), (near, asked_near)) = (recording(&mesh, "far").await, recording(&mesh, "near").await);
    let asker = mesh.node("asker").await;
    let proxy = Proxy::start(address(&far), Weather { late: 1_000, ..Weather::default() }, 1).await;
    asker.add_peer(proxy.address()).unwrap();
    dial(&asker, &near);
    wait_until("both are linked", || links_up(&asker) == 2).await;
    mug(&far).receive(100).await.unwrap();
    mug(&near).receive(100).await.unwrap();
    wait_available(std::slice::from_ref(&asker), 200).await;
    let round_trip = |store: &Store| {
        let replica = Some(store.replica_id());
        asker.status().peers.into_iter().find(|peer| peer.replica == replica).and_then(|peer| peer.round_trip)
    };
    wait_until("the distance shows", || round_trip(&near) < round_trip(&far)).await;
    for _ in 0..3 {
        // The two may change places on a machine that stalls: what counts is what was measured before and after.
        let measured = round_trip(&near) < round_trip(&far);
        let before = asked_far.in_need();
        mug(&asker).sell(1).deadline(PATIENCE).await.unwrap();
        let still = round_trip(&near) < round_trip(&far);
        assert!(asked_far.in_need() == before || !(measured && still), "the farther was asked");
    }
    assert!(asked_near.in_need() > 0);
}

/// If no peer has enough, several are asked, and what they give together is sold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_peers_are_asked_when_one_cannot_cover_the_need() {
    let mesh = Mesh::new();
    let mut stores = mesh.nodes(4).await;
    full_mesh(&stores);
    wait_linked(&stores, 3).await;
    for (store, units) in stores.iter().zip([10, 9, 12]) {
        mug(store).receive(units).await.unwrap();
    }
    wait_available(&stores, 31).await;
    let asker = stores.pop().unwrap();
    mug(&asker).sell(30).deadline(PATIENCE).await.unwrap();
    stores.push(asker);
    wait_converged(&stores).await;
    assert_eq!(stores.iter().map(available).collect::<Vec<_>>(), [1; 4]);
    stores.iter().for_each(assert_shared_out);
}

/// A sale that cannot be covered says what lies here, at linked nodes and out of reach, and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_sale_says_where_the_rights_lie() {
    let mesh = Mesh::new();
    let ([giver, asker], _) = giver_and_asker(&mesh, 10).await;
    let away = mesh.node("away").await;
    dial(&away, &asker);
    mug(&asker).receive(3).await.unwrap();
    mug(&away).receive(20).await.unwrap();
    wait_available(&[giver.clone(), asker.clone(), away.clone()], 33).await;
    away.go_offline();
    wait_until("one link is left", || links_up(&asker) == 1).await;

    let fingerprint = asker.status().fingerprint;
    let told = mug(&asker).try_sell(30).await;
    let text = told.as_ref().unwrap_err().to_string();
    assert_eq!(figures(told), (3, 10, 20));
    assert!(text.contains("30 units are wanted") && text.ends_with("nothing was changed"), "{text}");
    assert_eq!(asker.status().fingerprint, fingerprint);
    // More than there is: nobody need be asked.
    assert_eq!(figures(mug(&asker).sell(34).deadline(PATIENCE).await), (3, 10, 20));
    // What can be had is had, but it does not suffice: it stays here, and only the sale is refused.
    assert_eq!(figures(mug(&asker).sell(30).deadline(PATIENCE).await), (13, 0, 20));
    assert_eq!((available(&asker), own_rights(&asker)), (33, 13));
    mug(&asker).try_sell(13).await.unwrap();
}

/// `try_sell` and a deadline of zero ask nobody, whatever the peers have; wrong arguments are named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_must_not_ask_does_not() {
    let mesh = Mesh::new();
    let ([_giver, asker], recorder) = giver_and_asker(&mesh, 1_000).await;
    for _ in 0..50 {
        assert!(is_insufficient(&mug(&asker).try_sell(1).await));
        assert!(is_insufficient(&mug(&asker).sell(1).deadline(Duration::ZERO).await));
    }
    assert_eq!(recorder.in_need(), 0);
    for wrong in [
        mug(&asker).sell(0).await,
        mug(&asker).sell(1_000_000_000_001).await,
        mug(&asker).sell(1).deadline(Duration::from_secs(3_601)).await,
    ] {
        assert!(matches!(wrong, Err(WriteError::Invalid(_))), "{wrong:?}");
    }
    assert_eq!((recorder.in_need(), own_rights(&asker)), (0, 0));
    mug(&asker).sell(1).deadline(PATIENCE).await.unwrap();
    assert_eq!(recorder.in_need(), 1);
}

/// Sales are counted as local, helped, denied, and denied although there is stock; grants with their units.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sales_and_grants_are_counted() {
    metrics::record();
    let names = [
        "stockmesh_sales_total{local}",
        "stockmesh_sales_total{helped}",
        "stockmesh_sales_denied_total",
        "stockmesh_sales_denied_though_in_stock_total",
        "stockmesh_grants_total",
        "stockmesh_grant_units_total",
        "stockmesh_asks_total{granted}",
    ];
    let figures = || names.map(metrics::counter);
    let mesh = Mesh::new();
    let ([giver, asker], _) = giver_and_asker(&mesh, 100).await;
    let before = figures();
    for _ in 0..5 {
        mug(&giver).sell(1).await.unwrap();
        mug(&asker).sell(2).deadline(PATIENCE).await.unwrap();
        assert!(is_insufficient(&mug(&asker).try_sell(3).await));
        assert!(is_insufficient(&mug(&asker).try_sell(1_000).await));
    }
    // Other tests count at the same time.
    let grown: Vec<u64> = figures().iter().zip(before).map(|(now, before)| now - before).collect();
    for (name, (grown, least)) in names.iter().zip(grown.into_iter().zip([5, 5, 10, 5, 5, 10, 5])) {
        assert!(grown >= least, "{name} grew by {grown}, not by {least}");
    }
}
