//! Rights move towards demand, ahead of sales.

use stockmesh::{DemandShare, GrantPolicy, GrantRequest, Store};

use super::{Recorder, at_shop, available, is_insufficient, mug, own_rights, rights_to};
use crate::support::{Mesh, dial, wait_converged, wait_linked, wait_until};

/// The default policy, which keeps what it was asked.
#[derive(Clone, Debug, Default)]
struct Shares(Recorder);

impl GrantPolicy for Shares {
    fn units(&self, request: &GrantRequest) -> u64 {
        self.0.units(request);
        DemandShare::default().units(request)
    }
}

/// A node where there is demand gets rights without any sale that asks: sales that must not ask are refused at first and
/// made later. No rights of a product move that nobody wants there, and the giver keeps a part.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_move_to_where_the_demand_is() {
    let mesh = Mesh::new();
    let shares = Shares::default();
    let giver = mesh.builder("giver").grant_policy(shares.clone()).open().await.unwrap();
    let stores: [Store; 2] = [giver, mesh.node("seller").await];
    let [giver, seller] = &stores;
    dial(seller, giver);
    wait_linked(&stores, 1).await;
    mug(giver).receive(1_000).await.unwrap();
    at_shop(giver, "CUP").receive(1_000).await.unwrap();
    wait_converged(&stores).await;
    for _ in 0..50 {
        assert!(is_insufficient(&mug(seller).try_sell(1).await) || own_rights(seller) > 0);
    }
    let mut sold = 1_000 - available(seller);
    for _ in 0..2 {
        wait_until("rights come ahead of sales", || own_rights(seller) >= 20).await;
        for _ in 0..20 {
            mug(seller).try_sell(1).await.unwrap();
            sold += 1;
        }
    }
    wait_converged(&stores).await;
    assert_eq!(shares.0.in_need(), 0, "no sale had to ask");
    assert_eq!(available(giver), 1_000 - sold);
    assert!(own_rights(giver) >= 250, "{} are left", own_rights(giver));
    assert_eq!(rights_to(giver, "CUP", seller.replica_id()), 0, "nobody wants it there");
    assert_eq!(rights_to(giver, "CUP", giver.replica_id()), 1_000);
}
