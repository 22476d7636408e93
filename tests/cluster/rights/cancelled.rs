//! Callers that go away: their sales are made or not made, and no right is lost or doubled.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stockmesh::WriteError;
use tokio::time::timeout;

use super::{assert_shared_out, available, giver_and_asker, mug, own_rights, sell_in_time, sold_by_ledger};
use crate::support::{Mesh, wait_converged};

/// Sales are dropped at any moment, hundreds of times, while rights come for them: the ledger has all that were
/// acknowledged, the counters are the ledger's, all rights add up, and all that is left can be sold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_is_dropped_at_any_moment_loses_and_doubles_nothing() {
    let mesh = Mesh::new();
    let ([giver, asker], recorder) = giver_and_asker(&mesh, 2_000).await;
    let mut random = StdRng::seed_from_u64(5);
    let (mut sold, mut dropped) = (0, 0);
    let mut others = tokio::task::JoinSet::new();
    for round in 0..400_u32 {
        let (mug, units) = (mug(&asker), random.random_range(1..=3_u64));
        let patience = Duration::from_micros(random.random_range(0..5_000));
        let sale = async move { timeout(patience, mug.sell(units)).await.map(|answer| (units, answer)) };
        // Every other one has company in the queue.
        if round % 2 == 0 {
            others.spawn(sale);
            continue;
        }
        for answer in [sale.await, others.join_next().await.unwrap().unwrap()] {
            match answer {
                Ok((units, Ok(()))) => sold += units as i64,
                Ok((_, Err(WriteError::Insufficient { .. }))) => {}
                Ok((_, Err(error))) => panic!("{error}"),
                Err(_) => dropped += 1,
            }
        }
    }
    assert!(dropped > 20 && recorder.in_need() > 20, "{dropped} dropped, {} questions", recorder.in_need());

    // A write behind all others: what was dropped is done by now, or never.
    mug(&asker).receive(1).await.unwrap();
    let stores = [giver, asker];
    wait_converged(&stores).await;
    let by_ledger = sold_by_ledger(&stores[1]).await;
    assert!((sold..=1_200).contains(&by_ledger), "{sold} acknowledged, {by_ledger} in the ledger");
    for store in &stores {
        assert_eq!(available(store), 2_001 - i128::from(by_ledger));
        assert_shared_out(store);
    }
    sell_in_time(&stores[1], available(&stores[1]) as u64).await;
    wait_converged(&stores).await;
    assert_eq!((available(&stores[0]), own_rights(&stores[0]), own_rights(&stores[1])), (0, 0, 0));
}
