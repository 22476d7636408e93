//! Clusters of pinned public keys, without an authority (rule K8).

use std::time::Duration;

use stockmesh::certificates::RawKey;
use stockmesh::{Builder, Identity, Store, WriteError};

use crate::support::{
    Mesh, SHARDS, dial, full_mesh, links_up, on_hand, peer_error_with, refused_with, wait_converged, wait_linked,
    wait_until,
};

fn keys() -> [RawKey; 4] {
    [(); 4].map(|()| RawKey::new().unwrap())
}

fn identity(own: &RawKey, pinned: &[&RawKey], readers: &[&RawKey]) -> Identity {
    let list = |keys: &[&RawKey]| keys.iter().map(|key| key.public_key_pem.clone()).collect::<String>();
    let (pinned, readers) = (list(pinned), list(readers));
    Identity::from_raw_key_bytes(own.key_pem.as_bytes(), pinned.as_bytes(), Some(readers.as_bytes())).unwrap()
}

fn builder(name: &str, identity: Identity) -> Builder {
    Store::builder()
        .in_memory()
        .location(name)
        .shards(SHARDS)
        .listen("127.0.0.1:0".parse().unwrap())
        .identity(identity)
        .reconcile_every(Duration::from_millis(200))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_pinned_keys_are_a_cluster() {
    let keys = keys();
    let [first, second, reader, stranger] = &keys;
    let (members, readers) = ([first, second], [reader]);
    let mut stores = Vec::new();
    for (number, key) in keys.iter().take(3).enumerate() {
        let builder = builder(&format!("node-{number}"), identity(key, &members, &readers));
        stores.push(builder.open().await.unwrap());
    }
    full_mesh(&stores);
    wait_linked(&stores, 2).await;
    stores[0].product("MUG").unwrap().receive(5).await.unwrap();
    stores[1].product("MUG").unwrap().receive(2).await.unwrap();
    wait_converged(&stores).await;
    assert_eq!(on_hand(&stores[2], "MUG"), 7);
    assert!(stores[2].status().read_only);
    assert!(matches!(stores[2].product("MUG").unwrap().receive(1).await, Err(WriteError::ReadOnly)));
    let fingerprint = stockmesh::certificates::fingerprint(&second.public_key_pem).unwrap();
    let peers = stores[0].status().peers;
    let seen = peers.iter().find(|peer| peer.replica == Some(stores[1].replica_id())).unwrap();
    assert_eq!((seen.certificate, seen.node.clone()), (Some(fingerprint), None));
    assert_eq!(stores[0].status().identity_expires, None);

    // Whoever is not on the list gets nowhere, though it has all of them on its own.
    let stranger = builder("stranger", identity(stranger, &members, &readers)).open().await.unwrap();
    dial(&stranger, &stores[0]);
    dial(&stores[1], &stranger);
    wait_until("it reads why", || peer_error_with(&stranger, &["the public key is not on the list"])).await;
    wait_until("the one that dialled it says so", || {
        peer_error_with(&stores[1], &["the public key is not on the list"])
    })
    .await;
    wait_until("and the one that it dialled", || refused_with(&stores[0], &["the public key is not on the list"]))
        .await;
    assert_eq!(links_up(&stranger), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_keys_changes_while_the_node_runs() {
    let [hub, stays, goes, renewed] = &keys();
    let all = [hub, stays, goes];
    let store = builder("hub", identity(hub, &all, &[])).open().await.unwrap();
    let staying = builder("stays", identity(stays, &all, &[])).open().await.unwrap();
    let going = builder("goes", identity(goes, &all, &[])).open().await.unwrap();
    dial(&staying, &store);
    dial(&going, &store);
    wait_linked(std::slice::from_ref(&store), 2).await;
    let since = store.status().peers.iter().filter_map(|peer| peer.last_error.clone()).count();
    assert_eq!(since, 0);

    store.reload_identity(identity(hub, &[hub, stays], &[])).unwrap();
    let words = ["does not trust the peer's certificate", "any more"];
    wait_until("it is told", || peer_error_with(&going, &words)).await;
    wait_until("its link is gone", || links_up(&store) == 1 && links_up(&going) == 0).await;
    assert!(staying.status().refusals.is_empty(), "the other's link goes on");

    // One that turns into a reader links anew, in its new role.
    store.reload_identity(identity(hub, &[hub], &[stays])).unwrap();
    wait_until("it is refused while it does not know", || refused_with(&store, &["by its certificate the node is"]))
        .await;
    staying.reload_identity(identity(stays, &all, &[stays])).unwrap();
    let reads = || store.status().peers.iter().any(|peer| peer.read_only);
    wait_until("it reads only", || reads() && staying.status().read_only).await;
    let says_so = || store.members().iter().any(|member| member.replica == staying.replica_id() && member.read_only);
    wait_until("its record says so", says_so).await;

    // A node's key is changed, and it keeps its id, once the former key is off the list.
    let replica = staying.replica_id();
    store.reload_identity(identity(hub, &[hub, renewed], &[stays])).unwrap();
    staying.reload_identity(identity(renewed, &[hub], &[])).unwrap();
    let words = ["is known as that of the node with key"];
    wait_until("both keys are listed: it may be another node", || refused_with(&store, &words)).await;
    store.reload_identity(identity(hub, &[hub, renewed], &[])).unwrap();
    wait_until("it is let in", || links_up(&store) == 1).await;
    assert_eq!(staying.replica_id(), replica);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_raw_keys_do_not_mix() {
    let mesh = Mesh::new();
    let [key, ..] = &keys();
    let with_key = builder("key", identity(key, &[key], &[])).open().await.unwrap();
    let with_certificate = mesh.node("certificate").await;
    dial(&with_key, &with_certificate);
    dial(&with_certificate, &with_key);
    let words = ["certificates", "raw public keys"];
    for store in [&with_key, &with_certificate] {
        wait_until("who dials reads why", || peer_error_with(store, &words)).await;
        wait_until("who was dialled too", || refused_with(store, &words)).await;
    }
}

#[test]
fn bad_keys_and_lists_are_named() {
    let key = RawKey::new().unwrap();
    let (private, public) = (key.key_pem.as_bytes(), key.public_key_pem.as_bytes());
    let error = |key: &[u8], pinned: &[u8]| Identity::from_raw_key_bytes(key, pinned, None).unwrap_err().to_string();
    assert!(error(private, b"").contains("list of public keys is not valid: must hold at least one public key"));
    assert!(error(private, private).contains("at least one public key"));
    assert!(error(public, public).contains("private key is not valid"));
    let broken = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2Vw\n-----END PUBLIC KEY-----\n";
    assert!(error(private, broken.as_bytes()).contains("SubjectPublicKeyInfo"));
    let missing = Identity::from_raw_key("no.key", "keys.pem", None).unwrap_err().to_string();
    assert!(missing.contains("private key no.key cannot be read"), "{missing}");
}
