//! Programs that act on a node as its clients: each request, each failure, and clients that break the rules.

mod failures;
mod hostile;
mod lost;
mod requests;

use std::time::Duration;

use stockmesh::clients::Client;
use stockmesh::{Identity, Store};

use crate::support::{Mesh, PATIENCE, address};

/// A node that takes clients, and a client of it.
async fn node_and_client(mesh: &Mesh) -> (Store, Client) {
    let store = mesh.builder("berlin").clients(true).open().await.unwrap();
    let client = connect(mesh, &store).await;
    (store, client)
}

fn identity(mesh: &Mesh, name: &str) -> Identity {
    mesh.identity(&mesh.issue(name))
}

async fn connect(mesh: &Mesh, store: &Store) -> Client {
    Client::connect(address(store).to_string(), identity(mesh, "till")).await.unwrap()
}

/// Bounds what must not hang.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it does not hang")
}

/// Longer than a node waits for rights by itself, shorter than tests do.
const LONG: Duration = Duration::from_secs(30);
