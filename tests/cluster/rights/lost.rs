//! Answers that are lost or come twice: the rights were given, so they arrive some other way, and count once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use stockmesh::{GrantPolicy, GrantRequest, NeedOnly};
use stockmesh_proto::wire::Ask;

use super::peer::{Peer, encoded, grant, granted, stock};
use super::{assert_shared_out, available, is_insufficient, mug, own_rights, wait_available};
use crate::support::proxy::{Proxy, Weather};
use crate::support::{Mesh, PATIENCE, address, dial, links_up, wait_converged, wait_until};

/// Gives what is needed, and cuts the way back before it does.
#[derive(Clone, Default)]
struct CutOff(Arc<OnceLock<Proxy>>);

impl std::fmt::Debug for CutOff {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CutOff")
    }
}

impl GrantPolicy for CutOff {
    fn units(&self, request: &GrantRequest) -> u64 {
        let units = NeedOnly.units(request);
        if let Some(proxy) = self.0.get().filter(|_| units > 0) {
            proxy.go_dark();
        }
        units
    }
}

/// The network ends between a grant and its answer. The sale is refused; when the nodes meet again the rights arrive
/// with the rest of the state, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_whose_answer_was_lost_arrive_with_the_next_reconciliation() {
    let mesh = Mesh::new();
    let cut_off = CutOff::default();
    let giver = mesh.builder("giver").grant_policy(cut_off.clone()).open().await.unwrap();
    let asker = mesh.builder("asker").grant_policy(NeedOnly).open().await.unwrap();
    let proxy = Proxy::start(address(&giver), Weather::default(), 1).await;
    asker.add_peer(proxy.address()).unwrap();
    assert!(cut_off.0.set(proxy).is_ok());
    wait_until("linked", || links_up(&asker) == 1).await;
    mug(&giver).receive(100).await.unwrap();
    wait_available(std::slice::from_ref(&asker), 100).await;

    assert!(is_insufficient(&mug(&asker).sell(40).await));
    wait_until("the rights were given", || own_rights(&giver) == 60).await;
    assert_eq!(own_rights(&asker), 0, "the answer cannot have arrived");
    asker.go_offline();
    dial(&asker, &giver);
    asker.go_online();
    wait_until("the rights arrive", || own_rights(&asker) == 40).await;
    mug(&asker).try_sell(40).await.unwrap();
    assert!(is_insufficient(&mug(&asker).try_sell(1).await));
    let stores = [giver, asker];
    wait_converged(&stores).await;
    assert_eq!(stores.each_ref().map(available), [60, 60]);
    stores.iter().for_each(assert_shared_out);
}

/// A peer that tells the same grant again and again: it counts once, and no sale is made of what was told twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_is_told_again_counts_once() {
    let mesh = Mesh::new();
    let asker = mesh.builder("asker").grant_policy(NeedOnly).open().await.unwrap();
    let ids = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let ids_told = Arc::clone(&ids);
    let answering = move |_: &Ask| {
        let [peer, node] =
            [0, 1].map(|index: usize| stockmesh::ReplicaId::from_bits(ids_told[index].load(Ordering::SeqCst)).unwrap());
        let mut product = stock(peer, 1, 100);
        product.absorb(&grant(peer, node, 2, 10));
        encoded(granted(10, 2, product))
    };
    // Nobody asks before there is stock.
    let peer = Peer::start(&mesh, &asker, 100, Arc::new(answering)).await;
    ids[0].store(peer.raw.replica.bits(), Ordering::SeqCst);
    ids[1].store(asker.replica_id().bits(), Ordering::SeqCst);
    mug(&asker).sell(6).deadline(PATIENCE).await.unwrap();
    assert_eq!((own_rights(&asker), available(&asker)), (4, 94));
    for _ in 0..5 {
        let deadline = std::time::Duration::from_millis(100);
        let answer = mug(&asker).sell(6).deadline(deadline).await;
        assert!(is_insufficient(&answer), "{answer:?}");
        assert_eq!((own_rights(&asker), available(&asker)), (4, 94));
    }
    assert!(peer.in_need().len() >= 2, "it was asked again");
    mug(&asker).try_sell(4).await.unwrap();
    assert_shared_out(&asker);
}
