//! Copies of a data directory: what the original sold since cannot be sold again.

use std::path::Path;
use std::time::Duration;

use stockmesh::{NeedOnly, OperationRefused, WriteError};

use super::{available, is_insufficient, mug, own_rights, rights_of, sell_in_time, wait_available};
use crate::support::{Mesh, PATIENCE, dial, wait_converged, wait_linked, wait_until};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// A directory is put back as it was before its last sales, which a peer knows. As soon as it meets that peer it takes a
/// new id, has no rights, and holds no holds: the units of the former id are out of reach, not sold twice. What others
/// have it can get and sell like any other node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_copy_cannot_sell_what_the_original_sold_since() {
    let (mesh, root) = (Mesh::new(), tempfile::tempdir().unwrap());
    let (data, copied) = (root.path().join("data"), root.path().join("copied"));
    let open = async |path: &Path| mesh.builder("original").data_dir(path).grant_policy(NeedOnly).open().await.unwrap();
    let peer = mesh.builder("peer").grant_policy(NeedOnly).open().await.unwrap();
    let original = open(&data).await;
    mug(&original).receive(100).await.unwrap();
    let hold = mug(&original).hold(10, Duration::from_secs(3_600)).await.unwrap();
    let former = original.replica_id();
    original.close().await.unwrap();
    copy(&data, &copied);

    let original = open(&data).await;
    dial(&original, &peer);
    for _ in 0..5 {
        mug(&original).sell(10).await.unwrap();
    }
    mug(&peer).receive(7).await.unwrap();
    wait_available(&[original.clone(), peer.clone()], 47).await;
    original.close().await.unwrap();
    drop(original);

    let restored = open(&copied).await;
    assert_eq!((restored.replica_id(), own_rights(&restored)), (former, 90), "a copy cannot know that it is one");
    dial(&restored, &peer);
    wait_until("a new id is minted", || restored.replica_id() != former).await;
    wait_available(std::slice::from_ref(&restored), 47).await;
    assert_eq!((own_rights(&restored), rights_of(&restored, former)), (0, 40));
    assert!(restored.holds().is_empty());
    let answer = restored.batch().commit_hold(hold.id()).unwrap().commit().await;
    assert!(matches!(answer, Err(WriteError::Refused(OperationRefused::HoldElsewhere { .. }))), "{answer:?}");

    wait_linked(&[restored.clone(), peer.clone()], 1).await;
    let reaches = || peer.status().peers.iter().any(|peer| peer.replica == Some(restored.replica_id()));
    wait_until("linked under the new id", reaches).await;
    let answer = mug(&restored).sell(8).deadline(PATIENCE).await;
    match answer {
        Err(WriteError::Insufficient { here, elsewhere, unreachable, .. }) => {
            assert_eq!((here + elsewhere, unreachable), (7, 40));
        }
        other => panic!("{other:?}"),
    }
    // Rights that came for it stay, if they came; the rest is the peer's.
    sell_in_time(&restored, 7).await;
    wait_available(&[restored.clone(), peer.clone()], 40).await;
    for store in [&restored, &peer] {
        assert!(is_insufficient(&mug(store).sell(1).await), "what is left lies with the former id");
        assert_eq!(store.get(super::MUG).unwrap().on_hand(), 100 + 7 - 50 - 7);
    }
    assert_eq!(available(&peer), 40);
}

/// A copy that sells more than the original did, before it meets anybody, cannot be told by the number of its writes. It is
/// told by what they say: from the meeting on it sells no unit more under the former id's rights.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_sold_by_itself_sells_no_more_once_it_meets_a_peer() {
    let (mesh, root) = (Mesh::new(), tempfile::tempdir().unwrap());
    let (data, copied) = (root.path().join("data"), root.path().join("copied"));
    let open = async |path: &Path| mesh.builder("original").data_dir(path).grant_policy(NeedOnly).open().await.unwrap();
    let peer = mesh.node("peer").await;
    let original = open(&data).await;
    mug(&original).receive(100).await.unwrap();
    let former = original.replica_id();
    original.close().await.unwrap();
    copy(&data, &copied);
    let original = open(&data).await;
    dial(&original, &peer);
    mug(&original).sell(50).await.unwrap();
    wait_available(&[original.clone(), peer.clone()], 50).await;
    original.close().await.unwrap();

    let restored = open(&copied).await;
    for _ in 0..40 {
        mug(&restored).try_sell(1).await.unwrap();
    }
    dial(&restored, &peer);
    let stores = [restored, peer];
    wait_converged(&stores).await;
    wait_until("a new id is minted", || stores[0].replica_id() != former).await;
    wait_converged(&stores).await;
    for store in &stores {
        assert!(is_insufficient(&mug(store).sell(1).await), "100 came in, and 90 were sold already");
        assert_eq!((own_rights(store), rights_of(store, former)), (0, 50), "of two counts the greater remains");
    }
}
