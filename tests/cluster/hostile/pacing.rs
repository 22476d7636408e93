//! A peer that makes work again and again gets no more than its share of a node's time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use quinn::{Connection, RecvStream};
use stockmesh::{ReplicaId, ReplicationError};
use stockmesh_proto::wire::Message;

use super::push_of;
use crate::support::raw::{self, ALPN, Grants, Raw, accept_hello, read, write};
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

/// A dial that ends in a link which ends at once is no success: the pauses grow all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_closes_after_the_hello_is_dialled_after_growing_pauses() {
    let mesh = Mesh::new();
    let listener = raw::listen(&mesh, ALPN);
    let node = mesh.builder("node").peer(listener.local_addr().unwrap().to_string()).open().await.unwrap();
    let (replica, mut dialled_at) = (ReplicaId::from_random(rand::random()), Vec::new());
    while dialled_at.len() < 6 {
        let Some((connection, mut send)) = accept_hello(&listener, replica).await else { continue };
        dialled_at.push(Instant::now());
        send.finish().unwrap();
        let _ = send.stopped().await;
        connection.close(9_u32.into(), b"not today");
    }
    // 100, 200, 400, 800 and 1,600 ms, each shortened by at most a half.
    let took = dialled_at[5] - dialled_at[0];
    assert!(took > Duration::from_millis(1_500), "dialled six times in {took:?}");
    drop(node);
}

/// A node cannot even begin to reconcile with it, and must not wait for it for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_grants_no_stream_is_stuck() {
    let mesh = Mesh::new();
    let node = mesh.node("node").await;
    let grants = Grants { sessions: Some(0), ..Grants::default() };
    let raw = Raw::linked_with(&mesh, address(&node), grants).await;
    let reason = raw.closed().await;
    assert!(reason.contains("took no frame in within 30 s"), "{reason}");
}

/// Reads a turn of a reconciliation to its end.
async fn read_turn(receive: &mut RecvStream) {
    while read(receive).await.is_some_and(|message| !matches!(message, Message::End)) {}
}

/// Ends each reconciliation as a peer would that refuses a shard for its stamps. Counts them.
async fn confirm_nothing(connection: Connection, ended: Arc<AtomicUsize>) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        read_turn(&mut receive).await;
        write(&mut send, &Message::End).await;
        read_turn(&mut receive).await;
        write(&mut send, &Message::Done(1)).await;
        ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// Who waits for a confirmation asks at once, then now and then, not as fast as the peer answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_confirms_nothing_is_asked_now_and_then() {
    let mesh = Mesh::new();
    let node = mesh.builder("node").reconcile_every(NEVER).open().await.unwrap();
    let raw = Raw::linked(&mesh, address(&node)).await;
    let ended = Arc::new(AtomicUsize::new(0));
    let answering = tokio::spawn(confirm_nothing(raw.connection.clone(), Arc::clone(&ended)));
    node.product("UNCONFIRMED").unwrap().receive(1).await.unwrap();
    let begun = Instant::now();
    // Two callers wait for the same peer.
    let limit = Duration::from_secs(2);
    let (one, two) = tokio::join!(node.await_replicated(1, limit), node.await_replicated(1, limit));
    let asked = ended.load(Ordering::SeqCst);
    let late = Err(ReplicationError::TimedOut { confirmed: 0, wanted: 1 });
    assert_eq!((one, two), (late.clone(), late));
    assert!(asked >= 3, "it is asked again: {asked}");
    let most = begun.elapsed().as_millis() / 50 + 5;
    assert!(asked as u128 <= most, "asked {asked} times, at most {most} are due");
    answering.abort();
}
