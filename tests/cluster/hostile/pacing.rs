//! A peer that makes work again and again gets no more than its share of a node's time.

use std::time::Duration;

use stockmesh_proto::wire::Message;

use super::push_of;
use crate::support::raw::Raw;
use crate::support::{Mesh, address, dial, wait_linked, wait_until, wait_within};

const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// A gap in a peer's pushes wants a reconciliation with it at once. That there is always one must not keep the node from
/// those whose turn comes now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_always_urgent_leaves_their_turn_to_others() {
    let mesh = Mesh::new();
    let node = mesh.builder("node").reconcile_every(Duration::from_millis(500)).open().await.unwrap();
    let quiet = mesh.builder("quiet").reconcile_every(NEVER).open().await.unwrap();
    dial(&node, &quiet);
    wait_linked(std::slice::from_ref(&node), 1).await;
    let urgent = Raw::linked(&mesh, address(&node)).await;
    let pushing = tokio::spawn(async move {
        let mut stream = urgent.connection.open_uni().await.unwrap();
        // Every other write is left out.
        for sequence in (2..).step_by(2) {
            let push = push_of(urgent.replica, "WITH-GAPS", sequence, sequence);
            if stream.write_all(&Message::Push(push).encode().unwrap()).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let reconciled_ago = || {
        let peers = node.status().peers;
        peers.iter().find(|peer| peer.replica == Some(quiet.replica_id())).and_then(|peer| peer.reconciled_ago)
    };
    wait_until("the first reconciliation", || reconciled_ago().is_some()).await;
    let (mut turns, mut last) = (0, reconciled_ago());
    wait_within(Duration::from_secs(15), "the quiet peer has its turns", || {
        let now = reconciled_ago();
        turns += u32::from(now < last);
        last = now;
        turns == 3
    })
    .await;
    assert!(!pushing.is_finished(), "the urgent peer went on all the time");
    pushing.abort();
}
