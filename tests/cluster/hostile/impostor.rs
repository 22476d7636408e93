//! A replica is whoever holds the certificate of its link: another member cannot take its place.

use std::time::{Duration, Instant};

use stockmesh::LinkState;

use super::Stage;
use crate::support::raw::Raw;
use crate::support::writers::Ledger;
use crate::support::{Mesh, address, links_up, metrics, on_hand, wait_until, wait_within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_does_not_get_a_linked_peers_place() {
    let stage = Stage::start().await;
    let refused = metrics::counter("stockmesh_links_refused_total");
    let healthy = stage.healthy.replica_id();
    let mut impostor = Raw::silent(&stage.mesh, address(&stage.victim)).await;
    impostor.replica = healthy;
    let _answer = impostor.say_hello().await;
    stage.assert_closed(&impostor, &format!("replica {healthy} is linked with another certificate")).await;
    assert!(metrics::counter("stockmesh_links_refused_total") > refused);

    // Longer than a link goes on whose place was taken.
    let (begun, ledger, mut units) = (Instant::now(), Ledger::default(), 0);
    while begun.elapsed() < Duration::from_secs(4) {
        ledger.receive(&stage.victim, "STAYS", 1).await.unwrap();
        units += 1;
        let arrived = || on_hand(&stage.healthy, "STAYS") == units;
        wait_within(Duration::from_secs(2), "a write passes between the healthy nodes", arrived).await;
        let up: Vec<_> = stage.victim.status().peers.into_iter().filter(|peer| peer.state == LinkState::Up).collect();
        assert_eq!(up.len(), 1);
        assert_eq!((up[0].replica, up[0].last_error.as_ref()), (Some(healthy), None));
        assert_eq!(up[0].address, address(&stage.healthy).to_string());
    }
    ledger.assert_whole(&[stage.victim, stage.healthy]).await;
}

/// A node whose certificate was renewed is let in once its old link has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_certificate_is_taken_once_the_old_link_ended() {
    let mesh = Mesh::new();
    let node = mesh.node("node").await;
    let old = Raw::linked(&mesh, address(&node)).await;
    old.connection.close(0_u32.into(), b"");
    wait_until("the old link is gone", || links_up(&node) == 0).await;
    let mut renewed = Raw::silent(&mesh, address(&node)).await;
    renewed.replica = old.replica;
    let mut answer = renewed.say_hello().await;
    renewed.read_hello(&mut answer).await;
    wait_until("the new link is up", || links_up(&node) == 1).await;
    assert!(renewed.connection.close_reason().is_none());
}
