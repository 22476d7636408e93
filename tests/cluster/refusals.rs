//! Whom a node refuses, and the words that both operators read. The rest of the cluster does not notice.

use std::path::Path;
use std::time::Duration;

use quinn::{Connection, Endpoint};
use stockmesh::Store;
use tokio::task::JoinSet;

use crate::support::writers::Ledger;
use crate::support::{
    Mesh, address, dial, links_up, metrics, on_hand, peer_error_with, raw, refused_with, wait_linked, wait_until,
    wait_within,
};

/// Two healthy nodes that must go on all the while.
struct Healthy {
    stores: [Store; 2],
    ledger: Ledger,
}

impl Healthy {
    async fn start(mesh: &Mesh) -> Self {
        let stores: [Store; 2] = mesh.nodes(2).await.try_into().unwrap();
        dial(&stores[0], &stores[1]);
        wait_linked(&stores, 1).await;
        Self { stores, ledger: Ledger::default() }
    }

    /// A write at one is at the other soon.
    async fn check(&self) {
        let before = on_hand(&self.stores[1], "HEALTHY");
        self.ledger.receive(&self.stores[0], "HEALTHY", 1).await.unwrap();
        let arrived = || on_hand(&self.stores[1], "HEALTHY") > before;
        wait_within(Duration::from_secs(2), "a write passes between the healthy nodes", arrived).await;
    }
}

/// `dialler` dials `node`; both must soon show a reason with these words, and no link.
async fn assert_refused(dialler: &Store, node: &Store, words_there: &[&str], words_here: &[&str]) {
    let counted = metrics::counter("stockmesh_links_refused_total");
    dial(dialler, node);
    wait_until(&format!("the dialler reads {words_there:?}"), || {
        peer_error_with(dialler, words_there) && refused_with(dialler, words_there)
    })
    .await;
    wait_until(&format!("the node reads {words_here:?}"), || refused_with(node, words_here)).await;
    assert_eq!(links_up(dialler), 0);
    wait_until("it is counted", || metrics::counter("stockmesh_links_refused_total") > counted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_tells_both_sides_its_reason() {
    metrics::record();
    let mesh = Mesh::new();
    let healthy = Healthy::start(&mesh).await;
    let node = &healthy.stores[0];
    let wrong_authority = Mesh::of_authority("strangers").node("stranger").await;
    let words = ["of another authority", "same authority"];
    assert_refused(&wrong_authority, node, &words, &words).await;
    healthy.check().await;

    // An authority that was made anew under its old name.
    let namesake = Mesh::new().node("namesake").await;
    let words = ["must be issued by the cluster's authority"];
    assert_refused(&namesake, node, &words, &words).await;
    healthy.check().await;

    let expired = mesh.builder("expired").identity(mesh.identity(&mesh.issue_expired("expired")));
    let words = ["certificate is expired", "issue a new one"];
    assert_refused(&expired.open().await.unwrap(), node, &words, &words).await;
    healthy.check().await;

    let other_cluster = mesh.builder("other-cluster").cluster("elsewhere").open().await.unwrap();
    let words = ["cluster elsewhere", "cluster stockmesh", "check the setting"];
    assert_refused(&other_cluster, node, &words, &words).await;
    healthy.check().await;

    let other_shards = mesh.builder("other-shards").shards(32).open().await.unwrap();
    let words = ["32 shards", "16", "need the same `shards`"];
    assert_refused(&other_shards, node, &words, &words).await;
    healthy.check().await;

    for offset_ms in [90_000, -3_600_000] {
        let other_clock = mesh.builder("other-clock").clock_offset_ms(offset_ms).open().await.unwrap();
        let words = ["the clocks differ by", "60000 ms are allowed", "set the clock"];
        assert_refused(&other_clock, node, &words, &words).await;
        healthy.check().await;
    }
    assert_eq!(links_up(node), 1, "only the healthy link is up");
    healthy.ledger.assert_whole(&healthy.stores).await;
}

/// A node that listens is refused for the same reasons, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_does_not_belong_is_refused_by_the_dialler() {
    metrics::record();
    let mesh = Mesh::new();
    let node = mesh.node("node").await;
    let expired = mesh.builder("expired").identity(mesh.identity(&mesh.issue_expired("expired")));
    let words = ["certificate is expired"];
    assert_refused(&node, &expired.open().await.unwrap(), &words, &words).await;
    let stranger = Mesh::of_authority("strangers").node("stranger").await;
    let words = ["of another authority"];
    assert_refused(&node, &stranger, &words, &words).await;
}

fn copy_directory(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Rule I1: a directory and its copy, both live, refuse each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_and_its_copy_refuse_each_other() {
    metrics::record();
    let mesh = Mesh::new();
    let (original, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = async |path: &Path| mesh.builder("cloned").data_dir(path).open().await.unwrap();
    let first = open(original.path()).await;
    Ledger::default().write(&first, 1_300, 20).await;
    first.close().await.unwrap();
    drop(first);
    copy_directory(original.path(), copy.path());
    let (first, second) = (open(original.path()).await, open(copy.path()).await);
    assert_eq!(first.replica_id(), second.replica_id());
    let replica = first.replica_id().to_string();
    let words = ["both nodes are replica", replica.as_str(), "is a copy of the other"];
    assert_refused(&first, &second, &words, &words).await;
    // A node that dials itself is told so, and not that it is a copy (rule T7).
    dial(&second, &second);
    wait_until("it refuses itself", || peer_error_with(&second, &["leads back to this node itself"])).await;
}

/// What a peer that dialled by hand reads when the node refuses it.
async fn refusal_of(connecting: Result<(Endpoint, Connection), quinn::ConnectionError>) -> String {
    match connecting {
        Err(error) => error.to_string(),
        // The handshake ends on this side before the node has judged the certificate.
        Ok((_endpoint, connection)) => {
            tokio::time::timeout(Duration::from_secs(10), connection.closed()).await.unwrap().to_string()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outsiders_get_no_further_than_the_handshake() {
    metrics::record();
    let mesh = Mesh::new();
    let healthy = Healthy::start(&mesh).await;
    let node = &healthy.stores[0];

    let nobody = refusal_of(raw::connect(&mesh, address(node), None, raw::ALPN, raw::Grants::default()).await).await;
    assert!(nobody.contains("116") || nobody.to_lowercase().contains("certificate"), "{nobody}");
    wait_until("no certificate", || refused_with(node, &["no certificate was presented", "every node needs one"]))
        .await;

    let issued = mesh.issue("newer");
    let newer =
        refusal_of(raw::connect(&mesh, address(node), Some(&issued), b"stockmesh/2", raw::Grants::default()).await)
            .await;
    assert!(newer.contains("120") || newer.contains("ALPN") || newer.contains("protocol"), "{newer}");
    wait_until("other protocol", || refused_with(node, &["no common protocol", "stockmesh/1"])).await;

    let listener = raw::listen(&mesh, b"stockmesh/2");
    let listening = listener.local_addr().unwrap();
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        while let Some(incoming) = listener.accept().await {
            let _ = incoming.await;
        }
    });
    node.add_peer(listening.to_string()).unwrap();
    wait_until("a listener of another protocol", || peer_error_with(node, &["no common protocol", "stockmesh/1"]))
        .await;
    healthy.check().await;
    assert_eq!(links_up(node), 1, "only the healthy link is up");
}
