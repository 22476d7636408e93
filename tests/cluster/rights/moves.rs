//! Transfers between locations, and batches over several products: within rights, and all or nothing.

use stockmesh::{OperationRefused, WriteError};

use super::{SHOP, at_shop, available, giver_and_asker, is_insufficient, mug, rights_to};
use crate::support::{Mesh, PATIENCE, wait_converged, wait_until};

/// A transfer takes units within rights, which it gets if it has to; the rights at the other location are the mover's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_moves_stock_within_rights() {
    let mesh = Mesh::new();
    let (stores, recorder) = giver_and_asker(&mesh, 100).await;
    let asker = &stores[1];
    assert!(is_insufficient(&mug(asker).transfer(SHOP, "cellar", 30).deadline(std::time::Duration::ZERO).await));
    mug(asker).transfer(SHOP, "cellar", 30).deadline(PATIENCE).await.unwrap();
    assert_eq!(recorder.in_need(), 1);
    wait_converged(&stores).await;
    for store in &stores {
        let view = store.get(super::MUG).unwrap();
        let places = view.by_location();
        let on_hand: Vec<_> = places.iter().map(|(place, stock)| (place.as_str(), stock.on_hand)).collect();
        assert_eq!((view.on_hand(), on_hand), (100, vec![("cellar", 30), (SHOP, 70)]));
        assert_eq!(view.rights_at("cellar"), [(asker.replica_id(), 30)]);
    }
    // The giver has none there, and gets them.
    let cellar = mug(&stores[0]).at("cellar").unwrap();
    assert!(is_insufficient(&cellar.try_sell(1).await));
    cellar.sell(10).deadline(PATIENCE).await.unwrap();
    let more = mug(asker).transfer(SHOP, "cellar", 71).deadline(PATIENCE).await;
    assert!(is_insufficient(&more), "there are 70");
    let same = mug(asker).transfer(SHOP, SHOP, 1).await;
    assert!(matches!(same, Err(WriteError::Refused(OperationRefused::SameLocation { .. }))), "{same:?}");
    wait_converged(&stores).await;
    assert_eq!(stores.each_ref().map(available), [90, 90]);
}

/// A batch over several products asks for the rights of all that lack some, and happens whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_gets_rights_for_several_products_and_happens_whole() {
    let mesh = Mesh::new();
    let (stores, recorder) = giver_and_asker(&mesh, 100).await;
    let [giver, asker] = &stores;
    for sku in ["CUP", "PLATE"] {
        at_shop(giver, sku).receive(50).await.unwrap();
    }
    at_shop(asker, "BOWL").receive(5).await.unwrap();
    wait_converged(&stores).await;
    let batch = || asker.batch().at(SHOP).unwrap().deadline(PATIENCE).unwrap();
    let sold = batch().sell(super::MUG, 10).unwrap().sell("CUP", 20).unwrap().sell("BOWL", 5).unwrap();
    let sold = sold.hold("PLATE", 50, std::time::Duration::from_secs(60)).unwrap().sell(super::MUG, 5).unwrap();
    assert_eq!(sold.commit().await.unwrap().holds.len(), 1);
    assert_eq!(recorder.in_need(), 3, "one question for each product that lacked rights");
    let left = |sku: &str| asker.get(sku).unwrap().available();
    assert_eq!(["BOWL", "CUP", super::MUG, "PLATE"].map(left), [0, 30, 85, 0]);
    assert_eq!(rights_to(asker, "CUP", giver.replica_id()), 30);

    // One that lacks what nobody has: nothing of it happens, and what came for the others is not lost.
    let fingerprints = |sku: &str| asker.get(sku).unwrap().by_replica();
    let before = ["BOWL", "CUP", "PLATE", super::MUG].map(fingerprints);
    let refused = batch().sell(super::MUG, 10).unwrap().receive("BOWL", 9).unwrap().sell("CUP", 31).unwrap();
    match refused.commit().await {
        Err(WriteError::Insufficient { sku, wanted, .. }) => assert_eq!((sku.as_str(), wanted), ("CUP", 31)),
        other => panic!("{other:?}"),
    }
    assert_eq!(["BOWL", "CUP", "PLATE", super::MUG].map(fingerprints), before);
    batch().sell(super::MUG, 85).unwrap().sell("CUP", 30).unwrap().commit().await.unwrap();
    wait_until("all is sold", || ["CUP", super::MUG].iter().all(|sku| giver.get(sku).unwrap().available() == 0)).await;
}

/// Two batches at two nodes want the same two products, each in the other's order, again and again: none waits for ever,
/// and what is sold is what there was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_want_the_same_rights_do_not_block_each_other() {
    let mesh = Mesh::new();
    let (stores, _) = giver_and_asker(&mesh, 60).await;
    at_shop(&stores[1], "CUP").receive(60).await.unwrap();
    wait_converged(&stores).await;
    let mut sellers = tokio::task::JoinSet::new();
    for (number, store) in stores.iter().cycle().take(6).cloned().enumerate() {
        sellers.spawn(async move {
            let skus = if number % 2 == 0 { [super::MUG, "CUP"] } else { ["CUP", super::MUG] };
            let mut sold = 0;
            for _ in 0..10 {
                let batch = store.batch().at(SHOP).unwrap();
                let batch = batch.sell(skus[0], 1).unwrap().sell(skus[1], 1).unwrap();
                sold += i128::from(batch.commit().await.is_ok());
            }
            sold
        });
    }
    let sold: i128 = sellers.join_all().await.into_iter().sum();
    wait_converged(&stores).await;
    assert!(sold > 0);
    for store in &stores {
        let left = |sku: &str| store.get(sku).unwrap().available();
        assert_eq!((left(super::MUG), left("CUP")), (60 - sold, 60 - sold));
    }
}
