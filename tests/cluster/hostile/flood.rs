//! Links that are begun and never get further.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::raw::{ALPN, Grants, connect};
use crate::support::{Mesh, address, links_up, metrics, wait_until, wait_within};

/// One address holds as many handshakes as it is let, all the time. A node elsewhere is linked all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_never_end_leave_room_for_others() {
    metrics::record();
    let mesh = Arc::new(Mesh::new());
    let victim = mesh.node("victim").await;
    let refused = metrics::counter("stockmesh_handshakes_refused_total");
    let issued = mesh.issue("never-says-hello");
    let mut flood = JoinSet::new();
    for _ in 0..100 {
        let (mesh, to, issued) = (Arc::clone(&mesh), address(&victim), issued.clone());
        flood.spawn(async move {
            loop {
                if let Ok((_endpoint, connection)) = connect(&mesh, to, Some(&issued), ALPN, Grants::default()).await {
                    connection.closed().await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let counted = || metrics::counter("stockmesh_handshakes_refused_total") > refused + 10;
    wait_until("some are refused", counted).await;
    let elsewhere = "127.0.0.2:0".parse().unwrap();
    let other = mesh.builder("other").listen(elsewhere).peer(address(&victim).to_string()).open().await.unwrap();
    wait_within(Duration::from_secs(8), "the other is linked", || links_up(&other) == 1).await;
    flood.shutdown().await;
}
