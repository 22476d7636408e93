//! What goes wrong, and what the client is told of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stockmesh::clients::{Client, ClientError, FailureCode, Goods};
use stockmesh::{Filter, HoldId, Identity, Store};
use stockmesh_proto::wire::Ask;

use super::{LONG, connect, identity, node_and_client, soon};
use crate::rights::peer::Peer;
use crate::support::{Mesh, PATIENCE, address, on_hand, wait_until};

fn mug() -> Goods {
    Goods::of("MUG-01").unwrap()
}

async fn refused_connection(to: &str, identity: Identity) -> String {
    let begun = Instant::now();
    let error = Client::connect(to, identity).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let text = error.to_string();
    assert!(text.contains(to) && text.contains("nothing was changed"), "{text}");
    text
}

fn code(result: Result<impl std::fmt::Debug, ClientError>) -> (FailureCode, String) {
    match result {
        Err(ClientError::Refused { code, text }) => (code, text),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_says_why_and_changes_nothing() {
    let mesh = Mesh::new();
    let (store, client) = node_and_client(&mesh).await;
    client.receive(&mug(), 3).await.unwrap();
    match client.sell(&mug(), 5).await {
        Err(ClientError::Insufficient { wanted, here, elsewhere, unreachable, text }) => {
            assert_eq!((wanted, here, elsewhere, unreachable), (5, 3, 0, 0));
            assert!(text.contains("nothing was changed"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    for units in [0, u64::MAX] {
        let (code, text) = code(client.receive(&mug(), units).await);
        assert_eq!(code, FailureCode::Invalid);
        assert!(text.contains("quantity") && text.contains("nothing was changed"), "{text}");
    }
    client.sell(&mug().reference("order 7").unwrap(), 1).await.unwrap();
    let (reused, text) = code(client.sell(&mug().reference("order 7").unwrap(), 2).await);
    assert_eq!(reused, FailureCode::Refused);
    assert!(text.contains("used for another request"), "{text}");
    let (_, text) = code(client.hold(&mug(), 1, Duration::from_secs(40 * 24 * 3_600)).await);
    assert!(text.contains("30 days"), "{text}");
    let unknown: HoldId = format!("{}-1-1", store.replica_id()).parse().unwrap();
    assert!(code(client.commit_hold(unknown, None).await).1.contains("is not known here"));
    let foreign: HoldId = "0000000000007-1-1".parse().unwrap();
    assert!(code(client.release_hold(foreign).await).1.contains("was given by replica 0000000000007"));
    assert!(Goods::of("a\nb").is_err());
    assert!(matches!(client.get(&[""]).await, Err(ClientError::Invalid(_))));
    assert_eq!(on_hand(&store, "MUG-01"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_cannot_connect_learns_why() {
    let mesh = Mesh::new();
    let store = mesh.builder("berlin").clients(true).open().await.unwrap();
    let to = address(&store).to_string();
    let of_mesh = || identity(&mesh, "till");
    assert!(matches!(Client::connect("berlin", of_mesh()).await, Err(ClientError::Invalid(_))));
    // No node takes clients unless told to.
    let closed = mesh.node("paris").await;
    let text = refused_connection(&address(&closed).to_string(), of_mesh()).await;
    assert!(text.contains("takes no clients"), "{text}");
    // Nobody listens.
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let text = refused_connection(&free.local_addr().unwrap().to_string(), of_mesh()).await;
    assert!(text.contains("no answer"), "{text}");
    let text = refused_connection("no-such-host.invalid:7400", of_mesh()).await;
    assert!(text.contains("resolve"), "{text}");
    // Another authority, seen from either side.
    let others = Mesh::of_authority("others");
    let text = refused_connection(&to, identity(&others, "till")).await;
    assert!(text.contains("authority") || text.contains("certificate"), "{text}");
    let issued = others.issue("till");
    let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    let trusting = Identity::from_pem_bytes(mesh.authority_pem().as_bytes(), certificate, key).unwrap();
    let text = refused_connection(&to, trusting).await;
    assert!(text.contains("another authority") || text.contains("not valid"), "{text}");
    let text = refused_connection(&to, mesh.identity(&mesh.issue_expired("till"))).await;
    assert!(text.contains("expired"), "{text}");
    // The node's own end.
    let client = connect(&mesh, &store).await;
    store.close().await.unwrap();
    let error = soon(client.sell(&mug(), 1)).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. } | ClientError::Refused { .. }), "{error:?}");
    let alone = Store::builder().in_memory().clients(true).open().await.unwrap_err().to_string();
    assert!(alone.contains("clients") && alone.contains("needs an `identity`"), "{alone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offline_node_has_no_clients() {
    let mesh = Mesh::new();
    let (store, client) = node_and_client(&mesh).await;
    let mut watching = client.watch(&Filter::all()).await.unwrap();
    store.go_offline();
    let error = soon(watching.next()).await.unwrap_err().to_string();
    assert!(error.contains("offline"), "{error}");
    assert!(matches!(soon(client.status()).await, Err(ClientError::Connect { .. })));
    store.go_online();
    soon(client.status()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_client_is_out_within_seconds() {
    let mesh = Mesh::new();
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("revoked.txt");
    std::fs::write(&list, "").unwrap();
    let store = mesh.builder("berlin").clients(true).revocations(&list).open().await.unwrap();
    let stolen = identity(&mesh, "stolen");
    let fingerprint = stolen.fingerprint();
    let client = Client::connect(address(&store).to_string(), stolen.clone()).await.unwrap();
    let honest = connect(&mesh, &store).await;
    let mut watching = client.watch(&Filter::all()).await.unwrap();
    let mut other = honest.watch(&Filter::all()).await.unwrap();
    let new = list.with_extension("new");
    std::fs::write(&new, format!("{fingerprint}\n")).unwrap();
    std::fs::rename(new, &list).unwrap();
    let error = soon(watching.next()).await.unwrap_err().to_string();
    assert!(error.contains("list of revoked certificates"), "{error}");
    assert!(soon(client.status()).await.unwrap_err().to_string().contains("list of revoked certificates"));
    let text = refused_connection(&address(&store).to_string(), stolen).await;
    assert!(text.contains("list of revoked certificates"), "{text}");
    honest.receive(&mug(), 1).await.unwrap();
    assert_eq!(soon(other.next()).await.unwrap().product.unwrap().on_hand.0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_stay_while_they_are_trusted() {
    let (old, new) = (Mesh::new(), Mesh::of_authority("next"));
    let (store, client) = node_and_client(&old).await;
    let mut watching = client.watch(&Filter::all()).await.unwrap();
    // Another certificate of the node, of the same authority.
    store.reload_identity(identity(&old, "renewed")).unwrap();
    client.receive(&mug(), 1).await.unwrap();
    soon(watching.next()).await.unwrap();
    // It does not trust the client's authority any more.
    store.reload_identity(identity(&new, "moved")).unwrap();
    let error = soon(watching.next()).await.unwrap_err().to_string();
    assert!(error.contains("does not trust"), "{error}");
}

/// A node that waits for rights of a peer that never answers.
async fn waiting_node(mesh: &Mesh) -> (Store, Peer) {
    let store = mesh.builder("shop").clients(true).open().await.unwrap();
    let silent = Peer::start(mesh, &store, 100, Arc::new(|_: &Ask| None)).await;
    (store, silent)
}

/// Rule X6: of two requests under one reference the later ends the earlier, and what it is told holds for both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_later_request_of_a_reference_ends_the_earlier() {
    let mesh = Mesh::new();
    let (store, silent) = waiting_node(&mesh).await;
    let (first, second) = (connect(&mesh, &store).await, connect(&mesh, &store).await);
    let order = mug().reference("order 7").unwrap();
    let patient = order.clone().deadline(LONG);
    let begun = Instant::now();
    let waiting = tokio::spawn(async move { first.sell(&patient, 5).await });
    wait_until("the silent peer is asked", || !silent.in_need().is_empty()).await;
    assert!(!waiting.is_finished(), "it waits for rights");
    match second.sell(&order.deadline(Duration::ZERO), 5).await {
        Err(ClientError::Insufficient { here, elsewhere, .. }) => assert_eq!((here, elsewhere), (0, 100)),
        other => panic!("{other:?}"),
    }
    match soon(waiting).await.unwrap() {
        Err(ClientError::Indeterminate { reference, .. }) => assert_eq!(reference.unwrap().as_str(), "order 7"),
        other => panic!("{other:?}"),
    }
    assert!(begun.elapsed() < LONG - Duration::from_secs(5), "it did not wait for its own deadline");
    assert_eq!(on_hand(&store, "MUG-01"), 100);
}

/// What clients wait for is given up when they leave, so that others are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_clients_that_left_are_given_up() {
    let mesh = Arc::new(Mesh::new());
    let (store, _silent) = waiting_node(&mesh).await;
    let mut clients = Vec::new();
    let mut waiting = tokio::task::JoinSet::new();
    // As many as the node answers at once.
    for _ in 0..8 {
        let client = connect(&mesh, &store).await;
        for _ in 0..8 {
            let client = client.clone();
            waiting.spawn(async move { client.sell(&mug().deadline(LONG), 1).await });
        }
        clients.push(client);
    }
    let next = connect_in_vain(&mesh, &store).await;
    assert!(next.contains("too many requests") || next.contains("did not answer"), "{next}");
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}
    for client in clients {
        client.close().await;
    }
    let begun = Instant::now();
    let client = soon(async {
        loop {
            match Client::connect(address(&store).to_string(), identity(&mesh, "next")).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    client.receive(&Goods::of("PLATE-07").unwrap(), 1).await.unwrap();
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
}

/// Connects until the node has enough to do, and so refuses.
async fn connect_in_vain(mesh: &Mesh, store: &Store) -> String {
    let begun = Instant::now();
    loop {
        match Client::connect(address(store).to_string(), identity(mesh, "late")).await {
            Err(error) => return error.to_string(),
            Ok(client) => client.close().await,
        }
        assert!(begun.elapsed() < PATIENCE, "the node has enough to do");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
